"""TensorRT's packed attention masks: 32-bit words of mask bits in the order of a GPU matrix instruction.

The fused kernels behind TensorRT's QKVToContext plugin (versions 1 and 4) read their mask as `[B, 512]` words for
S = 64, 96 and 128 and `[B, 6144]` words for S = 384. A block of threads covers 16 * warps_m rows (queries) and
16 * warps_n columns (keys) of the score matrix at a time, and every thread owns eight scores of each such tile:

    row    = 16 * (warps_m * m + warp % warps_m) + lane // 4 + 8 * r          r = 0, 1
    column = 16 * (warps_n * n + warp // warps_m) + 2 * (lane % 4) + 8 * h + c    h = 0, 1; c = 0, 1
    bit    = 8 * n + 4 * h + 2 * r + c                                         1 = attend

`m` counts tiles downwards and `n` sideways, a warp has 32 lanes, and the word of tile row `m` and thread `t` is word
`m * threads + t` of its sequence. Every word covers all tiles sideways (S / (16 * warps_n) of them, at most 4).

The plugin declares 512 words for S = 64 and 96 too, but its kernel writes and reads only 256 and 384 a sequence, one
sequence right after the other from the start of the buffer. `pack_mask_words` leaves the rest zero.

The unfused paths use one word a sequence: the count of valid leading keys, see `lengths_from_mask`.

Source: https://github.com/NVIDIA/TensorRT/tree/main/plugin/embLayerNormPlugin (the rule only).
"""

from dataclasses import dataclass

import torch

from ..errors import ShapeError


@dataclass(frozen=True)
class _Tiling:
    """How one sequence length is cut: warps along rows and columns, words a sequence in the declared tensor."""

    warps_m: int
    warps_n: int
    declared: int

    @property
    def threads(self) -> int:
        return 32 * self.warps_m * self.warps_n


_TILINGS = {64: _Tiling(2, 2, 512), 96: _Tiling(2, 2, 512), 128: _Tiling(2, 2, 512), 384: _Tiling(1, 8, 6144)}


def packed_mask_size(length: int) -> int:
    """Words a sequence in the declared tensor: 512 or 6144, and 1 (a valid count) for every other length."""
    return _TILINGS[length].declared if length in _TILINGS else 1


def pack_mask_words(mask: torch.Tensor) -> torch.Tensor:
    """Packs a mask into TensorRT's words.

    Args:
        mask: `[B, S]` over keys or `[B, S, S]` over queries and keys; nonzero = attend; S is 64, 96, 128 or 384.
    Returns:
        int32 `[B, 512]`, or `[B, 6144]` for S = 384 (the bits of an unsigned word, as TensorRT declares them).
    Raises:
        ShapeError: another rank or length.
    """
    if mask.dim() not in (2, 3) or mask.shape[-1] not in _TILINGS or mask.shape[1] != mask.shape[-1]:
        raise ShapeError(
            f"pack_mask_words: mask has shape {list(mask.shape)}, expected [B, S] or [B, S, S] "
            f"with S one of {sorted(_TILINGS)}"
        )
    batch, length = mask.shape[0], mask.shape[-1]
    tiling = _TILINGS[length]
    full = (mask if mask.dim() == 3 else mask[:, None].expand(-1, length, -1)) != 0
    row, column, bit = _places(length)
    words = (full[:, row, column].to(torch.int64) << bit).sum(-1).flatten()
    flat = words.new_zeros(batch * tiling.declared)
    flat[: words.numel()] = words
    return flat.to(torch.uint32).view(torch.int32).view(batch, tiling.declared)


def unpack_mask_words(words: torch.Tensor, length: int) -> torch.Tensor:
    """Unpacks TensorRT's words into a boolean mask.

    Args:
        words: integers `[B, 512]` for length 64, 96 or 128, `[B, 6144]` for 384.
        length: S.
    Returns:
        bool `[B, S, S]`, True = attend. TensorRT's own masks say the same in every row: take `[:, 0]` for `[B, S]`.
    Raises:
        ShapeError: another length, or words of another shape.
    """
    tiling = _TILINGS.get(length)
    if tiling is None or words.dim() != 2 or words.shape[1] != tiling.declared:
        expected = {s: ["B", t.declared] for s, t in _TILINGS.items()}
        raise ShapeError(
            f"unpack_mask_words: words of shape {list(words.shape)} for length {length}, "
            f"expected one of {', '.join(f'[B, {shape[1]}] for {s}' for s, shape in expected.items())}"
        )
    row, column, bit = _places(length)
    used = row.shape[0]
    batch = words.shape[0]
    bits = (words.reshape(-1)[: batch * used].view(batch, used, 1).to(torch.int64) >> bit) & 1
    mask = torch.zeros(batch, length, length, dtype=torch.bool)
    mask[:, row, column] = bits.bool()
    return mask


def lengths_from_mask(mask: torch.Tensor) -> torch.Tensor:
    """The count of valid leading keys, as TensorRT's unfused kernels take it: the place of the first zero.

    Args:
        mask: `[B, S]`, nonzero = attend. A mask with holes (1 1 0 1) is cut at its first hole, as TensorRT does:
            give QKVToContext such a mask itself instead.
    Returns:
        int32 `[B]`.
    """
    return (mask != 0).to(torch.int32).cumprod(-1).sum(-1).to(torch.int32)


def _places(length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Row, column and bit of everything that a sequence's words hold: each `[words, bits]` (int64)."""
    tiling = _TILINGS[length]
    tiles_m, tiles_n = length // (16 * tiling.warps_m), length // (16 * tiling.warps_n)
    m, thread, n, h, r, c = torch.meshgrid(
        *(torch.arange(k) for k in (tiles_m, tiling.threads, tiles_n, 2, 2, 2)), indexing="ij"
    )
    warp, lane = thread // 32, thread % 32
    row = 16 * (tiling.warps_m * m + warp % tiling.warps_m) + lane // 4 + 8 * r
    column = 16 * (tiling.warps_n * n + warp // tiling.warps_m) + 2 * (lane % 4) + 8 * h + c
    bit = 8 * n + 4 * h + 2 * r + c
    shape = (tiles_m * tiling.threads, tiles_n * 8)
    return row.reshape(shape), column.reshape(shape), bit.reshape(shape)
