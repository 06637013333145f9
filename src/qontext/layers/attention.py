"""Attention and BertAttention with the arguments of TensorRT-LLM 0.5.0's layers."""

import math
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch

from ..errors import ArgumentError, all_problems
from ..functional import (
    AttentionMaskType,
    AttentionParams,
    KeyValueCacheParams,
    PositionEmbeddingType,
    RotaryScalingType,
    bert_attention,
    expand_mask,
    generate_alibi_biases,
    generate_alibi_slopes,
    gpt_attention,
)
from ..functional.helpers import check_parallel
from ..quant.mode import QuantMode
from .linear import ColumnLinear, FP8Linear, FP8RowLinear, RowLinear
from .module import Module, Tensor, check_rank
from .parallel import kv_heads_of, parallel

SCALINGS = ("linear", "dynamic")


class _Heads(Module):
    """What both layers share: heads of this rank, projections, the table of relative positions."""

    def __init__(
        self,
        hidden_size: int,
        num_attention_heads: int,
        num_kv_heads: int | None,
        dtype: torch.dtype | str | None,
        tp_group: Sequence[int] | None,
        tp_size: int,
        tp_rank: int,
        relative_attention: bool,
        num_buckets: int,
        max_distance: int,
    ):
        super().__init__(dtype)
        what = type(self).__name__
        if num_attention_heads < 1 or hidden_size % num_attention_heads:
            raise ArgumentError(
                f"{what}: hidden_size is {hidden_size}, which is no multiple of num_attention_heads "
                f"{num_attention_heads}"
            )
        check_parallel(what, tp_size, tp_rank, num_attention_heads)
        self.ranks = parallel(what, tp_group, tp_size, tp_rank)
        self.tp_size, self.tp_rank = tp_size, tp_rank
        self.attention_head_size = hidden_size // num_attention_heads
        self.num_attention_heads = num_attention_heads // tp_size
        kv_heads = num_attention_heads if num_kv_heads is None else num_kv_heads
        if kv_heads < 1 or num_attention_heads % kv_heads:
            raise ArgumentError(
                f"{what}: num_kv_heads is {kv_heads}, which does not divide {num_attention_heads} heads"
            )
        self.num_attention_kv_heads = kv_heads_of(kv_heads, tp_size)
        self.hidden_size = hidden_size // tp_size
        self.relative_attention, self.max_distance = relative_attention, max_distance
        if relative_attention:
            if num_buckets < 1 or max_distance < 1:
                raise ArgumentError(
                    f"{what}: relative_attention needs num_buckets and max_distance of at least 1, they are "
                    f"{num_buckets} and {max_distance}"
                )
            self.add_parameter("rel_attn_table", self.num_attention_heads, num_buckets)

    @property
    def qkv_features(self) -> int:
        """Output features of the fused projection, of all ranks together."""
        each = (self.num_attention_heads + 2 * self.num_attention_kv_heads) * self.attention_head_size
        return self.tp_size * each

    def split(self, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Query [B, N, S, D], key and value [B, N, S, D] (repeated for their group) of a projection [B, S, W]."""
        size, heads, kv_heads = self.attention_head_size, self.num_attention_heads, self.num_attention_kv_heads
        parts = qkv.split([heads * size, kv_heads * size, kv_heads * size], dim=2)
        query, key, value = (p.unflatten(2, (-1, size)).transpose(1, 2) for p in parts)
        return query, key, value


def _plain(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, norm_factor: float, bias: torch.Tensor | None
) -> torch.Tensor:
    """softmax(Q K^T / norm_factor + bias) V in float32, step by step: the path without the fused operator."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query.float() @ key.float().transpose(2, 3) / norm_factor
    if bias is not None:
        scores = scores + bias
    context = torch.softmax(scores, -1).nan_to_num(0.0).to(value.dtype) @ value
    return context.transpose(1, 2).flatten(2)


class Attention(_Heads):
    """Attention of GPT-like models: fused projection, attention over a cache, output projection.

    Args:
        hidden_size, num_attention_heads, num_kv_heads: of all ranks together.
        max_position_embeddings: the trained length (dynamic rotary scaling).
        num_layers, apply_query_key_layer_scaling: the logits are divided by the number of layers as well.
        attention_mask_type: causal or bidirectional; padding for cross attention and the path without fusion.
        bias, dtype: of the projections.
        position_embedding_type, rotary_embedding_base, rotary_embedding_scaling ({"type": "linear" or "dynamic",
            "factor": over 1}), rotary_embedding_percentage: positions.
        use_int8_kv_cache, quant_mode: eight-bit caches, fp8 projections.
        tp_group, tp_size, tp_rank: the ranks that share it.
        multi_block_mode: a hint, see gpt_attention.
        q_scaling: the logits are divided by q_scaling * sqrt(head size).
        cross_attention, relative_attention, max_distance, num_buckets: as their names say.
        instance_id: of the output projection's sum.
        gpt_attention_plugin: True attends with the fused operator; False step by step, without rotary embeddings and
            paged caches, as the original does without its plugin.
        remove_input_padding: hidden states are packed, [1, T, E].
    """

    def __init__(
        self,
        hidden_size: int,
        num_attention_heads: int,
        num_kv_heads: int | None = None,
        max_position_embeddings: int = 1024,
        num_layers: int = 1,
        apply_query_key_layer_scaling: bool = False,
        attention_mask_type: AttentionMaskType = AttentionMaskType.padding,
        bias: bool = True,
        dtype: torch.dtype | str | None = None,
        position_embedding_type: PositionEmbeddingType = PositionEmbeddingType.learned_absolute,
        rotary_embedding_base: float = 10000.0,
        rotary_embedding_scaling: dict[str, Any] | None = None,
        use_int8_kv_cache: bool = False,
        rotary_embedding_percentage: float = 1.0,
        tp_group: Sequence[int] | None = None,
        tp_size: int = 1,
        tp_rank: int = 0,
        multi_block_mode: bool = False,
        quant_mode: QuantMode | None = None,
        q_scaling: float = 1.0,
        cross_attention: bool = False,
        relative_attention: bool = False,
        max_distance: int = 0,
        num_buckets: int = 0,
        instance_id: int = 0,
        gpt_attention_plugin: bool = True,
        remove_input_padding: bool = False,
    ):
        super().__init__(
            hidden_size, num_attention_heads, num_kv_heads, dtype, tp_group, tp_size, tp_rank,
            relative_attention, num_buckets, max_distance,
        )  # fmt: skip
        self.attention_mask_type, self.position_embedding_type = attention_mask_type, position_embedding_type
        self.max_position_embeddings = max_position_embeddings
        self.q_scaling = q_scaling * (num_layers if apply_query_key_layer_scaling else 1)
        self.norm_factor = math.sqrt(self.attention_head_size) * self.q_scaling
        self.cross_attention, self.multi_block_mode = cross_attention, multi_block_mode
        self.gpt_attention_plugin, self.remove_input_padding = gpt_attention_plugin, remove_input_padding
        self.quant_mode = QuantMode(0) if quant_mode is None else quant_mode
        if use_int8_kv_cache:
            self.quant_mode |= QuantMode.INT8_KV_CACHE
        self.rotary_embedding_base = rotary_embedding_base
        self.rotary_embedding_dim = 0
        if position_embedding_type.is_rope():
            self.rotary_embedding_dim = int(self.attention_head_size * rotary_embedding_percentage)
        self._read_scaling(rotary_embedding_scaling)
        self._check()
        if self.quant_mode.has_quantised_cache:
            for name in ("kv_orig_quant_scale", "kv_quant_orig_scale"):
                self.add_parameter(name, 1, dtype=torch.float32)
                self._parameters[name].fill_(1.0)
        fp8 = bool(self.quant_mode & QuantMode.FP8_QDQ)
        column, row = (FP8Linear, FP8RowLinear) if fp8 else (ColumnLinear, RowLinear)
        self.qkv = column(hidden_size, self.qkv_features, bias, dtype, tp_group, tp_size, gather_output=False)
        self.dense = row(hidden_size, hidden_size, bias, dtype, tp_group, tp_size, instance_id=instance_id)
        self.add_module("qkv", self.qkv)
        self.add_module("dense", self.dense)

    def _read_scaling(self, scaling: dict[str, Any] | None) -> None:
        self.rotary_embedding_scale_type, self.rotary_embedding_scale = RotaryScalingType.none, 1.0
        if scaling is None:
            return
        kind, factor = scaling.get("type"), scaling.get("factor")
        if kind not in SCALINGS or not isinstance(factor, (int, float)) or factor <= 1:
            raise ArgumentError(
                f"Attention: rotary_embedding_scaling is {scaling}; it needs a type of {', '.join(SCALINGS)} and a "
                "factor over 1"
            )
        self.rotary_embedding_scale_type, self.rotary_embedding_scale = RotaryScalingType[kind], float(factor)

    def _check(self) -> None:
        problems = []
        kind = self.attention_mask_type
        if self.gpt_attention_plugin and not self.cross_attention and kind == AttentionMaskType.padding:
            problems.append("attention_mask_type is padding, fused self attention takes causal or bidirectional")
        if not self.gpt_attention_plugin and self.position_embedding_type.is_rope():
            problems.append("position_embedding_type is rope, which needs gpt_attention_plugin=True")
        if not self.gpt_attention_plugin and self.remove_input_padding:
            problems.append("remove_input_padding is True, packed input needs gpt_attention_plugin=True")
        if not self.gpt_attention_plugin and (self.relative_attention or kind == AttentionMaskType.bidirectional):
            problems.append("relative_attention and bidirectional masks need gpt_attention_plugin=True")
        if not self.gpt_attention_plugin and self.quant_mode & QuantMode.FP8_KV_CACHE:
            problems.append("quant_mode has FP8_KV_CACHE, which needs gpt_attention_plugin=True")
        if problems:
            raise ArgumentError(all_problems("Attention", problems))

    def __call__(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor = None,
        use_cache: bool = False,
        kv_cache_params: KeyValueCacheParams | None = None,
        attention_params: AttentionParams | None = None,
        encoder_output: Tensor = None,
        workspace: Tensor = None,
    ) -> Any:
        """Attention on hidden states [B, S, E], or packed [1, T, E].

        Args:
            attention_mask: [B, keys], ones where a key is seen; read by the path without the fused operator.
            use_cache: give the cache back beside the context.
            kv_cache_params, attention_params: caches and lengths; cross attention takes the second cache.
            encoder_output: [B, S', E] in the step that brings it.
            workspace: accepted and unused.
        Returns:
            The context in the shape of `hidden_states`, and with `use_cache` the cache.
        """
        check_rank("Attention", "hidden_states", hidden_states, (3,))
        qkv = self.qkv(hidden_states)
        if self.gpt_attention_plugin:
            context, present = self._fused(qkv, kv_cache_params, attention_params, encoder_output)
        else:
            context, present = self._step_by_step(qkv, attention_mask, use_cache, kv_cache_params, encoder_output)
        context = self.dense(context, workspace)
        return (context, present) if use_cache else context

    def _slopes(self, dtype: torch.dtype) -> torch.Tensor | None:
        if not self.position_embedding_type.is_alibi():
            return None
        scaled = self.position_embedding_type == PositionEmbeddingType.alibi_with_scale
        total = self.num_attention_heads * self.tp_size
        return generate_alibi_slopes(total, dtype, self.tp_size, self.tp_rank, 1 / self.norm_factor if scaled else 1.0)

    def _fused(
        self, qkv: Tensor, cache: KeyValueCacheParams | None, params: AttentionParams | None, encoder_output: Tensor
    ) -> tuple[Tensor, Tensor]:
        if params is None:
            raise ArgumentError("Attention: attention_params is None; fused attention needs the lengths in it")
        params.check(True, self.remove_input_padding, self.cross_attention)
        if cache is not None:
            cache.check(True)
        past = None if cache is None or cache.past_key_value is None else cache.get_first_past_key_value()
        if self.cross_attention and past is not None:
            assert cache is not None and cache.past_key_value is not None
            if len(cache.past_key_value) < 2:
                raise ArgumentError("Attention: past_key_value has one cache; cross attention takes the second one")
            past = cache.past_key_value[1]
        cross = self.qkv(encoder_output) if self.cross_attention and encoder_output is not None else None
        quantised = self.quant_mode.has_quantised_cache and past is not None
        mask = AttentionMaskType.padding if self.cross_attention else self.attention_mask_type
        position = PositionEmbeddingType.relative if self.relative_attention else self.position_embedding_type
        return gpt_attention(
            qkv,
            past,
            params.sequence_length,
            None if cache is None else cache.host_past_key_value_lengths,
            params.context_lengths,
            None if cache is None else cache.cache_indirection,
            params.host_request_types,
            num_heads=self.num_attention_heads,
            num_kv_heads=self.num_attention_kv_heads,
            hidden_size_per_head=self.attention_head_size,
            q_scaling=self.q_scaling,
            rotary_embedding_dim=self.rotary_embedding_dim,
            rotary_embedding_base=self.rotary_embedding_base,
            rotary_embedding_scale_type=self.rotary_embedding_scale_type,
            rotary_embedding_scale=self.rotary_embedding_scale,
            rotary_embedding_max_positions=self.max_position_embeddings,
            position_embedding_type=position,
            multi_block_mode=self.multi_block_mode,
            kv_orig_quant_scale=self.weight("kv_orig_quant_scale", qkv) if quantised else None,
            kv_quant_orig_scale=self.weight("kv_quant_orig_scale", qkv) if quantised else None,
            kv_cache_quant_mode=self.quant_mode if quantised else None,
            max_context_length=params.max_context_length,
            mask_type=mask,
            alibi_slopes=self._slopes(torch.float32),
            tp_size=self.tp_size,
            tp_rank=self.tp_rank,
            kv_cache_block_pointers=None if cache is None else cache.get_first_kv_cache_block_pointers(),
            do_cross_attention=self.cross_attention,
            cross_qkv=cross,
            cross_qkv_length=params.encoder_max_input_length if cross is not None else None,
            encoder_input_lengths=params.encoder_input_lengths if self.cross_attention else None,
            relative_attention_bias=self.weight("rel_attn_table", qkv),
            max_distance=self.max_distance,
            host_context_lengths=params.host_context_lengths if self.remove_input_padding else None,
        )

    def _step_by_step(
        self,
        qkv: Tensor,
        attention_mask: Tensor,
        use_cache: bool,
        cache: KeyValueCacheParams | None,
        encoder_output: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The path without the fused operator: the cache is joined with the new keys, and given back longer."""
        if isinstance(qkv, ir.Value):
            raise ArgumentError(
                "Attention: without gpt_attention_plugin it computes on tensors; networks take the operator"
            )
        if cache is not None:
            cache.check(False)
        past = None if cache is None else cache.get_first_past_key_value()
        query, key, value = self.split(qkv)
        if self.cross_attention and encoder_output is not None:
            _, key, value = self.split(self.qkv(encoder_output))
        if past is not None:
            if past.dtype == torch.int8:
                past = (past.float() * self._parameters["kv_quant_orig_scale"]).to(key.dtype)
            key, value = torch.cat([past[:, 0], key], 2), torch.cat([past[:, 1], value], 2)
        present = None
        if use_cache:
            present = torch.stack([key, value], 1)
            if self.quant_mode & QuantMode.INT8_KV_CACHE:
                scale = self._parameters["kv_orig_quant_scale"]
                present = (present.float() * scale).round().clamp(-128, 127).to(torch.int8)
        keys, queries = key.shape[2], query.shape[2]
        bias = None
        if not self.cross_attention:
            bias = torch.zeros(1, 1, queries, keys)
            if attention_mask is not None:
                bias = bias + expand_mask(attention_mask, queries)
            slopes = self._slopes(torch.float32)
            if slopes is not None:
                bias = bias + generate_alibi_biases(slopes, keys)
            if self.attention_mask_type == AttentionMaskType.causal:
                later = torch.ones(queries, keys, dtype=torch.bool).triu(keys - queries + 1)
                bias = bias.masked_fill(later, -torch.inf)
        return _plain(query, key, value, self.norm_factor, bias), present


class BertAttention(_Heads):
    """Attention of BERT-like encoders: every token sees all of its sequence.

    Args: as for Attention; `bert_attention_plugin` False attends step by step, with an additive mask.
    """

    def __init__(
        self,
        hidden_size: int,
        num_attention_heads: int,
        num_kv_heads: int | None = None,
        max_position_embeddings: int = 1024,
        num_layers: int = 1,
        q_scaling: float = 1.0,
        apply_query_key_layer_scaling: bool = False,
        bias: bool = True,
        dtype: torch.dtype | str | None = None,
        tp_group: Sequence[int] | None = None,
        tp_size: int = 1,
        tp_rank: int = 0,
        relative_attention: bool = False,
        max_distance: int = 0,
        num_buckets: int = 0,
        bert_attention_plugin: bool = True,
    ):
        super().__init__(
            hidden_size, num_attention_heads, num_kv_heads, dtype, tp_group, tp_size, tp_rank,
            relative_attention, num_buckets, max_distance,
        )  # fmt: skip
        if relative_attention and not bert_attention_plugin:
            raise ArgumentError("BertAttention: relative_attention needs bert_attention_plugin=True")
        self.max_position_embeddings = max_position_embeddings
        self.q_scaling = q_scaling * (num_layers if apply_query_key_layer_scaling else 1)
        self.norm_factor = math.sqrt(self.attention_head_size) * self.q_scaling
        self.bert_attention_plugin = bert_attention_plugin
        self.qkv = ColumnLinear(hidden_size, self.qkv_features, bias, dtype, tp_group, tp_size, gather_output=False)
        self.dense = RowLinear(hidden_size, hidden_size, bias, dtype, tp_group, tp_size)
        self.add_module("qkv", self.qkv)
        self.add_module("dense", self.dense)

    def __call__(self, hidden_states: Tensor, attention_mask: Tensor = None, input_lengths: Tensor = None) -> Tensor:
        """Hidden states [B, S, E], or packed [1, T, E], with input_lengths int [B] (fused) or an additive mask."""
        check_rank("BertAttention", "hidden_states", hidden_states, (2, 3))
        qkv = self.qkv(hidden_states)
        if self.bert_attention_plugin:
            context = bert_attention(
                qkv,
                input_lengths,
                self.num_attention_heads,
                self.attention_head_size,
                self.q_scaling,
                self.relative_attention,
                self.weight("rel_attn_table", qkv),
                self.max_distance,
                self.num_attention_kv_heads,
            )
        else:
            if isinstance(qkv, ir.Value):
                raise ArgumentError("BertAttention: without bert_attention_plugin it computes on tensors")
            context = _plain(*self.split(qkv), self.norm_factor, attention_mask)
        return self.dense(context)
