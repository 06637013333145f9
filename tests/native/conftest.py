"""Fixtures of the kernel library's tests: every usable instruction set, and memory that shows stray writes."""

from collections.abc import Iterator

import pytest
import torch

from qontext import native


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors on many threads mostly wait; test_library.py runs the kernels on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class EveryISA:
    """Iterating puts one usable instruction set after another in force: data and reference are made once for all."""

    def __iter__(self) -> Iterator[str]:
        for name in native.status().usable:
            native.set_isa(name)
            yield name


@pytest.fixture
def isas() -> Iterator[EveryISA]:
    """Every instruction set that is built and that this processor runs; skips where the library is absent."""
    state = native.status()
    if not state.available:
        pytest.skip(state.reason)
    before = native.isa()
    yield EveryISA()
    native.set_isa(before)


@pytest.fixture
def library() -> None:
    """Skips a test where the library is absent."""
    state = native.status()
    if not state.available:
        pytest.skip(state.reason)


class Guarded:
    """Hands out NaN-filled tensors that lie between guard bands; `check` asserts that the bands are untouched."""

    BAND = 64

    def __init__(self) -> None:
        self.taken: list[tuple[torch.Tensor, int]] = []

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        count = int(torch.Size(shape).numel())
        flat = torch.full((count + 2 * self.BAND,), float("nan"), dtype=dtype)
        flat[: self.BAND] = flat[self.BAND + count :] = 12345.0
        self.taken.append((flat, count))
        return flat[self.BAND : self.BAND + count].view(shape)

    def check(self) -> None:
        for flat, count in self.taken:
            assert bool((flat[: self.BAND] == flat.new_tensor(12345.0)).all()), "wrote before the output"
            assert bool((flat[self.BAND + count :] == flat.new_tensor(12345.0)).all()), "wrote past the output"


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    bands = Guarded()
    yield bands
    bands.check()
