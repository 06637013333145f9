"""One table of data types: names, torch and ONNX equivalents, widths and tolerances.

Integers of 2 and 4 bits are packed in files only. A tensor of them holds one value to a byte, in int8 or uint8, and
what the standard operators compute with is such a tensor; torch has no dtype of that width that every release can
store. Whoever wants packed weights at run time (two values to a byte, low half first) takes a uint8 tensor and says so.

Tolerances are relative RMS errors, ||out - ref|| / ||ref||, against a float64 or float32 reference; they are the
same on every machine. Integer results are exact.
"""

from dataclasses import dataclass

import onnx_ir as ir
import torch


@dataclass(frozen=True)
class DType:
    """One data type: `bits` a value in a file, `torch` the dtype of a tensor, `tolerance` as relative RMS (0 for exact
    types)."""

    name: str
    torch: torch.dtype
    onnx: ir.DataType
    bits: int
    tolerance: float

    @property
    def is_float(self) -> bool:
        return self.tolerance > 0

    def __str__(self) -> str:
        return self.name


_TABLE = (
    DType("float64", torch.float64, ir.DataType.DOUBLE, 64, 1e-12),
    DType("float32", torch.float32, ir.DataType.FLOAT, 32, 1e-5),
    DType("float16", torch.float16, ir.DataType.FLOAT16, 16, 2e-3),
    DType("bfloat16", torch.bfloat16, ir.DataType.BFLOAT16, 16, 1e-2),
    DType("float8_e4m3", torch.float8_e4m3fn, ir.DataType.FLOAT8E4M3FN, 8, 6e-2),
    DType("float8_e5m2", torch.float8_e5m2, ir.DataType.FLOAT8E5M2, 8, 1.2e-1),
    DType("int64", torch.int64, ir.DataType.INT64, 64, 0),
    DType("int32", torch.int32, ir.DataType.INT32, 32, 0),
    DType("int16", torch.int16, ir.DataType.INT16, 16, 0),
    DType("int8", torch.int8, ir.DataType.INT8, 8, 0),
    DType("uint8", torch.uint8, ir.DataType.UINT8, 8, 0),
    DType("int4", torch.int8, ir.DataType.INT4, 4, 0),
    DType("uint4", torch.uint8, ir.DataType.UINT4, 4, 0),
    DType("int2", torch.int8, ir.DataType.INT2, 2, 0),
    DType("uint2", torch.uint8, ir.DataType.UINT2, 2, 0),
    DType("bool", torch.bool, ir.DataType.BOOL, 8, 0),
)

BY_NAME = {d.name: d for d in _TABLE}
_BY_ONNX = {d.onnx: d for d in _TABLE}
_BY_TORCH = {d.torch: d for d in _TABLE if d.bits >= 8}
_SHORT = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "fp64": "float64", "fp8": "float8_e4m3"}

FLOATS = ("float32", "float16", "bfloat16")
INTS = ("int32", "int64")


def by_name(name: str) -> DType:
    """The dtype called `name`; the short names fp32, fp16, bf16, fp64 and fp8 are understood."""
    return BY_NAME[_SHORT.get(name, name)]


def from_torch(dtype: torch.dtype) -> DType:
    """The entry of a torch dtype. Raises KeyError for one that qontext does not hold."""
    return _BY_TORCH[dtype]


def from_onnx(dtype: ir.DataType) -> DType:
    """The entry of an ONNX data type. Raises KeyError for one that qontext does not hold."""
    return _BY_ONNX[dtype]


def relative_rms(out: torch.Tensor, ref: torch.Tensor) -> float:
    """||out - ref|| / ||ref|| in float64; infinite when `out` holds a NaN or Inf that `ref` does not.

    Equal infinities at the same places are allowed and left out of the sum. Computed where both lie, else on the host.
    """
    place = out.device if out.device == ref.device else torch.device("cpu")
    o, r = out.detach().double().to(place), ref.detach().double().to(place)
    if o.shape != r.shape:
        return float("inf")
    keep = ~(torch.isinf(r) & (o == r))
    o, r = o[keep], r[keep]
    if not bool(torch.isfinite(o).all()):
        return float("inf")
    if r.numel() == 0:
        return 0.0
    return float((o - r).norm() / r.norm().clamp_min(1e-30))
