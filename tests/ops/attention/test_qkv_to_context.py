"""QKVToContext against the attention of BERT as others write it, layout by layout and mask by mask."""

import math

import pytest
import torch
import torch.nn.functional as F
from attention_helpers import assert_close, cu_seqlens, from_plain, randn, to_batch_first
from torch import nn
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertSelfAttention

from qontext.dtypes import relative_rms
from qontext.ops.attention_common.layouts import QKV_LAYOUTS, is_packed
from qontext.ops.declare import call_of
from qontext.ops.device import device_of
from qontext.ops.qkv_to_context.op import OP as qkv_to_context

PADDED = [layout for layout in QKV_LAYOUTS if not is_packed(layout)]
PLAIN = "B S (three N D)"


class SequenceFirstSelfAttention(nn.Module):
    """The layer of the BERT encoders that TensorRT's plugin replaced: `[S, B, E]`, heads folded into the batch, an
    additive mask, and what a distillation run keeps."""

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.heads, self.size = heads, hidden // heads
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        self.kept: dict[str, torch.Tensor] = {}

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        length, batch, hidden = x.shape
        q, k, v = (
            layer(x).view(length, batch * self.heads, self.size).transpose(0, 1)
            for layer in (self.query, self.key, self.value)
        )
        scores = torch.bmm(q, k.transpose(1, 2)).view(batch, self.heads, length, length) / math.sqrt(self.size) + mask
        context = torch.bmm(F.softmax(scores, dim=-1).view(-1, length, length), v)
        context = context.transpose(0, 1).reshape(length, batch, hidden)
        # The layer calls its result "value states"; the values themselves are v.
        self.kept = {
            "attention_scores": scores,
            "value_states": context,
            "values": v.view(batch, self.heads, length, self.size),
        }
        return context

    def fused(self, x: torch.Tensor) -> torch.Tensor:
        """The three projections as one, in the order (three N D)."""
        return torch.cat([layer(x) for layer in (self.query, self.key, self.value)], dim=-1)


def plain_attention(qkv: torch.Tensor, heads: int, **options) -> torch.Tensor:
    """torch's own attention on `[B, S, 3E]` in the order (three N D), as `[B, S, E]`."""
    q, k, v = qkv.view(*qkv.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v, **options).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("masked", [False, True])
def test_sequence_first_layer_and_its_hooks(masked):
    torch.manual_seed(0)
    layer = SequenceFirstSelfAttention(48, 3).eval()
    x = randn(1, 9, 2, 48)
    mask = torch.zeros(2, 1, 1, 9)
    if masked:
        mask[1, ..., 5:] = -10000.0
    with torch.no_grad():
        want = layer(x, mask)
        context, scores, values = qkv_to_context(
            layer.fused(x),
            mask=mask,
            num_heads=3,
            layout="S B (three N D)",
            outputs=("context", "scores", "values"),
        )
    assert_close(context, want)
    assert_close(context, layer.kept["value_states"])
    assert_close(scores, layer.kept["attention_scores"])
    assert_close(values, layer.kept["values"])


@pytest.mark.parametrize("mask_constant", [-1e3, -1e4, -1e12, torch.finfo(torch.float32).min, -math.inf])
def test_hugging_face_layer(mask_constant):
    torch.manual_seed(0)
    config = BertConfig(hidden_size=48, num_attention_heads=4, attn_implementation="eager")
    layer = BertSelfAttention(config).eval()
    x = randn(1, 3, 11, 48)
    lengths = torch.tensor([11, 4, 1])
    mask = torch.zeros(3, 1, 1, 11).masked_fill((torch.arange(11) >= lengths[:, None])[:, None, None], mask_constant)
    with torch.no_grad():
        want = layer(x, mask)[0]
        fused = torch.cat([layer.query(x), layer.key(x), layer.value(x)], -1)
    assert_close(qkv_to_context(fused, mask=mask, num_heads=4, layout=PLAIN), want)
    assert_close(qkv_to_context(fused, lengths=lengths, num_heads=4, layout=PLAIN), want)


