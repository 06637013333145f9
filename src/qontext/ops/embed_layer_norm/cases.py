"""Inputs of EmbedLayerNorm for the conformance test and for timing."""

from collections.abc import Callable, Iterable

import torch

from ..declare import Case

_ALL = ("y", "sum", "lengths")


def _make(
    batch: int,
    length: int,
    e: int,
    vocabulary: int = 97,
    positions: int = 41,
    types: int = 2,
    position_ids: str = "",
    type_ids: bool = True,
    mask: torch.dtype | None = None,
    index: torch.dtype = torch.int64,
    padding: int = -1,
) -> Callable[[torch.Generator, torch.dtype], list[torch.Tensor | None]]:
    """`batch` 0 makes packed ids [T]. `position_ids` names their shape: "B S", "S", "1 S", "T", or "" for none."""

    def make(generator: torch.Generator, dtype: torch.dtype) -> list[torch.Tensor | None]:
        def normal(*shape: int, mean: float = 0.0) -> torch.Tensor:
            return (torch.randn(*shape, generator=generator) + mean).to(dtype)

        def whole(limit: int, *shape: int) -> torch.Tensor:
            return torch.randint(0, limit, shape, generator=generator, dtype=index)

        lead = (batch, length) if batch else (length,)
        ids = whole(vocabulary, *lead)
        if padding >= 0:
            ids[..., length - length // 3 :] = padding
        shapes = {"B S": (batch, length), "S": (length,), "1 S": (1, length), "T": (length,)}
        attention = None
        if mask is not None:
            attention = (torch.rand(batch, length, generator=generator) < 0.6).to(mask)
        return [
            ids,
            normal(vocabulary, e),
            whole(positions, *shapes[position_ids]) if position_ids else None,
            normal(positions, e) if positions else None,
            whole(types, *lead) if types and type_ids else None,
            normal(types, e) if types else None,
            normal(e, mean=1.0),
            normal(e),
            attention,
        ]

    return make


def cases() -> Iterable[Case]:
    yield Case("one_token", _make(1, 1, 8, vocabulary=1, positions=1, types=1))
    yield Case("odd", _make(3, 7, 33), outputs=_ALL[:2])
    yield Case("words_only", _make(2, 5, 20, positions=0, types=0), {"epsilon": 1e-5})
    yield Case("no_types", _make(2, 5, 129, types=0))
    yield Case("type_row_0", _make(2, 5, 40, type_ids=False), outputs=_ALL[:2])
    yield Case("int32_ids", _make(2, 6, 24, index=torch.int32, position_ids="B S"))
    yield Case("positions_row", _make(3, 6, 24, position_ids="S"))
    yield Case("positions_1_row", _make(3, 6, 24, position_ids="1 S"))
    yield Case("offset", _make(2, 9, 16), {"position_offset": 2})
    yield Case("roberta", _make(2, 9, 16, padding=1), {"padding_idx": 1})
    yield Case("packed", _make(0, 13, 31, position_ids="T"), outputs=_ALL[:2])
    yield Case("all_outputs", _make(3, 8, 16, mask=torch.int64), outputs=_ALL)
    for mask in (torch.int64, torch.int32, torch.bool, torch.float32):
        name = f"mask_{str(mask).removeprefix('torch.')}"
        yield Case(name, _make(4, 11, 16, mask=mask), outputs=("y", "lengths"))
    for batch in (1, 8):
        yield Case(f"bert_{batch}x128", _make(batch, 128, 768, vocabulary=30522, positions=512), bench=True)
