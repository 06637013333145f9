"""Function bodies of operators, run in ONNX Runtime as an oracle of its own."""

import re

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import op_cases
import pytest
import torch

from qontext.dtypes import by_name
from qontext.errors import GraphError, UnsupportedOperatorError
from qontext.graph.attributes import attributes_of
from qontext.ops import axes_match
from qontext.ops.body import OPSET, function_for, with_bodies
from qontext.ops.call import Call
from qontext.ops.catalogue import BY_NAME, OPS
from qontext.ops.declare import Op, Param
from qontext.ops.network import OPSET as NETWORK_OPSET

# The only cases that standard operators cannot say, each with the reason. Every operator has a body in all others.
WITHOUT_BODY = {
    ("QKVToContext", "packed_mask"): "a mask of queries and keys holds positions of each sequence, not packed tokens",
    ("QuantQKVToContext", "packed_mask"): "the same",
    ("QKVToContext", "outputs_packed"): "padded outputs of packed tokens",
    ("Attention", "scores_packed"): "padded outputs of packed tokens",
}
_EIGHT_BITS = "no standard operator multiplies operands of eight bits with scales of rows, or makes them"
WITHOUT_BODY |= {
    (op.name, case.name): _EIGHT_BITS
    for op in OPS
    for case in op.cases()
    if case.name.startswith(("fp8", "int8_"))
    if op.name in ("QuantLinear", "SkipLayerNorm", "QKVToContext")
}
WITHOUT_BODY |= {
    (op.name, case.name): "probabilities in e4m3 are counted from a power of two at the largest logit of a row"
    for op in OPS
    for case in op.cases()
    if op.name == "QuantQKVToContext" and case.name.startswith("fp8")
}
# Operators that have none at all.
OPS_WITHOUT_BODY = {"GptAttention": "caches that are written in place, and pages of them"}
OPEN_AXES = ("...", "B", "S", "Skv", "T", "Tkv", "B+1")


def model_of(op: Op, call: Call, opset: int = OPSET) -> ir.Model:
    """A model of one node, its present inputs and wanted outputs as those of the graph."""
    inputs = [_value(p, o, call.attributes) for p, o in zip(op.inputs, call.inputs, strict=True)]
    outputs = [_value(p, o, call.attributes) for p, o in zip(op.outputs, call.outputs, strict=True)]
    last = max(i for i, v in enumerate(outputs) if v is not None)
    given = [v or ir.Value(name="") for v in outputs[: last + 1]]
    node = ir.Node(op.domain, op.name, inputs, attributes_of(call.attributes), outputs=given, name="under_test")
    graph = ir.Graph(
        [v for v in inputs if v is not None],
        [v for v in outputs if v is not None],
        nodes=[node],
        opset_imports={"": opset, op.domain: 1},
        name="one_node",
    )
    return ir.Model(graph, ir_version=10)


def _value(param: Param, operand, attributes) -> ir.Value | None:
    """A value whose batch and length axes are open, as in real models; feature axes are numbers."""
    if operand is None:
        return None
    shape = list(operand.shape)
    for form in _forms(param, attributes):
        if "..." in form:
            at = form.index("...")
            form = [*form[:at], *["..."] * (len(shape) - len(form) + 1), *form[at + 1 :]]
        if len(form) == len(shape):
            shape = [None if letter in OPEN_AXES else size for letter, size in zip(form, shape, strict=True)]
            break
    return ir.Value(name=param.name, shape=ir.Shape(shape), type=ir.TensorType(operand.type.onnx))


def _forms(param: Param, attributes) -> list[list[str]]:
    """The forms that the declaration gives, or, where it leaves them to the attribute 'layout', that layout."""
    if param.axes == "..." and "layout" in attributes:
        return [re.sub(r"\([^)]*\)", "features", attributes["layout"]).split()]
    return axes_match.alternatives(param.axes)


def run_in_onnx_runtime(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[torch.Tensor]:
    proto = ir.serde.serialize_model(model)
    onnx.checker.check_model(proto)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(np.array(result)) for result in session.run(None, feeds)]


