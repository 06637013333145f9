"""Runs gpt_attention as a model does (a context step, then steps of one token for each beam) beside a full re-run.

The full re-run is the reference of GptAttention in float64 on whole sequences, without a cache.
"""

from dataclasses import dataclass, field

import torch

from qontext.dtypes import from_torch, relative_rms
from qontext.functional import AttentionMaskType, PositionEmbeddingType, RotaryScalingType, gpt_attention
from qontext.ops.catalogue import BY_NAME
from qontext.quant.mode import QuantMode

OP = BY_NAME["GptAttention"]
STEPS = 8
PLACE = torch.device("cpu")  # where operands lie, see the fixture `place`


def placed(x):
    """A tensor where operands lie; other things as they are."""
    return x.to(PLACE) if isinstance(x, torch.Tensor) else x


@dataclass
class Setting:
    """One configuration: sequences with prompts of half the padded length and of all of it, in turn.

    page:    tokens of a page, 0 for a contiguous cache
    order:   in which the sequences of a mixed batch stand
    """

    batch: int = 2
    length: int = 128
    heads: int = 4
    size: int = 64
    kv_heads: int = 0
    dtype: torch.dtype = torch.float32
    packed: bool = True
    page: int = 0
    beams: int = 1
    bias: bool = False
    cache: torch.dtype | None = None
    by_head: bool = False
    arguments: dict = field(default_factory=dict)
    seed: int = 0

    @property
    def groups(self):
        return self.kv_heads or self.heads

    @property
    def width(self):
        return (self.heads + 2 * self.groups) * self.size

    @property
    def lengths(self):
        return [self.length if r % 2 else max(1, self.length // 2) for r in range(self.batch)]


class Run:
    """The caches and the history of one configuration."""

    def __init__(self, setting):
        self.s = s = setting
        self.generator = torch.Generator().manual_seed(s.seed)
        self.sizes = torch.ones(s.width)
        self.room = s.length + STEPS
        self.bias = self.normal(s.width) if s.bias else None
        slots = s.batch * s.beams
        held = s.cache or s.dtype
        if s.page:
            each = -(-self.room // s.page)
            pages = slots * each
            self.table = torch.randperm(pages, generator=self.generator).view(s.batch, s.beams, each).to(torch.int32)
            shape = (pages, 2, s.groups, s.page, s.size)
        else:
            self.table, shape = None, (slots, 2, s.groups, self.room, s.size)
        self.cache = torch.zeros(shape, device=PLACE).to(held)
        if held.itemsize != 1:
            self.cache.fill_(float("nan"))  # nothing may be read that was not written
        self.scales = {}
        if s.cache in (torch.int8, torch.float8_e4m3fn):
            most = 127 / 4 if s.cache == torch.int8 else 64.0
            scale = torch.full((2, s.groups) if s.by_head else (1,), most)
            mode = QuantMode.INT8_KV_CACHE if s.cache == torch.int8 else QuantMode.FP8_KV_CACHE
            self.scales = {
                "kv_orig_quant_scale": scale,
                "kv_quant_orig_scale": 1 / scale,
                "kv_cache_quant_mode": mode,
            }
        self.history = [[None] * s.beams for _ in range(s.batch)]
        self.indirection = torch.zeros(s.batch, s.beams, self.room, dtype=torch.int32) if s.beams > 1 else None

    def normal(self, *shape):
        """Random numbers, of the size that `sizes` gives each column."""
        return (torch.randn(*shape, generator=self.generator) * self.sizes).to(self.s.dtype)

    def call(self, tensor, kinds, past, new):
        """gpt_attention on requests of both kinds; past and new by request."""
        s = self.s
        contexts = torch.tensor([n if kind == 0 else 1 for kind, n in zip(kinds, new, strict=True)], dtype=torch.int32)
        before = torch.tensor(past, dtype=torch.int32)
        arguments = {"q_scaling": 1.0, "rotary_embedding_dim": 0, **s.arguments}
        context, present = gpt_attention(
            placed(tensor),
            self.cache,
            placed(before + torch.tensor(new, dtype=torch.int32)),
            before,
            placed(contexts),
            placed(self.indirection),
            torch.tensor(kinds, dtype=torch.int32),
            s.heads,
            s.groups,
            s.size,
            **{name: placed(x) for name, x in arguments.items()},
            max_context_length=s.length,
            host_context_lengths=contexts if s.packed else None,
            kv_cache_block_pointers=placed(self.table),
            qkv_bias=placed(self.bias),
            **{name: placed(x) for name, x in self.scales.items()},
        )
        assert present is self.cache
        return context.cpu()

    def context(self):
        """The context step of all sequences; returns pairs (output, wanted) [tokens, N D]."""
        s = self.s
        prompts = [self.normal(n, s.width) for n in s.lengths]
        for r, prompt in enumerate(prompts):
            self.history[r] = [prompt] * s.beams
        if s.packed:
            tensor = torch.cat(prompts)[None]
        else:
            tensor = torch.zeros(s.batch, s.length, s.width, dtype=s.dtype)
            for r, prompt in enumerate(prompts):
                tensor[r, : len(prompt)] = prompt
        out = self.call(tensor, [0] * s.batch, [0] * s.batch, s.lengths)
        if s.packed:
            parts = out[0].split(s.lengths)
        else:
            parts = [out[r, :n] for r, n in enumerate(s.lengths)]
            assert all(not out[r, n:].any() for r, n in enumerate(s.lengths))
        return [(part, self.wanted(prompt)) for part, prompt in zip(parts, prompts, strict=True)]

    def step(self):
        """A step of one token for each beam, after beams were chosen anew; returns pairs (output, wanted) [N D]."""
        s = self.s
        past = [len(beams[0]) for beams in self.history]
        if s.beams > 1:
            for r, beams in enumerate(self.history):
                parents = torch.randint(0, s.beams, (s.beams,), generator=self.generator).tolist()
                if past[r] > s.lengths[r]:  # all beams of the context are the same
                    self.indirection[r, :, : past[r]] = self.indirection[r, parents, : past[r]]
                    self.history[r] = [beams[p] for p in parents]
                self.indirection[r, :, past[r]] = torch.arange(s.beams, dtype=torch.int32)
        fresh = self.normal(s.batch * s.beams, 1, s.width)
        tensor = fresh.view(1, -1, s.width) if s.packed else fresh
        out = self.call(tensor, [1] * s.batch, past, [1] * s.batch).reshape(s.batch * s.beams, -1)
        pairs = []
        for row in range(s.batch * s.beams):
            r, beam = divmod(row, s.beams)
            self.history[r] = list(self.history[r])
            self.history[r][beam] = torch.cat([self.history[r][beam], fresh[row]])
            pairs.append((out[row], self.wanted(self.history[r][beam])[-1]))
        return pairs

    def wanted(self, tokens, as_held=False):
        """Attention over whole sequences in float64; `as_held`: on keys and values as an 8-bit cache rounds them."""
        s, a = self.s, self.s.arguments
        position = a.get("position_embedding_type", PositionEmbeddingType.learned_absolute)
        rope = position.is_rope()
        given = dict.fromkeys(p.name for p in OP.inputs)
        given["qkv"] = tokens.double()[None]
        given["qkv_bias"] = None if self.bias is None else self.bias.double()
        if as_held:
            given["past"] = torch.zeros(1, 2, s.groups, len(tokens), s.size).to(s.cache)
            given["past_lengths"] = torch.zeros(1, dtype=torch.int32)
            if self.bias is not None and PLACE.type == "cpu":
                # What is rounded to 8 bits is the sum in the dtype of both; a GPU rounds once, the sum in float32.
                given["qkv"], given["qkv_bias"] = (tokens + self.bias).double()[None], None
            given |= {name: self.scales[name] for name in ("kv_orig_quant_scale", "kv_quant_orig_scale")}
        given["alibi_slopes"] = a.get("alibi_slopes")
        given["relative_attention_bias"] = a.get("relative_attention_bias")
        mask = a.get("mask_type", AttentionMaskType.causal)
        if mask == AttentionMaskType.bidirectional:
            raise NotImplementedError("the prefix belongs to the request")
        names = {PositionEmbeddingType.learned_absolute: "none", PositionEmbeddingType.alibi_with_scale: "alibi"}
        attributes = OP.complete_attributes(
            {
                "num_heads": s.heads,
                "num_kv_heads": s.groups,
                "head_size": s.size,
                "q_scaling": a.get("q_scaling", 1.0),
                "position": names.get(position, position.name),
                "rotary_dim": a.get("rotary_embedding_dim", 0) if rope else 0,
                "rotary_base": a.get("rotary_embedding_base", 10000.0),
                "rotary_scaling": a.get("rotary_embedding_scale_type", RotaryScalingType.none).name,
                "rotary_factor": a.get("rotary_embedding_scale", 1.0),
                "rotary_max_positions": a.get("rotary_embedding_max_positions", 1024),
                "max_distance": a.get("max_distance", 0),
                "window": a.get("window", 0),
                "sinks": a.get("sink_tokens", 0),
                "softcap": a.get("logits_soft_cap", 0.0),
            }
        )
        context, _ = OP.reference(*given.values(), **attributes)
        return context[0]

    def held(self, r, beam, tokens):
        """What the cache holds of a beam, read place by place: keys and values [tokens, Nkv, D] in float64."""
        page, at = self.cache.shape[3], torch.arange(tokens)
        source = torch.full_like(at, beam)
        if self.indirection is not None:
            source[:-1] = self.indirection[r, beam, : tokens - 1]
        pages = r * self.s.beams + source if self.table is None else self.table[r, source, at // page].long()
        return self.cache.cpu()[pages, :, :, at % page].double().unbind(1)

    def projected(self, tokens):
        """Keys, turned by their positions, and values [tokens, Nkv, D] in float64, without the operator's code.

        Keys are None with a scaled rotary embedding.
        """
        s, a = self.s, self.s.arguments
        tokens = tokens.double() if self.bias is None else tokens.double() + self.bias.double()
        _, k, v = tokens.split([s.heads * s.size, s.groups * s.size, s.groups * s.size], -1)
        k, v = (x.unflatten(-1, (s.groups, s.size)).clone() for x in (k, v))
        position, turned = a.get("position_embedding_type"), a.get("rotary_embedding_dim", 0)
        if not turned:
            return k, v
        if a.get("rotary_embedding_scale_type", RotaryScalingType.none) != RotaryScalingType.none:
            return None, v
        for i in range(turned // 2):
            near = position == PositionEmbeddingType.rope_gptj
            x, y = (2 * i, 2 * i + 1) if near else (i, i + turned // 2)
            angle = torch.arange(len(k)).double() * a.get("rotary_embedding_base", 1e4) ** (-2 * i / turned)
            cos, sin = angle.cos()[:, None], angle.sin()[:, None]
            k[..., x], k[..., y] = k[..., x] * cos - k[..., y] * sin, k[..., y] * cos + k[..., x] * sin
        return k, v


CONTENT = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}  # rounding of the cache's dtype


def check_content(run):
    """The cache holds keys and values of every beam, no more rounded than its dtype rounds."""
    for r, beams in enumerate(run.history):
        for beam, tokens in enumerate(beams):
            for got, want in zip(run.held(r, beam, len(tokens)), run.projected(tokens), strict=True):
                assert want is None or relative_rms(got, want) <= CONTENT[run.s.dtype]


def check(setting, factor=1.0):
    """The context step and all steps after it equal the full re-run, within the tolerance of the dtype."""
    run = Run(setting)
    allowed = from_torch(setting.dtype).tolerance * factor
    pairs = run.context()
    for _ in range(STEPS):
        pairs += run.step()
    if not setting.arguments.get("window"):
        check_content(run)
    errors = [relative_rms(got, want) for got, want in pairs]
    assert max(errors) <= allowed, f"relative error {max(errors):.2e}, allowed {allowed:.2e}"
    return run
