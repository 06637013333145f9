"""Batches without padding: packing is a view, and so is padding again."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import torch

from ..builder.plan import Step
from ..ops.call import Bound, Result, Tensors

_MOST_SIZES = 256


class FullIndex:
    """What PackIndex gives for a mask of ones, remembered by size and place."""

    def __init__(self, place: torch.device):
        self._place = place
        self._held: OrderedDict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = OrderedDict()

    def __call__(self, inputs: Tensors, out: Tensors | None = None) -> Result:
        mask = inputs[0]
        assert mask is not None
        size = tuple(mask.shape)
        if size not in self._held:
            batch, length = size
            token_index = torch.arange(batch * length, device=self._place)
            cu_seqlens = torch.arange(batch + 1, dtype=torch.int32, device=self._place) * length
            self._held[size] = token_index, cu_seqlens, torch.tensor(length, dtype=torch.int32)
            if len(self._held) > _MOST_SIZES:
                self._held.popitem(last=False)
        return self._held[size]


def _flat(inputs: Tensors, out: Tensors | None = None) -> Result:
    assert inputs[0] is not None
    return inputs[0].flatten(0, 1)


def _padded(inputs: Tensors, out: Tensors | None = None) -> Result:
    x, mask = inputs[0], inputs[2]
    assert x is not None and mask is not None
    return x.unflatten(0, mask.shape)


def without_padding(steps: Sequence[Step], index: Bound) -> list[Step]:
    """The steps as they are for a batch without padding; results that were copies are views.

    Args:
        index: stands for PackIndex.
    """
    runs: dict[str, Bound] = {"PackIndex": index, "PackTokens": _flat, "UnpackTokens": _padded}
    return [
        replace(s, run=runs[s.op], kernel="view", writes_out=False, ranges=(), rows=None) if s.op in runs else s
        for s in steps
    ]
