"""Batches in flight in every dtype, cache and layout: mixed phases, chunks, beams, cross attention, NaN beside them."""

import pytest
import torch
from attention_steps import Run, Setting, placed

from qontext.dtypes import from_torch, relative_rms
from qontext.functional import (
    AttentionMaskType,
    PositionEmbeddingType,
    RotaryScalingType,
    bert_attention,
    gpt_attention,
)

pytestmark = pytest.mark.usefixtures("place")
SLOW = pytest.mark.slow
FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
INT8, FP8 = torch.int8, torch.float8_e4m3fn
ROPE = {"position_embedding_type": PositionEmbeddingType.rope_gpt_neox, "rotary_embedding_dim": 16}
ROUNDING = {None: 0.0, INT8: 0.03, FP8: 0.06}  # of keys and values by an 8-bit cache, see Run


def in_flight(run, steps):
    """Plans of five requests that start and end at different steps; returns pairs (output, wanted) of every step.

    Requests that are in generation phase bring a row for each beam; each beam has its own tokens.
    """
    s = run.s
    chunks = [[18], [5, 2, 11], [1, 1, 1], [4, 13], [2] * 6]
    prompts = [run.normal(sum(c), s.width) for c in chunks]
    told, pairs = [[] for _ in chunks], []
    run.history = [[None] * s.beams for _ in chunks]
    for step in range(steps):
        order = [(r * 3 + step) % len(chunks) for r in range(len(chunks))]  # who stands where in the packed tensor
        kinds = [0 if len(told[r]) < len(chunks[r]) else 1 for r in range(len(chunks))]
        past = [0 if h[0] is None else len(h[0]) for h in run.history]
        new, fresh = [], []
        for r, kind in enumerate(kinds):
            if kind == 0:
                count = chunks[r][len(told[r])]
                told[r].append(count)
                part = prompts[r][past[r] : past[r] + count]
                fresh.append([part])
                run.history[r] = [prompts[r][: past[r] + count]] * s.beams
            else:
                count = 1
                fresh.append([run.normal(1, s.width) for _ in range(s.beams)])
                if run.indirection is not None:
                    run.indirection[r, :, past[r]] = torch.arange(s.beams, dtype=torch.int32)
                run.history[r] = [torch.cat(pair) for pair in zip(run.history[r], fresh[r], strict=True)]
            new.append(count)
        pairs += moved(run, order, kinds, past, new, fresh)
    return pairs


def moved(run, order, kinds, past, new, fresh):
    """One step whose requests stand in `order`: the caches of requests stay where they are, their rows move."""
    whole = run.cache, run.table, run.indirection
    b = run.s.beams
    if run.table is None:
        rows = [r * b + i for r in order for i in range(b)]
        run.cache = run.cache[rows]
    else:
        run.table = run.table[order]
    run.indirection = None if run.indirection is None else run.indirection[order]
    packed = torch.cat([part for r in order for part in fresh[r]])
    counts = [len(part) for r in order for part in fresh[r]]
    out = run.call(packed[None], [kinds[r] for r in order], [past[r] for r in order], [new[r] for r in order])[0]
    if run.table is None:
        whole[0][rows] = run.cache
    run.cache, run.table, run.indirection = whole
    outputs = iter(out.split(counts))
    pairs = []
    for r in order:
        for beam in range(len(fresh[r])):
            got = next(outputs)
            pairs.append((got, run.wanted(run.history[r][beam], bool(run.scales))[-len(got) :]))
    return pairs


