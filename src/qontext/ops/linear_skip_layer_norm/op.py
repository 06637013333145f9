"""Declaration of LinearSkipLayerNorm: the linear layer in front of a residual addition and the norm behind it."""

from ..call import Call, Cost
from ..declare import Attribute, Op, Param
from ..kernel_checks import element_count, last_axis, operand_bytes
from .cases import cases
from .pairs import pairs
from .parts import EARLY, TILES
from .reference import reference


def _cost(call: Call) -> Cost:
    product = 2.0 * element_count(call.inputs[0]) * last_axis(call.inputs[3])
    return Cost(operand_bytes(call), product + 9.0 * element_count(call.inputs[2]))


def _body(call: Call) -> str | None:
    lines = ["w = Transpose<perm=[1, 0]>(weight)", "p = MatMul(x, w)"]
    lines.append("h = Add(p, bias)" if call.input(5) else "h = Identity(p)")
    names = "sum, norm_weight, norm_bias" if call.input(4) else "sum, norm_weight"
    norm = f"y = LayerNormalization<axis=-1, epsilon={call.attributes['epsilon']!r}>({names})"
    return "\n".join([*lines, "sum = Add(h, skip)", norm])


OP = Op(
    name="LinearSkipLayerNorm",
    doc="sum = x W^T + bias + skip; y = LayerNorm(sum): a linear layer, residual addition and normalisation.",
    inputs=(
        Param("x", "... K", doc="activations"),
        Param("weight", "E K", doc="one row an output feature, as torch.nn.Linear holds it"),
        Param("skip", "... E", doc="the residual branch"),
        Param("norm_weight", "E"),
        Param("norm_bias", "E", optional=True, doc="of the normalisation; zeros when absent"),
        Param("bias", "E", optional=True, doc="of the linear layer"),
    ),
    outputs=(
        Param("y", "... E"),
        Param("sum", "... E", optional=True, doc="x W^T + bias + skip, for the next residual branch"),
    ),
    attributes=(Attribute("epsilon", float, 1e-12),),
    reference=reference,
    # As with Linear, kernels that fetch their weights early stand first.
    kernels=(*pairs("cpu"), *EARLY, *pairs("cuda"), *TILES),
    cases=cases,
    cost=_cost,
    body=_body,
    token_wise=True,
    source="https://arxiv.org/abs/1810.04805",
)