@pytest.mark.parametrize("layout", PADDED)
@pytest.mark.parametrize("masks", ["none", "lengths", "bias"])
def test_every_layout_gives_the_same_context(layout, masks):
    qkv = randn(0, 3, 10, 3 * 4 * 8)
    given = {
        "none": {},
        "lengths": {"lengths": torch.tensor([10, 3, 7], dtype=torch.int32)},
        "bias": {"bias": randn(1, 1, 4, 10, 10)},
    }[masks]
    added = given.get("bias")
    if masks == "lengths":
        added = (torch.arange(10) < given["lengths"][:, None])[:, None, None]
    want = plain_attention(qkv, 4, attn_mask=added)
    got = qkv_to_context(from_plain(qkv, layout, 4), num_heads=4, layout=layout, **given)
    assert_close(to_batch_first(got, layout), want)


@pytest.mark.parametrize("layout", ["T (three N D)", "T (N three D)"])
@pytest.mark.parametrize("kind", ["full", "causal"])
def test_packed_equals_padded(layout, kind):
    """Lengths 3, 2, 4: boundaries 0, 3, 5, 9."""
    lengths = [3, 2, 4]
    bounds = cu_seqlens(lengths)
    assert bounds.tolist() == [0, 3, 5, 9]
    padded = from_plain(randn(0, 3, 4, 3 * 2 * 16), layout.replace("T", "B S"), 2)
    valid = torch.arange(4) < torch.tensor(lengths)[:, None]
    packed = qkv_to_context(
        padded[valid],
        cu_seqlens=bounds,
        max_seqlen=torch.tensor(4, dtype=torch.int32),
        num_heads=2,
        layout=layout,
        kind=kind,
    )
    together = qkv_to_context(
        padded, lengths=torch.tensor(lengths), num_heads=2, layout=layout.replace("T", "B S"), kind=kind
    )
    assert_close(packed, together[valid])


def test_padding_does_not_reach_valid_rows():
    qkv = randn(0, 2, 8, 3 * 2 * 16)
    lengths = torch.tensor([5, 8])
    first = qkv_to_context(qkv, lengths=lengths, num_heads=2, layout=PLAIN)
    dirty = qkv.clone()
    dirty[0, 5:] = 1e4
    second = qkv_to_context(dirty, lengths=lengths, num_heads=2, layout=PLAIN)
    assert_close(
        first[:1, :5], second[:1, :5]
    )  # wild padded queries may change the path of their tile, so the last bits
    assert torch.equal(first[1], second[1])  # another sequence is untouched, bit for bit
    short = qkv_to_context(qkv[:1, :5].contiguous(), num_heads=2, layout=PLAIN)
    assert_close(first[:1, :5], short)


def test_masks_with_holes():
    """110100 is no count of valid keys, and no problem."""
    qkv = randn(0, 1, 6, 3 * 2 * 8)
    mask = torch.tensor([[True, True, False, True, False, False]])
    got = qkv_to_context(qkv, mask=mask, num_heads=2, layout=PLAIN)
    assert_close(got, plain_attention(qkv, 2, attn_mask=mask[:, None, None]))
    kept = qkv[:, mask[0]]
    assert_close(got[:, mask[0]], plain_attention(kept, 2))


@pytest.mark.parametrize(("size", "padded"), [(52, 56), (100, 104)])
def test_head_sizes_padded_to_a_multiple_of_eight(size, padded):
    """Zeros behind each head change nothing when the scale stays that of the true size."""
    qkv = randn(0, 2, 9, 3, 2, size)
    wide = F.pad(qkv, (0, padded - size))
    want = qkv_to_context(qkv, num_heads=2, layout="B S three N D")
    got = qkv_to_context(wide, num_heads=2, layout="B S three N D", scale=size**-0.5)
    assert_close(got.view(2, 9, 2, padded)[..., :size].flatten(2), want)
    assert float(got.view(2, 9, 2, padded)[..., size:].abs().max()) == 0


