"""Batches that mix both phases in any order, prompts in chunks, prefixes, cyclic caches; and bad arguments."""

import inspect

import pytest
import torch
from attention_steps import OP, Run, Setting

from qontext.dtypes import relative_rms
from qontext.errors import ArgumentError, DTypeError, InputError, QontextError, ShapeError
from qontext.functional import AttentionMaskType, PositionEmbeddingType, gpt_attention
from qontext.quant.mode import QuantMode

ROPE = {"position_embedding_type": PositionEmbeddingType.rope_gpt_neox, "rotary_embedding_dim": 16}


@pytest.mark.parametrize("page", [0, 8], ids=["contiguous", "paged"])
@pytest.mark.parametrize("kv_heads", [0, 1, 2])
def test_mixed_batches_in_any_order(page, kv_heads):
    """Sequences come and go on: at each step every one brings a chunk of its prompt or its next token."""
    run = Run(Setting(batch=5, length=30, size=16, kv_heads=kv_heads, page=page, bias=True, arguments=ROPE))
    s = run.s
    plans = [[30], [10, 5, 15], [1, 1, 1, 1], [7, 1, 1, 20], [3] * 9]
    tokens = [run.normal(sum(plan) + 4, s.width) for plan in plans]
    past = [0] * s.batch
    for step in range(9):
        kinds = [0 if step < len(plan) else 1 for plan in plans]
        new = [plan[step] if kind == 0 else 1 for plan, kind in zip(plans, kinds, strict=True)]
        new = [n if p + n <= len(t) else 1 for n, p, t in zip(new, past, tokens, strict=True)]
        if any(p + n > len(t) for p, n, t in zip(past, new, tokens, strict=True)):
            break
        parts = [t[p : p + n] for t, p, n in zip(tokens, past, new, strict=True)]
        out = run.call(torch.cat(parts)[None], kinds, past, new)[0].split(new)
        past = [p + n for p, n in zip(past, new, strict=True)]
        for got, t, p, n in zip(out, tokens, past, new, strict=True):
            assert relative_rms(got, run.wanted(t[:p])[-n:]) <= 1e-5


def test_a_cyclic_cache_holds_no_more_than_its_window():
    """A window of 6 and 2 sinks in a cache of 12 places, sequences of 50 tokens."""
    setting = Setting(batch=2, length=50, size=16, arguments={**ROPE, "window": 6, "sink_tokens": 2})
    run = Run(setting)
    run.cache = torch.full((2, 2, 4, 12, 16), float("nan"))
    tokens = [run.normal(50, setting.width) for _ in range(2)]
    past = 0
    for new in (3, 1, 20, 1, 1, 4, 1, 17, 1):
        parts = [t[past : past + new] for t in tokens]
        out = run.call(torch.cat(parts)[None], [0 if new > 1 else 1] * 2, [past] * 2, [new] * 2)[0].split([new] * 2)
        past += new
        for got, t in zip(out, tokens, strict=True):
            assert relative_rms(got, run.wanted(t[:past])[-new:]) <= 1e-5


def test_bidirectional_prefix_is_the_context_without_its_last_token():
    setting = Setting(batch=2, length=9, size=16, arguments={"mask_type": AttentionMaskType.bidirectional})
    run = Run(setting)
    prompts = [run.normal(n, setting.width) for n in (9, 5)]
    out = run.call(torch.cat(prompts)[None], [0, 0], [0, 0], [9, 5])[0].split([9, 5])
    for got, prompt in zip(out, prompts, strict=True):
        q, k, v = (p.unflatten(-1, (4, 16)).transpose(0, 1).double() for p in prompt.chunk(3, -1))
        n = len(prompt)
        seen = torch.ones(n, n, dtype=torch.bool).tril()
        seen[:, : n - 1] = True
        scores = (q @ k.transpose(1, 2) / 4).masked_fill(~seen, -torch.inf)
        want = (torch.softmax(scores, -1) @ v).transpose(0, 1).flatten(1)
        assert relative_rms(got, want) <= 1e-5


