"""From the operands of QKVToContext to an attention problem."""

from collections.abc import Mapping
from typing import Any

from ..attention_common.layouts import is_packed, split_qkv
from ..attention_common.mask_operand import plain
from ..attention_common.problem import Problem, kv_heads, rule_of
from ..call import Tensors


def problem_of(inputs: Tensors, attributes: Mapping[str, Any]) -> Problem:
    """The problem that QKVToContext's inputs state; query, key and value are views of the projection."""
    qkv, lengths, mask, bias, cu_seqlens, _, prefix_lengths = inputs[:7]
    assert qkv is not None
    layout = attributes["layout"]
    query, key, value = split_qkv(qkv, layout, attributes["num_heads"], kv_heads(attributes))
    packed = is_packed(layout)
    return Problem(
        rule_of(attributes, query.shape[-1]),
        query,
        key,
        value,
        mask=plain(mask, attributes),
        bias=bias,
        lengths=lengths,
        prefix_lengths=prefix_lengths,
        cu_q=cu_seqlens if packed else None,
        cu_kv=cu_seqlens if packed else None,
    )
