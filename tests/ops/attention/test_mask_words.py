"""TensorRT's packed mask words against the rule spelled out thread by thread."""

import pytest
import torch

from qontext.errors import ShapeError
from qontext.ops.mask_words import lengths_from_mask, pack_mask_words, packed_mask_size, unpack_mask_words

WARPS = {64: (2, 2), 96: (2, 2), 128: (2, 2), 384: (1, 8)}


def word_of(mask: list[list[bool]], length: int, tile_row: int, thread: int) -> int:
    """One word the slow way: the scores that a thread of the matrix instruction holds, in their order."""
    warps_m, warps_n = WARPS[length]
    warp, lane = divmod(thread, 32)
    word = 0
    for tile in range(length // (16 * warps_n)):
        row = (tile_row * warps_m + warp % warps_m) * 16 + lane // 4
        column = (tile * warps_n + warp // warps_m) * 16 + (lane % 4) * 2
        held = [(0, 0), (0, 1), (8, 0), (8, 1), (0, 8), (0, 9), (8, 8), (8, 9)]
        for bit, (down, right) in enumerate(held):
            word |= mask[row + down][column + right] << (8 * tile + bit)
    return word


def random_mask(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape))) < 0.6


@pytest.mark.parametrize("length", WARPS)
def test_round_trip(length):
    mask = random_mask(3, length, length)
    words = pack_mask_words(mask)
    assert words.dtype == torch.int32
    assert list(words.shape) == [3, packed_mask_size(length)]
    assert torch.equal(unpack_mask_words(words, length), mask)


@pytest.mark.parametrize("length", WARPS)
def test_key_masks_fill_all_rows(length):
    mask = random_mask(2, length)
    unpacked = unpack_mask_words(pack_mask_words(mask.int()), length)
    assert torch.equal(unpacked, mask[:, None].expand(-1, length, -1))


@pytest.mark.parametrize("length", WARPS)
def test_words_follow_the_matrix_instruction(length):
    warps_m, warps_n = WARPS[length]
    threads, tile_rows = 32 * warps_m * warps_n, length // (16 * warps_m)
    mask = random_mask(2, length, length)
    words = pack_mask_words(mask).flatten().tolist()
    for sequence in range(2):
        rows = mask[sequence].tolist()
        for tile_row in {0, tile_rows // 2, tile_rows - 1}:
            for thread in (0, 1, 5, 31, threads // 2 + 3, threads - 1):
                got = words[(sequence * tile_rows + tile_row) * threads + thread] & 0xFFFFFFFF
                assert got == word_of(rows, length, tile_row, thread), (sequence, tile_row, thread)


def test_known_words():
    """One valid key of 128: only threads that hold column 0 have bits, both of their rows at once."""
    mask = torch.zeros(1, 128, dtype=torch.bool)
    mask[0, 0] = True
    words = pack_mask_words(mask).view(4, 4, 32)  # tile rows, warps, lanes
    holders = torch.arange(32) % 4 == 0
    assert torch.equal(words[:, :2] == 0b101, holders.expand(4, 2, 32))
    assert bool((words[:, 2:] == 0).all())
    assert bool((pack_mask_words(torch.ones(1, 128)) == -1).all())


def test_short_sequences_lie_at_the_start_of_the_buffer():
    words = pack_mask_words(torch.ones(2, 64)).flatten()
    assert bool((words[:512] == 0xFFFF).all())
    assert bool((words[512:] == 0).all())


def test_sizes_in_words():
    assert [packed_mask_size(s) for s in (1, 64, 96, 100, 128, 384, 512)] == [1, 512, 512, 1, 512, 6144, 1]


def test_lengths_end_at_the_first_hole():
    mask = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1]])
    assert lengths_from_mask(mask).tolist() == [2, 0, 4]
    assert lengths_from_mask(mask).dtype == torch.int32


def test_other_lengths_and_shapes_are_named():
    with pytest.raises(ShapeError, match=r"mask has shape \[2, 100\].*one of \[64, 96, 128, 384\]"):
        pack_mask_words(torch.ones(2, 100))
    with pytest.raises(ShapeError, match=r"mask has shape \[2, 64, 128\]"):
        pack_mask_words(torch.ones(2, 64, 128))
    with pytest.raises(ShapeError, match=r"words of shape \[2, 512\] for length 384.*\[B, 6144\] for 384"):
        unpack_mask_words(torch.zeros(2, 512, dtype=torch.int32), 384)
    with pytest.raises(ShapeError, match="for length 100"):
        unpack_mask_words(torch.zeros(2, 1, dtype=torch.int32), 100)
