"""Layers: the fused path against the one step by step, on tensors and in networks; bad arguments."""

import pytest
import torch

from qontext.dtypes import by_name, relative_rms
from qontext.engine import build
from qontext.errors import ArgumentError, InputError
from qontext.functional import AttentionMaskType, AttentionParams, KeyValueCacheParams, PositionEmbeddingType
from qontext.graph.model import InputRule, Model
from qontext.layers import MLP, Attention, BertAttention, Embedding, FP8Linear, GatedMLP, LayerNorm, RmsNorm
from qontext.ops.network import Network
from qontext.quant.mode import QuantMode

TOLERANCE = by_name("float32").tolerance
HIDDEN, HEADS = 48, 4


def filled(layer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    layer.load({n: (torch.randn(t.shape, generator=generator) * 0.3).to(t.dtype) for n, t in layer.named_parameters()})
    return layer


def hidden(*shape, seed=1):
    return torch.randn(*shape, HIDDEN, generator=torch.Generator().manual_seed(seed))


def params(past, new, kind, **more):
    past, new = (torch.tensor(x, dtype=torch.int32) for x in (past, new))
    return AttentionParams(
        past + new, new, new, int(new.max()), torch.full((len(new),), kind, dtype=torch.int32), **more
    )


@pytest.mark.parametrize("position", ["learned_absolute", "alibi", "alibi_with_scale"])
@pytest.mark.parametrize("kv_heads", [None, 2])
@pytest.mark.parametrize("int8", [False, True], ids=["", "int8"])
def test_fused_attention_equals_the_path_step_by_step(position, kv_heads, int8):
    """Two context tokens, then one; q_scaling by layers. The plain path attends to new keys unrounded."""
    arguments = {
        "num_kv_heads": kv_heads,
        "num_layers": 3,
        "apply_query_key_layer_scaling": True,
        "attention_mask_type": AttentionMaskType.causal,
        "position_embedding_type": PositionEmbeddingType[position],
        "use_int8_kv_cache": int8,
    }
    fused = filled(Attention(HIDDEN, HEADS, **arguments))
    plain = filled(Attention(HIDDEN, HEADS, **arguments, gpt_attention_plugin=False))
    if int8:
        for layer in (fused, plain):
            layer._parameters["kv_orig_quant_scale"].fill_(16.0)
            layer._parameters["kv_quant_orig_scale"].fill_(1 / 16)
    allowed = 0.05 if int8 else TOLERANCE
    cache = torch.zeros(2, 2, kv_heads or HEADS, 8, HIDDEN // HEADS, dtype=torch.int8 if int8 else torch.float32)
    zero = torch.zeros(2, dtype=torch.int32)
    x = hidden(2, 5)
    got, present = fused(
        x,
        use_cache=True,
        attention_params=params([0, 0], [5, 5], 0),
        kv_cache_params=KeyValueCacheParams([cache], zero),
    )
    want, past = plain(x, use_cache=True)
    assert present is cache
    assert relative_rms(got, want) <= allowed
    assert relative_rms(cache[:, :, :, :5].float(), past.float()) <= TOLERANCE
    x = hidden(2, 1, seed=2)
    got = fused(x, attention_params=params([5, 5], [1, 1], 1), kv_cache_params=KeyValueCacheParams([cache], zero + 5))
    want = plain(x, kv_cache_params=KeyValueCacheParams([past]))
    assert relative_rms(got, want) <= allowed


def test_cross_attention_computes_its_cache_once():
    arguments = {"cross_attention": True, "attention_mask_type": AttentionMaskType.padding}
    fused = filled(Attention(HIDDEN, HEADS, **arguments))
    plain = filled(Attention(HIDDEN, HEADS, **arguments, gpt_attention_plugin=False))
    own, cross = (torch.zeros(2, 2, HEADS, 7, HIDDEN // HEADS) for _ in range(2))
    encoder, lengths = hidden(2, 7, seed=3), torch.tensor([7, 7], dtype=torch.int32)
    more = {"encoder_input_lengths": lengths, "encoder_max_input_length": 7}
    zero = torch.zeros(2, dtype=torch.int32)
    for x, past, kind, source in ((hidden(2, 3), 0, 0, encoder), (hidden(2, 1, seed=4), 3, 1, None)):
        caches = KeyValueCacheParams([own, cross], zero + past)
        given = params([past] * 2, [x.shape[1]] * 2, kind, **more)
        got = fused(x, kv_cache_params=caches, attention_params=given, encoder_output=source)
        assert relative_rms(got, plain(x, encoder_output=encoder)) <= TOLERANCE


def test_bert_attention_is_the_same_packed_padded_and_step_by_step():
    fused = filled(BertAttention(HIDDEN, HEADS, 2, q_scaling=0.5))
    plain = filled(BertAttention(HIDDEN, HEADS, 2, q_scaling=0.5, bert_attention_plugin=False))
    lengths = torch.tensor([6, 2, 4], dtype=torch.int32)
    x = hidden(3, 6)
    real = torch.arange(6) < lengths[:, None]
    mask = torch.zeros(3, 1, 1, 6).masked_fill(~real[:, None, None], -torch.inf)
    want = plain(x, mask)[real]
    assert relative_rms(fused(x, input_lengths=lengths)[real], want) <= TOLERANCE
    assert relative_rms(fused(x[real][None], input_lengths=lengths)[0], want) <= TOLERANCE


def test_layers_draw_themselves_into_networks():
    norm, attention = filled(LayerNorm(HIDDEN)), filled(BertAttention(HIDDEN, HEADS))
    feed, last = filled(GatedMLP(HIDDEN, 32, "gelu_new")), filled(RmsNorm(HIDDEN))
    for layer, name in ((norm, "norm"), (attention, "attention"), (feed, "feed"), (last, "last")):
        layer.named(name)

    def whole(x, lengths):
        return last(feed(attention(norm(x), input_lengths=lengths)))

    net = Network("layers")
    x, lengths = net.input("x", "float32", ("B", "S", HIDDEN)), net.input("lengths", "int32", ("B",))
    net.output(whole(x, lengths), "y")
    assert "attention.qkv.weight" in net.graph.initializers
    engine = build(Model("layers", net.graph, net.ledger(), {"x": InputRule(), "lengths": InputRule()}), tune=False)
    given, counts = hidden(2, 5), torch.tensor([5, 3], dtype=torch.int32)
    want = whole(given, counts)
    assert relative_rms(engine.run({"x": given, "lengths": counts})["y"], want) <= TOLERANCE


def test_fp8_linear_rounds_weights_and_activations():
    layer = FP8Linear(HIDDEN, 32)
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(32, HIDDEN, generator=generator), hidden(3)
    scales = {"weights_scaling_factor": weight.abs().amax() / 448, "activation_scaling_factor": x.abs().amax() / 448}
    held = (weight / scales["weights_scaling_factor"]).to(torch.float8_e4m3fn)
    layer.load({"weight": held, "bias": torch.zeros(32), **{n: s.reshape(1) for n, s in scales.items()}})
    assert 1e-4 < relative_rms(layer(x), x @ weight.t()) < by_name("float8_e4m3").tolerance


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Attention(50, 4), "hidden_size is 50, which is no multiple of num_attention_heads 4"),
        (lambda: Attention(48, 4, tp_size=3), "tp_size is 3, which does not divide num_heads 4"),
        (lambda: Attention(48, 4, 3), "num_kv_heads is 3, which does not divide 4 heads"),
        (lambda: Attention(48, 4), "attention_mask_type is padding, fused self attention takes causal"),
        (
            lambda: Attention(
                48, 4, position_embedding_type=PositionEmbeddingType.rope_gptj, gpt_attention_plugin=False
            ),
            "position_embedding_type is rope, which needs gpt_attention_plugin=True",
        ),
        (
            lambda: Attention(48, 4, rotary_embedding_scaling={"type": "linear", "factor": 1.0}),
            "rotary_embedding_scaling is .* factor over 1",
        ),
        (lambda: Attention(48, 4, relative_attention=True), "relative_attention needs num_buckets and max_distance"),
        (lambda: BertAttention(48, 4, tp_rank=1), "tp_rank is 1, allowed are 0 to 0"),
        (lambda: MLP(48, 32, "tanh"), "hidden_act is 'tanh', allowed: relu"),
        (lambda: MLP(48, 32, "relu", tp_size=3), "in_features|out_features has to be a multiple of tp_size 3"),
        (lambda: MLP(48, 32, "relu", tp_group=[0, 1]), "tp_group has 2 ranks, tp_size is 1"),
        (lambda: Embedding(37, 48, tp_size=2, tp_rank=0), "37 x 48 is not divided by tp_size 2 along axis 0"),
    ],
)
def test_arguments_that_exclude_each_other(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_calls_without_what_they_need():
    layer = filled(Attention(HIDDEN, HEADS, attention_mask_type=AttentionMaskType.causal))
    with pytest.raises(ArgumentError, match="attention_params is None"):
        layer(hidden(1, 3))
    with pytest.raises(ArgumentError, match="sequence_length is None"):
        layer(hidden(1, 3), attention_params=AttentionParams())
    quantised = Attention(
        HIDDEN, HEADS, attention_mask_type=AttentionMaskType.causal, quant_mode=QuantMode.FP8_KV_CACHE
    )
    cache = torch.zeros(1, 2, HEADS, 8, 12)
    with pytest.raises(
        ArgumentError, match=r"kv_cache_quant_mode is .*FP8_KV_CACHE.*, but past_key_value is torch.float32"
    ):
        quantised(
            hidden(1, 3),
            attention_params=params([0], [3], 0),
            kv_cache_params=KeyValueCacheParams([cache], torch.zeros(1, dtype=torch.int32)),
        )
    with pytest.raises(InputError, match="ids hold 0 to 9, allowed are 0 to 8"):
        Embedding(9, 4)(torch.tensor([0, 9]))
    with pytest.raises(ArgumentError, match="'weight' is missing"):
        RmsNorm(4).load({})
