"""What the arguments of `gpt_attention` need beside each other, and the names under which the operator knows them."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import NoneType
from typing import Any

import torch

from ..errors import QontextError
from ..quant.mode import QuantMode
from .vocabulary import AttentionMaskType, PositionEmbeddingType, RotaryScalingType

Tensor = Any  # torch.Tensor, or a value of a network under construction

# Names of the operator's inputs and attributes -> the arguments that they come from.
_ARGUMENTS = {
    "qkv": "tensor",
    "past": "past_key_value",
    "past_lengths": "host_past_key_value_lengths",
    "query_lengths": "context_lengths",
    "prefix_lengths": "context_lengths",
    "encoder_lengths": "encoder_input_lengths",
    "block_table": "kv_cache_block_pointers",
    "head_size": "hidden_size_per_head",
    "rotary_dim": "rotary_embedding_dim",
    "rotary_base": "rotary_embedding_base",
    "rotary_scaling": "rotary_embedding_scale_type",
    "rotary_factor": "rotary_embedding_scale",
    "rotary_max_positions": "rotary_embedding_max_positions",
    "position": "position_embedding_type",
    "sinks": "sink_tokens",
    "softcap": "logits_soft_cap",
}
# "past" is a word of prose as well: it means the cache where it is quoted.
_NAMES = re.compile(rf"'past'|'?\b(?:{'|'.join(n for n in _ARGUMENTS if n != 'past')})\b'?")


@contextmanager
def named_as_arguments() -> Iterator[None]:
    """Lets errors of the operator name the arguments of `gpt_attention`."""
    try:
        yield
    except QontextError as error:
        text = error.message.replace("GptAttention:", "gpt_attention:")
        raise type(error)(_NAMES.sub(lambda m: _ARGUMENTS[m[0].strip("'")], text)) from error


def presence(given: dict[str, Any]) -> list[str]:
    """Arguments that miss their partner."""
    problems = [
        f"{name} is None; {why}"
        for name, why in (
            ("host_request_types", "it says which sequences are in context (0) and generation (1) phase"),
            ("sequence_length", "it says how many tokens each sequence has after this step"),
            ("context_lengths", "it says how many tokens each prompt has"),
        )
        if given[name] is None
    ]
    mode = given["kv_cache_quant_mode"]
    if not isinstance(mode, (int, NoneType)):
        problems.append(f"kv_cache_quant_mode is {mode!r}, expected a QuantMode")
    longest = given["max_context_length"]
    if not isinstance(longest, int) or isinstance(longest, bool):
        problems.append(f"max_context_length is {longest!r}, it has to be a number (int)")
    if given["past_key_value"] is not None and given["host_past_key_value_lengths"] is None:
        problems.append("host_past_key_value_lengths is None; a cache needs the tokens that are in it before this step")
    if given["kv_cache_block_pointers"] is not None and given["past_key_value"] is None:
        problems.append("kv_cache_block_pointers is given, but past_key_value is None; pages need their pool")
    if given["cross"]:
        if given["encoder_input_lengths"] is None:
            problems.append("encoder_input_lengths is None; cross attention needs the tokens of each encoder output")
        if given["cross_qkv"] is not None and given["cross_qkv_length"] is None:
            problems.append("cross_qkv_length is None; cross_qkv needs the length of the longest encoder output")
    else:
        problems += [
            f"{name} is given, but do_cross_attention is False"
            for name in ("cross_qkv", "cross_qkv_length", "encoder_input_lengths")
            if given[name] is not None
        ]
    return problems


def meaningless(given: dict[str, Any]) -> list[str]:
    """Arguments with values that mean nothing."""
    problems = []
    position, slopes = given["position_embedding_type"], given["alibi_slopes"]
    if not isinstance(position, PositionEmbeddingType):
        return [f"position_embedding_type is {position!r}, expected a PositionEmbeddingType"]
    if position.is_alibi() and slopes is None:
        problems.append(f"alibi_slopes is None; position_embedding_type {position.name} needs them")
    if not position.is_alibi() and slopes is not None:
        problems.append(f"alibi_slopes is given, but position_embedding_type is {position.name}")
    if not isinstance(given["rotary_embedding_scale_type"], RotaryScalingType):
        problems.append(
            f"rotary_embedding_scale_type is {given['rotary_embedding_scale_type']!r}, expected a RotaryScalingType"
        )
    problems += _without_their_kind(given, position)
    if not isinstance(given["q_scaling"], (int, float)) or not 0 < given["q_scaling"] < math.inf:
        problems.append(f"q_scaling is {given['q_scaling']!r}, it has to be a number larger than 0")
    if given["mask_type"] not in list(AttentionMaskType):
        problems.append(f"mask_type is {given['mask_type']!r}, expected an AttentionMaskType")
    elif given["cross"] != (given["mask_type"] == AttentionMaskType.padding):
        kind, what = (
            AttentionMaskType(given["mask_type"]).name,
            "padding" if given["cross"] else "causal, bidirectional",
        )
        problems.append(f"mask_type is {kind}, {'cross' if given['cross'] else 'self'} attention takes {what}")
    size, rank = given["tp_size"], given["tp_rank"]
    if size < 1 or not 0 <= rank < size:
        problems.append(f"tp_size is {size} and tp_rank {rank}; the rank is one of 0 to tp_size - 1")
    return problems


def _without_their_kind(given: dict[str, Any], position: PositionEmbeddingType) -> list[str]:
    """Arguments about positions of another kind: they would be without effect."""
    problems = []
    if not position.is_rope():
        for name, nothing in (("rotary_embedding_dim", 0), ("rotary_embedding_scale_type", RotaryScalingType.none)):
            if given[name] != nothing:
                problems.append(f"{name} is {given[name]!r}, but position_embedding_type is {position.name}")
    if position != PositionEmbeddingType.relative and given["max_distance"]:
        problems.append(f"max_distance is {given['max_distance']}, but position_embedding_type is {position.name}")
    return problems


def quantised(mode: QuantMode, cache: Tensor, to_cache: Tensor, from_cache: Tensor) -> list[str]:
    """Whether mode, cache and scales agree."""
    if not isinstance(cache, torch.Tensor):
        return []
    wanted = {torch.int8: QuantMode.INT8_KV_CACHE, torch.float8_e4m3fn: QuantMode.FP8_KV_CACHE}.get(cache.dtype)
    problems = []
    asked = mode & (QuantMode.INT8_KV_CACHE | QuantMode.FP8_KV_CACHE)
    if asked and (wanted is None or asked != wanted):
        problems.append(f"kv_cache_quant_mode is {asked!r}, but past_key_value is {cache.dtype}")
    if wanted is not None and not asked:
        problems.append(f"past_key_value is {cache.dtype}, but kv_cache_quant_mode does not have {wanted.name}")
    missing = [n for n, s in (("kv_orig_quant_scale", to_cache), ("kv_quant_orig_scale", from_cache)) if s is None]
    if wanted is not None and missing:
        problems.append(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} None; an 8-bit cache needs them"
        )
    for name, scale in (("kv_orig_quant_scale", to_cache), ("kv_quant_orig_scale", from_cache)):
        # Of a scale on a device nothing is read: the host would wait for it.
        known = isinstance(scale, torch.Tensor) and scale.device.type == "cpu" and scale.is_floating_point()
        if known and not bool(((scale > 0) & (scale < math.inf)).all()):
            problems.append(f"{name} holds {scale.flatten().tolist()[:8]}, scales are numbers larger than 0")
    return problems