def call(**changes):
    """A sound call of two sequences in context phase, with changes."""
    lengths = torch.tensor([3, 2], dtype=torch.int32)
    given = {
        "tensor": torch.ones(2, 3, 3 * 4 * 8),
        "past_key_value": torch.zeros(2, 2, 4, 6, 8),
        "sequence_length": lengths,
        "host_past_key_value_lengths": torch.zeros(2, dtype=torch.int32),
        "context_lengths": lengths,
        "cache_indirection": None,
        "host_request_types": torch.zeros(2, dtype=torch.int32),
        "num_heads": 4,
        "num_kv_heads": 4,
        "hidden_size_per_head": 8,
        "q_scaling": 1.0,
        "rotary_embedding_dim": 0,
        "max_context_length": 3,
    }
    return gpt_attention(**{**given, **changes})


POOL = torch.zeros(5, 2, 4, 4, 8)
INT8 = torch.zeros(2, 2, 4, 6, 8, dtype=torch.int8)
BAD = {
    "no slopes": ({"position_embedding_type": PositionEmbeddingType.alibi}, "alibi_slopes is None; .* needs them"),
    "slopes alone": ({"alibi_slopes": torch.ones(4)}, "alibi_slopes is given, but position_embedding_type is learned"),
    "packed without sum": (
        {"tensor": torch.ones(1, 4, 96), "host_context_lengths": torch.tensor([3, 2])},
        r"query_lengths is \[3, 2\], 5 tokens in all, but qkv holds 4 packed tokens",
    ),
    "not packed": ({"host_context_lengths": torch.tensor([3, 2])}, "with host_context_lengths it is packed"),
    "odd rotary": (
        {"position_embedding_type": PositionEmbeddingType.rope_gptj, "rotary_embedding_dim": 5},
        "rotary_dim is 5, position 'rope_gptj' needs an even number",
    ),
    "pages alone": ({"past_key_value": None, "kv_cache_block_pointers": torch.zeros(2, 1)}, "pages need their pool"),
    "int8 without scales": (
        {"past_key_value": INT8, "kv_cache_quant_mode": QuantMode.INT8_KV_CACHE},
        "kv_orig_quant_scale and kv_quant_orig_scale are None",
    ),
    "int8 without mode": (
        {"past_key_value": INT8},
        "past_key_value is torch.int8, but kv_cache_quant_mode does not have INT8_KV_CACHE",
    ),
    "scales without int8": (
        {"kv_orig_quant_scale": torch.ones(1), "kv_quant_orig_scale": torch.ones(1)},
        "8-bit caches take them",
    ),
    "beyond the cache": (
        {"host_past_key_value_lengths": torch.tensor([0, 5]), "sequence_length": torch.tensor([3, 7])},
        "sequence 1 has 5 tokens in the cache and 2 new ones, the cache holds 6",
    ),
    "no pages": (
        {"past_key_value": POOL[:0], "kv_cache_block_pointers": torch.zeros(2, 1, dtype=torch.int32)},
        "'past' has no pages",
    ),
    "unknown page": (
        {"past_key_value": POOL, "kv_cache_block_pointers": torch.tensor([[1], [5]])},
        r"block_table of sequence 1 names page 5 for its tokens from 0; the cache has 5 pages",
    ),
    "too few pages": (
        {
            "past_key_value": POOL, "kv_cache_block_pointers": torch.tensor([[1], [2]]),
            "host_past_key_value_lengths": torch.tensor([2, 0]), "sequence_length": torch.tensor([5, 2]),
        },
        r"the cache holds 4 \(1 pages of 4\)",
    ),
    "other pages for values": (
        {"past_key_value": POOL, "kv_cache_block_pointers": torch.tensor([[[[1], [2]]], [[[3], [3]]]])},
        "its third axis, keys and values, names the same page twice",
    ),
    "wrong width": ({"tensor": torch.ones(2, 3, 95)}, r"input 'qkv' has 95 columns, it needs .* = 96"),
    "wrong rank": ({"tensor": torch.ones(3, 96)}, r"tensor has shape \[3, 96\], it needs \[B, S, W\]"),
    "wrong cache": ({"past_key_value": torch.zeros(2, 2, 3, 6, 8)}, r"'past' has shape \[2, 2, 3, 6, 8\], it needs"),
    "wrong type": ({"tensor": torch.ones(2, 3, 96, dtype=torch.float64)}, "input 'qkv' is float64"),
    "wrong kind of lengths": ({"context_lengths": torch.ones(2)}, r"context_lengths is torch.float32 \[2\]"),
    "no types": ({"host_request_types": None}, "host_request_types is None"),
    "unknown type": ({"host_request_types": torch.tensor([0, 2])}, "host_request_types of sequence 1 is 2"),
    "tensor for a number": ({"max_context_length": torch.tensor(3)}, "max_context_length is tensor"),
    "longer than said": ({"max_context_length": 2}, "context_lengths of sequence 0 is 3, max_context_length is 2"),
    "nothing new": (
        {"host_request_types": torch.tensor([1, 1]), "host_past_key_value_lengths": torch.tensor([3, 2])},
        "sequence_length of sequence 0 is 3, but 3 tokens are in the cache",
    ),
    "padding mask": ({"mask_type": AttentionMaskType.padding}, "mask_type is padding, self attention takes causal"),
    "cross alone": ({"cross_qkv": torch.ones(2, 3, 96)}, "cross_qkv is given, but do_cross_attention is False"),
    "cross without lengths": (
        {"do_cross_attention": True, "mask_type": AttentionMaskType.padding},
        "encoder_input_lengths is None; cross attention needs",
    ),
    "rank": ({"tp_size": 2, "tp_rank": 2}, "tp_size is 2 and tp_rank 2"),
    "scaling without factor": (
        {
            "position_embedding_type": PositionEmbeddingType.rope_gptj, "rotary_embedding_dim": 4,
            "rotary_embedding_scale": 2.0,
        },
        "rotary_factor is 2.0, but rotary_scaling is 'none'",
    ),
    "sinks without window": ({"sink_tokens": 2}, "sinks is 2, but window is 0"),
    "short table": (
        {
            "position_embedding_type": PositionEmbeddingType.relative, "max_distance": 8,
            "relative_attention_bias": torch.ones(4, 6, 6),
        },
        r"with max_distance 8 it needs \[num_heads, buckets\]",
    ),
}  # fmt: skip


