"""Inputs of both operators' cases: masks, counts and boundaries."""

from collections.abc import Sequence

import torch

from .layouts import axes_of

Tensor = torch.Tensor


def normal(generator: torch.Generator, dtype: torch.dtype, *shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=generator).to(dtype)


def holes(generator: torch.Generator, *shape: int, keep: float = 0.7) -> Tensor:
    """A boolean mask with holes; the first key stays, so that no row is empty."""
    mask = torch.rand(*shape, generator=generator) < keep
    mask[..., 0] = True
    return mask


def additive(mask: Tensor, value: float, dtype: torch.dtype) -> Tensor:
    """0 where the mask is True, `value` elsewhere."""
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, value)


def cumulative(lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """cu_seqlens `[B+1]` and max_seqlen of packed sequences."""
    ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0).to(torch.int32)
    return ends, torch.tensor(max(lengths, default=0), dtype=torch.int32)


def layout_name(layout: str) -> str:
    """A layout as part of a case's name: "S B (N three D) 1 1" gives "S_B_NthreeD_1_1"."""
    return "_".join(axis.replace(" ", "") for axis in axes_of(layout))
