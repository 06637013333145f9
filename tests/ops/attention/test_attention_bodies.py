"""One ONNX function for all sizes: batch and lengths stay open, ONNX Runtime runs the same session on several."""

from dataclasses import replace

import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from attention_helpers import assert_close, cu_seqlens, randn

from qontext.graph.attributes import attributes_of
from qontext.graph.dims import Dim, symbol
from qontext.ops.attention.op import OP as attention
from qontext.ops.attention_common.layouts import ATTENTION_LAYOUTS, QKV_LAYOUTS, is_packed
from qontext.ops.body import function_for, with_bodies
from qontext.ops.call import Operand
from qontext.ops.declare import Op, call_of
from qontext.ops.qkv_to_context.op import OP as qkv_to_context

SIZES = [(2, 5, 7), (3, 1, 4)]
HEADS, KV_HEADS, SIZE = 4, 2, 8


def open_shape(shape: tuple[int, ...], places: dict[int, str]) -> ir.Shape:
    return ir.Shape([places.get(i, d) for i, d in enumerate(shape)])


def value_of(name: str, operand: Operand, shape: ir.Shape | None) -> ir.Value:
    return ir.Value(name=name, shape=shape, type=ir.TensorType(operand.type.onnx))


def session_for(op: Op, call, open_axes: dict[str, dict[int, str]]) -> ort.InferenceSession:
    """A session of the one-node model of `call`, with the named axes of its inputs open."""
    inputs, outputs = [], []
    for param, operand in zip(op.inputs, call.inputs, strict=True):
        shape = None if operand is None else open_shape(operand.shape, open_axes.get(param.name, {}))
        inputs.append(None if operand is None else value_of(param.name, operand, shape))
    for param, operand in zip(op.outputs, call.outputs, strict=True):
        shape = None if operand is None else ir.Shape([None] * len(operand.shape))
        outputs.append(ir.Value(name="") if operand is None else value_of(param.name, operand, shape))
    node = ir.Node(op.domain, op.name, inputs, attributes_of(call.attributes), outputs=outputs)
    given = [v for v in inputs if v is not None]
    wanted = [v for v, o in zip(outputs, call.outputs, strict=True) if o is not None]
    graph = ir.Graph(given, wanted, nodes=[node], opset_imports={"": 20, op.domain: 1}, name="one_node")
    proto = ir.serde.serialize_model(with_bodies(ir.Model(graph, ir_version=10)))
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def check(op: Op, makers, attributes, outputs, open_axes) -> None:
    """Builds the session from the first inputs and runs it on all of them."""
    session = None
    for make in makers:
        inputs = make()
        call = call_of(op, inputs, attributes, op.wanted(outputs))
        session = session or session_for(op, call, open_axes)
        feeds = {p.name: t.numpy() for p, t in zip(op.inputs, inputs, strict=True) if t is not None}
        got = session.run(None, feeds)
        want = [r for r, o in zip(op.reference(*inputs, **call.attributes), call.outputs, strict=True) if o is not None]
        assert len(got) == len(want)
        for ours, expected in zip(got, want, strict=True):
            assert_close(torch.from_numpy(ours), expected)


def axes(layout: str) -> dict[int, str]:
    names = layout.split("(")[0].split()
    return {i: n for i, n in enumerate(names) if n in ("B", "S", "T")}


@pytest.mark.parametrize("layout", QKV_LAYOUTS)
@pytest.mark.parametrize("masks", ["none", "lengths", "keys", "bias", "causal"])
def test_qkv_to_context(layout, masks):
    packed = is_packed(layout)
    if packed and masks == "lengths":
        pytest.skip("a packed call has cu_seqlens in place of lengths")
    sizes = {"N": HEADS, "three": 3, "D": SIZE}

    def inputs(batch: int, length: int, _: int):
        rows = [length, *range(1, batch)]  # lengths of packed sequences
        named = {"B": batch, "S": length, "T": sum(rows), **sizes}
        shape = [named[n] for n in layout.split("(")[0].split()]
        if "(" in layout:
            shape += [3 * HEADS * SIZE] + [1, 1] * layout.endswith(" 1 1")
        longest = max(rows) if packed else length
        given = {
            "qkv": randn(0, *shape),
            "lengths": torch.arange(1, batch + 1, dtype=torch.int32).clamp(max=length) if masks == "lengths" else None,
            "mask": randn(1, batch, longest) > -0.5 if masks == "keys" else None,
            "bias": randn(2, 1, HEADS, 9, 9) if masks == "bias" else None,
            "cu_seqlens": cu_seqlens(rows) if packed else None,
            "max_seqlen": torch.tensor(longest, dtype=torch.int32) if packed else None,
        }
        return [given.get(p.name) for p in qkv_to_context.inputs]

    open_axes = {
        "qkv": axes(layout),
        "lengths": {0: "B"},
        "mask": {0: "B", 1: "longest" if packed else "S"},
        "cu_seqlens": {0: "bounds"},
    }
    attributes = {"num_heads": HEADS, "layout": layout, "kind": "causal" if masks == "causal" else "full"}
    outputs = ("context",) if packed else ("context", "scores", "values")
    check(qkv_to_context, [lambda s=s: inputs(*s) for s in SIZES], attributes, outputs, open_axes)


