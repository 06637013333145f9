"""Quick checks of tensor arguments: each wrapper states what it needs, in a few comparisons."""

import torch

from qontext.errors import ArgumentError, DTypeError, InputError, ShapeError

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
INDEX_BYTES = {torch.int64: 8, torch.int32: 4}


def dtype_code(name: str, x: torch.Tensor) -> int:
    """The code of a float dtype. Raises DTypeError."""
    code = DTYPES.get(x.dtype)
    if code is None:
        raise DTypeError(f"{name} is {x.dtype}; the CPU kernels take float32, bfloat16 and float16")
    return code


def index_bytes(name: str, x: torch.Tensor) -> int:
    """Bytes of an index tensor's values; it must be contiguous. Raises DTypeError or ArgumentError."""
    size = INDEX_BYTES.get(x.dtype)
    if size is None:
        raise DTypeError(f"{name} is {x.dtype}; an index is int64 or int32")
    on_cpu(name, x)
    contiguous(name, x)
    return size


def on_cpu(name: str, x: torch.Tensor) -> None:
    if x.device.type != "cpu":
        raise ArgumentError(f"{name} lies on {x.device}; this kernel reads memory of the CPU")


def contiguous(name: str, x: torch.Tensor) -> None:
    if not x.is_contiguous():
        raise ArgumentError(f"{name} of shape {tuple(x.shape)} has strides {x.stride()}; it must be contiguous")


def same_dtype(name: str, x: torch.Tensor, wanted: torch.dtype) -> None:
    if x.dtype != wanted:
        raise DTypeError(f"{name} is {x.dtype}, wanted {wanted}")


def has_shape(name: str, x: torch.Tensor, wanted: tuple[int, ...]) -> None:
    if tuple(x.shape) != wanted:
        raise ShapeError(f"{name} has shape {tuple(x.shape)}, wanted {wanted}")


def as_rows(name: str, x: torch.Tensor) -> tuple[int, int, int]:
    """(rows, size, stride in elements) of `[..., size]` whose leading axes lie evenly. Raises ArgumentError."""
    on_cpu(name, x)
    shape, strides = x.shape, x.stride()
    if not shape:
        raise ShapeError(f"{name} is a scalar; wanted [..., size]")
    size = shape[-1]
    if x.is_contiguous():
        return (x.numel() // size if size else 0), size, size
    if strides[-1] != 1 and size > 1:
        raise ArgumentError(f"{name} has strides {strides}; its last axis must be contiguous")
    rows, step, expected = 1, 0, None
    for length, stride in zip(reversed(shape[:-1]), reversed(strides[:-1]), strict=True):
        if length == 1:
            continue
        if expected is None:
            step = stride
        elif stride != expected:
            raise ArgumentError(
                f"{name} of shape {tuple(shape)} has strides {strides}; its leading axes must lie evenly"
            )
        expected = stride * length
        rows *= length
    return (0 if x.numel() == 0 else rows), size, step or size


def counts_fit(name: str, counts: torch.Tensor, most: int | None) -> None:
    """Counts of positions `[B]` on the CPU lie between 0 and `most` (None: no bound). Raises InputError."""
    if not counts.numel():
        return
    wrong = counts < 0
    if most is not None:
        wrong |= counts > most
    if wrong.any():
        sequence = int(wrong.nonzero()[0])
        allowed = "0 or more are allowed" if most is None else f"0 to {most} are allowed, which is its length"
        others = int(wrong.sum()) - 1
        raise InputError(
            f"{name} of sequence {sequence} is {int(counts[sequence])}; {allowed}"
            + (f" ({others} more of the {counts.numel()} sequences are wrong)" if others else "")
        )
