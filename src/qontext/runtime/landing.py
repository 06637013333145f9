"""Static tensors on a device that one copy from the host fills."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

_ALIGNMENT = 256
_DEVICE = 2  # the static tensors, in the list of owners behind both host copies


@dataclass(frozen=True)
class Landing:
    """A tensor to be filled at every run.

    slot:  the value it holds
    shape: of the static tensor, rounded up; a value fills the front of its first axis
    cumulative: what lies behind the value repeats its last element (further sequences are then empty)
    """

    slot: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    cumulative: bool = False


class LandingPad:
    """Owns the static tensors (`views`, by slot), one piece of memory, and pinned host copies of it.

    Two host copies take turns, each with an event, so that the next batch can be written while the copy of the last
    one is still under way. What lies behind a value is left over from earlier batches (zeros at first): valid ids,
    which kernels may read and nobody looks at.
    """

    def __init__(self, landings: Sequence[Landing], place: torch.device):
        self.landings = tuple(landings)
        self._cumulative = {x.slot for x in landings if x.cumulative}
        sizes = [-(-_bytes(x) // _ALIGNMENT) * _ALIGNMENT for x in landings]
        self._starts = [0, *itertools.accumulate(sizes)]
        self._on_gpu = place.type == "cuda"
        self._memory = torch.zeros(self._starts[-1], dtype=torch.uint8, device=place)
        self.views = self._cut(self._memory)
        self._hosts = [torch.zeros(self._starts[-1], dtype=torch.uint8, pin_memory=self._on_gpu) for _ in range(2)]
        self._host_views = [self._cut(h) for h in self._hosts]
        self._copied = [torch.cuda.Event() if self._on_gpu else None for _ in range(2)]
        self._turn = 0
        # Who wrote what both host copies and the static tensors hold, where it said so.
        self._owners: list[object] = [None, None, None]

    def _cut(self, memory: torch.Tensor) -> dict[int, torch.Tensor]:
        return {
            x.slot: memory[start : start + _bytes(x)].view(x.dtype).view(x.shape)
            for x, start in zip(self.landings, self._starts, strict=False)
        }

    def fill(
        self, values: Mapping[int, torch.Tensor], fixed: Mapping[int, torch.Tensor] | None = None, owner: object = None
    ) -> None:
        """Takes the values of a batch, all of them on the host or all on the device.

        Args:
            fixed: further values, always the same for one `owner`: they are only written where another was in between.
        """
        if all(v.device.type == "cpu" for v in values.values()):
            self._turn ^= 1
            copied = self._copied[self._turn]
            if copied is not None:
                copied.synchronize()
            self._write(self._host_views[self._turn], values, fixed, self._turn, owner)
            self._memory.copy_(self._hosts[self._turn], non_blocking=True)
            self._owners[_DEVICE] = None
            if copied is not None:
                copied.record()
        else:
            self._write(self.views, values, fixed, _DEVICE, owner)

    def _write(
        self,
        views: Mapping[int, torch.Tensor],
        values: Mapping[int, torch.Tensor],
        fixed: Mapping[int, torch.Tensor] | None,
        side: int,
        owner: object,
    ) -> None:
        if fixed and (owner is None or self._owners[side] is not owner):
            values = {**values, **fixed}
        self._owners[side] = owner
        for slot, value in values.items():
            view = views[slot]
            if not value.dim():
                view.copy_(value)
                continue
            count = len(value)
            if count == len(view):
                view.copy_(value)
                continue
            view[:count].copy_(value)
            if count and slot in self._cumulative:
                view[count:] = value[-1]


def _bytes(landing: Landing) -> int:
    count = landing.dtype.itemsize
    for size in landing.shape:
        count *= size
    return count
