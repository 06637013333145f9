"""TensorRT's BERT plugins against the formulas of their documentation, one by one and as a layer."""

import itertools
import math
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from onnx_graphs import FLOAT, INT32, assert_equal, by_us, graph_of, one_node, random

from qontext.dtypes import relative_rms
from qontext.errors import UnsupportedOperatorError
from qontext.importers.onnx_model import import_onnx
from qontext.ops.catalogue import BY_NAME
from qontext.ops.interleave import interleave_qkv

S, B, N, D = 6, 3, 2, 8
E = N * D
LENGTHS = np.array([6, 2, 4], np.int32)
BOUNDS = np.array([0, 6, 8, 12], np.int32)
PADDED, PACKED = (FLOAT, ["S", "B", 3 * E, 1, 1]), (FLOAT, ["T", 3 * E, 1, 1])


def plugin(op_type: str, operands: Any, outputs: list[str], version: str = "1", **attributes: Any) -> onnx.ModelProto:
    tensors = {k: numpy_helper.from_array(v, k) if isinstance(v, np.ndarray) else v for k, v in attributes.items()}
    return one_node(op_type, "", operands, outputs, plugin_version=version, plugin_namespace="", **tensors)


def context_of(qkv: np.ndarray) -> np.ndarray:
    """Attention of one sequence: heads one after the other, in each its query, key and value. [S, 3E] to [S, E]."""
    heads = torch.from_numpy(qkv).view(-1, N, 3, D).permute(2, 1, 0, 3)
    probs = torch.softmax(heads[0] @ heads[1].transpose(-1, -2) / math.sqrt(D), -1)
    return (probs @ heads[2]).transpose(0, 1).reshape(-1, E).numpy()


def attention(**attributes: Any) -> onnx.ModelProto:
    settings = {"num_heads": N, "hidden_size": E, "has_mask": 1, "type_id": 0, **attributes}
    operands = [("qkv", PADDED), ("mask", (INT32, ["B"]))]
    return plugin("CustomQKVToContextPluginDynamic", operands, ["y"], **settings)


def test_qkv_to_context_padded() -> None:
    qkv = random(S, B, 3 * E, 1, 1)
    found = by_us(attention(), {"qkv": qkv, "mask": LENGTHS}, packing=False)[0]
    assert found.shape == (S, B, E, 1, 1)
    for b, length in enumerate(LENGTHS):
        right = context_of(qkv[:length, b, :, 0, 0])
        assert_equal([found[:length, b, :, 0, 0]], [right])


def test_qkv_to_context_without_a_mask() -> None:
    settings = {"num_heads": N, "hidden_size": E, "has_mask": 0, "type_id": 1}
    model = plugin("CustomQKVToContextPluginDynamic", [("qkv", PADDED)], ["y"], version="4", **settings)
    qkv = random(S, B, 3 * E, 1, 1)
    found = by_us(model, {"qkv": qkv})[0]
    right = np.stack([context_of(qkv[:, b, :, 0, 0]) for b in range(B)], 1)
    assert_equal([found[..., 0, 0]], [right])


def test_qkv_to_context_packed() -> None:
    operands = [("qkv", PACKED), ("dummy", (FLOAT, [1])), ("cu", (INT32, ["C"])), ("longest", (FLOAT, ["L"]))]
    settings = {"num_heads": N, "hidden_size": E, "has_mask": 1, "var_seqlen": 1, "use_int8_scale_max": 1}
    model = plugin("CustomQKVToContextPluginDynamic", operands, ["y"], version="2", dq_probs=0.0078, **settings)
    qkv = random(12, 3 * E, 1, 1)
    feeds = {"qkv": qkv, "dummy": np.zeros(1, np.float32), "cu": BOUNDS, "longest": np.zeros(S, np.float32)}
    found = by_us(model, feeds)[0]
    right = np.concatenate([context_of(qkv[a:b, :, 0, 0]) for a, b in itertools.pairwise(BOUNDS)])
    assert_equal([found], [right[..., None, None]])


TABLES = {
    "bert_embeddings_word_embeddings": random(11, E),
    "bert_embeddings_position_embeddings": random(9, E, seed=1),
    "bert_embeddings_token_type_embeddings": random(2, E, seed=2),
    "bert_embeddings_layernorm_gamma": random(E, seed=3),
    "bert_embeddings_layernorm_beta": random(E, seed=4),
}


