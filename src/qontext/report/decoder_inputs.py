"""Inputs of the programs "prefill" and "decode", as the generation loop makes them: for timing and for reports."""

import torch

from ..engine import Engine
from ..generation.caches import Caches

_PAGE = 64


def decoder_inputs(engine: Engine, name: str, batch: int, length: int) -> dict[str, torch.Tensor]:
    """Inputs of one step of a decoder, with caches of its own.

    Args:
        name: "prefill", which puts `length` new tokens of each sequence into empty caches, "decode", which adds one
            token to sequences of `length` tokens, or "beams", for which these are the beams of one prompt.
    """
    program = engine.compiled.programs[name]
    decode = name != "prefill"
    past, new = (length, 1) if decode else (0, length)
    pages = batch * -(-(past + new) // _PAGE)
    caches = Caches(program, list(engine.compiled.states), pages, _PAGE)
    held = [caches.open() for _ in range(batch)]
    for sequence in held:
        caches.extend(sequence, past + new)
    vocabulary = int(engine.config["vocabulary"])
    ids = torch.randint(0, vocabulary, (batch * new,), generator=torch.Generator().manual_seed(0))
    inputs = {
        "input_ids": ids,
        "query_lengths": torch.full((batch,), new, dtype=torch.int32),
        "past_lengths": torch.full((batch,), past, dtype=torch.int32),
        "block_table": caches.table(held),
        "position_ids": torch.arange(past, past + new).repeat(batch),
        "cache_indirection": torch.zeros(1, batch, past + new, dtype=torch.int32),
    }
    return {n: t for n, t in inputs.items() if n in program.inputs} | caches.tensors
