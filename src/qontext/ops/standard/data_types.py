"""The torch dtype in which values of an ONNX data type are held, and the dtype in which they are computed."""

import onnx_ir as ir
import torch

from .attributes import refusal

# torch has no arithmetic on 2- and 4-bit integers: they are held one to a byte.
NARROW = {
    ir.DataType.INT4: (torch.int8, -8, 7),
    ir.DataType.UINT4: (torch.uint8, 0, 15),
    ir.DataType.INT2: (torch.int8, -2, 1),
    ir.DataType.UINT2: (torch.uint8, 0, 3),
}

_HELD = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.FLOAT8E4M3FN: torch.float8_e4m3fn,
    ir.DataType.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    ir.DataType.FLOAT8E5M2: torch.float8_e5m2,
    ir.DataType.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.UINT16: torch.uint16,
    ir.DataType.UINT32: torch.uint32,
    ir.DataType.UINT64: torch.uint64,
    ir.DataType.BOOL: torch.bool,
} | {kind: held for kind, (held, _, _) in NARROW.items()}

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz)
# torch computes next to nothing on these; the wider type holds all their values. (None does for uint64.)
UNSIGNED = {torch.uint16: torch.int32, torch.uint32: torch.int64}
HALVES = (torch.float16, torch.bfloat16)


def data_type(op: str, name: str, code: int) -> ir.DataType:
    """The ONNX data type of an attribute such as `to`. Raises UnsupportedOperatorError for one that is not held."""
    try:
        kind = ir.DataType(code)
    except ValueError:
        kind = ir.DataType.UNDEFINED
    if kind not in _HELD:
        known = ", ".join(f"{k.name} ({k.value})" for k in _HELD)
        raise refusal(op, name, kind.name if kind else code, f"one of {known}")
    return kind


def held_as(op: str, name: str, code: int) -> torch.dtype:
    """The torch dtype of the ONNX data type `code`, the value of attribute `name`."""
    return _HELD[data_type(op, name, code)]


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums, norms and exponentials of `dtype` are computed: float32 for half types."""
    return torch.float32 if dtype in HALVES else dtype
