"""Layer norm, RMS norm, embedding sums."""

import pytest
import torch

from qontext import dtypes, native
from qontext.errors import DTypeError, InputError, ShapeError

from .conftest import EveryISA, Guarded

FLOATS = [torch.float32, torch.bfloat16, torch.float16]


def tolerance(dtype: torch.dtype) -> float:
    return dtypes.from_torch(dtype).tolerance


def norm(x: torch.Tensor, gamma: torch.Tensor | None, beta: torch.Tensor | None, eps: float, rms: bool) -> torch.Tensor:
    x = x.double()
    centred = x if rms else x - x.mean(-1, keepdim=True)
    y = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    y = y if gamma is None else y * gamma.double()
    return y if beta is None else y + beta.double()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("size", [1, 7, 33, 100, 312, 768])
@pytest.mark.parametrize("rms", [False, True])
def test_every_part(isas: EveryISA, guarded: Guarded, dtype: torch.dtype, size: int, rms: bool) -> None:
    torch.manual_seed(size)
    x, skip = torch.randn(37, size).add(3).to(dtype), torch.randn(37, size).to(dtype)
    bias, gamma, beta = (torch.randn(size).to(dtype) for _ in range(3))
    wanted = x.double() + skip.double() + bias.double()
    normal = norm(wanted, gamma, beta, 1e-5, rms)
    for isa in isas:
        out, total = guarded.empty((37, size), dtype), guarded.empty((37, size), dtype)
        native.skip_layer_norm(x, skip, gamma, beta, out=out, bias=bias, sum_out=total, eps=1e-5, rms=rms)
        assert dtypes.relative_rms(total, wanted) < tolerance(dtype), isa
        assert dtypes.relative_rms(out, normal) < tolerance(dtype), isa


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_parameters_in_fp32(isas: EveryISA, guarded: Guarded, dtype: torch.dtype) -> None:
    x = torch.randn(5, 70).to(dtype)
    gamma, beta = torch.randn(70), torch.randn(70)
    for isa in isas:
        out = native.skip_layer_norm(x, None, gamma, beta, out=guarded.empty((5, 70), dtype), eps=1e-12)
        assert dtypes.relative_rms(out, norm(x, gamma, beta, 1e-12, False)) < tolerance(dtype), isa


@pytest.mark.parametrize("target", ["x", "skip"])
def test_in_place(isas: EveryISA, target: str) -> None:
    for isa in isas:
        x, skip = torch.randn(9, 50), torch.randn(9, 50)
        wanted = norm(x + skip, None, None, 1e-5, False)
        out = native.skip_layer_norm(x, skip, None, None, out=x if target == "x" else skip)
        assert dtypes.relative_rms(out, wanted) < 1e-5, isa


def test_strided_rows(isas: EveryISA) -> None:
    wide = torch.randn(6, 11, 3 * 40)
    x = wide[..., 40:80]
    for isa in isas:
        out = torch.full_like(wide, 7.0)
        native.skip_layer_norm(x, None, None, None, out=out[..., :40])
        assert dtypes.relative_rms(out[..., :40], norm(x, None, None, 1e-5, False)) < 1e-5, isa
        assert bool((out[..., 40:] == 7.0).all()), isa


def test_a_large_mean_costs_no_accuracy(isas: EveryISA) -> None:
    x = torch.randn(4, 256) + 1000
    for isa in isas:
        out = native.skip_layer_norm(x, None, None, None, out=torch.empty_like(x))
        assert dtypes.relative_rms(out, norm(x, None, None, 1e-5, False)) < 1e-4, isa


def test_no_rows(library: None) -> None:
    x = torch.empty(0, 16)
    assert native.skip_layer_norm(x, x, None, None, out=x).shape == (0, 16)


def test_wrong_arguments_are_named(library: None) -> None:
    x = torch.randn(3, 8)
    with pytest.raises(DTypeError, match="skip"):
        native.skip_layer_norm(x, x.bfloat16(), None, None, out=x)
    with pytest.raises(ShapeError, match="gamma"):
        native.skip_layer_norm(x, None, torch.ones(7), None, out=x)
    with pytest.raises(DTypeError, match=r"x is torch\.int64"):
        native.skip_layer_norm(x.long(), None, None, None, out=x.long())


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("ids_dtype", [torch.int64, torch.int32], ids=str)
def test_embedding(isas: EveryISA, guarded: Guarded, dtype: torch.dtype, ids_dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    word, position, kind = (torch.randn(n, 52).to(dtype) for n in (97, 40, 2))
    gamma, beta = torch.randn(52).to(dtype), torch.randn(52).to(dtype)
    ids = torch.randint(0, 97, (3, 21)).to(ids_dtype)
    positions = torch.randint(0, 40, (3, 21)).to(ids_dtype)
    types = torch.randint(0, 2, (3, 21)).to(ids_dtype)
    total = word[ids.long()].double() + position[positions.long()].double() + kind[types.long()].double()
    wanted = norm(total, gamma, beta, 1e-12, False)
    for isa in isas:
        out = guarded.empty((3, 21, 52), dtype)
        native.embed_layer_norm(
            ids, word, gamma, beta, out=out, position=position, positions=positions, type=kind, types=types, eps=1e-12
        )
        assert dtypes.relative_rms(out, wanted) < tolerance(dtype), isa


def test_embedding_defaults(library: None) -> None:
    word, position, kind = torch.randn(30, 16), torch.randn(12, 16), torch.randn(2, 16)
    ids = torch.randint(0, 30, (2, 9))
    out = native.embed_layer_norm(
        ids, word, None, None, out=torch.empty(2, 9, 16), position=position, position_offset=2, type=kind
    )
    assert dtypes.relative_rms(out, norm(word[ids] + position[2:11] + kind[0], None, None, 1e-12, False)) < 1e-5
    alone = native.embed_layer_norm(ids, word, None, None, out=torch.empty(2, 9, 16))
    assert dtypes.relative_rms(alone, norm(word[ids], None, None, 1e-12, False)) < 1e-5


def test_the_first_bad_id_is_named(library: None) -> None:
    word = torch.randn(10, 8)
    out = torch.full((2, 4, 8), 5.0)
    ids = torch.tensor([[1, 2, 3, 4], [5, 10, 99, 0]])
    with pytest.raises(InputError, match=r"ids\[5\].*is 10; allowed are 0 to 9"):
        native.embed_layer_norm(ids, word, None, None, out=out)
    with pytest.raises(InputError, match=r"types\[3\].*is -1"):
        native.embed_layer_norm(
            ids.clamp_max(9), word, None, None, out=out, type=word, types=torch.tensor([[0, 0, 0, -1], [0, 0, 0, 0]])
        )
    assert bool((out == 5.0).all())
    with pytest.raises(ShapeError, match="position has 3 rows"):
        native.embed_layer_norm(ids, word, None, None, out=out, position=word[:3])