@pytest.mark.parametrize("opset", [OPSET, NETWORK_OPSET])
@pytest.mark.parametrize(("op", "case"), op_cases.case_params())
def test_body_in_onnx_runtime_equals_the_reference(op, case, opset):
    if "float32" not in case.dtypes:
        pytest.skip("ONNX Runtime computes in float32 on the CPU")
    inputs = op_cases.inputs_of(op, case, "float32")
    call = op_cases.call_for(op, case, inputs)
    if (op.name, case.name) in WITHOUT_BODY or op.name in OPS_WITHOUT_BODY:
        assert function_for(op, call) is None
        return
    model = with_bodies(model_of(op, call, opset))
    feeds = {p.name: t.numpy() for p, t in zip(op.inputs, inputs, strict=True) if t is not None}
    got = run_in_onnx_runtime(model, feeds)
    want = op_cases.expected(op, call, inputs)
    wanted = [i for i, operand in enumerate(call.outputs) if operand is not None]
    assert len(got) == len(wanted)
    for i, result in zip(wanted, got, strict=True):
        factor = case.tolerance.get("float32", 1.0)
        name, levels = op.outputs[i].name, case.levels
        assert op_cases.problem_with(name, result, want[i], call.outputs[i], factor, levels) is None


def test_cases_without_a_body_still_exist():
    assert set(WITHOUT_BODY) <= {(op.name, case.name) for op in OPS for case in op_cases.checked_cases(op)}


def linear_call(**attributes) -> Call:
    op = BY_NAME["Linear"]
    case = next(c for c in op.cases() if c.name == "odd")
    inputs = op_cases.inputs_of(op, case, "float32")
    return op_cases.call_of(op, inputs, attributes, (True,), op_cases.CPU)


def test_each_variant_has_an_overload_of_its_own():
    op = BY_NAME["Linear"]
    plain, gelu = function_for(op, linear_call()), function_for(op, linear_call(activation="gelu_erf"))
    assert plain.overload != gelu.overload
    assert gelu.overload.startswith("gelu_erf_bias_")
    assert gelu.overload == function_for(op, linear_call(activation="gelu_erf")).overload
    assert [v.name for v in plain.inputs] == ["x", "weight", "bias"]
    assert gelu.attributes["activation"].as_string() == "gelu_erf"


@pytest.mark.parametrize("opset", [11, 13, 17, 20, 23, 25])
def test_models_of_every_opset_take_functions(opset):
    """Older models are raised to opset 20 around the node; newer ones keep their opset."""
    op = BY_NAME["Gelu"]
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    call = op_cases.call_of(op, [x, None], {}, (True,), op_cases.CPU)
    model = model_of(op, call, opset)
    source = model.graph.inputs[0]
    axes = [ir.Value(name="axes", const_value=ir.tensor(np.array([0], np.int64)))] if opset >= 13 else []
    for value in axes:
        model.graph.register_initializer(value)
    given = [ir.AttrInt64s("axes", [0])] if opset < 13 else []
    # Unsqueeze takes its axes as an attribute before opset 13 and as an input from then on.
    added = ir.Node("", "Unsqueeze", [source, *axes], given, name="unsqueeze")
    taken = ir.Node("", "Squeeze", [added.outputs[0], *axes], given, name="squeeze")
    fused = model.graph.node("under_test")
    model.graph.insert_before(fused, [added, taken])
    fused.replace_input_with(0, taken.outputs[0])
    runnable = with_bodies(model)
    assert runnable.graph.opset_imports[""] == max(opset, 20)
    assert model.graph.opset_imports[""] == opset
    assert model.graph.node("under_test").overload == ""
    (got,) = run_in_onnx_runtime(runnable, {"x": x.numpy()})
    error = op_cases.relative_rms(got, torch.nn.functional.gelu(x.double()))
    assert error <= by_name("float32").tolerance


def test_every_node_without_a_body_is_named():
    silent = Op(
        name="Silent",
        doc="An operator that standard operators cannot say.",
        inputs=(Param("x", "... E"),),
        outputs=(Param("y", "... E"),),
        reference=lambda x: x,
        domain="mine",
    )
    call = op_cases.call_of(silent, [torch.zeros(2, 3)], {}, (True,), op_cases.CPU)
    with pytest.raises(UnsupportedOperatorError, match="node 'under_test': Silent has no body"):
        with_bodies(model_of(silent, call), [silent])


@pytest.mark.parametrize(("body", "said"), [("y = = Relu(x)", "no valid ONNX text"), ("z = Relu(x)", "defines no y")])
def test_a_wrong_body_is_an_error(body, said):
    wrong = Op(
        name="Wrong",
        doc="An operator whose body is broken.",
        inputs=(Param("x", "... E"),),
        outputs=(Param("y", "... E"),),
        reference=lambda x: x,
        body=lambda call: body,
    )
    call = op_cases.call_of(wrong, [torch.zeros(2, 3)], {}, (True,), op_cases.CPU)
    with pytest.raises(GraphError, match=said):
        function_for(wrong, call)
