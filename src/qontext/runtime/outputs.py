"""Results from the device to where the caller wants them."""

from collections.abc import Mapping

import numpy as np
import torch


class Arriving:
    """Outputs of a run on their way to the host; `wait` is for whoever needs them.

    From a GPU they go into pinned memory, several times faster than pageable, behind the run on the current stream;
    torch keeps such blocks for the next time once nobody holds them. Those that lie on the host are there already.
    """

    def __init__(self, outputs: Mapping[str, torch.Tensor]):
        self._landed = {}
        self._there: torch.cuda.Event | None = None
        device = None
        for name, tensor in outputs.items():
            if tensor.device.type == "cuda":
                landed = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                self._landed[name] = landed.copy_(tensor, non_blocking=True)
                device = tensor.device
            else:
                self._landed[name] = tensor
        if device is not None:
            self._there = torch.cuda.Event()
            self._there.record(torch.cuda.current_stream(device))

    def wait(self) -> dict[str, torch.Tensor]:
        """The outputs on the host."""
        if self._there is not None:
            self._there.synchronize()
        return self._landed


def at(outputs: Mapping[str, torch.Tensor], place: torch.device) -> dict[str, torch.Tensor]:
    """The outputs at a place."""
    if place.type == "cpu":
        return Arriving(outputs).wait()
    return {name: tensor.to(place) for name, tensor in outputs.items()}


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A tensor on the host as an array; types that numpy lacks become float32."""
    if tensor.dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):
        tensor = tensor.float()
    return tensor.numpy()
