"""The list of units that the Hopper kernel of teams works through, and the rows that its tensor maps describe."""

import pytest
import torch

from qontext.ops.attention_common.gpu_teams import rows_of
from qontext.ops.attention_common.layouts import heads_of, split_qkv
from qontext.ops.attention_common.problem import Problem, Rule

pytest.importorskip("triton")

from qontext.ops.attention_common.gpu_units_kernel import ENTRY, TEAMS, TILE, list_units

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BLOCK = 16


def listed(batch, queries, keys, cu_q=None, cu_kv=None, counts=None):
    """The entries of the table: (end of the queries, queries up to there, tiles, end of the keys, keys) each."""
    parts = max(-(-queries // (int(TILE) * int(TEAMS))), 1)
    items = batch * parts
    table = torch.full((1 + items, int(ENTRY)), -7, dtype=torch.int32, device=DEVICE)
    given = [None if x is None else torch.tensor(x, dtype=torch.int32, device=DEVICE) for x in (cu_q, cu_kv, counts)]
    list_units[(-(-items // BLOCK),)](*given, table, items, queries, keys, parts, BLOCK, False)
    found = int(table[0, 0])
    assert (table[1 + found :] == -7).all(), "entries beyond the number of units"
    return [tuple(row) for row in table[1 : 1 + found, :5].tolist()]


def bounds(lengths):
    return torch.tensor([0, *lengths]).cumsum(0).tolist()


@pytest.mark.parametrize(
    "lengths",
    [[1], [64] * 20, [65, 0, 300, 17, 1, 0, 257, 256, 900, 64], list(range(0, 700, 31))],
    ids=["one", "equal", "mixed", "many"],
)
def test_every_tile_of_queries_is_in_one_unit_and_most_work_comes_first(lengths):
    cu = bounds(lengths)
    units = listed(len(lengths), max(lengths), max(lengths), cu, cu)
    seen = [
        end - left + tile * int(TILE) for end, left, tiles, _, _ in units for tile in range(tiles)
    ]  # the first row of each tile
    want = [start + row for start, n in zip(cu, lengths, strict=False) for row in range(0, n, int(TILE))]
    assert sorted(seen) == want
    assert all(1 <= tiles <= int(TEAMS) and left > (tiles - 1) * int(TILE) for _, left, tiles, _, _ in units)
    for end, _, _, key_end, keys in units:
        assert (end, key_end) == (key_end, end)
        assert cu[cu.index(end - keys)] + keys == end
    work = [tiles * -(-keys // int(TILE)) for _, _, tiles, _, keys in units]
    assert work == sorted(work, reverse=True)


def test_keys_of_their_own_boundaries_and_queries_without_keys():
    units = listed(3, 70, 40, bounds([70, 5, 0]), bounds([0, 40, 9]))
    assert sorted(units) == [(70, 70, 2, 0, 0), (75, 5, 1, 40, 40)]


def test_padded_sequences_and_counts():
    assert listed(2, 5, 9) == [(5, 5, 1, 9, 9), (10, 5, 1, 18, 9)]
    assert sorted(listed(3, 5, 9, counts=[0, 12, 4])) == [(5, 5, 1, 0, 0), (10, 5, 1, 18, 9), (15, 5, 1, 22, 4)]


def problem_of(query, key, value):
    return Problem(Rule(1.0), query, key, value)


@pytest.mark.parametrize("layout", ["T (three N D)", "T (N three D)", "B S (three N D)", "B S three N D"])
def test_rows_are_views_of_the_projection(layout):
    heads, size, tokens = 3, 32, 10
    shape = {"T": (tokens, 3 * heads * size), "B": (2, 5, 3 * heads * size)}[layout[0]]
    qkv = torch.arange(tokens * 3 * heads * size).half().view(shape)
    if layout == "B S three N D":
        qkv = qkv.unflatten(-1, (3, heads, size))
    parts = split_qkv(qkv, layout, heads, heads)
    context = torch.arange(tokens * heads * size).half().view(*qkv.shape[: 1 if layout[0] == "T" else 2], -1)
    out = heads_of(context, "T (N D)", heads)
    rows = rows_of(problem_of(*parts), out)
    assert rows is not None
    for row, part in zip(rows, (*parts, out), strict=True):
        assert row.shape == (tokens, heads, size)
        assert row.data_ptr() == part.data_ptr()
        assert torch.equal(row, part.reshape(tokens, heads, size))


def test_rows_that_no_map_describes_are_refused():
    whole = torch.zeros(2, 5, 3, 32).half()
    first = torch.zeros(5, 2, 3, 32).half().transpose(0, 1)  # sequence first: rows of a sequence lie apart
    odd = torch.zeros(2, 5, 3 * 32 + 4).half()[..., : 3 * 32].unflatten(-1, (3, 32))  # rows of 200 bytes
    shifted = torch.zeros(2 * 5 * 3 * 32 + 1).half()[1:].view(2, 5, 3, 32)  # begins on 2 bytes
    sparse = torch.zeros(2, 5, 3, 64).half()[..., ::2]
    assert rows_of(problem_of(whole, whole, whole), whole) is not None
    for bad in (first, odd, shifted, sparse):
        assert rows_of(problem_of(whole, bad, whole), whole) is None
        assert rows_of(problem_of(whole, whole, whole), bad) is None
