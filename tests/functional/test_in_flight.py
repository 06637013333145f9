"""Batches that mix both phases in any order, prompts in chunks, prefixes, cyclic caches; and bad arguments."""

import inspect

import pytest
import torch
from attention_steps import OP, Run, Setting

from qontext.dtypes import relative_rms
from qontext.errors import ArgumentError, DTypeError, InputError, QontextError, ShapeError
from qontext.functional import AttentionMaskType, PositionEmbeddingType, RotaryScalingType, gpt_attention
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
EIGHT_BITS = {
    "past_key_value": INT8,
    "kv_cache_quant_mode": QuantMode.INT8_KV_CACHE,
    "kv_orig_quant_scale": torch.ones(1),
    "kv_quant_orig_scale": torch.ones(1),
}
BEAMS = {
    "tensor": torch.ones(4, 1, 96),
    "past_key_value": torch.zeros(4, 2, 4, 6, 8),
    "cache_indirection": torch.zeros(2, 2, 6, dtype=torch.int32),
    "host_request_types": torch.ones(2, dtype=torch.int32),
    "context_lengths": torch.tensor([1, 1]),
    "host_past_key_value_lengths": torch.tensor([2, 2]),
    "sequence_length": torch.tensor([3, 3]),
}
BAD = {
    "no slopes": ({"position_embedding_type": PositionEmbeddingType.alibi}, "alibi_slopes is None; .* needs them"),
    "slopes alone": ({"alibi_slopes": torch.ones(4)}, "alibi_slopes is given, but position_embedding_type is learned"),
    "packed without sum": (
        {"tensor": torch.ones(1, 4, 96), "host_context_lengths": torch.tensor([3, 2])},
        r"context_lengths is \[3, 2\], 5 tokens in all, but tensor holds 4 packed tokens",
    ),
    "not packed": ({"host_context_lengths": torch.tensor([3, 2])}, "with host_context_lengths it is packed"),
    "odd rotary": (
        {"position_embedding_type": PositionEmbeddingType.rope_gptj, "rotary_embedding_dim": 5},
        "rotary_embedding_dim is 5, position_embedding_type 'rope_gptj' needs an even number",
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
        "sequence 1 has 5 tokens in the cache and 2 new ones, past_key_value holds 6",
    ),
    "no pages": (
        {"past_key_value": POOL[:0], "kv_cache_block_pointers": torch.zeros(2, 1, dtype=torch.int32)},
        "past_key_value has no pages",
    ),
    "unknown page": (
        {"past_key_value": POOL, "kv_cache_block_pointers": torch.tensor([[1], [5]])},
        r"kv_cache_block_pointers of sequence 1 names page 5 for its tokens from 0; the cache has 5 pages",
    ),
    "too few pages": (
        {
            "past_key_value": POOL, "kv_cache_block_pointers": torch.tensor([[1], [2]]),
            "host_past_key_value_lengths": torch.tensor([2, 0]), "sequence_length": torch.tensor([5, 2]),
        },
        r"past_key_value holds 4 \(1 pages of 4\)",
    ),
    "other pages for values": (
        {"past_key_value": POOL, "kv_cache_block_pointers": torch.tensor([[[[1], [2]]], [[[3], [3]]]])},
        "its third axis, keys and values, names the same page twice",
    ),
    "wrong width": ({"tensor": torch.ones(2, 3, 95)}, r"input tensor has 95 columns, it needs .* = 96"),
    "wrong rank": ({"tensor": torch.ones(3, 96)}, r"tensor has shape \[3, 96\], it needs \[B, S, W\]"),
    "wrong cache": ({"past_key_value": torch.zeros(2, 2, 3, 6, 8)}, r"past_key_value has shape \[2, 2, 3, 6, 8\], it"),
    "wrong type": ({"tensor": torch.ones(2, 3, 96, dtype=torch.float64)}, "input tensor is float64"),
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
        "rotary_embedding_scale is 2.0, but rotary_embedding_scale_type is 'none'",
    ),
    "sinks without window": ({"sink_tokens": 2}, "sink_tokens is 2, but window is 0"),
    "short table": (
        {
            "position_embedding_type": PositionEmbeddingType.relative, "max_distance": 8,
            "relative_attention_bias": torch.ones(4, 6, 6),
        },
        r"with max_distance 8 it needs \[num_heads, buckets\]",
    ),
    "no tensor": ({"tensor": None}, "tensor is a NoneType, expected a torch.Tensor"),
    "heads": ({"num_kv_heads": 3}, "num_heads is 4, which is no multiple of num_kv_heads 3"),
    "head size": ({"hidden_size_per_head": 300}, "hidden_size_per_head is 300, allowed are 1 to 256"),
    "no scaling": ({"q_scaling": float("nan")}, "q_scaling is nan, it has to be a number larger than 0"),
    "rotary alone": ({"rotary_embedding_dim": 4}, "rotary_embedding_dim is 4, but position_embedding_type is learned"),
    "scaling alone": (
        {"rotary_embedding_scale_type": RotaryScalingType.linear},
        "rotary_embedding_scale_type is .*linear.*, but position_embedding_type is learned_absolute",
    ),
    "base": (
        {
            "position_embedding_type": PositionEmbeddingType.rope_gptj, "rotary_embedding_dim": 4,
            "rotary_embedding_base": 0.5,
        },
        "rotary_embedding_base is 0.5, it has to be larger than 1",
    ),
    "untrained": (
        {
            "position_embedding_type": PositionEmbeddingType.rope_gptj, "rotary_embedding_dim": 4,
            "rotary_embedding_scale_type": RotaryScalingType.dynamic, "rotary_embedding_scale": 2.0,
            "rotary_embedding_max_positions": 0,
        },
        "rotary_embedding_max_positions is 0, rotary_embedding_scale_type 'dynamic' needs the trained length",
    ),
    "distance alone": ({"max_distance": 5}, "max_distance is 5, but position_embedding_type is learned_absolute"),
    "table too short": (
        {"position_embedding_type": PositionEmbeddingType.relative, "relative_attention_bias": torch.ones(4, 2, 2)},
        "relative_attention_bias is for 2 queries and 2 keys, the longest sequence has 3 queries and 3 keys",
    ),
    "slopes of other heads": (
        {"position_embedding_type": PositionEmbeddingType.alibi, "alibi_slopes": torch.ones(3)},
        r"'alibi_slopes' has shape \[3\], it needs \[4\]",
    ),
    "bias": ({"qkv_bias": torch.ones(95)}, r"'qkv_bias' has shape \[95\], it needs \[96\]"),
    "no mode": ({"kv_cache_quant_mode": "int8"}, "kv_cache_quant_mode is 'int8', expected a QuantMode"),
    "scale of nothing": (
        {**EIGHT_BITS, "kv_orig_quant_scale": torch.zeros(1)},
        r"kv_orig_quant_scale holds \[0.0\], scales are numbers larger than 0",
    ),
    "one scale": ({**EIGHT_BITS, "kv_quant_orig_scale": None}, "kv_quant_orig_scale is None; an 8-bit cache needs"),
    "scales of other heads": ({**EIGHT_BITS, "kv_orig_quant_scale": torch.ones(3)}, "'kv_orig_quant_scale' has shape"),
    "beams without a row": (BEAMS | {"tensor": torch.ones(2, 1, 96)}, "tensor has 2 rows, .* asks for 4"),
    "unknown beam": (
        BEAMS | {"cache_indirection": torch.full((2, 2, 6), 2)},
        "cache_indirection of sequence 0 names beam 2 of token 0; there are 2 beams, allowed are 0 to 1",
    ),
    "no beam": (BEAMS | {"cache_indirection": torch.full((2, 2, 6), -1)}, "names beam -1 of token 0"),
    "beams of others": (BEAMS | {"cache_indirection": torch.zeros(3, 2, 6).int()}, r"shape \[3, 2, 6\], it needs"),
    "beams in floats": (BEAMS | {"cache_indirection": torch.zeros(2, 2, 6)}, "cache_indirection is torch.float32"),
    "short beams": (BEAMS | {"cache_indirection": torch.zeros(2, 2, 1).int()}, "cache_indirection is for 2 x 2 slots"),
    "beams and window": (BEAMS | {"window": 3}, "window is 3 and 'cache_indirection' is given"),
    "window": ({"window": -1}, "window is -1"),
    "cap": ({"logits_soft_cap": -1.0}, "logits_soft_cap is -1.0"),
    "negative past": (
        {"host_past_key_value_lengths": torch.tensor([-1, 0])}, r"host_past_key_value_lengths is \[-1, 0\]",
    ),
    "table of one row": (
        {"past_key_value": POOL, "kv_cache_block_pointers": torch.zeros(1, 1).int()},
        "slots of sequence 1 is 1; kv_cache_block_pointers has rows 0 to 0",
    ),
    "lengths that do not add up": (
        {"sequence_length": torch.tensor([3, 3])},
        "sequence_length of sequence 1 is 3, but 0 tokens are in the cache and context_lengths brings 2",
    ),
    "longer than the encoder's": (
        {
            "do_cross_attention": True, "mask_type": AttentionMaskType.padding, "cross_qkv": torch.ones(2, 5, 96),
            "cross_qkv_length": 5, "encoder_input_lengths": torch.tensor([6, 5]),
        },
        r"encoder_input_lengths is \[6, 5\], but cross_qkv has 2 rows of 5 tokens",
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


@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("by_head", [False, True], ids=["one_scale", "by_head"])
def test_eight_bit_caches_follow_the_formula_exactly(kind, dtype, by_head):
    """q = sat8(round(x * orig_quant)), and x * orig_quant saturated at 448: in floats of 32 bits, whatever x is."""
    held, mode, factor = {
        "int8": (torch.int8, QuantMode.INT8_KV_CACHE, 40.0),
        "fp8": (torch.float8_e4m3fn, QuantMode.FP8_KV_CACHE, 100.0),
    }[kind]
    scale = factor + torch.arange(8.0).view(2, 4) if by_head else torch.tensor([factor])
    x = torch.linspace(-6, 6, 2 * 3 * 96).view(2, 3, 96).to(dtype)
    cache = torch.zeros(2, 2, 4, 6, 8, dtype=held)
    call(
        tensor=x, past_key_value=cache, kv_orig_quant_scale=scale, kv_quant_orig_scale=1 / scale,
        kv_cache_quant_mode=mode,
    )  # fmt: skip
    keys, values = x[0, :, 32:64].view(3, 4, 8), x[0, :, 64:].view(3, 4, 8)
    for part, source in ((0, keys), (1, values)):
        scaled = source.float() * (scale[part, :, None] if by_head else scale)
        want = scaled.round().clamp(-128, 127) if kind == "int8" else scaled.clamp(-448, 448)
        assert torch.equal(cache[0, part, :, :3].float(), want.to(held).float().transpose(0, 1))
    assert OP.updates == {"present": "past"}
