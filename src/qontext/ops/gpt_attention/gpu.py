"""GptAttention on the GPU.

A step in which every sequence brings few tokens is two launches (three where sequences are shared out): one puts the
new tokens in place, one attends to the cache where it lies. With counts and tables that lie on the device nothing is
read back then, so such a step can stand in a CUDA graph. Other steps need the counts on the host (they are read back
from a device): prompts are put in place by the same kernel and attended to by `gpu_context.py`; what is left (cross
attention, relative biases, no cache) goes one sequence after the other through torch and the kernels of encoders.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch

from ..attention_common.gpu import Longest, bind_masked, bind_plain
from ..attention_common.problem import Problem, Rule
from ..call import Bound, Call, Kernel, Tensors
from ..gpu_launch import compute_capability, may_overlap, takes_floats
from .cache import Cache, by_part
from .gpu_context import MANY, Prompts, attend, gathered
from .gpu_decode import Decode, decode
from .gpu_places import Angles, Places, turns
from .gpu_store import store
from .rows import INPUTS, Rows, cache_of, named, rows_each, rows_of
from .step import MOST_QUERIES, Step

Tensor = torch.Tensor
Given = Mapping[str, Tensor | None]
_COMPUTED = ("qkv", "qkv_bias", "cross_qkv")
_FLOATS = ("kv_orig_quant_scale", "kv_quant_orig_scale", "qkv_bias", "alibi_slopes", "relative_attention_bias")
_COUNTS = ("past_lengths", "query_lengths", "slots", "block_table")


class GpuStep(Step):
    """A step on a GPU."""

    def __init__(self, call: Call):
        self.overlap = may_overlap(call)
        self._plain, self._masked = bind_plain(call), bind_masked(call)
        super().__init__(call.attributes, self._attend, self._attend_to_cache, call.device.torch)

    def compute(self, given: Given) -> Tensor:
        """The context `[..., N * D]`; updates the cache. Counts and tables of floats may lie on the host."""
        given = {
            name: x if x is None or name not in _FLOATS or x.device == self.place else x.to(self.place)
            for name, x in given.items()
        }
        qkv = given["qkv"]
        assert qkv is not None
        each, cache = rows_each(given, self.attributes), cache_of(given, self.attributes)
        shape = (*qkv.shape[:-1], self.heads * self.size)
        if cache is None or given["encoder_lengths"] is not None:
            return self._by_sequence(given, shape)
        if each is not None and self._needs_no_counts(given, cache, each):
            return self._in_place(given, cache, self._places(given, each)).view(shape)
        rows = rows_of(given, self.attributes)
        if not all(self._reads_cache(given, rows, cache, r) for r in range(len(rows)) if rows.new[r]):
            return self._by_sequence(given, shape)
        cache.check(rows.slots, rows.past, rows.new, self.window)
        first, new, past, slots = _on(self.place, rows.first, rows.new, rows.past, rows.slots)
        tables = [_int32(x, self.place) for x in (cache.table, cache.indirection, given["prefix_lengths"])]
        places = Places(len(rows), each or 0, None if each else first, new, past, slots, *tables)
        return self._in_place(given, cache, places, rows).view(shape)

    def _by_sequence(self, given: Given, shape: tuple[int, ...]) -> Tensor:
        """Turning and writing by torch's operators, one sequence after the other."""
        context = torch.empty(shape, dtype=given["qkv"].dtype, device=self.place)  # type: ignore[union-attr]
        self.run(given, context)
        return context

    def _reads_cache(self, given: Given, rows: Rows, cache: Cache, r: int) -> bool:
        """Whether a sequence is attended to in the cache itself: with any number of new tokens."""
        if given["relative_attention_bias"] is not None or self.attributes["mask_type"] == "padding":
            return False
        if cache.tensor.stride(-1) != 1 or (rows.prefix is not None and self.window):
            return False
        total = rows.past[r] + rows.new[r]
        # Later tokens of the step would have taken places that its first token still sees.
        return total <= cache.capacity or cache.capacity >= self.window + cache.sinks + rows.new[r] - 1

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

    def _in_place(self, given: Given, cache: Cache, places: Places, rows: Rows | None = None) -> Tensor:
        """New tokens put in place, then attended to; `rows` where the host knows the counts."""
        qkv, bias = given["qkv"], given["qkv_bias"]
        assert qkv is not None
        flat = qkv.reshape(-1, qkv.shape[-1])
        flat = flat if flat.stride(-1) == 1 else flat.contiguous()
        query = flat.new_empty(len(flat), self.heads, self.size)
        if not len(flat) or (rows is not None and not any(rows.new)):
            return query.zero_()
        many = rows is not None and self._is_context(given, rows, cache, places)
        fresh = many and rows is not None and not any(rows.past) and cache.tensor.dtype == flat.dtype
        keys = query.new_empty(len(flat), self.kv_heads, self.size) if fresh else None
        values = torch.empty_like(keys) if keys is not None and bias is not None else None
        key_scale, value_scale = (_flat(by_part(cache.to_cache, part)) for part in (0, 1))
        store(
            flat,
            query,
            places,
            self.kv_heads,
            _flat(bias),
            self._angles(rows),
            cache.tensor,
            key_scale,
            value_scale,
            cache.cyclic,
            cache.sinks,
            keys,
            values,
            self.overlap,
        )
        if many and rows is not None:
            if keys is not None and values is None:
                values = flat[:, -self.kv_heads * self.size :].unflatten(-1, (self.kv_heads, self.size))
            return self._context_of(rows, cache, places, query, keys, values)
        # Shapes bound the tokens of a sequence, where the host does not know them.
        longest, most = places.capacity(cache.tensor), places.each
        if rows is not None:
            longest = max(p + n for p, n in zip(rows.past, rows.new, strict=True))
            most = max(rows.new)
        key_scale, value_scale = (_flat(by_part(cache.from_cache, part)) for part in (0, 1))
        out = torch.empty_like(query)
        slopes = _flat(given["alibi_slopes"])
        decode(self._plan(most), query, cache.tensor, places, longest, out, key_scale, value_scale, slopes)
        return out

    def _is_context(self, given: Given, rows: Rows, cache: Cache, places: Places) -> bool:
        """Whether keys and values are worth bringing together: many new tokens, masks by position alone."""
        if max(rows.new) <= MANY or places.each or given["alibi_slopes"] is not None or cache.indirection is not None:
            return False
        if cache.cyclic and any(p and p + n > cache.capacity for p, n in zip(rows.past, rows.new, strict=True)):
            return False
        return not (self.window and self.sinks)

    def _context_of(
        self, rows: Rows, cache: Cache, places: Places, query: Tensor, keys: Tensor | None, values: Tensor | None
    ) -> Tensor:
        """Attention over keys and values side by side: those of the step, or what the cache holds."""
        totals = rows.new
        if keys is None or values is None:
            keys, values, totals = gathered(cache, places.table, rows, query.dtype, self.place)
        kind = "causal" if places.prefixes is None else "prefix"
        left = self.window - 1 if self.window else -1
        rule = Rule(self.scale, kind, softcap=self.attributes["softcap"], window_left=left)
        both = _on(self.place, *([0, *accumulate(lengths)] for lengths in (rows.new, totals)))
        prompts = Prompts(query, keys, values, rows.new, totals, (both[0], both[1]), places.prefixes)
        return attend(prompts, rule, self._attend)

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
    """Lists or tensors of equal length as int32 on the device, by one copy that nobody waits for."""
    stacked = torch.stack([torch.as_tensor(x, dtype=torch.int32) for x in numbers])
    return stacked.to(place, non_blocking=True).unbind(0)


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
    step = GpuStep(call)

    def run(inputs: Tensors, out: Tensors | None = None) -> tuple[Tensor | None, ...]:
        given = named(inputs)
        return step.compute(given), given["past"]

    return run


# The vendor's attention of prompts makes tensors of its own, so the kernel does.
KERNELS = (Kernel("triton.gpt_attention", "cuda", _supports, _bind),)