def test_the_sound_call_is_sound():
    context, cache = call()
    assert context.shape == (2, 3, 32)
    assert cache[0, :, :, :3].eq(1).all()
    assert not cache[1, :, :, 2:].any()


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name):
    changes, message = BAD[name]
    with pytest.raises((ArgumentError, ShapeError, DTypeError, InputError), match=message) as error:
        call(**changes)
    assert isinstance(error.value, QontextError)


SEED = """
    tensor past_key_value sequence_length host_past_key_value_lengths context_lengths cache_indirection
    host_request_types num_heads num_kv_heads hidden_size_per_head q_scaling rotary_embedding_dim rotary_embedding_base
    rotary_embedding_scale_type rotary_embedding_scale rotary_embedding_max_positions position_embedding_type
    multi_block_mode kv_orig_quant_scale kv_quant_orig_scale kv_cache_quant_mode max_context_length mask_type
    alibi_slopes tp_size tp_rank kv_cache_block_pointers do_cross_attention cross_qkv cross_qkv_length
    encoder_input_lengths relative_attention_bias max_distance host_context_lengths qkv_bias
"""


def test_every_argument_of_the_original_is_there_in_its_place():
    wanted = SEED.split()
    assert list(inspect.signature(gpt_attention).parameters)[: len(wanted)] == wanted


def test_eight_bit_caches_follow_the_formula_exactly():
    """q = sat8(round(x * orig_quant)), the numbers beyond the range saturated."""
    scale = torch.tensor([40.0])
    x = torch.linspace(-6, 6, 2 * 3 * 96).view(2, 3, 96)
    cache = torch.zeros(2, 2, 4, 6, 8, dtype=torch.int8)
    call(
        tensor=x, past_key_value=cache, kv_orig_quant_scale=scale, kv_quant_orig_scale=1 / scale,
        kv_cache_quant_mode=QuantMode.INT8_KV_CACHE,
    )  # fmt: skip
    keys, values = x[0, :, 32:64].view(3, 4, 8), x[0, :, 64:].view(3, 4, 8)
    for part, source in ((0, keys), (1, values)):
        want = (source * 40).round().clamp(-128, 127).to(torch.int8)
        assert torch.equal(cache[0, part, :, :3], want.transpose(0, 1))
    assert OP.updates == {"present": "past"}
