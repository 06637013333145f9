"""The grid of TensorRT-LLM 0.5.0's attention tests, and what it lacks: a context, then eight steps, each checked.

The default run takes a part of every group; the slow ones are the rest of it.
"""

import pytest
import torch
from attention_steps import STEPS, Run, Setting, check

from qontext.dtypes import relative_rms
from qontext.functional import PositionEmbeddingType, RotaryScalingType, generate_alibi_slopes

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
pytestmark = pytest.mark.usefixtures("place")
SLOW = pytest.mark.slow
HALVES = [pytest.param(FP16, marks=SLOW, id="fp16"), pytest.param(BF16, id="bf16")]
NEOX = {"position_embedding_type": PositionEmbeddingType.rope_gpt_neox}
GPTJ = {"position_embedding_type": PositionEmbeddingType.rope_gptj}


def rope(size, kind=NEOX, share=1.0, **more):
    return {**kind, "rotary_embedding_dim": int(size * share), **more}


MODELS = {"gpt2": lambda size: {}, "llama": rope, "gptj": lambda size: rope(size, GPTJ)}


@pytest.mark.parametrize("bias", [False, pytest.param(True, marks=SLOW)], ids=["", "bias"])
@pytest.mark.parametrize("page", [0, 16], ids=["contiguous", "paged"])
@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("model", MODELS)
def test_basic(model, dtype, beams, page, bias):
    """Beams with pages too, which the original skips."""
    check(Setting(dtype=dtype, beams=beams, page=page, bias=bias, arguments=MODELS[model](64)))


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("dtype", [FP32, *HALVES])
def test_padding_removal(dtype, packed):
    check(Setting(dtype=dtype, packed=packed, arguments=rope(64)))


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("size", [32, 64, 80, 112, 128])
@pytest.mark.parametrize(
    ("length", "dtype"),
    [
        pytest.param(90, FP16, marks=SLOW),
        pytest.param(90, BF16),
        pytest.param(1024, FP16, marks=SLOW),
        pytest.param(1024, BF16, marks=SLOW),
    ],
)
def test_fused_context(length, dtype, size, packed):
    check(Setting(length=length, size=size, dtype=dtype, packed=packed, page=64 if packed else 0, arguments=rope(size)))


@pytest.mark.parametrize("bias", [False, pytest.param(True, marks=SLOW)])
def test_long_heads_in_fp32(bias):
    check(Setting(heads=2, size=256, bias=bias, arguments=rope(256, GPTJ)))


@SLOW
@pytest.mark.parametrize("dtype", [FP16, BF16], ids=str)
def test_multi_block(dtype):
    check(Setting(length=2048, batch=1, dtype=dtype, page=64, arguments={**rope(64), "multi_block_mode": True}))


