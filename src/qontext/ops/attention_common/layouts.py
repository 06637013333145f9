"""Memory layouts of attention operands, and the one form that the computation sees.

The form is `[B, S, N, D]` for padded and `[T, N, D]` for packed operands. Taking a tensor there never copies: the
result is a view with other strides. Bringing the context back copies only where the layout is not the natural one.
"""

from collections.abc import Mapping
from types import MappingProxyType

import torch

from ...graph.dims import AnyDim, Dim, Shape, times

# Layouts of the fused projection and of the context that belongs to them.
CONTEXT_OF: Mapping[str, str] = MappingProxyType(
    {
        "B S (three N D)": "B S (N D)",
        "B S (N three D)": "B S (N D)",
        "T (three N D)": "T (N D)",
        "T (N three D)": "T (N D)",
        "S B (N three D) 1 1": "S B (N D) 1 1",
        "S B (three N D)": "S B (N D)",
        "B S three N D": "B S (N D)",
        "B S N three D": "B S (N D)",
    }
)
QKV_LAYOUTS = tuple(CONTEXT_OF)
# Layouts of separate queries, keys and values; the context has that of the query.
ATTENTION_LAYOUTS = ("B S (N D)", "B N S D", "B S N D", "T (N D)", "S B (N D)")


def is_packed(layout: str) -> bool:
    """Sequences lie one after the other without padding."""
    return layout.startswith("T ")


def axes_of(layout: str) -> list[str]:
    """One name an axis: "S B (N three D) 1 1" gives ["S", "B", "N three D", "1", "1"]."""
    before, _, rest = layout.partition("(")
    inside, _, after = rest.partition(")")
    return before.split() + ([inside] if inside else []) + after.split()


def is_interleaved(layout: str) -> bool:
    """Each head holds its query, key and value together."""
    return "N three D" in layout


def split_qkv(
    qkv: torch.Tensor, layout: str, num_heads: int, num_kv_heads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Views of the queries, keys and values in a fused projection.

    Args:
        qkv: in `layout`.
        num_heads, num_kv_heads: N and Nkv; equal in layouts with "N three D" or separate axes.
    Returns:
        `[B, S, N, D]` and twice `[B, S, Nkv, D]`, or the same with T in place of B S.
    """
    x = qkv[..., 0, 0] if layout.endswith(" 1 1") else qkv
    if "(N three D)" in layout:
        x = x.unflatten(-1, (num_heads, 3, -1))
    elif "(three N D)" in layout:
        x = x.unflatten(-1, (num_heads + 2 * num_kv_heads, -1))
    if layout.startswith("S B"):
        x = x.transpose(0, 1)
    if is_interleaved(layout):
        return x[..., 0, :], x[..., 1, :], x[..., 2, :]
    if layout == "B S three N D":
        return x[:, :, 0], x[:, :, 1], x[:, :, 2]
    query, key, value = x.split((num_heads, num_kv_heads, num_kv_heads), dim=-2)
    return query, key, value


def heads_of(x: torch.Tensor, layout: str, num_heads: int) -> torch.Tensor:
    """The view `[B, S, N, D]` (packed: `[T, N, D]`) of a tensor in `layout`; writing to it writes to the tensor."""
    if layout == "B N S D":
        return x.transpose(1, 2)
    if layout == "B S N D":
        return x
    if layout.endswith(" 1 1"):
        x = x[..., 0, 0]
    x = x.unflatten(-1, (num_heads, -1))
    return x.transpose(0, 1) if layout.startswith("S B") else x


def from_heads(x: torch.Tensor, layout: str) -> torch.Tensor:
    """Brings `[B, S, N, D]` (packed: `[T, N, D]`) to `layout`."""
    if layout == "B N S D":
        return x.transpose(1, 2)
    if layout == "B S N D":
        return x
    x = (x.transpose(0, 1) if layout.startswith("S B") else x).flatten(-2)
    return x[..., None, None] if layout.endswith(" 1 1") else x


def shape_from_heads(layout: str, batch: AnyDim, length: AnyDim, tokens: AnyDim, heads: AnyDim, size: AnyDim) -> Shape:
    """The shape of a tensor in `layout`, from its sizes."""
    named: dict[str, AnyDim] = {"B": batch, "S": length, "T": tokens, "N": heads, "D": size, "1": 1}
    return tuple(times(heads, size) if axis == "N D" else named[axis] for axis in axes_of(layout))


def divide(dim: AnyDim, by: int) -> AnyDim:
    """dim / by when it comes out whole, else None."""
    if isinstance(dim, int):
        return dim // by if dim % by == 0 else None
    if isinstance(dim, Dim) and dim.coefficient % by == 0 and dim.offset % by == 0:
        return Dim(dim.symbols, dim.coefficient // by, dim.offset // by)
    return None


def plus(a: AnyDim, b: AnyDim) -> AnyDim:
    """a + b, None where it has no such form."""
    if isinstance(b, Dim):
        a, b = b, a
    if isinstance(a, Dim) and isinstance(b, int):
        return Dim(a.symbols, a.coefficient, a.offset + b)
    return a + b if isinstance(a, int) and isinstance(b, int) else None
