"""What the two operators refuse, in words that name tensor, got and expected; what they infer over symbols."""

import re

import pytest
import torch
from attention_helpers import cu_seqlens, randn

from qontext.errors import ArgumentError, DTypeError, InputError, ShapeError
from qontext.graph.dims import Dim, symbol
from qontext.ops.attention.op import OP as attention
from qontext.ops.call import Operand
from qontext.ops.declare import call_of
from qontext.ops.qkv_to_context.op import OP as qkv_to_context

B, S, T, SKV = symbol("B"), symbol("S"), symbol("T"), symbol("Skv")
PLAIN = "B S (three N D)"
X = torch.zeros(2, 5, 3 * 4 * 8)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"layout": "B S three N D"}, r"'qkv' has shape \[2, 5, 96\], but layout 'B S three N D' needs 5 axes"),
        ({"layout": "T (N three D)"}, r"layout 'T \(N three D\)' is packed and needs 'cu_seqlens' and 'max_seqlen'"),
        ({"num_heads": 5}, r"its fused axis is 96, which is no multiple of .* 5 \+ 2 \* 5 = 15"),
        ({"num_heads": 0}, "num_heads is 0"),
        ({"num_kv_heads": 3}, "num_heads is 4, which is no multiple of num_kv_heads 3"),
        (
            {"num_kv_heads": 2, "layout": "B S (N three D)"},
            r"layout 'B S \(N three D\)' holds one key and one value for each",
        ),
        ({"scale": -1.0}, r"'scale' is -1\.0, allowed: 0 and more"),
        ({"window_left": -2}, "'window_left' is -2, allowed: -1 and more"),
        ({"kind": "prefix"}, "'prefix_lengths'.* is missing"),
        ({"prefix_lengths": torch.ones(2, dtype=torch.int32)}, "'prefix_lengths' is given, but kind is 'full'"),
        ({"lengths": torch.ones(3, dtype=torch.int32)}, r"'lengths' has shape \[3\], it needs \[2\]"),
        ({"cu_seqlens": cu_seqlens([1])}, "is padded and takes no 'cu_seqlens'"),
        (
            {"mask": torch.ones(2, 4, 5) > 0},
            r"'mask' has shape \[2, 4, 5\], it needs .*\[B or 1, S or 1, Skv\] for all",
        ),
        ({"mask": torch.ones(3, 5, 5) > 0}, r"'mask' has shape \[3, 5, 5\]"),
        ({"bias": torch.ones(2, 5, 5)}, r"'bias' has shape \[2, 5, 5\], it needs .*; insert an axis"),
        ({"mask": torch.ones(2, 4) > 0}, r"'mask' has shape \[2, 4\], it needs .*B=2, N=4, S=5, Skv=5"),
        ({"mask": torch.ones(2, 3, 5, 5) > 0}, r"'mask' has shape \[2, 3, 5, 5\]"),
        ({"mask": torch.ones(2, 4, 6, 6) > 0}, r"'mask' has shape \[2, 4, 6, 6\]"),
        ({"bias": torch.ones(1, 4, 5, 4)}, r"'bias' has shape \[1, 4, 5, 4\].*or larger in the last two"),
        ({"bias": torch.ones(5, 5)}, r"'bias' has shape \[5, 5\]"),
    ],
)
def test_qkv_to_context_refuses(given, said):
    with pytest.raises(ShapeError, match=said):
        qkv_to_context(X, **{"num_heads": 4, "layout": PLAIN, **given})


def test_trailing_axes_of_the_five_axis_layout():
    with pytest.raises(ShapeError, match="needs two axes of size 1 at the end"):
        qkv_to_context(torch.zeros(5, 2, 96, 2, 1), num_heads=4, layout="S B (N three D) 1 1")


def test_all_problems_come_in_one_message():
    with pytest.raises(ShapeError) as error:
        qkv_to_context(
            X, lengths=torch.ones(3, dtype=torch.int32), bias=torch.ones(1, 2, 5, 5), num_heads=4, layout=PLAIN
        )
    assert "QKVToContext: 2 problems" in str(error.value)


def test_dtypes_and_attributes_are_named():
    with pytest.raises(DTypeError, match="'lengths' is float32, expected int32 or int64"):
        qkv_to_context(X, lengths=torch.ones(2), num_heads=4, layout=PLAIN)
    with pytest.raises(DTypeError, match="'mask' is float64, expected bool or uint8"):
        qkv_to_context(X, mask=torch.ones(2, 5, dtype=torch.float64), num_heads=4, layout=PLAIN)
    with pytest.raises(ArgumentError, match=r"'layout' is 'S B 3E', allowed: .*'S B \(N three D\) 1 1'"):
        qkv_to_context(X, num_heads=4, layout="S B 3E")
    with pytest.raises(ArgumentError, match="'empty_row' is 'nan'"):
        qkv_to_context(X, num_heads=4, layout=PLAIN, empty_row="nan")


