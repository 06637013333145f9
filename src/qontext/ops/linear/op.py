"""Declaration of Linear: matrix product, bias, activation and residual in one step."""

from collections.abc import Mapping
from typing import Any

from ...dtypes import FLOATS
from ..call import Call, Cost, Operand
from ..declare import Attribute, Op, Param
from ..kernel_checks import element_count, operand_bytes
from .cases import cases
from .cpu import KERNELS as CPU_KERNELS
from .gpu import KERNELS as GPU_KERNELS
from .reference import reference

_WEIGHTS = (*FLOATS, "int8", "int4", "float8_e4m3")
_QUANTISED = ("int8", "int4", "float8_e4m3")
_BODY = {
    "none": "Identity(h)",
    "relu": "Relu(h)",
    "gelu_erf": 'Gelu<approximate="none">(h)',
    "gelu_tanh": 'Gelu<approximate="tanh">(h)',
    "silu": "Mul(h, s)",
}


def _check(inputs: tuple[Operand | None, ...], attributes: Mapping[str, Any]) -> list[str]:
    x, weight, _, _, x_scale, weight_scale, y_scale = inputs
    assert x is not None
    assert weight is not None
    problems = []
    for name, scale in (("x_scale", x_scale), ("y_scale", y_scale)):
        if scale is not None:
            problems.append(f"input {name!r} is given, but {x.dtype} activations take no scale")
    if weight.dtype == "int4":
        problems.append(
            "input 'weight' is int4, which is declared but cannot be computed here; GroupLinear multiplies int4"
        )
    elif weight.dtype in _QUANTISED and weight_scale is None:
        problems.append(f"input 'weight' is {weight.dtype} and needs 'weight_scale' [M]")
    elif weight.dtype not in _QUANTISED and weight_scale is not None:
        problems.append(f"input 'weight_scale' is given, but the weight is {weight.dtype}")
    return problems


def _cost(call: Call) -> Cost:
    weight = call.inputs[1]
    assert weight is not None
    assert weight.shape is not None
    out_features = weight.shape[0]
    assert isinstance(out_features, int)
    tokens_times_k = element_count(call.inputs[0])
    return Cost(operand_bytes(call), 2.0 * tokens_times_k * out_features)


def _body(call: Call) -> str | None:
    weight = call.inputs[1]
    assert weight is not None
    if weight.dtype in _QUANTISED:
        lines = [
            "second = Constant<value_ints=[1]>()",
            "scale = CastLike(weight_scale, x)",
            "columns = Unsqueeze(scale, second)",
            "levels = CastLike(weight, x)",
            "floats = Mul(levels, columns)",
            "w = Transpose<perm=[1, 0]>(floats)",
        ]
    else:
        lines = ["w = Transpose<perm=[1, 0]>(weight)"]
    lines.append("p = MatMul(x, w)")
    lines.append("h = Add(p, bias)" if call.input(2) else "h = Identity(p)")
    activation = call.attributes["activation"]
    if activation == "silu":
        lines.append("s = Sigmoid(h)")
    lines.append(f"a = {_BODY[activation]}")
    lines.append("y = Add(a, residual)" if call.input(3) else "y = Identity(a)")
    return "\n".join(lines)


OP = Op(
    name="Linear",
    doc="y = act(x W^T + bias) + residual: a linear layer with what usually follows it.",
    inputs=(
        Param("x", "... K", doc="activations"),
        Param("weight", "M K", "W", doc="one row an output feature, as torch.nn.Linear holds it"),
        Param("bias", "M", optional=True),
        Param("residual", "... M", optional=True, doc="added after the activation"),
        Param("x_scale", "", "float32", optional=True, doc="of quantised activations: x = x_int8 * x_scale"),
        Param("weight_scale", "M", "float32", optional=True, doc="of quantised weights, one a row: W = weight * scale"),
        Param("y_scale", "", "float32", optional=True, doc="of a quantised result: y = y_int8 * y_scale"),
    ),
    outputs=(Param("y", "... M"),),
    attributes=(Attribute("activation", str, "none", ("none", "relu", "gelu_erf", "gelu_tanh", "silu")),),
    types={"T": FLOATS, "W": _WEIGHTS},
    reference=reference,
    kernels=(*CPU_KERNELS, *GPU_KERNELS),
    cases=cases,
    cost=_cost,
    body=_body,
    token_wise=True,
    check=_check,
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html",
)
