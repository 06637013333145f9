"""QuantLinear in standard ONNX operators."""

from ..call import Call

ACTIVATIONS = {
    "none": ("a = Identity(h)",),
    "relu": ("a = Relu(h)",),
    "gelu_erf": ('a = Gelu<approximate="none">(h)',),
    "gelu_tanh": ('a = Gelu<approximate="tanh">(h)',),
    "silu": ("s = Sigmoid(h)", "a = Mul(h, s)"),
}
_WIDE = {
    False: ("wide = Cast<to=1>(x)",),
    True: ("in_floats = Cast<to=1>(x)", "wide = Mul(in_floats, x_factor)"),
}
_GIVEN = (
    "scale = Identity(x_scale)",
    "inverse = Reciprocal(x_scale)",
    "zero = Cast<to=1>(x_zero)",
)
_FOUND = (
    "axis = Constant<value_ints=[-1]>()",
    "one = Constant<value_float=1.0>()",
    "least_range = Constant<value_float=1e-30>()",
    "lowest = ReduceMin<keepdims=1>(wide, axis)",
    "highest = ReduceMax<keepdims=1>(wide, axis)",
    "low = Min(lowest, none)",
    "high = Max(highest, none)",
    "span = Sub(high, low)",
    "empty = Less(span, least_range)",
    "divisor = Where(empty, one, span)",
    "quotient = Div(most, divisor)",
    "inverse = Where(empty, none, quotient)",
    "step = Div(span, most)",
    "scale = Where(empty, one, step)",
    "down = Neg(low)",
    "moved = Mul(down, inverse)",
    "zero = Round(moved)",
)


def body(call: Call) -> str | None:
    """The function body: integers are summed exactly, and rounded to float32 beyond 2^24.

    None for operands of eight bits other than an int8 weight: no standard operator multiplies them.
    """
    x, weight = call.inputs[:2]
    if weight is None or weight.dtype != "int8" or x is None or x.dtype == "int8" or call.input(10) is not None:
        return None
    lines = [
        *_WIDE[call.input(7) is not None],
        "none = Constant<value_float=0.0>()",
        "most = Constant<value_float=255.0>()",
        *(_FOUND if call.input(5) is None else _GIVEN),
        "units = Mul(wide, inverse)",
        "whole = Round(units)",
        "placed = Add(whole, zero)",
        "cut = Clip(placed, none, most)",
        "bytes = Cast<to=2>(cut)",
        "w = Transpose<perm=[1, 0]>(weight)",
        "products = MatMulInteger(bytes, w)",
        "wide_products = Cast<to=1>(products)",
        "features = Cast<to=1>(weight)",
        "last = Constant<value_ints=[1]>()",
        "columns = ReduceSum<keepdims=0>(features, last)",
        "shift = Mul(zero, columns)",
        "sums = Sub(wide_products, shift)",
        "rows = Mul(sums, scale)",
        "scaled = Mul(rows, weight_scale)",
        "p = CastLike(scaled, x)",
        "h = Add(p, bias)" if call.input(3) else "h = Identity(p)",
        *ACTIVATIONS[call.attributes["activation"]],
        "y = Add(a, residual)" if call.input(4) else "y = Identity(a)",
    ]
    return "\n".join(lines)
