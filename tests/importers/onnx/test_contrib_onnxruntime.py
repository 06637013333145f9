"""Operators of ONNX Runtime's own domain, one by one, against ONNX Runtime; and what is refused of them."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_graphs import FLOAT, INT32, as_imported, assert_equal, by_onnxruntime, by_us, graph_of, one_node, random

import qontext as qx
from qontext.errors import UnsupportedOperatorError
from qontext.importers.onnx_model import import_onnx

MS = "com.microsoft"
B, S, N, D = 2, 5, 3, 8
E = N * D
SEQUENCE = (FLOAT, ["B", "S", E])
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int32)
HOLES = np.array([[1, 1, 1, 0, 1], [1, 0, 0, 1, 0]], np.int32)
EMPTY_ROW = np.array([[1, 1, 1, 0, 1], [0, 0, 0, 0, 0]], np.int32)
# ONNX Runtime adds -10000 to every score of an empty row, which costs them four digits; we leave them as they are.
EMPTY_FACTOR = 20.0


def check(model: onnx.ModelProto, feeds: dict[str, np.ndarray], factor: float = 1.0, **settings: Any) -> None:
    assert_equal(by_us(model, feeds, **settings), by_onnxruntime(model, feeds), factor)


def elementwise(op_type: str, *extra: tuple[str, np.ndarray], **attributes: Any) -> onnx.ModelProto:
    return one_node(op_type, MS, [("x", SEQUENCE), *extra], ["y"], **attributes)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(elementwise("Gelu"), id="Gelu"),
        pytest.param(elementwise("BiasGelu", ("b", random(E, seed=1))), id="BiasGelu"),
        pytest.param(elementwise("FastGelu"), id="FastGelu"),
        pytest.param(elementwise("FastGelu", ("b", random(E, seed=1))), id="FastGelu-bias"),
        pytest.param(elementwise("QuickGelu"), id="QuickGelu"),
        pytest.param(elementwise("QuickGelu", alpha=1.25), id="QuickGelu-alpha"),
        pytest.param(elementwise("FusedMatMul", ("w", random(E, 7))), id="FusedMatMul"),
        pytest.param(elementwise("FusedMatMul", ("w", random(7, E)), transB=1, alpha=0.125), id="FusedMatMul-B"),
    ],
)
def test_elementwise_and_products(model: onnx.ModelProto) -> None:
    check(model, {"x": random(B, S, E)})


def test_fused_matmul_transposes_its_first_operand() -> None:
    model = one_node("FusedMatMul", MS, [("x", (FLOAT, ["B", 4, 6])), ("w", random(4, 5))], ["y"], transA=1)
    check(model, {"x": random(B, 4, 6)})


@pytest.mark.parametrize("activation", ["Relu", "Tanh", "Sigmoid"])
def test_fused_gemm(activation: str) -> None:
    operands = [("x", (FLOAT, ["B", E])), ("w", random(7, E, seed=1)), ("c", random(7, seed=2))]
    model = one_node("FusedGemm", MS, operands, ["y"], transB=1, alpha=0.5, beta=2.0, activation=activation)
    check(model, {"x": random(B, E)})


NORM = [("gamma", random(E, seed=2)), ("beta", random(E, seed=3))]


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_sum", [False, True])
def test_skip_layer_normalization(with_bias: bool, with_sum: bool) -> None:
    operands = [("x", SEQUENCE), ("s", SEQUENCE), *NORM] + [("bias", random(E, seed=4))] * with_bias
    outputs = ["y", "", "", "sum"] if with_sum else ["y"]
    model = one_node("SkipLayerNormalization", MS, operands, outputs, epsilon=1e-5)
    check(model, {"x": random(B, S, E), "s": random(B, S, E, seed=1)})


def test_skip_layer_normalization_repeats_its_skip() -> None:
    operands = [("x", SEQUENCE), ("s", (FLOAT, [1, "S", E])), *NORM, ("bias", random(E, seed=4))]
    model = one_node("SkipLayerNormalization", MS, operands, ["y", "", "", "sum"])
    check(model, {"x": random(B, S, E), "s": random(1, S, E, seed=1)})


@pytest.mark.parametrize("with_bias", [False, True])
def test_skip_simplified_layer_normalization(with_bias: bool) -> None:
    operands = [("x", SEQUENCE), ("s", SEQUENCE), NORM[0]] + [("bias", random(E, seed=4))] * with_bias
    model = one_node("SkipSimplifiedLayerNormalization", MS, operands, ["y", "", "", "sum"], epsilon=1e-6)
    check(model, {"x": random(B, S, E), "s": random(B, S, E, seed=1)})


def test_simplified_layer_normalization_in_the_standard_domain() -> None:
    model = one_node("SimplifiedLayerNormalization", "", [("x", SEQUENCE), NORM[0]], ["y"], axis=-1, epsilon=1e-6)
    check(model, {"x": random(B, S, E)})


def test_layer_normalization_in_a_graph_older_than_it() -> None:
    model = one_node("LayerNormalization", "", [("x", SEQUENCE), *NORM], ["y"], opset=12, axis=-1, epsilon=1e-6)
    check(model, {"x": random(B, S, E)})


def embedding(segments: bool, mask: bool, positions: bool) -> onnx.ModelProto:
    ids = (INT32, ["B", "S"])
    operands = [
        ("input_ids", ids),
        ("segment_ids", ids if segments else None),
        ("word", random(11, E)),
        ("position", random(9, E, seed=1)),
        ("segment", random(2, E, seed=2) if segments else None),
        *NORM,
        ("mask", ids if mask else None),
        ("position_ids", ids if positions else None),
    ]
    return one_node("EmbedLayerNormalization", MS, operands, ["y", "counts" if mask else "", "sum"], epsilon=1e-12)


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("positions", [False, True])
def test_embed_layer_normalization(segments: bool, mask: bool, positions: bool) -> None:
    given = np.random.default_rng(0)
    feeds = {"input_ids": given.integers(0, 11, (B, S)).astype(np.int32)}
    if segments:
        feeds["segment_ids"] = given.integers(0, 2, (B, S)).astype(np.int32)
    if mask:
        feeds["mask"] = MASK
    if positions:
        feeds["position_ids"] = given.integers(0, 9, (B, S)).astype(np.int32)
    check(embedding(segments, mask, positions), feeds, packing=False)


def attention(mask: Any = None, bias: Any = None, **attributes: Any) -> onnx.ModelProto:
    sizes = attributes.get("qkv_hidden_sizes", [E, E, E])
    operands = [
        ("x", SEQUENCE),
        ("w", random(E, sum(sizes), seed=1)),
        ("b", random(sum(sizes), seed=2)),
        ("mask", mask),
        ("past", None),
        ("bias", bias),
    ]
    return one_node("Attention", MS, operands, ["y"], num_heads=N, **attributes)


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("name", ["none", "counts", "keys", "queries_and_keys"])
def test_attention(name: str, causal: int) -> None:
    masks = {
        "none": (None, None),
        "counts": ((INT32, ["B"]), MASK.sum(1).astype(np.int32)),
        "keys": ((INT32, ["B", "S"]), HOLES),
        "queries_and_keys": ((INT32, ["B", "S", "S"]), np.tril(np.ones((B, S, S), np.int32))),
    }
    declared, mask = masks[name]
    feeds = {"x": random(B, S, E)} | ({} if mask is None else {"mask": mask})
    check(attention(declared, unidirectional=causal), feeds, packing=False)


def test_attention_of_a_row_without_keys_is_an_ordinary_softmax() -> None:
    model = attention((INT32, ["B", "S"]))
    check(model, {"x": random(B, S, E), "mask": EMPTY_ROW}, EMPTY_FACTOR, packing=False)


def test_causal_attention_to_masked_keys_alone_stays_with_them() -> None:
    model = attention((INT32, ["B", "S"]), unidirectional=1)
    feeds = {"x": random(B, S, E), "mask": np.array([[1] * S, [0, 0, 1, 1, 1]], np.int32)}
    assert_equal(as_imported(model, feeds), by_onnxruntime(model, feeds), EMPTY_FACTOR)


def test_attention_with_a_bias_and_a_scale() -> None:
    shape = (FLOAT, [1, N, "S", "S"])
    feeds = {"x": random(B, S, E), "bias": random(1, N, S, S, seed=5)}
    check(attention(bias=shape, scale=0.5), feeds)
    masked = attention((INT32, ["B", "S"]), shape)
    check(masked, feeds | {"mask": MASK}, packing=False)


def test_attention_with_wider_values() -> None:
    model = attention((INT32, ["B", "S"]), qkv_hidden_sizes=[E, E, 2 * E])
    check(model, {"x": random(B, S, E), "mask": MASK}, packing=False)


CROSS = (FLOAT, ["B", "L", E])


def multi_head(*operands: Any, outputs: tuple[str, ...] = ("y",), **attributes: Any) -> onnx.ModelProto:
    names = ("q", "k", "v", "bias", "mask", "attention_bias", "past_key", "past_value")
    return one_node(
        "MultiHeadAttention", MS, list(zip(names, operands, strict=False)), outputs, num_heads=N, **attributes
    )


def test_multi_head_attention_across_lengths() -> None:
    feeds = {"q": random(B, S, E), "k": random(B, 7, E, seed=1), "v": random(B, 7, E, seed=2)}
    check(multi_head(SEQUENCE, CROSS, CROSS), feeds)
    check(multi_head(SEQUENCE, CROSS, CROSS, random(3 * E, seed=3)), feeds)
    masked = multi_head(SEQUENCE, CROSS, CROSS, None, (INT32, ["B", "L"]))
    mask = np.array([[1, 1, 1, 1, 1, 1, 0], [0, 1, 0, 0, 1, 0, 0]], np.int32)
    check(masked, feeds | {"mask": mask})
    mask[1] = 0
    check(masked, feeds | {"mask": mask}, EMPTY_FACTOR)
    biased = multi_head(SEQUENCE, CROSS, CROSS, None, None, (FLOAT, [1, N, "S", "L"]))
    check(biased, feeds | {"attention_bias": random(1, N, S, 7, seed=6)})


@pytest.mark.parametrize("causal", [0, 1])
def test_multi_head_attention_with_counts(causal: int) -> None:
    model = multi_head(SEQUENCE, SEQUENCE, SEQUENCE, None, (INT32, ["B"]), unidirectional=causal)
    feeds = {name: random(B, S, E, seed=i) for i, name in enumerate("qkv")}
    check(model, feeds | {"mask": np.array([5, 3], np.int32)})


def test_multi_head_attention_packed_in_one_operand() -> None:
    model = multi_head((FLOAT, ["B", "S", N, 3, D]), None, None, None, (INT32, ["B", "S"]))
    packed = random(B, S, N, 3, D)
    rows = packed.transpose(3, 0, 1, 2, 4).reshape(3, B, S, E)
    same = multi_head(SEQUENCE, SEQUENCE, SEQUENCE, None, (INT32, ["B", "S"]))
    # ONNX Runtime packs on the GPU only, so the separate operands say what is right.
    right = by_onnxruntime(same, {"q": rows[0], "k": rows[1], "v": rows[2], "mask": MASK})
    assert_equal(by_us(model, {"q": packed, "mask": MASK}, packing=False), right)


def test_multi_head_attention_packed_keys_and_values() -> None:
    model = multi_head(SEQUENCE, (FLOAT, ["B", "L", N, 2, D]), None)
    query, packed = random(B, S, E), random(B, 7, N, 2, D, seed=1)
    rows = packed.transpose(3, 0, 1, 2, 4).reshape(2, B, 7, E)
    right = by_onnxruntime(multi_head(SEQUENCE, CROSS, CROSS), {"q": query, "k": rows[0], "v": rows[1]})
    assert_equal(by_us(model, {"q": query, "k": packed}), right)


def test_multi_head_attention_with_a_past() -> None:
    past = (FLOAT, ["B", N, "P", D])
    model = multi_head(
        SEQUENCE, SEQUENCE, SEQUENCE, None, None, None, past, past, outputs=("y", "key", "value"), unidirectional=1
    )
    feeds = {name: random(B, S, E, seed=i) for i, name in enumerate("qkv")}
    feeds |= {"past_key": random(B, N, 4, D, seed=7), "past_value": random(B, N, 4, D, seed=8)}
    check(model, feeds)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("rank", [3, 4])
def test_rotary_embedding(interleaved: int, rank: int) -> None:
    shape = ["B", "S", E] if rank == 3 else ["B", N, "S", D]
    operands = [("x", (FLOAT, shape)), ("positions", (np.int64, ["B", "S"]))]
    operands += [("cos", random(9, D // 2, seed=1)), ("sin", random(9, D // 2, seed=2))]
    model = one_node("RotaryEmbedding", MS, operands, ["y"], interleaved=interleaved)
    x = random(B, S, E) if rank == 3 else random(B, N, S, D)
    check(model, {"x": x, "positions": np.arange(B * S, dtype=np.int64).reshape(B, S) % 9})


REFUSED = {
    "an attribute nobody knows": (elementwise("Gelu", precision=3), "precision=3"),
    "transBatchA": (elementwise("FusedMatMul", ("w", random(E, 7)), transBatchA=1), "'transBatchA' is 1"),
    "activation": (elementwise("FusedGemm", ("w", random(E, 7)), activation="Elu"), "'activation' is 'Elu'"),
    "do_rotary": (attention(do_rotary=1), "'do_rotary' is 1"),
    "weak filter": (attention((INT32, ["B", "S"]), mask_filter_value=-2.0), "'mask_filter_value' is -2.0"),
    "packed lengths": (attention((INT32, ["L"])), "mask_index has shape"),
    "no heads": (one_node("MultiHeadAttention", MS, [("q", SEQUENCE)], ["y"]), "'num_heads' is missing"),
    "rotary offset": (
        one_node(
            "RotaryEmbedding",
            MS,
            [("x", SEQUENCE), ("p", (np.int64, [1])), ("c", random(9, 4)), ("s", random(9, 4))],
            ["y"],
        ),
        "position_ids hold one offset",
    ),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_honoured_is_named(name: str) -> None:
    model, sentence = REFUSED[name]
    with pytest.raises(UnsupportedOperatorError) as error:
        import_onnx(model)
    assert sentence in str(error.value)
    assert f"the_{model.graph.node[0].op_type}" in str(error.value)


def test_an_output_that_we_do_not_compute_is_named() -> None:
    operands = [("x", SEQUENCE), ("s", SEQUENCE), *NORM]
    model = one_node("SkipLayerNormalization", MS, operands, ["y", "mean"])
    with pytest.raises(UnsupportedOperatorError, match="output 1 \\('mean'\\) is read by the graph"):
        import_onnx(model)


def test_reports_know_the_foreign_node() -> None:
    node = helper.make_node("BiasGelu", ["x", "b"], ["y"], name="/mlp/act/BiasGelu", domain=MS)
    model = import_onnx(graph_of([node], [("x", SEQUENCE), ("b", random(E))], ["y"], domain=MS))
    record = model.ledger.fusions[0]
    assert (record.rule, record.before, record.after) == ("import from ONNX Runtime", ("BiasGelu",), "Gelu")
    assert record.origin == "mlp.act"
    model.ledger.check(model.graph)


def test_builds_remember_what_the_import_converted() -> None:
    node = helper.make_node("BiasGelu", ["x", "b"], ["y"], name="gelu", domain=MS)
    model = import_onnx(graph_of([node], [("x", SEQUENCE), ("b", random(E))], ["y"], domain=MS))
    records = qx.build(model, tune=False).compiled.ledger.fusions
    assert "import from ONNX Runtime" in [record.rule for record in records]