@pytest.mark.parametrize("layout", ATTENTION_LAYOUTS)
@pytest.mark.parametrize("variant", ["cross", "key_lengths", "past", "window"])
def test_attention(layout, variant):
    packed = is_packed(layout)
    if packed and variant in ("key_lengths", "past"):
        pytest.skip("a packed call takes neither")

    def shape(batch: int, length: int, heads: int) -> list[int]:
        named = {"B": batch, "S": length, "T": length, "N": heads, "D": SIZE}
        lead = [named[n] for n in layout.split("(")[0].split()]
        return [*lead, heads * SIZE] if "(" in layout else lead

    def inputs(batch: int, length: int, key_length: int):
        rows, keys = [length, *range(1, batch)], [key_length, *range(2, batch + 1)]
        total, key_total = (sum(rows), sum(keys)) if packed else (length, key_length)
        given = {
            "query": randn(0, *shape(batch, total, HEADS)),
            "key": randn(1, *shape(batch, key_total, KV_HEADS)),
            "value": randn(2, *shape(batch, key_total, KV_HEADS)),
        }
        if packed:
            longest = (torch.tensor(max(x), dtype=torch.int32) for x in (rows, keys))
            given |= {"cu_seqlens_q": cu_seqlens(rows), "cu_seqlens_kv": cu_seqlens(keys)}
            given |= dict(zip(("max_seqlen_q", "max_seqlen_kv"), longest, strict=True))
        if variant == "key_lengths":
            given["key_lengths"] = torch.arange(batch) + 1
        if variant == "past":
            given |= {n: randn(3, batch, KV_HEADS, length + 2, SIZE) for n in ("past_key", "past_value")}
        return [given.get(p.name) for p in attention.inputs]

    sequence = {0: "B", 2: "past"}
    open_axes = {
        "query": axes(layout),
        **{n: {i: a if a == "B" else "keys" for i, a in axes(layout).items()} for n in ("key", "value")},
        "key_lengths": {0: "B"},
        "past_key": sequence,
        "past_value": sequence,
        "cu_seqlens_q": {0: "bounds"},
        "cu_seqlens_kv": {0: "bounds"},
    }
    attributes = {
        "layout": layout,
        "kind": "full" if variant == "cross" else "causal",
        "window_left": 2 if variant == "window" else -1,
        **({"num_heads": HEADS, "num_kv_heads": KV_HEADS} if "(" in layout else {}),
    }
    outputs = ("context", "present_key", "present_value") if variant == "past" else ("context",)
    check(attention, [lambda s=s: inputs(*s) for s in SIZES], attributes, outputs, open_axes)


def test_what_has_no_body():
    """Packed masks that differ by sequence and row, packed side outputs, and projections of unknown size."""
    bounds, longest = Operand("int32", (Dim(("B",), 1, 1),)), Operand("int32", ())
    qkv = Operand("float32", (symbol("T"), 96))
    mask = Operand("bool", (symbol("B"), 4, 7, 7))
    operands = (qkv, None, mask, None, bounds, longest, None)
    attributes = qkv_to_context.complete_attributes({"num_heads": 4, "layout": "T (three N D)"})
    outputs = qkv_to_context.infer_outputs(operands, attributes)
    call = call_of(qkv_to_context, [torch.zeros(2, 5, 96)], {"num_heads": 4, "layout": "B S (three N D)"}, (True,) * 3)
    masked = replace(call, inputs=operands, outputs=(outputs[0], None, None), attributes=attributes)
    assert function_for(qkv_to_context, masked) is None
    plain = replace(masked, inputs=(*operands[:2], None, *operands[3:]))
    assert function_for(qkv_to_context, plain) is not None
    assert function_for(qkv_to_context, replace(plain, outputs=outputs)) is None
    unknown = replace(call, inputs=(Operand("float32", (symbol("B"), symbol("S"), symbol("E"))), *call.inputs[1:]))
    assert function_for(qkv_to_context, unknown) is None
    assert function_for(qkv_to_context, call) is not None
