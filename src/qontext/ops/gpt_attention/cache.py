"""Caches of keys and values: where each token lies, quantising, reading and writing.

A cache is `[slots, 2, Nkv, P, D]` (contiguous: a slot a sequence or beam) or `[pages, 2, Nkv, page, D]` with a table of
page numbers `[slots, pages of a sequence]`. Token t of a slot lies at place t; where a sliding window makes the cache
cyclic, the first `sinks` places stay and the others go round.
"""

from dataclasses import dataclass

import torch

from ...errors import InputError

Tensor = torch.Tensor
INT8_RANGE = (-128, 127)
FP8_MOST = 448.0  # the largest number of float8_e4m3


def quantised(x: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """x as a cache of that dtype holds it: sat8(round(x * scale)) for int8, x * scale saturated for fp8."""
    if dtype.itemsize > 1:
        return x.to(dtype)
    assert scale is not None
    scaled = x.to(torch.promote_types(x.dtype, torch.float32)) * scale
    if dtype == torch.int8:
        return scaled.round().clamp(*INT8_RANGE).to(dtype)
    return scaled.clamp(-FP8_MOST, FP8_MOST).to(dtype)


def dequantised(q: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """What a cache holds as numbers of `dtype`."""
    if q.element_size() > 1:
        return q.to(dtype)
    assert scale is not None
    return (q.to(torch.promote_types(dtype, torch.float32)) * scale).to(dtype)


def by_part(scale: Tensor | None, part: int) -> Tensor | None:
    """The scale of keys (part 0) or values (1) in a form that multiplies [..., Nkv, D].

    Scales are [1], [Nkv] for both parts, or [2, Nkv].
    """
    if scale is None or scale.numel() == 1:
        return scale
    return (scale[part] if scale.dim() == 2 else scale).unsqueeze(-1)


@dataclass(frozen=True)
class Cache:
    """A cache with everything that is needed to read and write it.

    tensor, table: see above
    indirection:  [batch, beams, P]: of which beam the token at a place is to be read
    to_cache, from_cache: scales of quantising and dequantising
    sinks:        first places of a cyclic cache that stay
    cyclic:       a sliding window lets later tokens take the places of earlier ones
    """

    tensor: Tensor
    table: Tensor | None = None
    indirection: Tensor | None = None
    to_cache: Tensor | None = None
    from_cache: Tensor | None = None
    sinks: int = 0
    cyclic: bool = False

    @property
    def capacity(self) -> int:
        """Places of a slot."""
        page = self.tensor.shape[3]
        return page if self.table is None else page * self.table.shape[1]

    def places(self, positions: Tensor) -> Tensor:
        """Places of token positions [L]."""
        if not self.cyclic:
            return positions
        around = self.sinks + (positions - self.sinks) % max(self.capacity - self.sinks, 1)
        return torch.where(positions < self.capacity, positions, around)

    def _index(self, slots: Tensor, positions: Tensor, part: int) -> tuple[Tensor | int | slice, ...]:
        """The index of tokens [L] of slots [L]; the result is [L, Nkv, D]."""
        rows, places = self.where(slots, positions)
        return rows, part, slice(None), places

    def read(self, slot: int, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values [L, Nkv, D] of one slot, through the indirection of beams where there is one."""
        slots = torch.full_like(positions, slot)
        if self.indirection is not None:
            beams = self.indirection.shape[1]
            first = slot - slot % beams
            slots = first + self.indirection[slot // beams, slot % beams, positions].long()
        key, value = (
            dequantised(self.tensor[self._index(slots, positions, p)], by_part(self.from_cache, p), dtype)
            for p in (0, 1)
        )
        return key, value

    def where(self, slots: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the tensor (slots or pages) and places in them of tokens [L] of slots [L]."""
        places = self.places(positions)
        if self.table is None:
            return slots, places
        page = self.tensor.shape[3]
        return self.table[slots, places // page].long(), places % page

    def write(self, slots: Tensor, positions: Tensor, key: Tensor, value: Tensor) -> None:
        """Writes tokens [L, Nkv, D] to their places, quantised where the cache is."""
        self.put(self.where(slots, positions), key, value)

    def put(self, where: tuple[Tensor, Tensor], key: Tensor, value: Tensor) -> None:
        """Writes tokens [L, Nkv, D] to rows and places of the tensor."""
        rows, places = where
        for part, x in ((0, key), (1, value)):
            held = quantised(x, by_part(self.to_cache, part), self.tensor.dtype)
            self.tensor[rows, part, :, places] = held

    def as_held(self, key: Tensor, value: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values as they are read back after they were written."""
        if self.tensor.element_size() > 1 and self.tensor.dtype == dtype:
            return key.to(dtype), value.to(dtype)
        held = []
        for part, x in ((0, key), (1, value)):
            low = quantised(x, by_part(self.to_cache, part), self.tensor.dtype)
            held.append(dequantised(low, by_part(self.from_cache, part), dtype))
        return held[0], held[1]

    @property
    def layout(self) -> tuple[object, ...]:
        """All that says where tokens lie, but for the table."""
        return self.tensor.shape, self.capacity, self.sinks, self.cyclic

    def check(self, slots: list[int], past: list[int], new: list[int], window: int) -> None:
        """Raises InputError for lengths, slots and pages that do not fit."""
        rows = self.tensor.shape[0] if self.table is None else self.table.shape[0]
        page = self.tensor.shape[3]
        for r, (slot, before, count) in enumerate(zip(slots, past, new, strict=True)):
            total = before + count
            if not 0 <= slot < rows:
                what = "'past'" if self.table is None else "block_table"
                raise InputError(f"slots of sequence {r} is {slot}; {what} has rows 0 to {rows - 1}")
            if total > self.capacity and not self.cyclic:
                held = f"'past' holds {self.capacity}"
                if self.table is not None:
                    held += f" ({self.table.shape[1]} pages of {page})"
                raise InputError(
                    f"sequence {r} has {before} tokens in the cache and {count} new ones, {held}; end the "
                    "sequence, or make a larger cache"
                )
            if self.cyclic and total > self.capacity and self.capacity < min(window, total) + self.sinks:
                raise InputError(
                    f"the cache has {self.capacity} places, a window of {window} tokens and {self.sinks} sinks need "
                    f"{window + self.sinks}"
                )
        if self.indirection is not None:
            self._check_beams(self.indirection, slots, past)
        # A table on a GPU is not read back: kernels leave pages alone that the pool has not.
        if self.table is not None and rows and self.table.device.type == "cpu":
            self._check_pages(slots, past, new)

    def _check_beams(self, beams: Tensor, slots: list[int], past: list[int]) -> None:
        """Of a table on a device nothing is read: the host would wait for it."""
        batch, count, positions = beams.shape
        if batch * count <= max(slots, default=-1) or positions < max(past, default=0):
            raise InputError(
                f"cache_indirection is for {batch} x {count} slots and {positions} positions, the sequences take slots "
                f"up to {max(slots)} and have up to {max(past)} tokens in the cache"
            )
        if beams.device.type != "cpu":
            return
        mine = beams.reshape(-1, positions)[torch.tensor(slots, dtype=torch.int64)]
        wrong = ((mine < 0) | (mine >= count)) & (torch.arange(positions) < torch.tensor(past)[:, None])
        if bool(wrong.any()):
            r, i = wrong.nonzero()[0].tolist()
            raise InputError(
                f"cache_indirection of sequence {r} names beam {int(mine[r, i])} of token {i}; there are {count} "
                f"beams, allowed are 0 to {count - 1}"
            )

    def _check_pages(self, slots: list[int], past: list[int], new: list[int]) -> None:
        assert self.table is not None
        page, count = self.tensor.shape[3], self.tensor.shape[0]
        used = -(-torch.tensor([min(p + n, self.capacity) for p, n in zip(past, new, strict=True)]) // page)
        mine = self.table[torch.tensor(slots, dtype=torch.int64)].cpu()
        needed = torch.arange(mine.shape[1]) < used[:, None]
        wrong = needed & ((mine < 0) | (mine >= count))
        if bool(wrong.any()):
            r, i = wrong.nonzero()[0].tolist()
            raise InputError(
                f"block_table of sequence {r} names page {int(mine[r, i])} for its tokens from {i * page}; the cache "
                f"has {count} pages, allowed are 0 to {count - 1}"
            )
