"""Ids against the sizes of the tables that they index: at once on the host, by one small kernel on a device."""

from collections.abc import Callable, Mapping

import torch

from ..errors import InputError
from ..ops.gpu_launch import blocks

_BLOCK = 4096


def range_check(tensors: Mapping[str, torch.Tensor], limits: Mapping[str, int]) -> Callable[[], None]:
    """Checks ids: those on the host at once; on a device, starts the search and gives its end.

    Args:
        tensors: contiguous ids by input name, none of them empty.
        limits: the size of the table by input name.
    Returns:
        Waits for what was started. Both raise InputError for an id below 0 or not below its limit.
    """
    if not tensors or next(iter(tensors.values())).device.type == "cpu":
        for name, tensor in tensors.items():
            low, high = torch.aminmax(tensor)
            if int(low) < 0 or int(high) >= limits[name]:
                _refuse(name, tensor, limits[name])
        return _nothing
    return _started(tensors, limits)


def _nothing() -> None:
    """There is nothing to wait for."""


def _started(tensors: Mapping[str, torch.Tensor], limits: Mapping[str, int]) -> Callable[[], None]:
    """Starts the search on the device; it writes into memory of the host, so nothing has to be copied back."""
    from .id_ranges_kernel import outside

    found = torch.zeros(len(tensors), dtype=torch.int32, pin_memory=True)
    with torch.cuda.device(next(iter(tensors.values())).device):
        for i, (name, tensor) in enumerate(tensors.items()):
            count = tensor.numel()
            outside[(blocks(count, _BLOCK),)](tensor, found, i, count, limits[name], _BLOCK)
        done = torch.cuda.Event()
        done.record()

    def finish() -> None:
        done.synchronize()
        for i, (name, tensor) in enumerate(tensors.items()):
            if found[i]:
                _refuse(name, tensor, limits[name])

    return finish


def _refuse(name: str, tensor: torch.Tensor, limit: int) -> None:
    bad = ((tensor < 0) | (tensor >= limit)).nonzero()[0].tolist()
    value = int(tensor[tuple(bad)])
    raise InputError(f"run: input {name!r} holds {value} at {bad}; allowed are 0 to {limit - 1}")