def test_causal_and_prefix_kinds():
    qkv = randn(0, 2, 12, 3 * 2 * 8)
    rows = torch.arange(12)
    causal = rows[None, :] <= rows[:, None]
    assert_close(qkv_to_context(qkv, num_heads=2, layout=PLAIN, kind="causal"), plain_attention(qkv, 2, is_causal=True))
    prefix = torch.tensor([3, 8])
    seen = causal | (rows[None, None, :] < prefix[:, None, None])
    got = qkv_to_context(qkv, prefix_lengths=prefix, num_heads=2, layout=PLAIN, kind="prefix")
    assert_close(got, plain_attention(qkv, 2, attn_mask=seen[:, None]))


@pytest.mark.parametrize("kernel", ["native.attention", "torch.sdpa", "torch.bmm"])
@pytest.mark.parametrize("constant", [-1e3, -1e12, torch.finfo(torch.float32).min, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mask_constants_are_safe_in_halves(kernel, constant, dtype):
    """A float32 mask beside half operands keeps its constant; one cast to the half may be -inf."""
    qkv = randn(0, 2, 7, 3 * 2 * 8, dtype=dtype)
    keys = torch.arange(7) < torch.tensor([7, 3])[:, None]
    mask = torch.zeros(2, 7).masked_fill(~keys, constant)
    want = plain_attention(qkv.double(), 2, attn_mask=keys[:, None, None])
    for given in (mask, mask.to(dtype)):
        inputs = [qkv, None, given, *[None] * 4]
        call = call_of(
            qkv_to_context, inputs, {"num_heads": 2, "layout": PLAIN}, (True, False, False), device_of("cpu")
        )
        chosen = next(k for k in qkv_to_context.kernels if k.name == kernel)
        if chosen.supports(call) is not None:
            pytest.skip(chosen.supports(call))
        out = [torch.full((2, 7, 16), math.nan, dtype=dtype), None, None] if chosen.writes_out else None
        result = chosen.bind(call)(inputs, out)
        assert_close(result[0], want)


def test_wholly_masked_rows():
    """Zeros for -inf and boolean masks; a finite constant that filled the row, or was added to it, as it acts."""
    qkv = randn(0, 2, 5, 3 * 2 * 8)
    q, k, v = qkv.view(2, 5, 3, 2, 8).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) / math.sqrt(8)
    lengths = torch.tensor([5, 0])
    keys = (torch.arange(5) < lengths[:, None])[:, None, None]

    def context(probs: torch.Tensor) -> torch.Tensor:
        return (probs @ v).transpose(1, 2).flatten(2)

    def ours(**given) -> torch.Tensor:
        return qkv_to_context(qkv, num_heads=2, layout=PLAIN, **given)

    zeros = ours(lengths=lengths)
    assert float(zeros[1].abs().max()) == 0
    assert_close(zeros, ours(mask=keys.expand(2, 1, 1, 5).clone()))
    assert_close(zeros, ours(mask=torch.zeros(2, 5).masked_fill(~keys[:, 0, 0], -math.inf)))
    filled = context(F.softmax(scores.masked_fill(~keys, -1e3), -1))
    assert_close(ours(lengths=lengths, empty_row="uniform"), filled)
    finite = context(F.softmax(scores + torch.zeros(2, 1, 1, 5).masked_fill(~keys, -1e3), -1))
    assert_close(ours(lengths=lengths, empty_row="as_unmasked"), finite)
    assert relative_rms(filled, finite) > 1e-2


def test_long_sequences():
    qkv = randn(0, 1, 1500, 3 * 1 * 16)
    assert_close(qkv_to_context(qkv, num_heads=1, layout=PLAIN), plain_attention(qkv, 1))


def test_grouped_heads_share_keys():
    qkv = randn(0, 2, 6, (4 + 2 * 2) * 8)
    q, k, v = qkv.view(2, 6, 8, 8).split((4, 2, 2), dim=2)
    k, v = (x.repeat_interleave(2, dim=2) for x in (k, v))
    want = plain_attention(torch.stack((q, k, v), 2).flatten(2), 4)
    assert_close(qkv_to_context(qkv, num_heads=4, num_kv_heads=2, layout=PLAIN), want)
