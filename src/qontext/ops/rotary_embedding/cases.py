"""Inputs of RotaryEmbedding for the conformance test and for timing."""

from collections.abc import Callable, Iterable, Sequence

import torch

from ..declare import Case

_POSITIONS = 23


def _make(
    shape: Sequence[int], pairs: int, tokens: Sequence[int], positions: bool = True, table: int = _POSITIONS
) -> Callable[[torch.Generator, torch.dtype], list[torch.Tensor | None]]:
    """`tokens` is the shape of position_ids: [B, S] or [T]. Without positions cos and sin are already looked up."""

    def make(generator: torch.Generator, dtype: torch.dtype) -> list[torch.Tensor | None]:
        rows = (table,) if positions else tuple(tokens)
        angle = torch.rand(*rows, pairs, generator=generator) * 6.3
        ids = torch.randint(0, table, tuple(tokens), generator=generator) if positions else None
        x = torch.randn(*shape, generator=generator)
        return [x.to(dtype), angle.cos().to(dtype), angle.sin().to(dtype), ids]

    return make


def cases() -> Iterable[Case]:
    for pairing in ("half", "interleaved"):
        common = {"pairing": pairing}
        yield Case(f"{pairing}_one", _make((1, 1, 1, 2), 1, (1, 1)), common)
        yield Case(f"{pairing}_heads_first", _make((2, 3, 5, 16), 8, (2, 5)), common)
        yield Case(f"{pairing}_partial", _make((2, 3, 5, 14), 3, (2, 5)), common)
        yield Case(f"{pairing}_looked_up", _make((2, 3, 5, 8), 4, (2, 5), positions=False), common)
        yield Case(f"{pairing}_heads_last", _make((2, 5, 3, 8), 4, (2, 5)), {**common, "layout": "B S N D"})
        flat = {**common, "num_heads": 3}
        yield Case(f"{pairing}_flat", _make((2, 7, 30), 5, (2, 7)), {**flat, "layout": "B S (N D)"})
        yield Case(f"{pairing}_packed", _make((11, 24), 4, (11,)), {**flat, "layout": "T (N D)"})
        yield Case(
            f"{pairing}_packed_looked_up", _make((11, 24), 4, (11,), positions=False), {**flat, "layout": "T (N D)"}
        )
        yield Case(f"{pairing}_length_first", _make((7, 2, 24), 4, (2, 7)), {**flat, "layout": "S B (N D)"})
        yield Case(
            f"{pairing}_llama_512", _make((512, 32 * 128), 64, (512,), table=4096),
            {**common, "num_heads": 32, "layout": "T (N D)"}, bench=True,
        )  # fmt: skip
