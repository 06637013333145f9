"""GroupLinear in standard ONNX operators."""

from ..call import Call
from ..quant_linear.body import ACTIVATIONS


def body(call: Call) -> str | None:
    """The function body."""
    lines = [
        "mask = Constant<value = uint8 {15}>()",
        "bits = Constant<value = uint8 {4}>()",
        "low = BitwiseAnd(weight, mask)",
        'high = BitShift<direction="RIGHT">(weight, bits)',
        "last = Constant<value_ints=[-1]>()",
        "lows = Unsqueeze(low, last)",
        "highs = Unsqueeze(high, last)",
        "both = Concat<axis=2>(lows, highs)",
        "sizes = Shape(weight_scale)",
        "grouped = Concat<axis=0>(sizes, last)",
        "values = Reshape(both, grouped)",
        "wide = Cast<to=1>(values)",
        "zeros = Unsqueeze(weight_zero, last)",
        "wide_zeros = Cast<to=1>(zeros)",
        "moved = Sub(wide, wide_zeros)",
        "scales = Unsqueeze(weight_scale, last)",
        "scaled = Mul(moved, scales)",
        "keep_rows = Constant<value_ints=[0, -1]>()",
        "rows = Reshape(scaled, keep_rows)",
        "like_x = CastLike(rows, x)",
        "w = Transpose<perm=[1, 0]>(like_x)",
        "p = MatMul(x, w)",
        "h = Add(p, bias)" if call.input(4) else "h = Identity(p)",
        *ACTIVATIONS[call.attributes["activation"]],
        "y = Add(a, residual)" if call.input(5) else "y = Identity(a)",
    ]
    return "\n".join(lines)