CASES = [
    pytest.param({}, id="mha"),
    pytest.param({"kv_heads": 1, "beams": 4}, id="mqa_beams"),
    pytest.param({"kv_heads": 2, "bias": True}, id="gqa_bias"),
    pytest.param({"size": 24, "kv_heads": 2, "page": 7}, id="head24"),
    pytest.param({"size": 72, "page": 16, "beams": 4}, id="head72_beams"),
    pytest.param({"size": 100, "beams": 2}, id="head100_beams"),
    pytest.param({"arguments": {**ROPE, "multi_block_mode": True}, "page": 16}, id="multi_block"),
    pytest.param(
        {
            "arguments": {
                **ROPE, "rotary_embedding_scale_type": RotaryScalingType.linear, "rotary_embedding_scale": 3.0,
                "rotary_embedding_base": 1e6,
            },
            "page": 16,
            "beams": 4,
        },
        id="rope_scaling",
    ),
    pytest.param({"arguments": {**ROPE, "window": 9, "sink_tokens": 2}}, id="window"),
    pytest.param({"arguments": {**ROPE, "logits_soft_cap": 5.0, "q_scaling": 0.5}, "page": 3}, id="cap"),
]  # fmt: skip


@pytest.mark.parametrize("changes", CASES)
@pytest.mark.parametrize("dtype", [pytest.param(FP32, marks=SLOW), pytest.param(FP16, marks=SLOW), BF16], ids=str)
@pytest.mark.parametrize("cache", [None, pytest.param(INT8, marks=SLOW), pytest.param(FP8, marks=SLOW)], ids=str)
def test_mixed_batches(changes, dtype, cache):
    """Nine steps: requests in either phase, in another order at each step; every output against a full re-run.

    With 8 bits against one on keys and values as the cache holds them; a key that lies between two steps may be rounded
    to the other one.
    """
    given = {"batch": 5, "length": 24, "size": 16, "arguments": ROPE, **changes}
    run = Run(Setting(dtype=dtype, cache=cache, by_head=True, **given))
    errors = [relative_rms(got, want) for got, want in in_flight(run, 9)]
    assert max(errors) <= max(from_torch(dtype).tolerance, 5e-3 if cache else 0.0)


@pytest.mark.parametrize("cache", [None, BF16, INT8, FP8], ids=str)
@pytest.mark.parametrize("page", [0, 7], ids=["contiguous", "paged"])
@pytest.mark.parametrize("chunks", [(20, 1, 1, 18), (1,) * 40, (3, 30, 7)], ids=["20", "1", "30"])
def test_a_prompt_in_chunks_equals_one_shot(chunks, page, cache):
    """With every cache, 8 bits too: what is attended to is what the cache holds, in one shot as well."""
    found = []
    for parts in ((40,), chunks):
        run = Run(Setting(batch=1, length=40, size=24, kv_heads=2, heads=6, page=page, cache=cache, arguments=ROPE))
        tokens, past, outputs = run.normal(40, run.s.width), 0, []
        for n in parts:
            outputs.append(run.call(tokens[past : past + n][None], [0], [past], [n])[0])
            past += n
        found.append((torch.cat(outputs), run.cache.float().nan_to_num()))
    assert relative_rms(found[1][0], found[0][0]) <= from_torch(FP32).tolerance
    assert torch.equal(found[1][1], found[0][1])


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
@pytest.mark.parametrize("page", [0, 5], ids=["contiguous", "paged"])
@pytest.mark.parametrize("cache", [None, INT8, FP8], ids=str)
def test_cross_attention_reads_its_cache_in_later_steps(cache, page, dtype):
    """The projection of the encoder outputs comes once; positions by bias; lengths that differ."""
    heads, size, lengths = 4, 16, [9, 3]
    run = Run(Setting(batch=2, length=9, heads=heads, size=size, page=page, cache=cache, dtype=dtype, by_head=True))
    source = run.normal(2, 9, run.s.width)
    table = torch.randn(heads, 20, 9, generator=run.generator)
    past = 0
    for new in (4, 1, 1):
        own = run.normal(2, new, run.s.width)
        kind = 0 if past == 0 else 1
        counts = torch.full((2,), new, dtype=torch.int32)
        before = torch.full((2,), past, dtype=torch.int32)
        out, _ = gpt_attention(
            placed(own), run.cache, placed(before + counts), before, placed(counts), None, torch.full((2,), kind),
            heads, heads, size, 1.0, 0,
            position_embedding_type=PositionEmbeddingType.relative, relative_attention_bias=placed(table),
            max_context_length=9, mask_type=AttentionMaskType.padding, do_cross_attention=True,
            cross_qkv=placed(source) if past == 0 else None, cross_qkv_length=9 if past == 0 else None,
            encoder_input_lengths=placed(torch.tensor(lengths)), kv_cache_block_pointers=placed(run.table),
            **{name: placed(x) for name, x in run.scales.items()},
        )  # fmt: skip
        out = out.cpu()
        for r, n in enumerate(lengths):
            q = own[r, :, : heads * size].double().unflatten(-1, (heads, size))
            k, v = (x.double().unflatten(-1, (heads, size)) for x in source[r, :n].split(heads * size, -1)[1:])
            scores = torch.einsum("snd,lnd->nsl", q, k) / size**0.5
            scores = scores + table[:, past : past + new, :n].double()
            want = torch.einsum("nsl,lnd->snd", torch.softmax(scores, -1), v).flatten(1)
            assert relative_rms(out[r], want) <= max(from_torch(dtype).tolerance, ROUNDING[cache])
        past += new


