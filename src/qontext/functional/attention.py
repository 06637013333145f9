"""`gpt_attention` and `bert_attention`, keyword-compatible with TensorRT-LLM 0.5.0."""

from typing import Any

import torch

from ..errors import ArgumentError, all_problems
from ..ops.gpt_attention.op import OP
from ..quant.mode import QuantMode
from .arguments import meaningless, named_as_arguments, presence, quantised
from .requests import Requests, page_table
from .vocabulary import AttentionMaskType, PositionEmbeddingType, RotaryScalingType

Tensor = Any  # torch.Tensor, or a value of a network under construction


def gpt_attention(
    tensor: Tensor,
    past_key_value: Tensor,
    sequence_length: Tensor,
    host_past_key_value_lengths: Tensor,
    context_lengths: Tensor,
    cache_indirection: Tensor,
    host_request_types: Tensor,
    num_heads: int,
    num_kv_heads: int,
    hidden_size_per_head: int,
    q_scaling: float,
    rotary_embedding_dim: int,
    rotary_embedding_base: float = 10000.0,
    rotary_embedding_scale_type: RotaryScalingType = RotaryScalingType.none,
    rotary_embedding_scale: float = 1.0,
    rotary_embedding_max_positions: int = 1024,
    position_embedding_type: PositionEmbeddingType = PositionEmbeddingType.learned_absolute,
    multi_block_mode: bool = False,
    kv_orig_quant_scale: Tensor = None,
    kv_quant_orig_scale: Tensor = None,
    kv_cache_quant_mode: QuantMode | None = None,
    max_context_length: int | None = None,
    mask_type: AttentionMaskType = AttentionMaskType.causal,
    alibi_slopes: Tensor = None,
    tp_size: int = 1,
    tp_rank: int = 0,
    kv_cache_block_pointers: Tensor = None,
    do_cross_attention: bool = False,
    cross_qkv: Tensor = None,
    cross_qkv_length: Tensor = None,
    encoder_input_lengths: Tensor = None,
    relative_attention_bias: Tensor = None,
    max_distance: int = 0,
    host_context_lengths: Tensor = None,
    qkv_bias: Tensor = None,
    *,
    window: int = 0,
    sink_tokens: int = 0,
    logits_soft_cap: float = 0.0,
    rotary_low: float = 0.0,
    rotary_high: float = 0.0,
    rotary_magnitude: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Attention of GPT-like models over a cache that is updated in place.

    Sequences in context and generation phase stand in any order. A sequence in context phase brings its prompt, or a
    part of it when the cache holds the part before (chunks); one in generation phase brings its new tokens, for each of
    its beams.

    Args:
        tensor: Q, K and V side by side: padded [B, S, (N + 2 Nkv) D], packed [1, T, ...]. With beams a generating
            sequence has a row (packed: a token) for each beam.
        past_key_value: the cache, contiguous [B * beams, 2, Nkv, P, D] or paged [pages, 2, Nkv, page, D]; None for
            attention without one. In the dtype of `tensor` or another float type, or int8 / fp8 with scales.
        sequence_length: int [B], tokens of each sequence after this step.
        host_past_key_value_lengths: int [B], tokens in the cache before this step.
        context_lengths: int [B], tokens of each prompt; in context phase the tokens that this step brings.
        cache_indirection: int [B, beams, P], which beam's cache holds each position; None without beams.
        host_request_types: int [B], 0 for the context phase, 1 for the generation phase.
        num_heads, num_kv_heads, hidden_size_per_head: N, Nkv and D (of this rank).
        q_scaling: the logits are divided by q_scaling * sqrt(D).
        rotary_embedding_*: elements of a head that are turned, base, scaling, factor, trained length.
        position_embedding_type: what else is read: rope needs rotary_embedding_dim, alibi needs alibi_slopes.
        multi_block_mode: a hint: the keys of long sequences are cut among threads wherever heads do not keep all busy.
        kv_orig_quant_scale, kv_quant_orig_scale: float32 [1], [Nkv] or [2, Nkv]; 8-bit caches hold x * the first.
        kv_cache_quant_mode: QuantMode with INT8_KV_CACHE or FP8_KV_CACHE; has to agree with the cache's dtype.
        max_context_length: the longest prompt, a number.
        mask_type: causal, or bidirectional: all see the context but its last token. padding for cross attention.
        alibi_slopes: [N] or [1, N, 1, 1].
        tp_size, tp_rank: checked only: heads and slopes are those of this rank.
        kv_cache_block_pointers: paged caches: page numbers, int [B * beams, M], [B, beams, M] or [B, beams, 2, M] with
            the same page for keys and values.
        do_cross_attention, cross_qkv, cross_qkv_length, encoder_input_lengths: cross attention: the projection of the
            encoder outputs in the step that brings them (None in later ones), and the length of each, int [B].
        relative_attention_bias, max_distance: [N, longest, longest] with 0, or [N, buckets] with T5's largest distance.
        host_context_lengths: context_lengths on the host; packed input needs it.
        qkv_bias: [(N + 2 Nkv) D], added to `tensor` (and to `cross_qkv`).
        window, sink_tokens, logits_soft_cap: beyond the original: sliding window, first tokens that stay visible, cap.
        rotary_low, rotary_high, rotary_magnitude: yarn and llama3, see GptAttention.
    Returns:
        The context, in the shape of `tensor` with N * D columns, and the cache (the same tensor; None without one).
    Raises:
        ArgumentError, ShapeError, DTypeError, InputError: one sentence a problem, naming the argument.
    """
    cross = bool(do_cross_attention)
    given = locals()
    problems = presence(given)
    if not problems:
        mode = QuantMode(kv_cache_quant_mode or 0)
        problems = quantised(mode, past_key_value, kv_orig_quant_scale, kv_quant_orig_scale)
        problems += meaningless(given)
    if problems:
        raise ArgumentError(all_problems("gpt_attention", problems))
    rows = Requests(tensor, sequence_length, host_past_key_value_lengths, context_lengths, host_request_types)
    assert max_context_length is not None
    rows.check(max_context_length, host_context_lengths is not None, host_context_lengths, cross)
    rows.expand(rows.beams(cache_indirection), cross)
    position = position_embedding_type
    cached = past_key_value is not None
    operands: dict[str, Any] = {
        "past": past_key_value,
        "past_lengths": _int32(rows.past) if cached else None,
        "query_lengths": _int32(rows.new),
        "slots": _int32(rows.slots) if cached else None,
        "block_table": None if kv_cache_block_pointers is None else page_table(kv_cache_block_pointers),
        "cache_indirection": None if cache_indirection is None else rows.indirection(cache_indirection),
        "kv_orig_quant_scale": kv_orig_quant_scale,
        "kv_quant_orig_scale": kv_quant_orig_scale,
        "qkv_bias": qkv_bias,
        "alibi_slopes": alibi_slopes,
        "relative_attention_bias": relative_attention_bias,
    }
    if mask_type == AttentionMaskType.bidirectional:
        prefix = torch.as_tensor(context_lengths).long() - 1
        operands["prefix_lengths"] = _int32(prefix.clamp_min(0)[rows.sequence].tolist())
    if cross:
        operands["cross_qkv"] = cross_qkv
        operands["encoder_lengths"] = _int32(torch.as_tensor(encoder_input_lengths)[rows.sequence].tolist())
    qkv = tensor if not rows.packed else tensor.reshape(-1, tensor.shape[-1])
    context, present = _both(
        qkv,
        operands,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_size=hidden_size_per_head,
        q_scaling=q_scaling,
        mask_type=AttentionMaskType(mask_type).name,
        position=_POSITIONS[position],
        rotary_dim=rotary_embedding_dim if position.is_rope() else 0,
        rotary_base=rotary_embedding_base,
        rotary_scaling=rotary_embedding_scale_type.name if position.is_rope() else "none",
        rotary_factor=rotary_embedding_scale if position.is_rope() else 1.0,
        rotary_max_positions=rotary_embedding_max_positions,
        rotary_low=rotary_low,
        rotary_high=rotary_high,
        rotary_magnitude=rotary_magnitude,
        max_distance=max_distance,
        window=window,
        sinks=sink_tokens,
        softcap=logits_soft_cap,
        multi_block=bool(multi_block_mode),
    )
    return context.reshape(*tensor.shape[:-1], num_heads * hidden_size_per_head), present


_POSITIONS = {
    PositionEmbeddingType.learned_absolute: "none",
    PositionEmbeddingType.rope_gptj: "rope_gptj",
    PositionEmbeddingType.rope_gpt_neox: "rope_gpt_neox",
    PositionEmbeddingType.alibi: "alibi",
    PositionEmbeddingType.alibi_with_scale: "alibi",
    PositionEmbeddingType.relative: "relative",
}


def _both(qkv: Tensor, given: dict[str, Any], **attributes: Any) -> tuple[Tensor, Tensor]:
    with named_as_arguments():
        if given["past"] is None:
            return OP(qkv, **given, **attributes), None
        context, present = OP(qkv, **given, **attributes, outputs=("context", "present"))
        return context, present


def _int32(numbers: list[int]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int32)


def bert_attention(
    tensor: Tensor,
    input_lengths: Tensor,
    num_heads: int,
    head_size: int,
    q_scaling: float,
    relative_attention: bool = False,
    relative_attention_bias: Tensor = None,
    max_distance: int = 0,
    num_kv_heads: int | None = None,
) -> Tensor:
    """Attention of BERT-like encoders: every token sees all tokens of its sequence.

    Args:
        tensor: Q, K and V side by side: packed [T, 3 E] or [1, T, 3 E], or padded [B, S, 3 E].
        input_lengths: int [B], the length of each sequence.
        num_heads, head_size, q_scaling: the logits are divided by q_scaling * sqrt(head_size).
        relative_attention, relative_attention_bias, max_distance: [N, longest, longest], or T5's buckets [N, buckets]
            with the largest distance.
        num_kv_heads: key and value heads where they are fewer (beyond the original).
    Returns:
        The context, in the shape of `tensor` with N * D columns; zeros at padding.
    Raises:
        ArgumentError, ShapeError, DTypeError, InputError: naming the argument.
    """
    if bool(relative_attention) != (relative_attention_bias is not None):
        given = "is None" if relative_attention_bias is None else "is given"
        raise ArgumentError(
            f"bert_attention: relative_attention is {relative_attention}, but relative_attention_bias {given}"
        )
    if input_lengths is None:
        raise ArgumentError("bert_attention: input_lengths is None; it says how many tokens each sequence has")
    return OP(
        tensor,
        query_lengths=input_lengths,
        relative_attention_bias=relative_attention_bias,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads or num_heads,
        head_size=head_size,
        q_scaling=q_scaling,
        mask_type="padding",
        position="relative" if relative_attention else "none",
        max_distance=max_distance,
    )
