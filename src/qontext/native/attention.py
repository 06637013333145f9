"""Multi-head attention on the CPU: padded or packed, with every mask kind, straight out of a fused projection."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from qontext.errors import ArgumentError, DTypeError, InputError, ShapeError
from qontext.native.checks import contiguous, counts_fit, dtype_code, has_shape, on_cpu, same_dtype
from qontext.native.library import functions

_ATTENTION = struct.Struct("=49qdd")
_EMPTY_ROW = {"zeros": 0, "uniform": 1}
_BAD_COUNTS = 3
_PROBLEMS = {
    2: "cu_seqlens must start at 0 or above, never fall, and end within the tensor",
    _BAD_COUNTS: "kv_counts must lie between 0 and the key length, prefix at 0 or above",
    4: "bias or mask has fewer rows or columns than the longest sequence",
}
MAX_HEAD_SIZE = 256

# Where q, k and v of head 0 stand in a row of a fused projection of n heads, and how far heads are apart, in units of
# the head size.
_FUSED = {"three N D": (lambda n: (0, n, 2 * n), 1), "N three D": (lambda _: (0, 1, 2), 3)}


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    out: torch.Tensor,
    scale: float | None = None,
    cu_seqlens_q: torch.Tensor | None = None,
    cu_seqlens_k: torch.Tensor | None = None,
    kv_counts: torch.Tensor | None = None,
    causal: bool = False,
    offset: int | None = None,
    window: tuple[int, int] = (-1, -1),
    prefix: torch.Tensor | None = None,
    softcap: float = 0.0,
    bias: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    empty_row: Literal["zeros", "uniform"] = "zeros",
) -> torch.Tensor:
    """out = softmax(softcap(q k^T * scale) + bias, masked) v for every head; sums and softmax in fp32.

    Padded: q `[B, S, N, D]`, k `[B, Skv, Nkv, D]`, v `[B, Skv, Nkv, Dv]`, out `[B, S, N, Dv]`. Packed, with
    `cu_seqlens_q` and `cu_seqlens_k` int32 `[B + 1]`: `[T, N, D]` and so on. All may be views with any strides as long
    as the last axis is contiguous. N is a multiple of Nkv: N / Nkv neighbouring query heads share a key head. D and Dv
    are at most 256.

    Query i of a sequence stands at key position i + offset; the default offset is (valid keys - queries), so the last
    query meets the last key. `causal` hides later keys, `window` (left, right) keys farther away than that (-1: no
    limit), and `prefix` int32 `[B]` shows the first keys of a sequence to every query in spite of `causal`. `kv_counts`
    int32 `[B]` says how many keys are valid. `bias` (float, may hold -inf) and `mask` (bool or uint8, nonzero is
    visible) are `[B or 1, N or 1, S or 1, Skv or 1]`, indexed within the sequence when packed. A query without a
    visible key gives zeros, or with `empty_row="uniform"` the mean of its values. `scale` is 1 / sqrt(D) by default.

    Raises ShapeError, DTypeError, InputError (boundaries or counts), ArgumentError, DeviceError.
    """
    same_dtype("out", out, q.dtype)
    operands = operands_of(q, k, v, out, cu_seqlens_q, cu_seqlens_k)
    run(
        functions().qx_attention, operands, dtype_code("q", q), scale, cu_seqlens_q, cu_seqlens_k, kv_counts,
        causal, offset, window, prefix, softcap, bias, mask, empty_row,
    )  # fmt: skip
    return out


@dataclass(frozen=True)
class Operands:
    """Addresses of q, k, v and out, their strides of batch, token and head, and the sizes of the call."""

    pointers: tuple[int, int, int, int]
    strides: list[int]
    sizes: tuple[int, ...]


def operands_of(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    cu_seqlens_q: torch.Tensor | None,
    cu_seqlens_k: torch.Tensor | None,
) -> Operands:
    """The operands as the library reads them; those of `attention`, out of any dtype. Raises as `attention` does."""
    packed = cu_seqlens_q is not None
    if packed != (cu_seqlens_k is not None):
        raise ArgumentError("attention got only one of cu_seqlens_q and cu_seqlens_k; a packed call needs both")
    axes = 3 if packed else 4
    for name, t in (("q", q), ("k", k), ("v", v), ("out", out)):
        if t.dim() != axes:
            wanted = "[T, heads, head size]" if packed else "[B, S, heads, head size]"
            raise ShapeError(f"{name} has shape {tuple(t.shape)}; wanted {wanted}")
        on_cpu(name, t)
        if t.stride(-1) != 1 and t.shape[-1] > 1:
            raise ArgumentError(f"{name} has strides {t.stride()}; its last axis must be contiguous")
        if name in ("k", "v"):
            same_dtype(name, t, q.dtype)
    heads, size = q.shape[-2:]
    kv_heads, value_size = v.shape[-2:]
    has_shape("k", k, (*v.shape[:-1], size))
    has_shape("out", out, (*q.shape[:-1], value_size))
    if not packed and q.shape[0] != k.shape[0]:
        raise ShapeError(f"q has batch {q.shape[0]}, k and v have {k.shape[0]}")
    strides = []
    for t in (q, k, v, out):
        strides += ([0] if packed else []) + list(t.stride()[:-1])
    batch = len(cu_seqlens_q) - 1 if cu_seqlens_q is not None else q.shape[0]
    pointers = (q.data_ptr(), k.data_ptr(), v.data_ptr(), out.data_ptr())
    return Operands(pointers, strides, (batch, heads, kv_heads, size, value_size, q.shape[-3], k.shape[-3]))


def attention_fused(
    qkv: torch.Tensor,
    layout: str,
    num_heads: int,
    *,
    out: torch.Tensor,
    scale: float | None = None,
    cu_seqlens: torch.Tensor | None = None,
    kv_counts: torch.Tensor | None = None,
    causal: bool = False,
    offset: int | None = None,
    window: tuple[int, int] = (-1, -1),
    prefix: torch.Tensor | None = None,
    softcap: float = 0.0,
    bias: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    empty_row: Literal["zeros", "uniform"] = "zeros",
) -> torch.Tensor:
    """Self attention from a fused projection, without making views of its parts.

    `layout` is one of `B S`, `S B`, `T` followed by `(three N D)` or `(N three D)`: qkv is `[B, S, 3E]`, `[S, B, 3E]`
    or `[T, 3E]` (further axes of length 1 are allowed), out the same with E; both contiguous. `T` needs `cu_seqlens`.
    The other arguments and errors are those of `attention`.
    """
    leading, _, inner = layout.partition(" (")
    order = _FUSED.get(inner.removesuffix(")"))
    if order is None or leading not in ("B S", "S B", "T"):
        raise ArgumentError(
            f"unknown layout {layout!r}; known are 'B S', 'S B' or 'T' with '(three N D)' or '(N three D)'"
        )
    packed = leading == "T"
    if packed != (cu_seqlens is not None):
        raise ArgumentError(f"layout {layout!r} {'needs' if packed else 'does not take'} cu_seqlens")
    axes = 2 if packed else 3
    if qkv.dim() < axes or any(length != 1 for length in qkv.shape[axes:]):
        raise ShapeError(f"qkv has shape {tuple(qkv.shape)}; layout {layout!r} has {axes} axes")
    width = qkv.shape[axes - 1]
    hidden = width // 3
    if width % 3 or num_heads <= 0 or hidden % num_heads:
        raise ShapeError(f"qkv has {width} columns, which is not 3 x {num_heads} heads x a head size")
    for name, t in (("qkv", qkv), ("out", out)):
        on_cpu(name, t)
        contiguous(name, t)
    same_dtype("out", out, qkv.dtype)
    if out.shape[: axes - 1] != qkv.shape[: axes - 1] or out.numel() * 3 != qkv.numel():
        raise ShapeError(f"out has shape {tuple(out.shape)}, wanted {(*qkv.shape[: axes - 1], hidden)}")
    size = hidden // num_heads
    first, apart = order[0](num_heads), order[1]
    tokens = qkv.shape[0] if leading != "B S" else qkv.shape[1]
    others = 1 if packed else qkv.shape[1] if leading == "S B" else qkv.shape[0]
    if packed:
        in_batch, in_token, out_batch, out_token = 0, width, 0, hidden
    elif leading == "B S":
        in_batch, in_token, out_batch, out_token = tokens * width, width, tokens * hidden, hidden
    else:
        in_batch, in_token, out_batch, out_token = width, others * width, hidden, others * hidden
    base, step = qkv.data_ptr(), size * qkv.element_size()
    pointers = (base + first[0] * step, base + first[1] * step, base + first[2] * step, out.data_ptr())
    strides = [in_batch, in_token, apart * size] * 3 + [out_batch, out_token, size]
    batch = len(cu_seqlens) - 1 if cu_seqlens is not None else others
    sizes = (batch, num_heads, num_heads, size, size, tokens, tokens)
    run(
        functions().qx_attention, Operands(pointers, strides, sizes), dtype_code("qkv", qkv), scale, cu_seqlens,
        cu_seqlens, kv_counts,
        causal, offset, window, prefix, softcap, bias, mask, empty_row,
    )  # fmt: skip
    return out


def _vector(name: str, t: torch.Tensor | None, length: int) -> int:
    """The address of an int32 vector of that length, 0 for None."""
    if t is None:
        return 0
    if t.dtype != torch.int32:
        raise DTypeError(f"{name} is {t.dtype}, wanted torch.int32")
    on_cpu(name, t)
    has_shape(name, t, (length,))
    contiguous(name, t)
    return t.data_ptr()


_NO_FIELD = (0, 0, 0, 0, 0, 0, 0)


def _field(name: str, t: torch.Tensor | None, batch: int, heads: int, rows: int, columns: int) -> tuple[int, ...]:
    """(address, four strides, rows, columns) of a bias or mask. Axes of length 1 get stride 0; a size 0 allows any."""
    if t is None:
        return _NO_FIELD
    on_cpu(name, t)
    if t.dim() != 4:
        raise ShapeError(f"{name} has shape {tuple(t.shape)}; wanted [B or 1, N or 1, S or 1, Skv or 1]")
    for got, wanted in zip(t.shape, (batch, heads, rows, columns), strict=True):
        if got not in (1, wanted) and wanted:
            raise ShapeError(
                f"{name} has shape {tuple(t.shape)}; wanted {(batch, heads, rows, columns)} with 1 allowed on each axis"
            )
    strides = [0 if length == 1 else step for length, step in zip(t.shape, t.stride(), strict=True)]
    return (t.data_ptr(), *strides, t.shape[2], t.shape[3])


def run(
    kernel: Callable[[bytes, int], int],
    operands: Operands,
    dtype: int,
    scale: float | None,
    cu_q: torch.Tensor | None,
    cu_k: torch.Tensor | None,
    kv_counts: torch.Tensor | None,
    causal: bool,
    offset: int | None,
    window: tuple[int, int],
    prefix: torch.Tensor | None,
    softcap: float,
    bias: torch.Tensor | None,
    mask: torch.Tensor | None,
    empty_row: str,
    rest: bytes = b"",
) -> None:
    """Checks what `attention` and its relatives have in common, and calls a kernel of the library.

    Args:
        kernel: takes the block of the arguments and the number of threads.
        dtype: the code of q, k and v.
        rest: what follows the arguments of attention in the kernel's block.
    """
    batch, heads, kv_heads, size, value_size, q_len, kv_len = operands.sizes
    if kv_heads == 0 or heads % kv_heads:
        raise ShapeError(f"{heads} query heads are not a multiple of {kv_heads} key heads")
    if not (1 <= size <= MAX_HEAD_SIZE and 1 <= value_size <= MAX_HEAD_SIZE):
        raise ShapeError(f"head sizes {size} and {value_size}; allowed are 1 to {MAX_HEAD_SIZE}")
    if empty_row not in _EMPTY_ROW:
        raise ArgumentError(f"empty_row is {empty_row!r}; allowed are zeros and uniform")
    if prefix is not None and not causal:
        raise ArgumentError("a prefix is what causal attention leaves visible; without causal=True there is none")
    rows, columns = (0, 0) if cu_q is not None else (q_len, kv_len)
    if mask is not None and mask.dtype not in (torch.bool, torch.uint8):
        raise DTypeError(f"mask is {mask.dtype}; wanted torch.bool or torch.uint8")
    bias_field = _field("bias", bias, batch, heads, rows, columns)
    block = _ATTENTION.pack(
        *operands.pointers,
        dtype,
        *operands.strides,
        *operands.sizes,
        _vector("cu_seqlens_q", cu_q, batch + 1),
        _vector("cu_seqlens_k", cu_k, batch + 1),
        _vector("kv_counts", kv_counts, batch),
        _vector("prefix", prefix, batch),
        causal,
        offset is not None,
        offset or 0,
        *window,
        bias_field[0],
        dtype_code("bias", bias) if bias is not None else 0,
        *bias_field[1:],
        *_field("mask", mask, batch, heads, rows, columns),
        _EMPTY_ROW[empty_row],
        size**-0.5 if scale is None else scale,
        softcap,
    )
    problem = kernel(block + rest, torch.get_num_threads())
    if problem == 1:
        raise MemoryError("no memory for the scratch of attention")
    if problem == _BAD_COUNTS:
        if kv_counts is not None:
            counts_fit("kv_counts, the number of valid keys,", kv_counts, kv_len)
        if prefix is not None:
            counts_fit("prefix", prefix, None)
    if problem:
        raise InputError(_PROBLEMS[problem])
