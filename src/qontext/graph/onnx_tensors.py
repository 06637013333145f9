"""Do the data of an ONNX tensor fit its shape and data type? Checked before anything is allocated or mapped."""

import math

import onnx

_T = onnx.TensorProto
_NARROW: tuple[int, ...] = (
    _T.INT32, _T.INT16, _T.INT8, _T.UINT16, _T.UINT8, _T.BOOL, _T.FLOAT16, _T.BFLOAT16, _T.FLOAT8E4M3FN,
    _T.FLOAT8E4M3FNUZ, _T.FLOAT8E5M2, _T.FLOAT8E5M2FNUZ, _T.FLOAT8E8M0,
)  # fmt: skip
_BITS: dict[int, int] = {
    _T.FLOAT: 32, _T.DOUBLE: 64, _T.FLOAT16: 16, _T.BFLOAT16: 16, _T.COMPLEX64: 64, _T.COMPLEX128: 128,
    _T.INT64: 64, _T.INT32: 32, _T.INT16: 16, _T.INT8: 8, _T.UINT64: 64, _T.UINT32: 32, _T.UINT16: 16, _T.UINT8: 8,
    _T.BOOL: 8, _T.FLOAT8E4M3FN: 8, _T.FLOAT8E4M3FNUZ: 8, _T.FLOAT8E5M2: 8, _T.FLOAT8E5M2FNUZ: 8, _T.FLOAT8E8M0: 8,
    _T.INT4: 4, _T.UINT4: 4, _T.FLOAT4E2M1: 4, _T.INT2: 2, _T.UINT2: 2,
}  # fmt: skip
# Where values stand that are not in raw_data: the field, and its entries for one element (two for complex numbers).
_FIELD: dict[int, tuple[str, int]] = {
    _T.FLOAT: ("float_data", 1), _T.COMPLEX64: ("float_data", 2), _T.DOUBLE: ("double_data", 1),
    _T.COMPLEX128: ("double_data", 2), _T.INT64: ("int64_data", 1), _T.UINT64: ("uint64_data", 1),
    _T.UINT32: ("uint64_data", 1), _T.STRING: ("string_data", 1),
}  # fmt: skip
_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_MAX_DIM = 1 << 40


def byte_count(tensor: onnx.TensorProto) -> int:
    """Bytes that a tensor of this type and shape holds, several values to a byte where they are that narrow."""
    return (math.prod(tensor.dims) * _BITS[tensor.data_type] + 7) // 8


def is_external(tensor: onnx.TensorProto) -> bool:
    """True when the data stand in another file, or the message says where they would."""
    return tensor.data_location == _T.EXTERNAL or len(tensor.external_data) > 0


def problem_of(tensor: onnx.TensorProto) -> str | None:
    """What is wrong with type, shape or amount of data; None when they fit. External data are not looked at."""
    kind, dims = tensor.data_type, list(tensor.dims)
    if kind not in _BITS and kind != _T.STRING:
        return f"has the unknown data type {kind}"
    named = f"{_T.DataType.Name(kind)}{dims}"
    if any(d < 0 or d > _MAX_DIM for d in dims):
        return f"has the shape {dims}; allowed are sizes from 0 to {_MAX_DIM}"
    if tensor.HasField("segment"):
        return f"is a segment of a {named} tensor, which qontext does not read"
    filled = [f for f in _FIELDS if len(getattr(tensor, f))]
    raw = tensor.HasField("raw_data")
    if is_external(tensor):
        if tensor.data_location != _T.EXTERNAL:
            return "names external data, but does not say that its data are external"
        if kind == _T.STRING:
            return f"is {named} with external data, which ONNX does not allow"
        return "has data in the model and in another file" if filled or raw else None
    if len(filled) + raw > 1:
        return f"holds its data more than once, in {', '.join(filled + ['raw_data'] * raw)}"
    count = math.prod(dims)
    if raw:
        if kind == _T.STRING:
            return f"is {named} with raw data, which ONNX does not allow"
        wanted, found = byte_count(tensor), len(tensor.raw_data)
        return None if wanted == found else f"is {named}, {wanted} bytes, but holds {found} bytes"
    field, each = _FIELD.get(kind, ("int32_data", 1))
    if filled and filled != [field]:
        return f"is {named} with its data in {filled[0]}; allowed is {field}"
    per_entry = 1 if kind in _NARROW or kind in _FIELD else 8 // _BITS[kind]
    wanted, found = -(-count * each // per_entry), len(getattr(tensor, field))
    return None if wanted == found else f"is {named}, {wanted} values in {field}, but holds {found}"
