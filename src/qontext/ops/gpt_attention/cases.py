"""Inputs of GptAttention for the conformance test and for timing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..attention_common.case_inputs import normal
from ..declare import Case
from .rows import INPUTS

Tensor = torch.Tensor


@dataclass(frozen=True)
class Setting:
    """One call: sequence r brings `new[r]` tokens after `past[r]`.

    cache:  None, "same" (the dtype of qkv), "int8" or "float8_e4m3"; page > 0 makes it paged, filled in mixed order
    padded: qkv is [R, longest, W] instead of packed
    each:   qkv is [R * each, W] instead
    scales: numbers in each scale: "tensor" [1], "head" [Nkv], "both" [2, Nkv]
    """

    new: Sequence[int]
    past: Sequence[int]
    heads: tuple[int, int, int] = (4, 2, 16)
    cache: str | None = "same"
    page: int = 0
    room: int = 24
    padded: bool = False
    each: int = 0
    scales: str = "tensor"
    beams: int = 0
    bias: bool = False
    slopes: bool = False
    table: tuple[int, ...] = ()
    prefix: Sequence[int] = ()
    encoder: Sequence[int] = ()
    fresh: bool = True

    def make(self, generator: torch.Generator, dtype: torch.dtype) -> list[Tensor | None]:
        heads, kv_heads, size = self.heads
        width, rows = (heads + 2 * kv_heads) * size, len(self.new)
        tokens = (rows, max(self.new)) if self.padded else (rows * self.each or sum(self.new),)
        given: dict[str, Tensor | None] = dict.fromkeys(INPUTS)
        given["qkv"] = normal(generator, dtype, *tokens, width)
        given["query_lengths"] = _counts(self.new)
        if self.cache is not None:
            given |= self._cache(generator, dtype)
        if self.bias:
            given["qkv_bias"] = normal(generator, dtype, width)
        if self.slopes:
            given["alibi_slopes"] = 2.0 ** -torch.arange(1, heads + 1).float()
        if self.table:
            given["relative_attention_bias"] = normal(generator, dtype, heads, *self.table)
        if self.prefix:
            given["prefix_lengths"] = _counts(self.prefix)
        if self.encoder:
            given["encoder_lengths"] = _counts(self.encoder)
            given["cross_qkv"] = normal(generator, dtype, rows, max(self.encoder), width) if self.fresh else None
        return [given[name] for name in INPUTS]

    def _cache(self, generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor | None]:
        _, kv_heads, size = self.heads
        slots = len(self.new)
        shape = (slots, 2, kv_heads, self.room, size)
        given: dict[str, Tensor | None] = {"past_lengths": _counts(self.past)}
        if self.page:
            each = -(-self.room // self.page)
            order = torch.randperm(slots * each + 1, generator=generator)[: slots * each]
            given["block_table"] = order.view(slots, each).to(torch.int32)
            shape = (slots * each + 1, 2, kv_heads, self.page, size)
        held = normal(generator, dtype, *shape)
        if self.beams:
            choice = torch.randint(0, self.beams, (slots // self.beams, self.beams, self.room), generator=generator)
            given["cache_indirection"] = choice.to(torch.int32)
        if self.cache != "same":
            spread = {"tensor": torch.ones(1), "head": torch.ones(kv_heads), "both": torch.ones(2, kv_heads)}
            scale = spread[self.scales] + 0.07 * torch.arange(spread[self.scales].numel()).view_as(spread[self.scales])
            scale = scale / 32 if self.cache == "int8" else scale
            given["kv_quant_orig_scale"], given["kv_orig_quant_scale"] = scale, 1 / scale
            held = held.float() * (32 if self.cache == "int8" else 1)
            held = (
                held.round().clamp(-128, 127).to(torch.int8) if self.cache == "int8" else held.to(torch.float8_e4m3fn)
            )
        given["past"] = held
        return given


def _counts(numbers: Sequence[int]) -> Tensor:
    return torch.tensor(list(numbers), dtype=torch.int32)


_MIXED = Setting((5, 1, 3, 1, 2), (0, 7, 4, 19, 0))
_STEP = Setting((1, 1, 1), (0, 11, 20), heads=(8, 2, 32))
_ROPE = {"position": "rope_gpt_neox", "rotary_dim": 16}


def cases() -> Iterable[Case]:
    def case(name: str, setting: Setting, attributes: Mapping[str, Any] | None = None, bench: bool = False) -> Case:
        heads, kv_heads, size = setting.heads
        every = {"num_heads": heads, "num_kv_heads": kv_heads, "head_size": size, **(attributes or {})}
        outputs = ("context",) if setting.cache is None else ("context", "present")
        return Case(name, setting.make, every, outputs, bench=bench)

    bare = replace(_MIXED, cache=None, past=(0,) * 5)
    yield case("context_alone", bare)
    yield case("context_padded", replace(bare, padded=True, bias=True))
    yield case("all_see_all", replace(bare, padded=True), {"mask_type": "padding"})
    yield case("mixed", _MIXED)
    yield case("mixed_padded", replace(_MIXED, padded=True, bias=True))
    yield case("mixed_paged", replace(_MIXED, page=4))
    yield case("odd_pages", replace(_MIXED, page=7))
    yield case("one_token_each", _STEP)
    yield case("one_token_each_paged", replace(_STEP, page=16))
    yield case("few_tokens_each", replace(_STEP, new=(4, 2, 3), heads=(6, 2, 24)))
    prompts = Setting((70, 3, 0, 25), (0, 0, 0, 0), room=96)
    yield case("prompts", replace(prompts, bias=True), _ROPE)
    yield case("prompts_paged", replace(prompts, page=16), {**_ROPE, "window": 20})
    yield case("prompts_in_parts", replace(prompts, past=(7, 11, 9, 0), page=16), _ROPE)
    yield case("prompts_in_parts_int8", replace(prompts, past=(7, 11, 9, 0), cache="int8", heads=(6, 2, 20)))
    each = replace(_STEP, new=(2, 0, 1), each=2)
    yield case("rows_each", each, {"tokens_each": 2})
    yield case("rows_each_paged", replace(each, page=16, bias=True), {**_ROPE, "tokens_each": 2})
    yield case(
        "rows_each_cyclic", replace(each, past=(0, 40, 17), room=12), {"window": 7, "sinks": 3, "tokens_each": 2}
    )
    yield case("one_head_for_all", replace(_STEP, heads=(7, 1, 8)))
    yield case("head_size_100", replace(_MIXED, heads=(3, 3, 100)))
    yield case("head_size_72", replace(_STEP, heads=(5, 5, 72)))
    yield case("head_size_256", replace(_STEP, heads=(2, 1, 256)))
    yield case("long", Setting((1, 2, 1), (299, 130, 700), room=704, heads=(4, 1, 64)))
    yield case("long_paged", Setting((1, 2, 1), (299, 130, 700), room=704, heads=(4, 2, 64), page=16))
    yield case("neox", _MIXED, {**_ROPE, "rotary_base": 1e6})
    yield case("neox_paged", replace(_MIXED, page=4, bias=True), _ROPE)
    yield case("gptj_partial", _MIXED, {"position": "rope_gptj", "rotary_dim": 6})
    yield case("rope_linear", _MIXED, {**_ROPE, "rotary_scaling": "linear", "rotary_factor": 2.0})
    yield case(
        "rope_dynamic",
        _MIXED,
        {**_ROPE, "rotary_scaling": "dynamic", "rotary_factor": 3.0, "rotary_max_positions": 6},
    )
    yield case(
        "rope_yarn",
        _MIXED,
        {**_ROPE, "rotary_scaling": "yarn", "rotary_factor": 4.0, "rotary_max_positions": 8, "rotary_low": 1.0,
         "rotary_high": 32.0},
    )  # fmt: skip
    yield case("alibi", replace(_MIXED, slopes=True), {"position": "alibi"})
    yield case("alibi_paged", replace(_STEP, slopes=True, page=5), {"position": "alibi"})
    yield case("relative_by_position", replace(_MIXED, table=(24, 24)), {"position": "relative"})
    yield case("relative_buckets", replace(_MIXED, table=(8,)), {"position": "relative", "max_distance": 12})
    yield case("prefix", replace(_MIXED, prefix=(4, 3, 6, 2, 0)), {"mask_type": "bidirectional"})
    yield case("softcap", _MIXED, {"softcap": 2.0, "q_scaling": 0.5})
    yield case("window", _MIXED, {"window": 4})
    yield case("window_and_sinks", replace(_MIXED, page=4), {"window": 3, "sinks": 2})
    yield case("cyclic", replace(_MIXED, past=(0, 20, 31, 40, 9), room=10), {"window": 6})
    yield case("cyclic_sinks", replace(_STEP, past=(0, 40, 17), room=12, page=4), {"window": 7, "sinks": 3})
    beams = Setting((1, 1, 1, 1, 1, 1), (5, 5, 5, 9, 9, 9), beams=3)
    yield case("beams", beams)
    yield case("beams_paged", replace(beams, page=4), _ROPE)
    for kind in ("int8", "float8_e4m3"):
        yield case(f"{kind}_cache", replace(_MIXED, cache=kind))
        yield case(f"{kind}_cache_steps", replace(_STEP, cache=kind, page=8, scales="head"))
        yield case(f"{kind}_cache_by_head", replace(_STEP, cache=kind, scales="both"), {**_ROPE, "window": 9})
    cross = Setting((3, 1, 2), (0, 0, 0), encoder=(6, 9, 2))
    yield case("cross", cross, {"mask_type": "padding"})
    yield case("cross_without_cache", replace(cross, cache=None, padded=True), {"mask_type": "padding"})
    yield case("cross_from_cache", replace(cross, fresh=False, page=4), {"mask_type": "padding"})
    yield case("nothing_new", replace(_MIXED, new=(0, 2, 0), past=(3, 2, 0)))
    yield case("decode_8", Setting((1,) * 8, (2047,) * 8, (32, 8, 128), room=2048), bench=True)
