"""ALiBi, masks and last tokens against their definitions; bert_attention ragged, packed and with relative bias."""

import pytest
import torch

from qontext.dtypes import by_name, relative_rms
from qontext.errors import ArgumentError, DTypeError, InputError, ShapeError
from qontext.functional import (
    bert_attention,
    expand_mask,
    gather_last_token_logits,
    generate_alibi_biases,
    generate_alibi_slopes,
)


@pytest.mark.parametrize("heads", [1, 2, 4, 6, 8, 12, 13, 71])
def test_slopes_are_those_of_bloom(heads):
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    mask = torch.ones(1, 5)
    want = build_alibi_tensor(mask, heads, torch.float32).view(heads, 5)
    slopes = generate_alibi_slopes(heads)
    assert slopes.shape == (1, heads, 1, 1)
    torch.testing.assert_close(generate_alibi_biases(slopes, 5).view(heads, 5), want, rtol=1e-6, atol=0)


def test_slopes_of_ranks_are_parts_of_the_whole():
    whole = generate_alibi_slopes(12, alibi_scale=0.5)
    parts = [generate_alibi_slopes(12, tp_size=3, tp_rank=r, alibi_scale=0.5) for r in range(3)]
    assert torch.equal(torch.cat(parts, 1), whole)
    assert generate_alibi_slopes(4, "fp16").dtype == torch.float16
    with pytest.raises(ArgumentError, match="tp_size is 5, which does not divide num_heads 12"):
        generate_alibi_slopes(12, tp_size=5)
    with pytest.raises(ArgumentError, match="tp_rank is 3, allowed are 0 to 2"):
        generate_alibi_slopes(12, tp_size=3, tp_rank=3)
    with pytest.raises(DTypeError, match="dtype is 'float17'"):
        generate_alibi_slopes(4, "float17")


def test_masks():
    mask = torch.tensor([[1, 1, 0], [1, 0, 1]])
    wide = expand_mask(mask, 2)
    assert wide.shape == (2, 1, 2, 3)
    for b in range(2):
        for q in range(2):
            assert wide[b, 0, q].tolist() == [0.0 if m else float("-inf") for m in mask[b].tolist()]
    assert expand_mask(mask).shape == (2, 1, 3, 3)
    with pytest.raises(ShapeError, match=r"mask has shape \[3\]"):
        expand_mask(torch.ones(3))


def test_last_tokens():
    hidden = torch.arange(2 * 4 * 3).view(2, 4, 3).float()
    lengths = torch.tensor([2, 4])
    want = torch.stack([hidden[0, 1], hidden[1, 3]])
    assert torch.equal(gather_last_token_logits(hidden, lengths, False), want)
    packed = torch.cat([hidden[0, :2], hidden[1]])[None]
    assert torch.equal(gather_last_token_logits(packed, lengths.cumsum(0), True), want)
    assert gather_last_token_logits(hidden, None, True) is hidden
    with pytest.raises(InputError, match="last_token_ids holds 2 to 7, allowed are 1 to 6, the tokens"):
        gather_last_token_logits(packed, torch.tensor([2, 7]), True)
    with pytest.raises(DTypeError, match=r"last_token_ids is torch\.float32"):
        gather_last_token_logits(packed, torch.tensor([2.0]), True)


def bert_by_hand(qkv, heads, size, q_scaling, bias=None):
    """Attention of one sequence [S, 3 E] in float64."""
    q, k, v = (p.unflatten(-1, (heads, size)).transpose(0, 1) for p in qkv.double().chunk(3, -1))
    scores = q @ k.transpose(1, 2) / (q_scaling * size**0.5)
    scores = scores if bias is None else scores + bias.double()
    return (torch.softmax(scores, -1) @ v).transpose(0, 1).flatten(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("heads", "size", "lengths"), [(16, 32, (64, 3, 17)), (4, 64, (256, 1)), (3, 40, (5, 33, 70))])
def test_bert_attention_of_ragged_batches(heads, size, lengths, dtype):
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(n, 3 * heads * size, generator=generator).to(dtype) for n in lengths]
    want = [bert_by_hand(p, heads, size, 0.7) for p in parts]
    counts, allowed = torch.tensor(lengths, dtype=torch.int32), by_name(str(dtype).removeprefix("torch.")).tolerance
    packed = bert_attention(torch.cat(parts), counts, heads, size, 0.7)
    assert relative_rms(packed, torch.cat(want)) <= allowed
    padded = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
    got = bert_attention(padded, counts, heads, size, 0.7)
    for row, (n, right) in enumerate(zip(lengths, want, strict=True)):
        assert relative_rms(got[row, :n], right) <= allowed
        assert not got[row, n:].any()


@pytest.mark.parametrize("max_distance", [0, 20])
def test_bert_attention_with_relative_bias(max_distance):
    """Buckets by T5's own code, both ways."""
    from transformers.models.t5.modeling_t5 import T5Attention

    generator = torch.Generator().manual_seed(1)
    heads, size, lengths = 3, 16, (30, 7)
    parts = [torch.randn(n, 3 * heads * size, generator=generator) for n in lengths]
    at = torch.arange(30)
    if max_distance:
        table = torch.randn(heads, 12, generator=generator)
        bucket = T5Attention._relative_position_bucket(at[None] - at[:, None], True, 12, max_distance)
        bias = table[:, bucket]
    else:
        table = bias = torch.randn(heads, 30, 30, generator=generator)
    counts = torch.tensor(lengths, dtype=torch.int32)
    got = bert_attention(torch.cat(parts), counts, heads, size, 1.0, True, table, max_distance)
    want = [bert_by_hand(p, heads, size, 1.0, bias[:, :n, :n]) for n, p in zip(lengths, parts, strict=True)]
    assert relative_rms(got, torch.cat(want)) <= by_name("float32").tolerance
    with pytest.raises(ArgumentError, match="relative_attention is False, but relative_attention_bias is given"):
        bert_attention(torch.cat(parts), counts, heads, size, 1.0, False, table, max_distance)
    with pytest.raises(ArgumentError, match="input_lengths is None"):
        bert_attention(torch.cat(parts), None, heads, size, 1.0)
