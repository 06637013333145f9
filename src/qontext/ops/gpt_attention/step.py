"""One call of GptAttention, whatever the device: what is new is turned and cached, then every sequence is attended to.

Sequences with few new tokens (generation) read the cache where it lies; for the others (context) keys and values are
brought together and go to the attention kernels of encoders.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..attention_common.problem import Problem, Rule
from .bias import added_bias
from .cache import Cache, by_part
from .reference import cross_keys, split, visible
from .rotary import AngleTable, rotary_of
from .rows import Rows, cache_of, rows_of

Tensor = torch.Tensor
MOST_QUERIES = 16  # of a sequence in generation; more are better packed for matrix products
# (problem, its context, the most queries and keys of a sequence): fills the context.
Attend = Callable[[Problem, Tensor, int, int], None]
Decode = Callable[..., object]  # with the arguments of `native.decode`


class Step:
    """What the attributes say, made ready: factors, angles, and how a sequence is attended to.

    Args:
        attend: computes a context.
        decode: attends to caches where they lie; None brings everything together.
        place: where the operands lie; counts and lengths are read on the host.
    """

    def __init__(self, attributes: Mapping[str, Any], attend: Attend, decode: Decode | None, place: torch.device):
        self.attributes = attributes
        self.heads, self.kv_heads = attributes["num_heads"], attributes["num_kv_heads"]
        self.size = attributes["head_size"]
        self.scale = 1 / (attributes["q_scaling"] * self.size**0.5)
        self.window, self.sinks = attributes["window"], attributes["sinks"]
        self.rotary = rotary_of(attributes)
        self.angles = None if self.rotary is None else AngleTable(self.rotary)
        self.attend = attend
        self.decode = decode
        self.place = place

    def run(self, given: Mapping[str, Tensor | None], context: Tensor) -> None:
        """Fills the context `[..., N * D]` and updates the cache."""
        rows, cache = rows_of(given, self.attributes), cache_of(given, self.attributes)
        if cache is not None:
            self._check(rows, cache)
        qkv = given["qkv"]
        assert qkv is not None
        query, key, value = split(qkv, given["qkv_bias"], self.heads, self.kv_heads, self.size)
        whole = sum(rows.new) == rows.tokens
        out = context.view(-1, self.heads, self.size)
        index, positions, slots = rows.token_index()
        if not whole:
            out.zero_()
            query, key, value = query[index], key[index], value[index]
        starts = rows.starts()
        packed = query.new_empty(query.shape) if not whole else out
        if rows.encoder is not None:
            self._cross(given, rows, cache, query, starts, packed)
        else:
            query, turned = self._turned(query, key, positions, rows)
            self._self(given, rows, cache, query, turned, value, (positions, slots), starts, packed)
        if not whole:
            out[index] = packed

    def _check(self, rows: Rows, cache: Cache) -> None:
        """Raises InputError for a cache and table that do not fit; asked once for layers with the same ones."""
        layout = (*cache.layout, self.window)
        known, table = rows.memo.get("checked", (None, None))
        same = table is cache.table or (
            table is not None and cache.table is not None and torch.equal(table, cache.table)
        )
        if known == layout and same and cache.indirection is None:
            return
        cache.check(rows.slots, *rows.written, self.window)
        rows.memo.pop("places", None)
        rows.memo["checked"] = layout, None if cache.table is None else cache.table.clone()

    def _turned(self, query: Tensor, key: Tensor, positions: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """Queries in their dtype and keys in float32, turned by their positions."""
        if self.rotary is None or not len(positions):
            return query, key
        cos, sin = self.cos_sin(positions, rows)
        cos, sin = cos.to(self.place), sin.to(self.place)
        both = self.rotary.turned(torch.cat([query, key], 1).float(), cos, sin)
        return both[:, : self.heads].to(query.dtype), both[:, self.heads :]

    def cos_sin(self, positions: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """cos and sin, float32 [T, pairs] on the host, of all new tokens."""
        found: tuple[Tensor, Tensor] = rows.once(self.rotary, lambda: self._cos_sin(positions, rows))
        return found

    def _cos_sin(self, positions: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        assert self.rotary is not None
        if self.rotary.depends_on_length:
            parts = [
                self.rotary.angles(torch.arange(past, past + new), past + new)
                for past, new in zip(rows.past, rows.new, strict=True)
            ]
            cos, sin = (torch.cat([part[i] for part in parts]).float() for i in (0, 1))
            return cos, sin
        assert self.angles is not None
        return self.angles.look_up(positions, int(positions.max()) + 1)

    def _self(
        self,
        given: Mapping[str, Tensor | None],
        rows: Rows,
        cache: Cache | None,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        where: tuple[Tensor, Tensor],
        starts: list[int],
        out: Tensor,
    ) -> None:
        """Self attention of all sequences; tokens lie packed."""
        positions, slots = where
        direct = [] if cache is None else [r for r in range(len(rows)) if self._reads_cache(given, rows, cache, r)]
        chosen = set(direct)
        others = [r for r in range(len(rows)) if r not in chosen and rows.new[r]]
        # What a cyclic cache is about to lose is read first.
        keys = [self._keys(rows, cache, r, starts[r], key, value, query.dtype) for r in others]
        if cache is not None and len(positions):
            self._write(rows, cache, positions, slots, key, value)
        if direct:
            assert cache is not None
            self._decode(given, rows, cache, direct, starts, query, out)
        self._context(given, rows, others, keys, starts, query, out)

    def _reads_cache(self, given: Mapping[str, Tensor | None], rows: Rows, cache: Cache, r: int) -> bool:
        """Whether a sequence is attended to in the cache itself."""
        new, total = rows.new[r], rows.past[r] + rows.new[r]
        if self.decode is None or not 0 < new <= MOST_QUERIES or given["relative_attention_bias"] is not None:
            return False
        if cache.tensor.stride(-1) != 1 or self.attributes["mask_type"] == "padding":
            return False
        if rows.prefix is not None and rows.prefix[r] > rows.past[r]:
            return False
        # Later tokens of the step would have taken places that its first token still sees.
        return total <= cache.capacity or cache.capacity >= self.window + cache.sinks + new - 1

    def _keys(
        self, rows: Rows, cache: Cache | None, r: int, start: int, key: Tensor, value: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Positions [L], keys and values [L, Nkv, D] of a sequence: what is cached and what is new."""
        past, new = rows.past[r], rows.new[r]
        mine = slice(start, start + new)
        queries = torch.arange(past, past + new, device=self.place)
        if cache is None:
            return queries, key[mine].to(dtype), value[mine]
        held_k, held_v = cache.as_held(key[mine], value[mine], dtype)
        if past == 0:
            return queries, held_k, held_v
        before = torch.arange(past, device=self.place)
        if self.window:
            before = before[(before < cache.sinks) | (before > past - self.window)]
        past_k, past_v = cache.read(rows.slots[r], before, dtype)
        return torch.cat([before, queries]), torch.cat([past_k, held_k]), torch.cat([past_v, held_v])

    def _write(self, rows: Rows, cache: Cache, positions: Tensor, slots: Tensor, key: Tensor, value: Tensor) -> None:
        if cache.cyclic:
            kept = self.kept(rows, cache, positions)
            cache.write(slots[kept], positions[kept], key[kept], value[kept])
        else:
            cache.put(rows.once("places", lambda: cache.where(slots, positions)), key, value)

    @staticmethod
    def kept(rows: Rows, cache: Cache, positions: Tensor) -> Tensor:
        """bool [T]: new tokens whose places in a cyclic cache no later token of the step takes."""
        totals = torch.tensor(rows.past) + torch.tensor(rows.new)
        last = totals.repeat_interleave(torch.tensor(rows.new))
        return (positions < cache.sinks) | (positions >= last - (cache.capacity - cache.sinks))

    def _decode(
        self,
        given: Mapping[str, Tensor | None],
        rows: Rows,
        cache: Cache,
        chosen: list[int],
        starts: list[int],
        query: Tensor,
        out: Tensor,
    ) -> None:
        """Generation: few queries a sequence, keys and values read where they lie."""
        assert self.decode is not None
        self.decode(
            query,
            cache.tensor,
            out=out,
            first=[starts[r] for r in chosen],
            queries=[rows.new[r] for r in chosen],
            past=[rows.past[r] for r in chosen],
            slots=[rows.slots[r] for r in chosen],
            scale=self.scale,
            table=cache.table,
            indirection=cache.indirection,
            key_scale=by_part(cache.from_cache, 0),
            value_scale=by_part(cache.from_cache, 1),
            slopes=given["alibi_slopes"],
            softcap=self.attributes["softcap"],
            window=self.window,
            sinks=cache.sinks,
        )

    def _context(
        self,
        given: Mapping[str, Tensor | None],
        rows: Rows,
        chosen: list[int],
        keys: list[tuple[Tensor, Tensor, Tensor]],
        starts: list[int],
        query: Tensor,
        out: Tensor,
    ) -> None:
        """Many queries a sequence: all together, or one by one where positions matter beyond their distance."""
        if not chosen:
            return
        slopes, table = given["alibi_slopes"], given["relative_attention_bias"]
        kind = {"causal": "causal", "bidirectional": "prefix", "padding": "full"}[self.attributes["mask_type"]]
        left = self.window - 1 if self.window else -1
        softcap = self.attributes["softcap"]
        if slopes is None and table is None and not self.sinks:
            rule = Rule(self.scale, kind, softcap=softcap, window_left=left if kind == "causal" else -1)
            if kind != "prefix" or not self.window:
                self._together(rule, rows, chosen, keys, starts, query, out)
                return
        rule = Rule(self.scale, softcap=softcap)
        both_ways = kind == "full"
        for r, (at, k, v) in zip(chosen, keys, strict=True):
            mine = slice(starts[r], starts[r] + rows.new[r])
            queries = torch.arange(rows.past[r], rows.past[r] + rows.new[r], device=self.place)
            bias = added_bias(slopes, table, queries, at, self.attributes["max_distance"], both_ways)
            seen = visible(self.attributes, queries, at, None if rows.prefix is None else rows.prefix[r])
            problem = Problem(
                rule,
                query[None, mine],
                k[None],
                v[None],
                mask=seen[None, None],
                bias=None if bias is None else bias[None].expand(1, -1, rows.new[r], -1).float(),
            )
            self.attend(problem, out[None, mine], len(queries), len(at))

    def _together(
        self,
        rule: Rule,
        rows: Rows,
        chosen: list[int],
        keys: list[tuple[Tensor, Tensor, Tensor]],
        starts: list[int],
        query: Tensor,
        out: Tensor,
    ) -> None:
        """One packed problem of several sequences."""
        everyone = len(chosen) == len(rows)
        mine = [slice(starts[r], starts[r] + rows.new[r]) for r in chosen]
        prefix = None
        if rule.kind == "prefix":
            assert rows.prefix is not None
            prefix = torch.tensor([rows.prefix[r] for r in chosen], dtype=torch.int32, device=self.place)
        problem = Problem(
            rule,
            query if everyone else torch.cat([query[m] for m in mine]),
            keys[0][1] if len(keys) == 1 else torch.cat([k for _, k, _ in keys]),
            keys[0][2] if len(keys) == 1 else torch.cat([v for _, _, v in keys]),
            prefix_lengths=prefix,
            cu_q=self._boundaries([rows.new[r] for r in chosen]),
            cu_kv=self._boundaries([len(at) for at, _, _ in keys]),
        )
        longest = max(rows.new[r] for r in chosen), max(len(at) for at, _, _ in keys)
        if everyone:
            self.attend(problem, out, *longest)
            return
        gathered = query.new_empty(problem.query.shape)
        self.attend(problem, gathered, *longest)
        at = 0
        for m, r in zip(mine, chosen, strict=True):
            out[m] = gathered[at : at + rows.new[r]]
            at += rows.new[r]

    def _cross(
        self,
        given: Mapping[str, Tensor | None],
        rows: Rows,
        cache: Cache | None,
        query: Tensor,
        starts: list[int],
        out: Tensor,
    ) -> None:
        """Attention to encoder outputs, which are cached in the step that brings them."""
        assert rows.encoder is not None
        found = cross_keys(given, rows, self.attributes)
        keys = []
        for r, count in enumerate(rows.encoder):
            at, fresh = torch.arange(count, device=self.place), found[r]
            if fresh is None:
                assert cache is not None
                keys.append((at, *cache.read(rows.slots[r], at, query.dtype)))
                continue
            if cache is None:
                keys.append((at, *fresh))
                continue
            cache.write(torch.full_like(at, rows.slots[r]), at, *fresh)
            keys.append((at, *cache.as_held(*fresh, query.dtype)))
        chosen = [r for r in range(len(rows)) if rows.new[r]]
        self._context(given, rows, chosen, [keys[r] for r in chosen], starts, query, out)

    def _boundaries(self, lengths: list[int]) -> Tensor:
        return torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0).to(self.place, torch.int32)
