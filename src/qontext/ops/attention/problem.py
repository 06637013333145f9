"""From the operands of Attention to an attention problem."""

from collections.abc import Mapping
from typing import Any

import torch

from ..attention_common.layouts import heads_of, is_packed
from ..attention_common.mask_operand import plain
from ..attention_common.problem import Problem, kv_heads, rule_of
from ..call import Tensors


def problem_of(inputs: Tensors, attributes: Mapping[str, Any]) -> Problem:
    """The problem that Attention's inputs state; past keys and values are put before the new ones.

    Without a past, query, key and value are views of the inputs.
    """
    query, key, value, mask, bias, past_key, past_value, key_lengths, cu_q, cu_kv = inputs[:10]
    prefix_lengths = inputs[12]
    assert query is not None
    assert key is not None
    assert value is not None
    layout = attributes["layout"]
    key_heads = kv_heads(attributes)
    q = heads_of(query, layout, attributes["num_heads"])
    k, v = heads_of(key, layout, key_heads), heads_of(value, layout, key_heads)
    offset: torch.Tensor | int = 0
    if past_key is not None:
        assert past_value is not None
        offset = past_key.shape[2]
        k = torch.cat((past_key, k.transpose(1, 2)), dim=2).transpose(1, 2)
        v = torch.cat((past_value, v.transpose(1, 2)), dim=2).transpose(1, 2)
    elif key_lengths is not None:
        offset = key_lengths - q.shape[1]
    packed = is_packed(layout)
    return Problem(
        rule_of(attributes, q.shape[-1]),
        q,
        k,
        v,
        mask=plain(mask, attributes),
        bias=bias,
        lengths=key_lengths,
        offset=offset,
        prefix_lengths=prefix_lengths,
        cu_q=cu_q if packed else None,
        cu_kv=(cu_q if cu_kv is None else cu_kv) if packed else None,
    )
