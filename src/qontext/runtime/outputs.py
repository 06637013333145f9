"""Results from the device to where the caller wants them."""

from collections.abc import Mapping

import torch


def at(outputs: Mapping[str, torch.Tensor], place: torch.device) -> dict[str, torch.Tensor]:
    """The outputs at a place.

    From a GPU to the host they go into pinned memory, several times faster than pageable; torch keeps such blocks for
    the next time once the caller has dropped them.
    """
    moved = {}
    waits = False
    for name, tensor in outputs.items():
        if tensor.device.type == "cuda" and place.type == "cpu":
            landed = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            moved[name] = landed.copy_(tensor, non_blocking=True)
            waits = True
        else:
            moved[name] = tensor.to(place)
    if waits:
        torch.cuda.current_stream(next(iter(outputs.values())).device).synchronize()
    return moved
