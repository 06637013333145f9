"""Positions against the code of transformers: both pairings of RoPE with all scalings, T5's buckets, ALiBi of MPT."""

import pytest
import torch
from transformers import GPTJConfig, GPTNeoXConfig, LlamaConfig
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding
from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb as by_halves
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as by_pairs
from transformers.models.gptj.modeling_gptj import create_sinusoidal_positions
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention

from qontext.dtypes import relative_rms
from qontext.functional import PositionEmbeddingType, RotaryScalingType, generate_alibi_slopes, gpt_attention

HEADS, SIZE, LENGTH = 3, 32, 50
TOLERANCE = 1e-5


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def attend(q, k, v, bias=None):
    """Causal attention [S, N, D] in float64."""
    scores = torch.einsum("snd,lnd->nsl", q.double(), k.double()) / SIZE**0.5
    scores = scores if bias is None else scores + bias.double()
    seen = torch.ones(len(q), len(q), dtype=torch.bool).tril()
    probabilities = torch.softmax(scores.masked_fill(~seen, -torch.inf), -1)
    return torch.einsum("nsl,lnd->snd", probabilities, v.double()).flatten(1)


def ours(qkv, chunks=(LENGTH,), **arguments):
    """One sequence through gpt_attention, in parts: context [S, N * D]."""
    cache, past, outputs = torch.full((1, 2, HEADS, LENGTH, SIZE), float("nan")), 0, []
    for new in chunks:
        count = torch.tensor([new], dtype=torch.int32)
        out, _ = gpt_attention(
            qkv[None, past : past + new], cache, count + past, torch.tensor([past]), count, None, torch.tensor([0]),
            HEADS, HEADS, SIZE, 1.0, max_context_length=LENGTH, **{"rotary_embedding_dim": 0, **arguments},
        )  # fmt: skip
        outputs.append(out[0])
        past += new
    return torch.cat(outputs)


def split(qkv):
    return (x.unflatten(-1, (HEADS, SIZE)) for x in qkv.chunk(3, -1))


@pytest.mark.parametrize("turned", [32, 8])
def test_gptj_pairs_neighbours(turned):
    qkv = numbers(LENGTH, 3 * HEADS * SIZE)
    q, k, v = split(qkv)
    config = GPTJConfig(rotary_dim=turned)
    sin, cos = create_sinusoidal_positions(LENGTH, config.rotary_dim)[None].chunk(2, -1)
    q, k = q.clone(), k.clone()
    q[..., :turned], k[..., :turned] = (by_pairs(x[None, ..., :turned], sin, cos)[0] for x in (q, k))
    kind = {"position_embedding_type": PositionEmbeddingType.rope_gptj, "rotary_embedding_dim": turned}
    assert relative_rms(ours(qkv, (20, 1, 1, 28), **kind), attend(q, k, v)) <= TOLERANCE


@pytest.mark.parametrize("base", [1e4, 1e6])
@pytest.mark.parametrize("share", [1.0, 0.25])
def test_gpt_neox_pairs_halves(share, base):
    qkv = numbers(LENGTH, 3 * HEADS * SIZE)
    q, k, v = split(qkv)
    rope = {"rope_type": "default", "rope_theta": base, "partial_rotary_factor": share}
    config = GPTNeoXConfig(hidden_size=HEADS * SIZE, num_attention_heads=HEADS, rope_parameters=rope)
    cos, sin = GPTNeoXRotaryEmbedding(config)(qkv, torch.arange(LENGTH)[None])
    turned = cos.shape[-1]
    assert turned == int(SIZE * share)
    q, k = (x.transpose(0, 1)[None] for x in (q, k))
    q, k = (x[0].transpose(0, 1) for x in by_halves(q, k, cos, sin))
    kind = {"position_embedding_type": PositionEmbeddingType.rope_gpt_neox, "rotary_embedding_dim": turned}
    assert relative_rms(ours(qkv, (50,), **kind, rotary_embedding_base=base), attend(q, k, v)) <= TOLERANCE


@pytest.mark.parametrize("factor", [2.0, 3.0])
@pytest.mark.parametrize("scaling", ["linear", "dynamic", "yarn", "llama3"])
def test_scalings(scaling, factor):
    """The context of one step, since dynamic scaling of a longer sequence would turn its cached keys anew."""
    trained = 20
    qkv = numbers(LENGTH, 3 * HEADS * SIZE)
    q, k, v = split(qkv)
    rope = {"rope_type": scaling, "rope_theta": 1e4, "factor": factor}
    more = {}
    if scaling in ("yarn", "llama3"):
        rope["original_max_position_embeddings"] = trained
    if scaling == "yarn":
        more = {"rotary_low": 1.0, "rotary_high": 32.0}
    if scaling == "llama3":
        rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
        more = {"rotary_low": 1.0, "rotary_high": 4.0}
    longest = trained if scaling == "dynamic" else LENGTH
    config = LlamaConfig(
        hidden_size=HEADS * SIZE, num_attention_heads=HEADS, max_position_embeddings=longest, rope_parameters=rope
    )
    cos, sin = LlamaRotaryEmbedding(config)(qkv, torch.arange(LENGTH)[None])
    q, k = (x[0].transpose(0, 1) for x in by_halves(*(x.transpose(0, 1)[None] for x in (q, k)), cos, sin))
    got = ours(
        qkv,
        position_embedding_type=PositionEmbeddingType.rope_gpt_neox,
        rotary_embedding_dim=SIZE,
        rotary_embedding_scale_type=RotaryScalingType[scaling],
        rotary_embedding_scale=factor,
        rotary_embedding_max_positions=trained,
        **more,
    )
    assert relative_rms(got, attend(q, k, v)) <= TOLERANCE


@pytest.mark.parametrize("distance", [20, 128])
def test_buckets_of_t5_implicit_and_explicit(distance):
    """One way only, as in T5's decoder: in the context, in chunks, and token by token."""
    qkv, table = numbers(LENGTH, 3 * HEADS * SIZE), numbers(HEADS, 12, seed=1)
    at = torch.arange(LENGTH)
    bucket = T5Attention._relative_position_bucket(at[None] - at[:, None], False, 12, distance)
    explicit = table[:, bucket]
    want = attend(*split(qkv), explicit)
    kind = {"position_embedding_type": PositionEmbeddingType.relative}
    for chunks in ((50,), (11, 1, 30, 8), (1,) * 50):
        implicit = ours(qkv, chunks, **kind, relative_attention_bias=table, max_distance=distance)
        assert relative_rms(implicit, want) <= TOLERANCE
        assert relative_rms(ours(qkv, chunks, **kind, relative_attention_bias=explicit), want) <= TOLERANCE


@pytest.mark.parametrize("heads", [1, 2, 8, 32])
def test_slopes_are_those_of_mpt(heads):
    """For powers of two; MPT takes the interpolated slopes of other counts in another order than BLOOM."""
    bias = build_mpt_alibi_tensor(heads, 4).view(heads, 4)
    slopes = generate_alibi_slopes(heads).view(heads, 1)
    torch.testing.assert_close(slopes * torch.arange(-3.0, 1.0), bias, rtol=1e-6, atol=0)
