"""GptAttention on the GPU.

A step in which every sequence brings few tokens is two launches (three where sequences are shared out): one puts the
new tokens in place, one attends to the cache where it lies. With counts and tables that lie on the device nothing is
read back then, so such a step can stand in a CUDA graph. Other steps need the counts on the host (they are read back
from a device); they turn and write with torch's operators, and contexts go to the attention kernels of encoders.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ..attention_common.gpu import Longest, bind_masked, bind_plain
from ..attention_common.problem import Problem
from ..call import Bound, Call, Kernel
from ..gpu_launch import compute_capability, may_overlap, takes_floats
from .cache import Cache, by_part
from .cpu import bind_step
from .gpu_decode import Decode, decode
from .gpu_places import Angles, Places, turns
from .gpu_store import store
from .rows import INPUTS, Rows, cache_of, rows_each, rows_of
from .step import MOST_QUERIES, Step

Tensor = torch.Tensor
Given = Mapping[str, Tensor | None]
_COMPUTED = ("qkv", "qkv_bias", "cross_qkv")
_COUNTS = ("past_lengths", "query_lengths", "slots", "block_table")


class GpuStep(Step):
    """A step on a GPU."""

    def __init__(self, call: Call):
        self.overlap = may_overlap(call)
        self._plain, self._masked = bind_plain(call), bind_masked(call)
        super().__init__(call.attributes, self._attend, self._attend_to_cache, call.device.torch)

    def run(self, given: Given, context: Tensor) -> None:
        """Fills the context `[..., N * D]` and updates the cache."""
        each, cache = rows_each(given, self.attributes), cache_of(given, self.attributes)
        if cache is not None and each is not None and self._needs_no_counts(given, cache, each):
            self._generate(given, cache, self._places(given, each), context)
            return
        rows = rows_of(given, self.attributes)
        everyone = rows.tokens > 0 and sum(rows.new) == rows.tokens and rows.encoder is None
        if cache is None or not everyone:
            super().run(given, context)
            return
        if not all(self._reads_cache(given, rows, cache, r) for r in range(len(rows)) if rows.new[r]):
            super().run(given, context)
            return
        cache.check(rows.slots, rows.past, rows.new, self.window)
        first, new, past, slots = _on(self.place, rows.first, rows.new, rows.past, rows.slots)
        tables = (_int32(x, self.place) for x in (cache.table, cache.indirection))
        places = Places(len(rows), 0, first, new, past, slots, *tables)
        self._generate(given, cache, places, context, max(rows.new), rows)

    def _needs_no_counts(self, given: Given, cache: Cache, each: int) -> bool:
        """Whether shapes say that every sequence is attended to in the cache, and the counts lie on the device."""
        known = not (given["relative_attention_bias"] is not None or given["encoder_lengths"] is not None)
        known = known and given["prefix_lengths"] is None and self.attributes["mask_type"] == "causal"
        known = known and not (self.rotary is not None and self.rotary.depends_on_length)
        fits = not cache.cyclic or cache.capacity >= self.window + cache.sinks + each - 1
        if not (known and fits and 0 < each <= MOST_QUERIES and cache.tensor.stride(-1) == 1):
            return False
        return all(x is None or x.device.type == self.place.type for x in (given[name] for name in _COUNTS))

    def _places(self, given: Given, each: int) -> Places:
        qkv, found = given["qkv"], [_int32(given[n], self.place) for n in (*_COUNTS, "cache_indirection")]
        assert qkv is not None
        past, queries, slots, table, indirection = found
        return Places(qkv.shape[:-1].numel() // each, each, None, queries, past, slots, table, indirection)

    def _generate(
        self,
        given: Given,
        cache: Cache,
        places: Places,
        context: Tensor,
        most: int | None = None,
        rows: Rows | None = None,
    ) -> None:
        """Few tokens of every sequence. `most` of them and their `rows` where the host knows them."""
        qkv = given["qkv"]
        assert qkv is not None
        flat = qkv.reshape(-1, qkv.shape[-1])
        query = flat.new_empty(len(flat), self.heads, self.size)
        if places.batch == 0:
            return
        scales = (_flat(by_part(cache.to_cache, part)) for part in (0, 1))
        store(
            flat,
            query,
            places,
            self.kv_heads,
            given["qkv_bias"],
            self._angles(rows),
            cache.tensor,
            *scales,
            cache.cyclic,
            cache.sinks,
            self.overlap,
        )
        plan = self._plan(most or places.each)
        # Shapes bound the tokens of a sequence; a cyclic cache forgets what lies behind the window.
        longest = places.capacity(cache.tensor)
        if rows is not None:
            longest = max(p + n for p, n in zip(rows.past, rows.new, strict=True))
        scales = (_flat(by_part(cache.from_cache, part)) for part in (0, 1))
        slopes = _flat(given["alibi_slopes"])
        decode(plan, query, cache.tensor, places, longest, context.view(query.shape), *scales, slopes)

    def _plan(self, most: int) -> Decode:
        softcap = self.attributes["softcap"]
        sinks = self.sinks if self.window else 0
        return Decode(self.heads // self.kv_heads, self.scale, most, softcap, self.window, sinks, self.overlap)

    def _angles(self, rows: Rows | None) -> Angles | None:
        if self.rotary is None:
            return None
        if not self.rotary.depends_on_length:
            return turns(self.rotary, self.place)
        assert rows is not None
        cos, sin = self.cos_sin(rows.token_index()[1], rows)
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
        **known: Any,
    ) -> None:
        """`native.decode` on the device."""
        counts = _on(self.place, first, queries, past, slots)
        tables = (_int32(x, self.place) for x in (table, indirection))
        longest = max(p + n for p, n in zip(past, queries, strict=True))
        places = Places(len(first), 0, *counts, *tables)
        scales = (_flat(x) for x in (key_scale, value_scale, slopes))
        decode(self._plan(max(queries)), query.contiguous(), cache, places, longest, out, *scales)


def _on(place: torch.device, *numbers: Any) -> tuple[Tensor, ...]:
    """Lists or tensors of equal length as int32 on the device, by one copy."""
    return torch.stack([torch.as_tensor(x, dtype=torch.int32) for x in numbers]).to(place).unbind(0)


def _int32(x: Tensor | None, place: torch.device) -> Tensor | None:
    return None if x is None else x.to(place, torch.int32).contiguous()


def _flat(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.reshape(-1).contiguous()


def reads_counts(call: Call) -> str:
    """Why a call needs the counts of its sequences on the host; "" when it does not, whatever they are."""
    attributes = call.attributes
    given = {name for name, x in zip(INPUTS, call.inputs, strict=True) if x is not None}
    if not 0 < attributes["tokens_each"] <= MOST_QUERIES or "past" not in given:
        return "attention in the context phase reads the counts of its sequences on the host"
    if given & {"relative_attention_bias", "encoder_lengths", "prefix_lengths"} or attributes["mask_type"] != "causal":
        return "attention with relative biases, prefixes or encoder outputs reads counts on the host"
    if attributes["rotary_scaling"] == "dynamic":
        return "rotary_scaling 'dynamic' turns keys by lengths that are read on the host"
    return ""


def _supports(call: Call) -> str | None:
    """Everything computed shares one float dtype; the cache has any, biases and scales have their own."""
    computed = replace(call, inputs=tuple(call.inputs[INPUTS.index(n)] for n in _COMPUTED), outputs=call.outputs[:1])
    held = call.inputs[INPUTS.index("past")]
    capability = compute_capability(call)
    if held is not None and held.dtype == "float8_e4m3" and 0 < capability < 89:
        return f"the cache is float8_e4m3, which sm_{capability} cannot convert; sm_89 is the first that can"
    return takes_floats(computed)


def _bind(call: Call) -> Bound:
    return bind_step(GpuStep(call))


KERNELS = (Kernel("triton.gpt_attention", "cuda", _supports, _bind, writes_out=True),)
