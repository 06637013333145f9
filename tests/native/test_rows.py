"""Rows by index."""

import pytest
import torch

from qontext import native
from qontext.errors import DTypeError, InputError, ShapeError


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.int64], ids=str)
@pytest.mark.parametrize("index_dtype", [torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize(("rows", "count", "size"), [(1, 1, 1), (50, 17, 33), (700, 450, 96)])
def test_gather_and_scatter(
    library: None, dtype: torch.dtype, index_dtype: torch.dtype, rows: int, count: int, size: int
) -> None:
    torch.manual_seed(rows)
    x = (torch.randn(rows, size) * 50).to(dtype)
    index = torch.randperm(rows)[:count].sort().values.to(index_dtype)
    packed = native.gather_rows(x, index, out=torch.full((count, size), 77).to(dtype))
    assert torch.equal(packed, x[index.long()])
    back = native.scatter_rows(packed, index, out=torch.full((rows, size), 77).to(dtype))
    wanted = torch.zeros_like(x)
    wanted[index.long()] = packed
    assert torch.equal(back, wanted)


def test_any_order(library: None) -> None:
    x = torch.randn(300, 40)
    index = torch.randperm(400)[:300]
    out = native.scatter_rows(x, index, out=torch.full((400, 40), float("nan")))
    wanted = torch.zeros(400, 40)
    wanted[index] = x
    assert torch.equal(out, wanted)


def test_strided_rows(library: None) -> None:
    wide = torch.randn(20, 24)
    index = torch.tensor([3, 19, 0])
    out = torch.zeros(3, 16)
    native.gather_rows(wide[:, 8:16], index, out=out[:, 4:12])
    assert torch.equal(out[:, 4:12], wide[index, 8:16])
    assert not out[:, :4].any()
    assert not out[:, 12:].any()


def test_nothing_to_move(library: None) -> None:
    empty = torch.empty(0, 4)
    assert native.gather_rows(torch.randn(3, 4), torch.empty(0, dtype=torch.int64), out=empty).shape == (0, 4)
    out = native.scatter_rows(empty, torch.empty(0, dtype=torch.int64), out=torch.ones(3, 4))
    assert not out.any()


def test_bad_index_touches_nothing(library: None) -> None:
    x, out = torch.randn(5, 4), torch.full((2, 4), 3.0)
    with pytest.raises(InputError, match=r"index\[1\] is 5; allowed are 0 to 4"):
        native.gather_rows(x, torch.tensor([0, 5]), out=out)
    assert bool((out == 3.0).all())
    with pytest.raises(InputError, match=r"index\[0\] is -1"):
        native.scatter_rows(x[:2], torch.tensor([-1, 1]), out=x)
    with pytest.raises(ShapeError, match="out"):
        native.gather_rows(x, torch.tensor([0, 1, 2]), out=out)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.int64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (1, 1), (4, 9), (17, 130)], ids=str)
def test_pack_index(library: None, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    torch.manual_seed(sum(shape))
    keep = torch.rand(shape) < 0.6
    mask = torch.where(keep, torch.randint(1, 9, shape), 0).to(dtype)
    index, boundaries, longest = native.pack_index(mask)
    assert torch.equal(index, keep.flatten().nonzero().flatten())
    assert boundaries.tolist() == [0, *keep.sum(1).cumsum(0).tolist()]
    assert longest == max(keep.sum(1).tolist(), default=0)


def test_pack_index_takes_minus_zero_for_zero_and_nan_for_a_token(library: None) -> None:
    index, boundaries, longest = native.pack_index(torch.tensor([[-0.0, float("nan"), -1.0]]))
    assert (index.tolist(), boundaries.tolist(), longest) == ([1, 2], [0, 2], 2)


def test_pack_index_refuses_other_masks(library: None) -> None:
    with pytest.raises(DTypeError, match=r"mask is torch\.float64"):
        native.pack_index(torch.ones(2, 2, dtype=torch.float64))