@pytest.mark.parametrize("bounds", [[0, 3, 2, 5], [1, 3, 5], [0, 3, 6], [0, 3]])
@pytest.mark.parametrize("kernel", ["torch.sdpa", "torch.bmm"])
def test_boundaries_that_cannot_be(bounds, kernel):
    inputs = [
        randn(0, 5, 96),
        None,
        None,
        None,
        torch.tensor(bounds, dtype=torch.int32),
        torch.tensor(5).int(),
        None,
    ]
    call = call_of(qkv_to_context, inputs, {"num_heads": 4, "layout": "T (three N D)"}, (True, False, False))
    chosen = next(k for k in qkv_to_context.kernels if k.name == kernel)
    out = [torch.empty(5, 32), None, None] if chosen.writes_out else None
    with pytest.raises(InputError, match=r"has to start at 0, never fall and end at the number of tokens, 5"):
        chosen.bind(call)(inputs, out)


def test_packed_masks_smaller_than_a_sequence():
    with pytest.raises((ShapeError, InputError), match="bias"):
        qkv_to_context(
            randn(0, 7, 96),
            bias=torch.zeros(1, 4, 3, 3),
            cu_seqlens=cu_seqlens([2, 5]),
            max_seqlen=torch.tensor(5, dtype=torch.int32),
            num_heads=4,
            layout="T (three N D)",
        )


Q, KV = torch.zeros(2, 5, 32), torch.zeros(2, 7, 32)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_heads": 0}, r"num_heads is 0, but layout 'B S \(N D\)' holds heads and head size in one axis"),
        ({"layout": "B N S D"}, r"'query' has shape \[2, 5, 32\], but layout 'B N S D' needs 4 axes"),
        ({"key": torch.zeros(2, 7, 16), "value": torch.zeros(2, 7, 16)}, "have head size 8 and 4"),
        ({"key": torch.zeros(3, 7, 32)}, "'query' and 'key' have batch size 2 and 3"),
        ({"value": torch.zeros(2, 6, 32)}, "'key' and 'value' have length 7 and 6"),
        ({"num_kv_heads": 3}, "the last axis of input 'key' is no multiple of its 3 heads"),
        ({"past_key": torch.zeros(2, 4, 3, 8)}, "'past_key' is given alone"),
        (
            {"past_key": torch.zeros(2, 3, 3, 8), "past_value": torch.zeros(2, 3, 3, 8)},
            r"'past_key' has shape \[2, 3, 3, 8\], it needs \[B, Nkv, past length, D\] = \[2, 4, \?, 8\]",
        ),
        (
            {
                "past_key": torch.zeros(2, 4, 3, 8),
                "past_value": torch.zeros(2, 4, 3, 8),
                "key_lengths": torch.ones(2, dtype=torch.int64),
            },
            "'past_key' and 'key_lengths' are both given",
        ),
        ({"key_lengths": torch.ones(3, dtype=torch.int64)}, r"'key_lengths' has shape \[3\], it needs \[2\]"),
        ({"mask": torch.ones(2, 1, 5, 5) > 0}, r"'mask' has shape \[2, 1, 5, 5\].*Skv=7"),
        ({"max_seqlen_kv": torch.tensor(3, dtype=torch.int32)}, "is padded and takes no 'max_seqlen_kv'"),
    ],
)
def test_attention_refuses(given, said):
    with pytest.raises(ShapeError, match=said):
        attention(**{"query": Q, "key": KV, "value": KV, "num_heads": 4, **given})


def test_packed_attention_refuses():
    x, bounds, longest = torch.zeros(6, 32), cu_seqlens([2, 4]), torch.tensor(4, dtype=torch.int32)
    packed = {"cu_seqlens_q": bounds, "max_seqlen_q": longest, "num_heads": 4, "layout": "T (N D)"}
    with pytest.raises(ShapeError, match="is packed and takes no 'key_lengths'"):
        attention(x, x, x, key_lengths=torch.ones(2, dtype=torch.int64), **packed)
    with pytest.raises(ShapeError, match="'cu_seqlens_kv' and 'max_seqlen_kv' come together"):
        attention(x, x, x, cu_seqlens_kv=bounds, **packed)
    with pytest.raises(ShapeError, match="'query' has 6 tokens and 'key' 5: without 'cu_seqlens_kv' they are the same"):
        attention(x, x[:5], x[:5], **packed)


