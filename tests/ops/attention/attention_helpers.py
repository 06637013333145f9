"""What the attention tests share."""

from collections.abc import Sequence

import torch

from qontext.dtypes import from_torch, relative_rms


def randn(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_close(out: torch.Tensor, want: torch.Tensor, factor: float = 1.0) -> None:
    """Equal within the table's tolerance of the dtype of `out`."""
    error = relative_rms(out, want)
    limit = from_torch(out.dtype).tolerance * factor
    assert error <= limit, f"relative RMS {error:.2e} over {limit:.2e}, shapes {list(out.shape)} {list(want.shape)}"


def cu_seqlens(lengths: Sequence[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


def from_plain(qkv: torch.Tensor, layout: str, heads: int) -> torch.Tensor:
    """A projection `[B, S, 3E]` in the order (three N D), brought to another padded layout."""
    batch, length, _ = qkv.shape
    parts = qkv.view(batch, length, 3, heads, -1)
    if "N three D" in layout:
        parts = parts.transpose(2, 3)
    if "(" in layout:
        parts = parts.flatten(2)
    if layout.startswith("S B"):
        parts = parts.transpose(0, 1)
    return (parts[..., None, None] if layout.endswith(" 1 1") else parts).contiguous()


def to_batch_first(context: torch.Tensor, layout: str) -> torch.Tensor:
    """The context of any padded layout as `[B, S, E]`."""
    if layout.endswith(" 1 1"):
        context = context[..., 0, 0]
    return context.transpose(0, 1) if layout.startswith("S B") else context
