"""The ranks that share a layer: which one this is, and what they say to each other through torch.distributed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import ArgumentError, DeviceError


@dataclass(frozen=True)
class Parallel:
    """A group of ranks. `ranks` are numbers of processes; None takes the first `size`."""

    size: int = 1
    rank: int = 0
    ranks: tuple[int, ...] | None = None

    def all_reduce(self, x: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, in place."""
        if self.size > 1:
            torch.distributed.all_reduce(x, group=self._group())
        return x

    def all_gather(self, x: torch.Tensor) -> torch.Tensor:
        """The parts of all ranks, joined along the last axis."""
        if self.size == 1:
            return x
        parts = [torch.empty_like(x) for _ in range(self.size)]
        torch.distributed.all_gather(parts, x.contiguous(), group=self._group())
        return torch.cat(parts, -1)

    def _group(self) -> Any:
        if not torch.distributed.is_available() or not torch.distributed.is_initialized():
            raise DeviceError(
                f"tp_size is {self.size}, but torch.distributed is not initialised in this process; call "
                "torch.distributed.init_process_group('gloo', ...) first"
            )
        world = torch.distributed.get_world_size()
        ranks = self.ranks or tuple(range(self.size))
        if len(ranks) == world:
            return None
        if ranks not in _GROUPS:
            raise DeviceError(
                f"tp_group {list(ranks)} is a part of {world} processes; every process has to call "
                "qontext.layers.make_group with it first"
            )
        return _GROUPS[ranks]


_GROUPS: dict[tuple[int, ...], Any] = {}


def make_group(ranks: Sequence[int]) -> None:
    """Makes a group of some of the processes known; all processes have to call it, in the same order."""
    _GROUPS[tuple(ranks)] = torch.distributed.new_group(list(ranks))


def parallel(what: str, tp_group: Sequence[int] | None, tp_size: int, tp_rank: int | None = None) -> Parallel:
    """The group that a layer's arguments say. Raises ArgumentError when they contradict each other."""
    if tp_size < 1:
        raise ArgumentError(f"{what}: tp_size is {tp_size}, it has to be at least 1")
    ranks = None if tp_group is None else tuple(tp_group)
    if ranks is not None and len(ranks) != tp_size:
        raise ArgumentError(f"{what}: tp_group has {len(ranks)} ranks, tp_size is {tp_size}")
    if tp_rank is None:
        mine = torch.distributed.get_rank() if tp_size > 1 and torch.distributed.is_initialized() else 0
        tp_rank = mine if ranks is None else ranks.index(mine) if mine in ranks else 0
    if not 0 <= tp_rank < tp_size:
        raise ArgumentError(f"{what}: tp_rank is {tp_rank}, allowed are 0 to {tp_size - 1}")
    return Parallel(tp_size, tp_rank, ranks)


def kv_heads_of(num_kv_heads: int, tp_size: int) -> int:
    """Key heads of a rank: divided, or repeated where there are fewer of them than ranks (rounded up)."""
    return -(-num_kv_heads // tp_size)


def kv_head_rows(num_kv_heads: int, tp_size: int, tp_rank: int) -> list[int]:
    """Which key heads a rank holds.

    Raises ArgumentError when neither number is a multiple of the other: query heads of one rank would then read key
    heads of two.
    """
    if num_kv_heads % tp_size and tp_size % num_kv_heads:
        raise ArgumentError(
            f"num_kv_heads is {num_kv_heads} and tp_size {tp_size}; one has to be a multiple of the other"
        )
    if num_kv_heads >= tp_size:
        each = num_kv_heads // tp_size
        return list(range(tp_rank * each, (tp_rank + 1) * each))
    return [tp_rank * num_kv_heads // tp_size]


def padded_vocabulary(vocabulary: int, tp_size: int) -> int:
    """Rows of a vocabulary that all ranks share evenly: rounded up to a multiple of their number."""
    return -(-vocabulary // tp_size) * tp_size