@pytest.mark.parametrize("page", [0, 7], ids=["contiguous", "paged"])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("cache", [None, FP8], ids=str)
def test_nan_in_one_sequence_leaves_its_neighbours_bit_for_bit(cache, packed, page):
    """In the context, in a later step, and with a poisoned cache: the others' outputs and caches stay as they were."""
    found = []
    for poisoned in (False, True):
        run = Run(
            Setting(batch=3, length=20, size=24, heads=4, kv_heads=2, page=page, packed=packed, cache=cache, dtype=BF16)
        )
        outputs = []
        for new, kind in ((20, 0), (1, 1), (1, 1)):
            past = 0 if kind == 0 else 20 + len(outputs) - 1
            tokens = run.normal(3, new, run.s.width)
            if poisoned:
                tokens[1, -1] = float("nan")
            rows = tokens.view(1, -1, run.s.width) if packed else tokens
            outputs.append(run.call(rows, [kind] * 3, [past] * 3, [new] * 3).view(3, new, -1))
        mine = torch.arange(3) if run.table is None else run.table.view(3, -1).long()
        found.append((outputs, run.cache.float().nan_to_num(9.0)[mine]))
    for clean, dirty in zip(found[0][0], found[1][0], strict=True):
        assert torch.equal(clean[[0, 2]], dirty[[0, 2]])
        assert dirty[1, -1].isnan().all()
    assert torch.equal(found[0][1][[0, 2]], found[1][1][[0, 2]])


@SLOW
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("length", [64, 256, 512, 1024])
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("dtype", [FP16, BF16], ids=str)
def test_bert_attention_grid(batch, length, size, dtype):
    """The grid of test_bert_attention, with lengths that differ, which the original leaves out."""
    heads, generator = 16, torch.Generator().manual_seed(0)
    lengths = torch.tensor([length - (r * 37) % (length // 2) for r in range(batch)], dtype=torch.int32)
    qkv = torch.randn(batch, length, 3 * heads * size, generator=generator).to(dtype)
    got = bert_attention(placed(qkv), placed(lengths), heads, size, 1.0).cpu()
    for r, n in enumerate(lengths.tolist()):
        q, k, v = (x.unflatten(-1, (heads, size)).transpose(0, 1).double() for x in qkv[r, :n].chunk(3, -1))
        want = (torch.softmax(q @ k.mT / size**0.5, -1) @ v).transpose(0, 1).flatten(1)
        assert relative_rms(got[r, :n], want) <= from_torch(dtype).tolerance
        assert not got[r, n:].any()
