"""GptAttention on the GPU.

A step in which every sequence brings few tokens is two launches (three where sequences are shared out): one puts the
new tokens in place, one attends to the cache where it lies. Other steps turn and write with torch's operators, and
contexts go to the attention kernels of encoders.
"""

from collections.abc import Mapping
from typing import Any

import torch

from ..attention_common.gpu import Longest, bind_masked, bind_plain
from ..attention_common.problem import Problem
from ..call import Bound, Call, Kernel
from ..gpu_launch import may_overlap, takes_floats
from .cache import Cache, by_part
from .cpu import bind_step
from .gpu_decode import Decode, Places, decode
from .gpu_store import Angles, Tokens, store
from .rows import Rows, cache_of, rows_of
from .step import Step

Tensor = torch.Tensor


class GpuStep(Step):
    """A step on a GPU. Counts and lengths that lie there are read back first."""

    def __init__(self, call: Call):
        self.overlap = may_overlap(call)
        self._plain, self._masked = bind_plain(call), bind_masked(call)
        super().__init__(call.attributes, self._attend, self._attend_to_cache, call.device.torch)

    def run(self, given: Mapping[str, Tensor | None], context: Tensor) -> None:
        """Fills the context `[..., N * D]` and updates the cache."""
        rows, cache = rows_of(given), cache_of(given, self.attributes)
        everyone = rows.tokens > 0 and sum(rows.new) == rows.tokens and rows.encoder is None
        if cache is None or not everyone:
            super().run(given, context)
            return
        if not all(self._reads_cache(given, rows, cache, r) for r in range(len(rows)) if rows.new[r]):
            super().run(given, context)
            return
        cache.check(rows.slots, rows.past, rows.new, self.window)
        self._generate(given, rows, cache, context)

    def _generate(self, given: Mapping[str, Tensor | None], rows: Rows, cache: Cache, context: Tensor) -> None:
        qkv = given["qkv"]
        assert qkv is not None
        flat = qkv.reshape(-1, qkv.shape[-1])
        query = flat.new_empty(rows.tokens, self.heads, self.size)
        _, positions, slots = rows.token_index()
        kept = self.kept(rows, cache, positions) if cache.cyclic else None
        at, of = _on(self.place, positions, slots)
        tokens = Tokens(at, of, _int32(kept, self.place), _int32(cache.table, self.place))
        key_scale, value_scale = (_flat(by_part(cache.to_cache, part)) for part in (0, 1))
        store(
            flat,
            query,
            tokens,
            self.kv_heads,
            given["qkv_bias"],
            self._angles(positions, rows),
            cache.tensor,
            key_scale,
            value_scale,
            cache.cyclic,
            cache.sinks,
            self.overlap,
        )
        self._decode(
            given,
            rows,
            cache,
            [r for r in range(len(rows)) if rows.new[r]],
            rows.first,
            query,
            context.view(query.shape),
        )

    def _angles(self, positions: Tensor, rows: Rows) -> Angles | None:
        if self.rotary is None:
            return None
        cos, sin = self.cos_sin(positions, rows)
        return Angles(cos.to(self.place), sin.to(self.place), self.rotary.pairing == "half", by_token=True)

    def _attend(self, problem: Problem, out: Tensor, queries: int, keys: int) -> None:
        special = problem.mask is not None or problem.bias is not None or problem.rule.softcap
        (self._masked if special else self._plain)(problem, out, Longest(queries, keys))

    def _attend_to_cache(
        self,
        query: Tensor,
        cache: Tensor,
        *,
        out: Tensor,
        first: list[int],
        queries: list[int],
        past: list[int],
        slots: list[int],
        table: Tensor | None,
        indirection: Tensor | None,
        key_scale: Tensor | None,
        value_scale: Tensor | None,
        slopes: Tensor | None,
        scale: float,
        softcap: float,
        window: int,
        sinks: int,
    ) -> None:
        """`native.decode` on the device."""
        starts, counts, before, where = _on(self.place, first, queries, past, slots)
        places = Places(starts, counts, before, where, _int32(table, self.place), _int32(indirection, self.place))
        plan = Decode(self.heads // self.kv_heads, scale, max(queries), softcap, window, sinks, self.overlap)
        longest = max(p + n for p, n in zip(past, queries, strict=True))
        decode(
            plan, query.contiguous(), cache, places, longest, out, _flat(key_scale), _flat(value_scale), _flat(slopes)
        )


def _on(place: torch.device, *numbers: Any) -> tuple[Tensor, ...]:
    """Lists or tensors of equal length as int32 on the device, by one copy."""
    return torch.stack([torch.as_tensor(x, dtype=torch.int32) for x in numbers]).to(place).unbind(0)


def _int32(x: Tensor | None, place: torch.device) -> Tensor | None:
    return None if x is None else x.to(place, torch.int32).contiguous()


def _flat(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.reshape(-1).contiguous()


def _supports(call: Call) -> str | None:
    return takes_floats(call)


def _bind(call: Call) -> Bound:
    return bind_step(GpuStep(call))


KERNELS = (Kernel("triton.gpt_attention", "cuda", _supports, _bind, writes_out=True),)