@pytest.mark.parametrize("cache", [torch.int8, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("dtype", [pytest.param(FP32, marks=SLOW), *HALVES])
def test_eight_bit_caches(dtype, beams, cache):
    """A step of int8 is 4 / 127 here; fp8 keeps three bits. Rounding of keys and values goes into every result."""
    run = Run(Setting(dtype=dtype, beams=beams, page=16, cache=cache))
    pairs = run.context() + [pair for _ in range(STEPS) for pair in run.step()]
    assert max(relative_rms(got, want) for got, want in pairs) < (0.03 if cache == torch.int8 else 0.06)


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("dtype", HALVES)
def test_one_key_head(dtype, beams):
    check(Setting(dtype=dtype, beams=beams, kv_heads=1))


GROUPS = [
    pytest.param(Setting(length=4, heads=8, size=32, kv_heads=2, dtype=BF16), id="2-of-8"),
    pytest.param(Setting(length=4, heads=8, size=32, kv_heads=4, dtype=FP16), id="4-of-8"),
    pytest.param(Setting(batch=1, length=165, heads=32, size=128, kv_heads=4), id="4-of-32"),
]


@pytest.mark.parametrize("setting", GROUPS)
def test_groups(setting):
    setting.arguments = rope(setting.size)
    check(setting)


@pytest.mark.parametrize("base", [1e4, 1e6])
@pytest.mark.parametrize(
    ("kind", "factor"), [("none", 1.0), ("linear", 2.0), ("linear", 3.0), ("dynamic", 3.0), ("dynamic", 2.0)]
)
@pytest.mark.parametrize("length", [4, pytest.param(165, marks=SLOW)])
def test_rope_base_and_scaling(length, kind, factor, base):
    scaling = {
        "rotary_embedding_scale_type": RotaryScalingType[kind],
        "rotary_embedding_scale": factor,
        "rotary_embedding_base": base,
    }
    check(Setting(length=length, heads=8, size=32, kv_heads=2, arguments=rope(32, **scaling)))


# -- what that grid lacks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [24, 72, 100])
@pytest.mark.parametrize("page", [0, 7], ids=["contiguous", "paged"])
def test_odd_heads_and_pages(size, page):
    check(Setting(length=37, heads=6, kv_heads=3, size=size, page=page, bias=True, arguments=rope(size, GPTJ, 0.5)))


@pytest.mark.parametrize("heads", [4, 6, 13])
@pytest.mark.parametrize("kind", ["alibi", "alibi_with_scale"])
@pytest.mark.parametrize("page", [0, 16], ids=["contiguous", "paged"])
def test_alibi(heads, kind, page):
    position = PositionEmbeddingType[kind]
    scale = 64**-0.5 if kind == "alibi_with_scale" else 1.0
    slopes = generate_alibi_slopes(heads, alibi_scale=scale)
    arguments = {"position_embedding_type": position, "alibi_slopes": slopes}
    check(Setting(length=70, heads=heads, page=page, arguments=arguments))


@pytest.mark.parametrize("implicit", [False, True], ids=["by_position", "buckets"])
def test_relative_bias(implicit):
    generator = torch.Generator().manual_seed(3)
    shape = (4, 32) if implicit else (4, 60, 60)
    arguments = {
        "position_embedding_type": PositionEmbeddingType.relative,
        "relative_attention_bias": torch.randn(shape, generator=generator),
        "max_distance": 40 if implicit else 0,
    }
    check(Setting(length=50, page=8, arguments=arguments))


@pytest.mark.parametrize(("window", "sinks"), [(9, 0), (9, 4), (200, 0)])
@pytest.mark.parametrize("page", [0, 16], ids=["contiguous", "paged"])
def test_windows_and_sinks(window, sinks, page):
    check(Setting(length=60, page=page, arguments={**rope(64), "window": window, "sink_tokens": sinks}))


def test_soft_cap_and_scaling():
    check(Setting(length=40, arguments={"logits_soft_cap": 3.0, "q_scaling": 0.3}))


@pytest.mark.parametrize("cache", [torch.int8, torch.float8_e4m3fn], ids=str)
def test_scales_by_head_err_less(cache):
    """Heads of different sizes: one scale for all of them loses the small ones."""
    errors = []
    for by_head in (False, True):
        run = Run(Setting(length=40, cache=cache, by_head=by_head))
        s = run.s
        spread = torch.tensor([1.0, 0.1, 4.0, 0.00002])
        run.sizes = spread.repeat_interleave(s.size).repeat(3)
        most = 127.0 if cache == torch.int8 else 448.0
        reach = spread * 4
        scale = (most / reach).repeat(2, 1) if by_head else torch.tensor([most / 16])
        run.scales |= {"kv_orig_quant_scale": scale, "kv_quant_orig_scale": 1 / scale}
        heads = [(g.view(-1, s.heads, s.size), w.view(-1, s.heads, s.size)) for g, w in run.context()]
        errors.append(max(relative_rms(g[:, h], w[:, h]) for g, w in heads for h in range(s.heads)))
    assert errors[1] < 0.5 * errors[0]
