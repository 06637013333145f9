"""How large keys and values become: what prompts put into caches of floats."""

from collections.abc import Sequence

import torch

from .loop import Generator


def largest_in_caches(generator: Generator, prompts: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    """The largest magnitudes of keys and values in each cache, float32 [2, Nkv], over all tokens of the prompts.

    Raises InputError for prompts that cannot be used.
    """
    found: dict[str, torch.Tensor] = {}
    for prompt in prompts:
        for name, held in generator.caches_after(prompt).items():
            most = held.float().abs().amax((2, 3)).cpu()
            found[name] = torch.maximum(found[name], most) if name in found else most
    return found
