"""From the operands of QKVToContext to an attention problem."""

from collections.abc import Mapping
from typing import Any

from ..attention_common.layouts import is_packed, split_qkv
from ..attention_common.problem import Problem, Rule
from ..call import Tensors


def kv_heads(attributes: Mapping[str, Any]) -> int:
    """Key and value heads: `num_kv_heads`, where 0 says as many as query heads."""
    return int(attributes["num_kv_heads"] or attributes["num_heads"])


def rule_of(attributes: Mapping[str, Any], head_size: int) -> Rule:
    """The compile-time part of the problem, with the default scale 1 / sqrt(D) filled in."""
    return Rule(
        attributes["scale"] or head_size**-0.5,
        attributes["kind"],
        attributes["empty_row"],
        attributes["softcap"],
        attributes["window_left"],
        attributes["window_right"],
    )


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
        mask=mask,
        bias=bias,
        lengths=lengths,
        prefix_lengths=prefix_lengths,
        cu_q=cu_seqlens if packed else None,
        cu_kv=cu_seqlens if packed else None,
    )