def embedded(ids: np.ndarray, types: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the three rows, and its layer norm."""
    word, position, kind, gamma, beta = (torch.from_numpy(t) for t in TABLES.values())
    total = word[torch.from_numpy(ids)] + position[torch.from_numpy(positions)] + kind[torch.from_numpy(types)]
    return F.layer_norm(total, (E,), gamma, beta, 1e-12).numpy(), total.numpy()


@pytest.mark.parametrize("version", ["1", "6"])
def test_emb_layer_norm_padded(version: str) -> None:
    shape = (INT32, ["S", "B"])
    operands = [("ids", shape), ("types", shape), ("mask", shape)]
    settings = {"output_fp16": 0, "full_mask": 0, "mha_type_id": 0}
    model = plugin("CustomEmbLayerNormPluginDynamic", operands, ["y"], version, **TABLES, **settings)
    given = np.random.default_rng(0)
    ids, types = given.integers(0, 11, (S, B)).astype(np.int32), given.integers(0, 2, (S, B)).astype(np.int32)
    found = by_us(model, {"ids": ids, "types": types, "mask": np.ones((S, B), np.int32)}, packing=False)[0]
    right, _ = embedded(ids, types, np.arange(S)[:, None].repeat(B, 1))
    assert_equal([found], [right[..., None, None]])


@pytest.mark.parametrize("version", ["2", "3"])
def test_emb_layer_norm_packed(version: str) -> None:
    operands = [("ids", (INT32, ["T"])), ("types", (INT32, ["T"])), ("cu", (INT32, ["C"])), ("longest", (FLOAT, ["L"]))]
    outputs = ["y", "sum"] if version == "3" else ["y"]
    model = plugin("CustomEmbLayerNormPluginDynamic", operands, outputs, version, **TABLES, output_fp16=0)
    given = np.random.default_rng(0)
    ids, types = given.integers(0, 11, 12).astype(np.int32), given.integers(0, 2, 12).astype(np.int32)
    found = by_us(model, {"ids": ids, "types": types, "cu": BOUNDS, "longest": np.zeros(S, np.float32)})
    right = embedded(ids, types, np.concatenate([np.arange(n) for n in LENGTHS]))
    assert_equal(found, [r[..., None, None] for r in right[: len(outputs)]])


@pytest.mark.parametrize("shape", [["S", "B", E, 1, 1], ["T", E, 1, 1]])
@pytest.mark.parametrize("with_bias", [False, True])
def test_skip_layer_norm(shape: list[int | str], with_bias: bool) -> None:
    bias = {"bias": random(1, 1, E, seed=7)} if with_bias else {}
    weights = {"gamma": random(1, 1, E, seed=3), "beta": random(1, 1, E, seed=4), **bias}
    operands = [("x", (FLOAT, shape)), ("skip", (FLOAT, shape))]
    model = plugin("CustomSkipLayerNormPluginDynamic", operands, ["y"], type_id=0, ld=E, **weights)
    sizes = [d if isinstance(d, int) else 4 for d in shape]
    x, skip = random(*sizes), random(*sizes, seed=1)
    total = torch.from_numpy((x + skip)[..., 0, 0] + (bias["bias"].reshape(-1) if with_bias else 0))
    gamma, beta = (torch.from_numpy(weights[k].reshape(-1)) for k in ("gamma", "beta"))
    right = F.layer_norm(total, (E,), gamma, beta, float(np.finfo(np.float32).eps)).numpy()
    assert_equal(by_us(model, {"x": x, "skip": skip}), [right[..., None, None]])


@pytest.mark.parametrize("with_bias", [False, True])
def test_gelu(with_bias: bool) -> None:
    bias = {"bias": random(1, 1, E, seed=7)} if with_bias else {}
    model = plugin("CustomGeluPluginDynamic", [("x", (FLOAT, ["S", "B", E, 1, 1]))], ["y"], type_id=0, **bias)
    x = random(S, B, E, 1, 1)
    shifted = x + (bias["bias"].reshape(E, 1, 1) if with_bias else 0)
    assert_equal(by_us(model, {"x": x}), [F.gelu(torch.from_numpy(shifted), approximate="tanh").numpy()])


def test_fully_connected() -> None:
    weight = random(E, 10, seed=5)
    operands = [("x", (FLOAT, ["S", "B", E, 1, 1]))]
    model = plugin("CustomFCPluginDynamic", operands, ["y"], type_id=0, out_dims=10, W=weight)
    x = random(S, B, E, 1, 1)
    assert_equal(by_us(model, {"x": x}), [(x[..., 0, 0] @ weight)[..., None, None]])


def test_group_normalization() -> None:
    operands = [("x", (FLOAT, ["B", 6, 4, 5])), ("scale", random(6, seed=1)), ("bias", random(6, seed=2))]
    model = plugin("GroupNormalizationPlugin", operands, ["y"], num_groups=3, eps=1e-4)
    x = random(B, 6, 4, 5)
    scale, bias = (torch.from_numpy(operands[i][1]) for i in (1, 2))
    assert_equal(by_us(model, {"x": x}), [F.group_norm(torch.from_numpy(x), 3, scale, bias, 1e-4).numpy()])


def layer() -> onnx.ModelProto:
    """Embedding, attention, output projection and residual, as demo/BERT lays them out."""

    def node(op_type: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
        tensors = {k: numpy_helper.from_array(v, k) if isinstance(v, np.ndarray) else v for k, v in attributes.items()}
        return helper.make_node(op_type, inputs, outputs, name=op_type, plugin_version="1", **tensors)

    fused = interleave_qkv(random(E, 3 * E, seed=8), N, axis=1)
    norm = {"gamma": TABLES["bert_embeddings_layernorm_gamma"], "beta": TABLES["bert_embeddings_layernorm_beta"]}
    heads = {"num_heads": N, "hidden_size": E, "has_mask": 1, "type_id": 0}
    first = node("CustomFCPluginDynamic", ["emb"], ["qkv"], out_dims=3 * E, type_id=0, W=fused)
    second = node("CustomFCPluginDynamic", ["context"], ["out"], out_dims=E, type_id=0, W=random(E, E, seed=9))
    second.name = "output"
    nodes = [
        node("CustomEmbLayerNormPluginDynamic", ["ids", "types", "mask"], ["emb", "counts"], **TABLES, output_fp16=0),
        first,
        node("CustomQKVToContextPluginDynamic", ["qkv", "counts"], ["context"], **heads),
        second,
        node("CustomSkipLayerNormPluginDynamic", ["out", "emb"], ["y"], type_id=0, ld=E, **norm),
    ]
    shape = (INT32, ["S", "B"])
    return graph_of(nodes, [("ids", shape), ("types", shape), ("mask", shape)], ["y"])


def test_a_layer_of_plugins() -> None:
    given = np.random.default_rng(0)
    ids, types = given.integers(0, 11, (S, B)).astype(np.int32), given.integers(0, 2, (S, B)).astype(np.int32)
    mask = (np.arange(S)[:, None] < LENGTHS).astype(np.int32)
    found = by_us(layer(), {"ids": ids, "types": types, "mask": mask}, packing=False)[0][..., 0, 0]
    x, _ = embedded(ids, types, np.arange(S)[:, None].repeat(B, 1))
    fused, out = random(E, 3 * E, seed=8), random(E, E, seed=9)
    _, _, _, gamma, beta = (torch.from_numpy(t) for t in TABLES.values())
    for b, length in enumerate(LENGTHS):
        q, k, v = (torch.from_numpy(p).view(-1, N, D).transpose(0, 1) for p in np.split(x[:length, b] @ fused, 3, -1))
        probs = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(D), -1)
        context = (probs @ v).transpose(0, 1).reshape(-1, E)
        total = context @ torch.from_numpy(out) + torch.from_numpy(x[:length, b])
        right = F.layer_norm(total, (E,), gamma, beta, float(np.finfo(np.float32).eps)).numpy()
        assert_equal([found[:length, b]], [right])


QKV = "CustomQKVToContextPluginDynamic"
HEADS = {"num_heads": N, "hidden_size": E}
REFUSED = {
    "int8": (
        plugin(QKV, [("qkv", (np.int8, PADDED[1]))], ["y"], type_id=2, **HEADS),
        "qkv is int8, and no attribute says its scale",
    ),
    "int8_scale": (
        plugin(QKV, [("qkv", (np.int8, [1, 3 * E, "T", 1]))], ["y"], "3", use_explicit_int8=1, **HEADS),
        "attribute 'input_qkv_scale' is 0.0; with use_explicit_int8 it is over 0",
    ),
    "interleaved int8": (plugin(QKV, [("qkv", PADDED)], ["y"], "3", **HEADS), "allowed is [1, 48, T, 1]"),
    "plain layout": (plugin(QKV, [("qkv", (FLOAT, ["B", "S", 3 * E]))], ["y"], **HEADS), "[S, B, 48, 1, 1]"),
    "mask words": (
        plugin(QKV, [("qkv", PADDED), ("mask", (INT32, ["B", 512]))], ["y"], has_mask=1, **HEADS),
        "packed mask words",
    ),
    "unknown field": (plugin(QKV, [("qkv", PADDED)], ["y"], causal=1, **HEADS), "causal=1"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_honoured_is_named(name: str) -> None:
    model, sentence = REFUSED[name]
    with pytest.raises(UnsupportedOperatorError) as error:
        import_onnx(model)
    assert sentence in str(error.value)


def test_the_mask_of_the_embedding_is_for_attention_only() -> None:
    shape = (INT32, ["S", "B"])
    operands = [("ids", shape), ("types", shape), ("mask", shape)]
    model = plugin("CustomEmbLayerNormPluginDynamic", operands, ["y", "counts"], **TABLES)
    with pytest.raises(UnsupportedOperatorError, match="is an output of the graph"):
        import_onnx(model)


def quantised(qkv: np.ndarray, **settings: Any) -> np.ndarray:
    """The reference's context of packed rows [T, 3E]."""
    operator = BY_NAME["QuantQKVToContext"]
    scales = [settings.pop(name, None) for name in ("qkv_scale", "context_scale")]
    attributes = {"num_heads": N, "layout": "T (N three D)", "dq_probs": 1 / 127, **settings}
    given = [torch.from_numpy(qkv), *[None] * 3, torch.from_numpy(BOUNDS), torch.tensor(S), None]
    given += [None if s is None else torch.tensor(s) for s in scales]
    return operator.reference(*given, **operator.complete_attributes(attributes)).numpy()


INT8_SETTINGS = {"num_heads": N, "hidden_size": E, "use_int8_scale_max": 1, "dq_probs": 1 / 127}
FEEDS = {"cu": BOUNDS, "longest": np.zeros(S, np.float32)}
REST = [("cu", (INT32, ["C"])), ("longest", (FLOAT, ["L"]))]


def test_qkv_to_context_in_bytes_by_explicit_scales() -> None:
    """Versions 3 and 6: bytes come and go, [1, 3E, T, 1] to [1, E, T, 1]."""
    scales = {"use_explicit_int8": 1, "input_qkv_scale": 0.03, "output_ctx_scale": 0.0213}
    operands = [("qkv", (np.int8, [1, 3 * E, "T", 1])), *REST]
    model = plugin("CustomQKVToContextPluginDynamic", operands, ["y"], version="3", **INT8_SETTINGS, **scales)
    rows = (random(12, 3 * E) / 0.03).round().clip(-127, 127).astype(np.int8)
    found = by_us(model, {"qkv": rows.T[None, :, :, None].copy(), **FEEDS})[0]
    assert found.dtype == np.int8 and found.shape == (1, E, 12, 1)
    want = quantised(rows, qkv_scale=0.03, context_scale=0.0213)
    assert np.abs(found[0, :, :, 0].T - want).max() <= 1
    in_floats = np.concatenate([context_of(rows[a:b] * np.float32(0.03)) for a, b in itertools.pairwise(BOUNDS)])
    assert relative_rms(torch.from_numpy(want * 0.0213), torch.from_numpy(in_floats)) < 0.035


def test_qkv_to_context_in_bytes_by_scales_of_the_run() -> None:
    """A plan's scales are not in the graph: versions 6, and 2 with the type INT8."""
    rows = random(12, 3 * E)
    operands = [("qkv", (FLOAT, [1, 3 * E, "T", 1])), *REST]
    model = plugin("CustomQKVToContextPluginDynamic", operands, ["y"], version="6", **INT8_SETTINGS)
    found = by_us(model, {"qkv": rows.T[None, :, :, None].copy(), **FEEDS})[0]
    want = torch.from_numpy(quantised(rows))
    assert relative_rms(torch.from_numpy(found[0, :, :, 0].T.copy()), want) < 0.25 / 127
    operands = [("qkv", PACKED), ("dummy", (FLOAT, [1])), *REST]
    settings = {**INT8_SETTINGS, "type_id": 2, "var_seqlen": 1}
    model = plugin("CustomQKVToContextPluginDynamic", operands, ["y"], version="2", **settings)
    found = by_us(model, {"qkv": rows[..., None, None], "dummy": np.zeros(1, np.float32), **FEEDS})[0]
    assert relative_rms(torch.from_numpy(found[..., 0, 0]), want) < 0.25 / 127
