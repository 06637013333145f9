"""The ONNX function body of RotaryEmbedding."""

from ..call import Call
from .reference import FLAT_LAYOUTS

_END = 9223372036854775807


def _split(pairing: str, pairs: int) -> list[str]:
    """Statements that cut heads into a, b and rest."""
    cuts = {"half": ((0, pairs, 1), (pairs, 2 * pairs, 1)), "interleaved": ((0, 2 * pairs, 2), (1, 2 * pairs, 2))}
    lines = ["last = Constant<value_ints=[-1]>()"]
    for name, (start, end, step) in zip("ab", cuts[pairing], strict=True):
        lines += [
            f"{name}_start = Constant<value_ints=[{start}]>()",
            f"{name}_end = Constant<value_ints=[{end}]>()",
            f"{name}_step = Constant<value_ints=[{step}]>()",
            f"{name} = Slice(heads, {name}_start, {name}_end, last, {name}_step)",
        ]
    lines += [
        f"rest_start = Constant<value_ints=[{2 * pairs}]>()",
        f"rest_end = Constant<value_ints=[{_END}]>()",
        "rest = Slice(heads, rest_start, rest_end, last)",
    ]
    return lines


def _join(pairing: str) -> list[str]:
    """Statements that put the turned pairs where they came from."""
    if pairing == "half":
        return ["turned = Concat<axis=-1>(turned_a, turned_b)"]
    return [
        "column_a = Unsqueeze(turned_a, last)",
        "column_b = Unsqueeze(turned_b, last)",
        "columns = Concat<axis=-1>(column_a, column_b)",
        "turned_shape = Shape(turned_a)",
        "twice = Constant<value_ints=[2]>()",
        "leading = Slice(turned_shape, zero, last)",
        "pair_count = Slice(turned_shape, last, rest_end)",
        "turned_width = Mul(pair_count, twice)",
        "wide_shape = Concat<axis=0>(leading, turned_width)",
        "turned = Reshape(columns, wide_shape)",
    ]


def body(call: Call) -> str | None:
    """Slices, products and Concat; None when the number of pairs is no number."""
    cos = call.inputs[1]
    assert cos is not None
    pairs = cos.shape[-1] if cos.shape else None
    if not isinstance(pairs, int):
        return None
    layout, pairing, heads = (call.attributes[n] for n in ("layout", "pairing", "num_heads"))
    lines = ["zero = Constant<value_ints=[0]>()"]
    for name in ("cos", "sin"):
        found = f"{name}_rows = Identity({name})"
        if call.input(3) is not None:
            found = f"{name}_rows = Gather<axis=0>({name}, position_ids)"
        order = "Transpose<perm=[1, 0, 2]>" if layout.startswith("S B") else "Identity"
        lines += [found, f"{name}_tokens = {order}({name}_rows)"]
    # The head axis that one angle a token is spread over: the second in "B N S D", else the last but one.
    lines.append(f"head_axis = Constant<value_ints=[{1 if layout == 'B N S D' else -2}]>()")
    lines += [f"{name}_of_heads = Unsqueeze({name}_tokens, head_axis)" for name in ("cos", "sin")]
    lines.append("shape = Shape(x)")
    if layout in FLAT_LAYOUTS:
        kept = "0" if layout.startswith("T") else "0, 0"
        lines += [f"by_head = Constant<value_ints=[{kept}, {heads}, -1]>()", "heads = Reshape(x, by_head)"]
    else:
        lines.append("heads = Identity(x)")
    lines += _split(pairing, pairs)
    lines += [
        "a_cos = Mul(a, cos_of_heads)",
        "b_sin = Mul(b, sin_of_heads)",
        "turned_a = Sub(a_cos, b_sin)",
        "b_cos = Mul(b, cos_of_heads)",
        "a_sin = Mul(a, sin_of_heads)",
        "turned_b = Add(b_cos, a_sin)",
        *_join(pairing),
        "whole = Concat<axis=-1>(turned, rest)",
        "y = Reshape(whole, shape)",
    ]
    return "\n".join(lines)