def shapes(op, inputs, **attributes):
    given = dict(inputs)
    operands = [given.get(p.name) for p in op.inputs]
    return [o.shape for o in op.infer_outputs(operands, op.complete_attributes(attributes))]


@pytest.mark.parametrize(
    ("layout", "shape", "context"),
    [
        (PLAIN, (B, S, 96), (B, S, 32)),
        ("S B (N three D) 1 1", (S, B, 96, 1, 1), (S, B, 32, 1, 1)),
        ("S B (three N D)", (S, B, 96), (S, B, 32)),
        ("B S N three D", (B, S, 4, 3, 8), (B, S, 32)),
    ],
)
def test_qkv_to_context_over_symbols(layout, shape, context):
    found = shapes(qkv_to_context, {"qkv": Operand("float32", shape)}, num_heads=4, layout=layout)
    assert found == [context, (B, 4, S, S), (B, 4, S, 8)]


def test_packed_shapes_over_symbols():
    one_more = Operand("int32", (Dim(("B",), 1, 1),))
    number = Operand("int32", ())
    packed = {"qkv": Operand("float32", (T, 96)), "cu_seqlens": one_more, "max_seqlen": number}
    found = shapes(qkv_to_context, packed, num_heads=4, layout="T (three N D)")
    assert found == [(T, 32), (B, 4, None, None), (B, 4, None, 8)]
    x = Operand("float32", (T, 32))
    packed = {"query": x, "key": x, "value": x, "cu_seqlens_q": one_more, "max_seqlen_q": number}
    found = shapes(attention, packed, num_heads=4, layout="T (N D)")
    assert found == [(T, 32), (B, 4, None, 8), (B, 4, None, 8), (B, 4, None, None)]


def test_attention_over_symbols():
    query, key, value = (Operand("float16", s) for s in ((B, 6, S, 8), (B, 2, SKV, 8), (B, 2, SKV, 24)))
    operands = {"query": query, "key": key, "value": value}
    found = shapes(attention, operands, layout="B N S D")
    assert found == [(B, 6, S, 24), (B, 2, SKV, 8), (B, 2, SKV, 24), (B, 6, S, SKV)]
    past = {"past_key": Operand("float16", (B, 2, 5, 8)), "past_value": Operand("float16", (B, 2, 5, 24))}
    longer = Dim(("Skv",), 1, 5)
    found = shapes(attention, operands | past, layout="B N S D")
    assert found == [(B, 6, S, 24), (B, 2, longer, 8), (B, 2, longer, 24), (B, 6, S, longer)]


def test_costs_count_both_products():
    """B 2, N 4, S 5, D 8: two products of 2*B*N*S*S*D operations; the projection read and the context written once."""
    call = call_of(qkv_to_context, [X], {"num_heads": 4, "layout": PLAIN}, (True, False, False))
    cost = qkv_to_context.cost(call)
    assert cost.flops == 2 * (2 * 2 * 4 * 5 * 5 * 8)
    assert cost.bytes == 4 * (2 * 5 * 96 + 2 * 5 * 32)
    causal = call_of(qkv_to_context, [X], {"num_heads": 4, "layout": PLAIN, "kind": "causal"}, (True, False, False))
    assert qkv_to_context.cost(causal).flops == cost.flops / 2
    call = call_of(attention, [Q, KV, KV], {"num_heads": 4}, (True, False, False, False))
    assert attention.cost(call).flops == 2 * (2 * 2 * 4 * 5 * 7 * 8)


@pytest.mark.parametrize(
    ("attributes", "outputs", "kernel", "said"),
    [
        ({"softcap": 2.0}, (), "torch.sdpa", r"softcap is 2\.0; scaled_dot_product_attention has none"),
        ({}, ("context", "scores"), "torch.sdpa", "'scores' is wanted"),
        ({}, ("context", "scores"), "native.attention", "'scores' is wanted; the kernel keeps none|is not built"),
    ],
)
def test_kernels_say_why_not(attributes, outputs, kernel, said):
    call = call_of(qkv_to_context, [X], {"num_heads": 4, "layout": PLAIN, **attributes}, qkv_to_context.wanted(outputs))
    chosen = next(k for k in qkv_to_context.kernels if k.name == kernel)
    reason = chosen.supports(call)
    assert reason is not None
    assert re.search(said, reason)
