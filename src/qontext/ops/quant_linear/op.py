"""Declaration of QuantLinear: a linear layer whose product is one of numbers of eight bits."""

from collections.abc import Mapping
from typing import Any

from ...dtypes import FLOATS
from ..call import Call, Cost, Operand
from ..declare import Attribute, Op, Param
from ..eight_bits import KINDS, NONE, wanted_problems
from ..kernel_checks import element_count, operand_bytes
from .body import body
from .cases import cases
from .cpu import KERNELS as CPU_KERNELS
from .gpu import KERNELS as GPU_KERNELS
from .reference import reference


def _check(inputs: tuple[Operand | None, ...], attributes: Mapping[str, Any]) -> list[str]:
    x, weight, _, bias, residual, scale, zero, factor, row_scale, row_zero, y_scale, y_zero, y_factor = inputs
    assert x is not None and weight is not None
    kind, in_bits, problems = weight.dtype, x.dtype in KINDS, []
    if kind == "int8" and (scale is None) != (zero is None):
        given, missing = ("x_scale", "x_zero") if zero is None else ("x_zero", "x_scale")
        problems.append(f"input {given!r} is given without {missing!r}; give both, or none for a scale of every row")
    if kind != "int8" and (zero is not None or row_zero is not None):
        problems.append(f"a zero of x is given, but {kind} holds 0 itself")
    for name, given_scale in (("row_scale", row_scale), ("row_zero", row_zero)):
        if given_scale is not None and not in_bits:
            problems.append(f"input {name!r} is given, but x is {x.dtype}: the operator finds the scales of its rows")
    if in_bits:
        if x.dtype != kind:
            problems.append(f"input 'x' is {x.dtype} and the weight {kind}; what is multiplied has one type")
        if (scale is None) == (row_scale is None):
            problems.append(f"input 'x' is {x.dtype} and needs one of 'x_scale' and 'row_scale'")
        elif kind == "int8" and row_scale is not None and row_zero is None:
            problems.append("input 'row_scale' is given without 'row_zero'")
        if factor is not None:
            problems.append("input 'x_factor' is given, but x is in eight bits already")
        if bias is None and residual is None and y_scale is None:
            problems.append("nothing says the type of y: give a bias (zeros will do)")
    elif bias is not None and bias.dtype != x.dtype:
        problems.append(f"input 'bias' is {bias.dtype} and x {x.dtype}")
    return problems + wanted_problems(kind if y_scale else NONE, y_scale, y_zero, y_factor)


def _infer(inputs: tuple[Operand | None, ...], attributes: Mapping[str, Any]) -> tuple[Operand | None, ...]:
    x, weight, bias, residual = inputs[0], inputs[1], inputs[3], inputs[4]
    assert x is not None and weight is not None
    features = None if weight.shape is None else weight.shape[0]
    shape = None if x.shape is None else (*x.shape[:-1], features)
    floats = next(o.dtype for o in (bias, residual, x) if o is not None)
    return (Operand(weight.dtype if inputs[10] is not None else floats, shape),)


def _cost(call: Call) -> Cost:
    weight = call.inputs[1]
    assert weight is not None
    assert weight.shape is not None
    features = weight.shape[0]
    assert isinstance(features, int)
    return Cost(operand_bytes(call), 2.0 * element_count(call.inputs[0]) * features)


OP = Op(
    name="QuantLinear",
    doc="y = act(q(x) W^T + bias) + residual: a linear layer that multiplies numbers of eight bits. int8 holds bytes "
    "less 128, which are summed exactly; float8_e4m3 is summed in float32.",
    inputs=(
        Param("x", "... K", "X", doc="activations; floats are turned into eight bits by the operator"),
        Param("weight", "M K", "W", doc="one row an output feature"),
        Param("weight_scale", "M", "float32", doc="W = weight * weight_scale, row by row"),
        Param("bias", "M", optional=True),
        Param("residual", "... M", optional=True, doc="added after the activation"),
        Param(
            "x_scale",
            "",
            "float32",
            optional=True,
            doc="x = (byte - x_zero) * x_scale, or x = held * x_scale in float8_e4m3; without it each row has its own",
        ),
        Param("x_zero", "", "uint8", optional=True, doc="the byte that stands for 0"),
        Param("x_factor", "K", "float32", optional=True, doc="x is multiplied by it before it becomes eight bits"),
        Param("row_scale", "...", "float32", optional=True, doc="of every row of an x in eight bits"),
        Param("row_zero", "...", "float32", optional=True, doc="of every row of an x in int8"),
        Param("y_scale", "", "float32", optional=True, doc="y is wanted in eight bits, with this scale"),
        Param("y_zero", "", "uint8", optional=True, doc="the byte that stands for 0 in y in int8"),
        Param("y_factor", "M", "float32", optional=True, doc="y is multiplied by it before it becomes eight bits"),
    ),
    outputs=(Param("y", "... M", "|".join((*FLOATS, *KINDS))),),
    attributes=(Attribute("activation", str, "none", ("none", "relu", "gelu_erf", "gelu_tanh", "silu")),),
    types={"T": FLOATS, "X": (*FLOATS, *KINDS), "W": KINDS},
    reference=reference,
    kernels=(*CPU_KERNELS, *GPU_KERNELS),
    cases=cases,
    infer=_infer,
    cost=_cost,
    body=body,
    token_wise=True,
    check=_check,
    source="https://arxiv.org/abs/2206.01861",
)
