"""What the catalogue promises about every operator, beside its numbers."""

from typing import Any

import onnx
import pytest
import torch

from qontext.errors import GraphError, QontextError, ShapeError, UnsupportedOperatorError
from qontext.ops.standard.catalogue import BY_NAME, OPS, lookup
from qontext.ops.standard.check import problem
from qontext.ops.standard.declare import Context, Inputs

_VERSIONS: dict[str, set[int]] = {}
for _schema in onnx.defs.get_all_schemas_with_history():
    if _schema.domain == "":
        _VERSIONS.setdefault(_schema.name, set()).add(_schema.since_version)

META = torch.device("meta")


def run(op: str, *inputs: torch.Tensor | None, opset: int = 21, outputs: int = 1, **attributes: Any) -> Any:
    return BY_NAME[op].run(inputs, attributes, Context(opset, (True,) * outputs))


def test_each_operator_stands_once() -> None:
    assert len(BY_NAME) == len(OPS)
    assert lookup("Softmax") is BY_NAME["Softmax"]
    assert lookup("NonMaxSuppression") is None


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_declaration_fits_the_specification(op: Any) -> None:
    if op.name not in _VERSIONS:
        pytest.skip(f"the installed onnx {onnx.__version__} is older than {op.name}")
    assert op.since in _VERSIONS[op.name]
    most = max(len(s.inputs) for s in onnx.defs.get_all_schemas_with_history() if s.name == op.name and not s.domain)
    assert all(0 <= i < most for i in op.shape_operands)
    assert op.name in op.source


@pytest.mark.parametrize("op", [o for o in OPS if o.shape_operands], ids=lambda op: op.name)
def test_unknown_shape_operand_says_so(op: Any) -> None:
    """A shape operand without values is "not known yet" (NotImplementedError), never a wrong shape."""
    if op.name in ("Squeeze", "Unsqueeze", "Split") or op.name.startswith("Reduce"):
        inputs: Inputs = (torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64, device=META))
    elif op.name == "OneHot":
        inputs = (torch.zeros(2), torch.zeros(1, dtype=torch.int64, device=META), torch.zeros(2))
    elif op.name == "Dropout":
        inputs = (torch.zeros(2), None, torch.zeros((), dtype=torch.bool, device=META))
    elif op.name == "Range":
        inputs = (torch.zeros((), device=META),) * 3
    elif op.name == "ConstantOfShape":
        inputs = (torch.zeros(2, dtype=torch.int64, device=META),)
    else:
        shape_operand = torch.zeros(1, dtype=torch.int64, device=META)
        inputs = (torch.zeros(2, 2), *[shape_operand] * max(op.shape_operands))
        if op.name == "Pad":
            inputs = (inputs[0], shape_operand)
    with pytest.raises(NotImplementedError, match=op.name):
        op.run(inputs, {}, Context(21))


def test_shape_and_size_are_real_on_meta() -> None:
    x = torch.zeros(2, 3, device=META)
    assert run("Shape", x).tolist() == [2, 3]
    assert run("Shape", x, start=-1).tolist() == [3]
    assert run("Size", x).item() == 6


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("Identity", (), {}),
        ("Reshape", (torch.tensor([6, 4]),), {}),
        ("Transpose", (), {"perm": [2, 0, 1]}),
        ("Squeeze", (), {}),
        ("Unsqueeze", (torch.tensor([0]),), {}),
        ("Expand", (torch.tensor([5, 1, 1, 1]),), {}),
        ("Slice", (torch.tensor([1]), torch.tensor([2]), torch.tensor([1])), {}),
        ("Slice", (torch.tensor([0]), torch.tensor([4]), torch.tensor([2]), torch.tensor([2])), {}),
        ("Flatten", (), {}),
        ("Dropout", (), {}),
        ("Cast", (), {"to": 1}),
    ],
)
def test_moves_of_shape_copy_nothing(op: str, inputs: tuple[torch.Tensor, ...], attributes: dict[str, Any]) -> None:
    x = torch.arange(24.0).reshape(2, 3, 4)
    y = run(op, x, *inputs, **attributes)
    assert y.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


