"""The ONNX function body of EmbedLayerNorm."""

from ..call import Call


def _positions(call: Call) -> list[str]:
    """Statements that define `places`, the ids looked up in the position table."""
    if call.input(2) is not None:
        return ["places = Identity(position_ids)"]
    padding, offset = call.attributes["padding_idx"], call.attributes["position_offset"]
    if padding >= 0:
        return [
            "wide_ids = Cast<to=7>(input_ids)",
            f"padding = Constant<value_int={padding}>()",
            "is_padding = Equal(wide_ids, padding)",
            "not_padding = Not(is_padding)",
            "real = Cast<to=7>(not_padding)",
            "last_axis = Constant<value_int=-1>()",
            "counted = CumSum(real, last_axis)",
            "kept = Mul(counted, real)",
            "places = Add(kept, padding)",
        ]
    return [
        "length_1d = Shape<start=-1>(input_ids)",
        "length = Squeeze(length_1d)",
        f"first = Constant<value_int={offset}>()",
        "limit = Add(first, length)",
        "step = Constant<value_int=1>()",
        "places = Range(first, limit, step)",
    ]


def body(call: Call) -> str | None:
    """Gather, Add and LayerNormalization; the positions as the attributes say."""
    lines = ["words = Gather<axis=0>(word_embedding, input_ids)"]
    if call.input(3) is None:
        lines.append("placed = Identity(words)")
    else:
        lines += [
            *_positions(call),
            "places_rows = Gather<axis=0>(position_embedding, places)",
            "placed = Add(words, places_rows)",
        ]
    if call.input(5) is None:
        lines.append("sum = Identity(placed)")
    elif call.input(4) is not None:
        lines += ["kinds = Gather<axis=0>(token_type_embedding, token_type_ids)", "sum = Add(placed, kinds)"]
    else:
        lines += [
            "row_0 = Constant<value_int=0>()",
            "kind = Gather<axis=0>(token_type_embedding, row_0)",
            "sum = Add(placed, kind)",
        ]
    epsilon = call.attributes["epsilon"]
    lines.append(f"y = LayerNormalization<axis=-1, epsilon={epsilon!r}>(sum, weight, bias)")
    if call.input(8) is not None:
        lines += [
            "is_valid = Cast<to=9>(attention_mask)",
            "valid = Cast<to=6>(is_valid)",
            "last = Constant<value_ints=[-1]>()",
            "lengths = ReduceSum<keepdims=0>(valid, last)",
        ]
    return "\n".join(lines)
