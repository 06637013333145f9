"""Static tensors on a device that a CUDA graph fills from the host: its first kernel reads memory of the host.

A copy in front of the graph would have to end before the graph begins; a kernel in it is one launch of many.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..ops.gpu_launch import blocks

_ALIGNMENT = 256
_BLOCK = 1024  # words a program of the kernel copies
_DEVICE = 2  # the static tensors, in the list of owners behind both host buffers


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
    """Owns the static tensors (`views`, by slot), one piece of memory, and two host buffers as large.

    The host buffers take turns, so that a batch can be written while the one before is under way: `fill` writes into
    the one whose turn it is, `land` (in the graph) copies it, `turn` says that the graph was launched. What lies behind
    a value is left over from earlier batches (zeros at first): valid ids, which kernels may read and nobody looks at.
    """

    def __init__(self, landings: Sequence[Landing], place: torch.device):
        sizes = [-(-_bytes(x) // _ALIGNMENT) * _ALIGNMENT for x in landings]
        # The first word of a host buffer says whether there is something to copy.
        starts = list(itertools.accumulate(sizes, initial=_ALIGNMENT))
        self._on_gpu = place.type == "cuda"
        self._memory = torch.zeros(starts[-1], dtype=torch.uint8, device=place)
        self._hosts = torch.zeros((2, starts[-1]), dtype=torch.uint8, pin_memory=self._on_gpu)
        self._turns = torch.zeros(blocks(starts[-1] // 4, _BLOCK), dtype=torch.int32, device=place)
        self._wanted = self._hosts.view(torch.int32)[:, 0].numpy()

        def cut(memory: torch.Tensor) -> dict[int, torch.Tensor]:
            ends = [start + _bytes(x) for x, start in zip(landings, starts, strict=False)]
            parts = zip(landings, starts, ends, strict=False)
            return {x.slot: memory[start:end].view(x.dtype).view(x.shape) for x, start, end in parts}

        self.views = cut(self._memory)
        self._host_views = [cut(half) for half in self._hosts]
        self._cumulative = {x.slot for x in landings if x.cumulative}
        self._read = [torch.cuda.Event() if self._on_gpu else None for _ in range(2)]
        self._turn = 0
        # Who wrote what both host buffers and the static tensors hold, where it said so.
        self._owners: list[object] = [None, None, None]

    def fill(
        self, values: Mapping[int, torch.Tensor], fixed: Mapping[int, torch.Tensor] | None = None, owner: object = None
    ) -> None:
        """Takes the values of a batch, all of them on the host or all on the device.

        Args:
            fixed: further values, always the same for one `owner`: they are only written where another was in between.
        """
        from_host = all(v.device.type == "cpu" for v in values.values())
        read = self._read[self._turn]
        if read is not None:
            read.synchronize()
        if from_host:
            self._write(self._host_views[self._turn], values, fixed, self._turn, owner)
            self._owners[_DEVICE] = None
        else:
            self._write(self.views, values, fixed, _DEVICE, owner)
        self._wanted[self._turn] = int(from_host)

    def land(self) -> None:
        """Copies the host buffer whose turn it is, and lets the other one have the next turn; may be captured."""
        if self._on_gpu:
            from .landing_kernel import land

            words = self._memory.view(torch.int32)
            overlap = torch.cuda.get_device_capability(self._memory.device) >= (9, 0)
            land[(len(self._turns),)](self._hosts.view(torch.int32), words, self._turns, len(words), _BLOCK, overlap)
            return
        turn = int(self._turns[0])
        if self._wanted[turn]:
            self._memory.copy_(self._hosts[turn])
        self._turns.fill_(1 - turn)

    def turn(self) -> None:
        """To be called after each launch of a graph that lands."""
        read = self._read[self._turn]
        if read is not None:
            read.record()
        self._turn ^= 1

    def begin(self) -> None:
        """The next launch copies what the next `fill` writes, whatever was launched before."""
        self._turns.zero_()
        self._turn = 0
        if self._on_gpu:
            torch.cuda.synchronize(self._memory.device)

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