def test_split_gives_views_in_a_tuple() -> None:
    x = torch.arange(10.0)
    (whole,) = run("Split", x)
    parts = run("Split", x, outputs=3, num_outputs=3)
    assert whole.data_ptr() == x.data_ptr()
    assert [p.tolist() for p in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert parts[0].data_ptr() == x.data_ptr()


def test_unwanted_outputs_are_none() -> None:
    x, scale = torch.randn(2, 8), torch.ones(8)
    y, mean, inverse = BY_NAME["LayerNormalization"].run([x, scale], {}, Context(17, (True, False, True)))
    assert y.shape == x.shape
    assert mean is None
    assert inverse.shape == (2, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Softmax", {}),
        ("LogSoftmax", {}),
        ("Gelu", {}),
        ("Gelu", {"approximate": "tanh"}),
        ("Swish", {"alpha": 1.3}),
        ("Sigmoid", {}),
        ("Tanh", {}),
        ("Softplus", {}),
        ("Mish", {}),
        ("Elu", {}),
        ("HardSwish", {}),
        ("ReduceMean", {}),
        ("ReduceL2", {}),
        ("ReduceSumSquare", {}),
        ("ReduceLogSumExp", {}),
    ],
)
def test_half_types_round_once(op: str, attributes: dict[str, Any], dtype: torch.dtype) -> None:
    """Computed in float32 inside, so the result is the float32 result rounded."""
    x = torch.randn(4, 300, generator=torch.Generator().manual_seed(1)).mul(3).to(dtype)
    assert torch.equal(run(op, x, **attributes), run(op, x.float(), **attributes).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", ["LayerNormalization", "RMSNormalization", "InstanceNormalization"])
def test_norms_of_half_types_sum_in_float32(op: str, dtype: torch.dtype) -> None:
    """Squares of 300 leave float16, and a mean of 4096 values near 100 leaves the mantissa of bfloat16."""
    x = (torch.randn(2, 1, 4096, generator=torch.Generator().manual_seed(2)) * 300 + 100).to(dtype)
    one = torch.ones(1 if op == "InstanceNormalization" else 4096)
    inputs = [one] if op == "RMSNormalization" else [one, one * 0]
    found = run(op, x, *[t.to(dtype) for t in inputs], opset=23)
    wanted = run(op, x.double(), *[t.double() for t in inputs], opset=23)
    assert (found.double() - wanted).abs().max() <= 2 * torch.finfo(dtype).eps * wanted.abs().max()


def test_group_norm_scales_groups_before_opset_21() -> None:
    x, scale, bias = torch.randn(2, 6, 5), torch.randn(2), torch.randn(2)
    old = run("GroupNormalization", x, scale, bias, opset=18, num_groups=2)
    spread = [p.repeat_interleave(3) for p in (scale, bias)]
    assert torch.equal(old, run("GroupNormalization", x, *spread, opset=21, num_groups=2))
    with pytest.raises(ShapeError, match="allowed are 6"):
        run("GroupNormalization", x, scale, bias, opset=21, num_groups=2)


def test_unsigned_integers_go_through_a_wider_type() -> None:
    x = torch.tensor([65535, 1, 300]).to(torch.uint16)
    assert run("Add", x, x).tolist() == [65534, 2, 600]
    assert run("Greater", x, torch.tensor(299).to(torch.uint16)).tolist() == [True, False, True]


X = torch.zeros(2, 3, 4)
Q = torch.zeros(1, 2, 3, 8)
WRONG: list[tuple[str, Inputs, dict[str, Any], type[QontextError], str]] = [
    ("Gelu", (X,), {"approximate": "sigmoid"}, UnsupportedOperatorError, "Gelu: attribute 'approximate' is 'sigmoid'"),
    ("Concat", (X, X), {}, UnsupportedOperatorError, "Concat: attribute 'axis' is missing; allowed is an integer"),
    ("Softmax", (X,), {"axis": "last"}, UnsupportedOperatorError, "Softmax: attribute 'axis' is 'last'"),
    ("Softmax", (X,), {"axis": 3}, ShapeError, "allowed is -3 to 2"),
    ("Cast", (X,), {"to": 8}, UnsupportedOperatorError, "Cast: attribute 'to' is 'STRING'; allowed is one of FLOAT"),
    ("Cast", (X,), {"to": 99}, UnsupportedOperatorError, "attribute 'to' is 99"),
    ("ReduceMean", (X,), {"axes": [1]}, UnsupportedOperatorError, "attribute 'axes' is .* at opset 21"),
    (
        "ReduceMean",
        (X,),
        {"keepdims": 2},
        UnsupportedOperatorError,
        "attribute 'keepdims' is 2; allowed is one of 0, 1",
    ),
    ("Transpose", (X,), {"perm": [0, 1, 1]}, ShapeError, "perm is"),
    ("Transpose", (X,), {"perm": 1}, UnsupportedOperatorError, "allowed is a list of integers"),
    ("Reshape", (X, torch.tensor([5, -1])), {}, ShapeError, r"shape \[5, -1\] was asked of the input \[2, 3, 4\]"),
    ("Reshape", (X, torch.tensor([-1, -1])), {}, ShapeError, "at most one -1"),
    ("Reshape", (X, torch.tensor([1, 1, 1, 0])), {}, ShapeError, "copies a size"),
    ("Expand", (X, torch.tensor([2, 4])), {}, ShapeError, "they do not broadcast"),
    ("Squeeze", (X, torch.tensor([1])), {}, ShapeError, "allowed are axes of size 1"),
    ("Split", (X, torch.tensor([1, 2])), {}, ShapeError, "for 1 outputs"),
    ("Slice", (X, torch.tensor([0]), torch.tensor([1, 2])), {}, ShapeError, "lists of one length"),
    ("TopK", (X, torch.tensor([9])), {}, ShapeError, "k is 9; allowed is 0 to 4"),
    ("Pad", (X, torch.tensor([1])), {}, ShapeError, "two for each"),
    ("Pad", (X, torch.zeros(6, dtype=torch.int64)), {"mode": "mirror"}, UnsupportedOperatorError, "'mirror'"),
    ("BatchNormalization", (X,) * 5, {"training_mode": 1}, UnsupportedOperatorError, r"allowed is 0 \(inference\)"),
    ("Dropout", (X, None, torch.tensor(True)), {}, UnsupportedOperatorError, "training_mode is true with ratio 0.5"),
    ("ScatterND", (X, X, X), {"reduction": "mean"}, UnsupportedOperatorError, "none, add, mul, max, min"),
    ("Attention", (Q, Q, Q), {"qk_matmul_output_mode": 4}, UnsupportedOperatorError, "allowed is one of 0, 1, 2, 3"),
    ("Attention", (Q, Q, Q), {"softmax_precision": 6}, UnsupportedOperatorError, "allowed is one of 1, 10, 11, 16"),
    ("Attention", (X, X, X), {"q_num_heads": 3, "kv_num_heads": 1}, UnsupportedOperatorError, "divisor of the hidden"),
    ("Attention", (Q, Q, Q), {"left_window_size": -2}, UnsupportedOperatorError, "left_window_size"),
    ("Attention", (Q, Q, Q, None, Q), {}, ShapeError, "past_key is given, past_value is not"),
    ("Attention", (Q, Q, Q[..., :2, :]), {}, ShapeError, "equal heads and lengths"),
    ("RotaryEmbedding", (Q, X[..., :3], X[..., :3]), {}, ShapeError, "half of the features"),
    ("QuantizeLinear", (X, torch.ones(2)), {"axis": 2}, ShapeError, "allowed are 4"),
    ("DequantizeLinear", (X, torch.ones(2, 3, 2)), {}, UnsupportedOperatorError, "block_size"),
    ("Einsum", (X,), {}, UnsupportedOperatorError, "equation"),
    ("Constant", (), {"value_string": "a"}, UnsupportedOperatorError, "strings and sparse tensors are not held"),
    ("Add", (X,), {}, GraphError, "Add: input 1 is missing"),
    ("Where", (X > 0, None, X), {}, GraphError, "Where: input 1 is missing"),
]


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "error", "words"), WRONG, ids=lambda v: v if isinstance(v, str) else ""
)
def test_what_cannot_run_is_refused_with_a_reason(
    op: str, inputs: Inputs, attributes: dict[str, Any], error: type[QontextError], words: str
) -> None:
    with pytest.raises(error, match=words):
        run(op, *inputs, opset=23, **attributes) if op != "ReduceMean" else run(op, *inputs, **attributes)


def test_axes_input_before_its_opset_is_refused() -> None:
    with pytest.raises(UnsupportedOperatorError, match="before opset 13"):
        run("Squeeze", torch.zeros(1, 2), torch.tensor([0]), opset=11)


def test_check_names_what_cannot_run() -> None:
    assert problem("Clip", 11) is None
    assert problem("Softmax", 13, ["axis"]) is None
    assert problem("NonMaxSuppression", 11) == "NonMaxSuppression is no standard operator that qontext runs"
    assert "opset 6; allowed is opset 11 or later" in str(problem("Clip", 6, ["min", "max"]))
    assert "unknown attributes min; allowed at opset 13 are none" in str(problem("Clip", 13, ["min"]))
    assert "unknown attributes reduction" in str(problem("ScatterND", 13, ["reduction"]))
