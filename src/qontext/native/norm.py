"""Layer norm and RMS norm with what stands around them: skip, bias, and the embedding sum."""

import struct

import torch

from qontext.errors import InputError, ShapeError
from qontext.native.checks import as_rows, contiguous, dtype_code, has_shape, index_bytes, on_cpu, same_dtype
from qontext.native.library import functions

_NORM = struct.Struct("=16qd")
_EMBED = struct.Struct("=21qd")


def _parameter(name: str, p: torch.Tensor | None, size: int, dtype: torch.dtype | None) -> torch.dtype | None:
    """Checks one of gamma, beta, bias; returns the dtype that the others must share."""
    if p is None:
        return dtype
    on_cpu(name, p)
    has_shape(name, p, (size,))
    contiguous(name, p)
    if dtype is not None:
        same_dtype(name, p, dtype)
    return p.dtype


def skip_layer_norm(
    x: torch.Tensor,
    skip: torch.Tensor | None,
    gamma: torch.Tensor | None,
    beta: torch.Tensor | None,
    *,
    out: torch.Tensor,
    bias: torch.Tensor | None = None,
    sum_out: torch.Tensor | None = None,
    eps: float = 1e-5,
    rms: bool = False,
) -> torch.Tensor:
    """out = norm(x + skip + bias) * gamma + beta, statistics in fp32; `rms` leaves the mean out.

    x, skip, out, sum_out: `[..., E]` of one dtype; gamma, beta, bias: `[E]`, all of one float dtype.
    `sum_out` takes x + skip + bias. `out` may be `x` or `skip` itself.
    Raises ShapeError, DTypeError, ArgumentError, DeviceError.
    """
    code = dtype_code("x", x)
    rows, size, x_stride = as_rows("x", x)
    strides = []
    for name, t in (("skip", skip), ("out", out), ("sum_out", sum_out)):
        if t is None:
            strides.append(0)
            continue
        same_dtype(name, t, x.dtype)
        has_shape(name, t, tuple(x.shape))
        strides.append(as_rows(name, t)[2])
    dtype = _parameter("beta", beta, size, _parameter("gamma", gamma, size, _parameter("bias", bias, size, None)))
    parameter_code = code if dtype is None else dtype_code("gamma", torch.empty(0, dtype=dtype))
    block = _NORM.pack(
        x.data_ptr(),
        skip.data_ptr() if skip is not None else 0,
        bias.data_ptr() if bias is not None else 0,
        gamma.data_ptr() if gamma is not None else 0,
        beta.data_ptr() if beta is not None else 0,
        out.data_ptr(),
        sum_out.data_ptr() if sum_out is not None else 0,
        rows,
        size,
        x_stride,
        *strides,
        code,
        parameter_code,
        rms,
        eps,
    )
    if functions().qx_layer_norm(block, torch.get_num_threads()):
        raise MemoryError("no memory for the scratch row of a layer norm")
    return out


def embed_layer_norm(
    ids: torch.Tensor,
    word: torch.Tensor,
    gamma: torch.Tensor | None,
    beta: torch.Tensor | None,
    *,
    out: torch.Tensor,
    position: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
    position_offset: int = 0,
    type: torch.Tensor | None = None,
    types: torch.Tensor | None = None,
    eps: float = 1e-12,
) -> torch.Tensor:
    """out = layer_norm(word[ids] + position[positions] + type[types]).

    ids, positions, types: int64 or int32 `[B, S]` or `[T]`. Without `positions` a token's position is its place on the
    last axis plus `position_offset`; without `types` row 0 of `type` is added to every token. word, position, type:
    `[V, E]`, `[P, E]`, `[U, E]` of the dtype of out `[..., E]`. Raises InputError naming the first id out of range.
    """
    code = dtype_code("word", word)
    on_cpu("word", word)
    contiguous("word", word)
    on_cpu("out", out)
    contiguous("out", out)
    same_dtype("out", out, word.dtype)
    size = word.shape[-1]
    has_shape("out", out, (*ids.shape, size))
    tables = []
    for name, table in (("position", position), ("type", type)):
        if table is None:
            tables += [0, 0]
            continue
        on_cpu(name, table)
        contiguous(name, table)
        same_dtype(name, table, word.dtype)
        has_shape(name, table, (table.shape[0], size))
        tables += [table.data_ptr(), table.shape[0]]
    widths = [index_bytes("ids", ids)]
    for name, index in (("positions", positions), ("types", types)):
        if index is not None:
            has_shape(name, index, tuple(ids.shape))
        widths.append(index_bytes(name, index) if index is not None else 8)
    period = ids.shape[-1] if ids.dim() else 1
    if position is not None and positions is None and not 0 <= position_offset <= position.shape[0] - period:
        raise ShapeError(
            f"position has {position.shape[0]} rows; "
            f"{period} tokens from {position_offset} on need {period + position_offset}"
        )
    dtype = _parameter("beta", beta, size, _parameter("gamma", gamma, size, None))
    parameter_code = code if dtype is None else dtype_code("gamma", torch.empty(0, dtype=dtype))
    block = _EMBED.pack(
        ids.data_ptr(),
        positions.data_ptr() if positions is not None and position is not None else 0,
        types.data_ptr() if types is not None and type is not None else 0,
        word.data_ptr(),
        tables[0],
        tables[2],
        gamma.data_ptr() if gamma is not None else 0,
        beta.data_ptr() if beta is not None else 0,
        out.data_ptr(),
        ids.numel(),
        size,
        period or 1,
        position_offset,
        word.shape[0],
        tables[1],
        tables[3],
        *widths,
        code,
        parameter_code,
        eps,
    )
    bad = functions().qx_embed_layer_norm(block, torch.get_num_threads())
    if bad == -2:
        raise MemoryError("no memory for the scratch row of an embedding")
    if bad >= 0:
        token, kind = divmod(bad, 4)
        name, index, bound = (
            ("ids", ids, word.shape[0]),
            ("positions", positions, tables[1]),
            ("types", types, tables[3]),
        )[kind]
        assert index is not None
        raise InputError(
            f"{name}[{token}] (counted flat) is {int(index.reshape(-1)[token])}; allowed are 0 to {bound - 1}"
        )
    return out
