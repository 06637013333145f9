"""Layers by module path, by attention, folded where equal, cut where large."""

import pytest
from report_models import chain

import qontext as qx
from qontext.report.layers import MOST, assign_layers, layer_key


@pytest.mark.parametrize(
    ("origin", "key"),
    [
        ("bert.encoder.layer.11.attention.self", ("bert.encoder.layer", 11)),
        ("/encoder/layer.3/attention/MatMul_2", ("encoder.layer", 3)),
        ("transformer.h.0.mlp", ("transformer.h", 0)),
        ("decoder.block.2.layer.1.EncDecAttention", ("decoder.block", 2)),
        ("model.layers_7.norm", ("model.layers", 7)),
        ("bert.embeddings.LayerNorm", None),
        ("node_MatMul_12", None),
        ("", None),
    ],
)
def test_keys(origin, key):
    assert layer_key(origin) == key


def node(i, op, origin, reads=(), step=None):
    return {"id": i, "op": op, "origin": origin, "reads": list(reads), "step": step, "fate": "step", "name": ""}


def step(i, op, origin, reads=(), sources=()):
    return {"index": i, "op": op, "origin": origin, "reads": list(reads), "sources": list(sources)}


def test_equal_neighbours_have_one_run_and_others_do_not():
    data = {
        "nodes": [node(i, "Add" if i != 2 else "Mul", f"m.layer.{i}", [i - 1] if i else ["x"], i) for i in range(5)],
        "steps": [step(i, "Add" if i != 2 else "Mul", f"m.layer.{i}", [i - 1] if i else ["x"], [i]) for i in range(5)],
    }
    layers = assign_layers(data["nodes"], data["steps"])
    assert [layer["number"] for layer in layers] == [0, 1, 2, 3, 4]
    assert [layer["run"] for layer in layers] == [0, 0, 1, 2, 2]


def test_a_different_wiring_is_another_layer():
    nodes = [
        node(0, "A", "l.0", ["x"], 0),
        node(1, "B", "l.0", [0], 1),
        node(2, "A", "l.1", [1], 2),
        node(3, "B", "l.1", [1], 3),
    ]
    steps = [step(i, n["op"], n["origin"], n["reads"], [i]) for i, n in enumerate(nodes)]
    assert [layer["run"] for layer in assign_layers(nodes, steps)] == [0, 1]


def test_graphs_without_paths_are_cut_at_attentions():
    ops = ["Linear", "Attention", "Linear", "Attention", "Linear", "Attention", "Linear"]
    nodes = [node(i, op, "", [i - 1] if i else ["x"], i) for i, op in enumerate(ops)]
    nodes.append({**node(7, "Constant", "", [], None)})
    nodes[3]["reads"].append(7)
    steps = [step(i, op, "", [i - 1] if i else ["x"], [i]) for i, op in enumerate(ops)]
    layers = assign_layers(nodes, steps)
    assert [layer["title"] for layer in layers] == ["Before the layers", "Block 0", "Block 1", "Block 2"]
    assert layers[2]["nodes"] == [3, 4, 7], "a constant belongs to the block that reads it"
    assert layers[2]["run"] == 2 and layers[3]["run"] == 3


def test_one_attention_is_no_layer():
    nodes = [node(0, "Attention", "", ["x"], 0), node(1, "Linear", "", [0], 1)]
    layers = assign_layers(nodes, [step(0, "Attention", "", ["x"], [0]), step(1, "Linear", "", [0], [1])])
    assert [layer["title"] for layer in layers] == ["The whole graph"]


def test_large_layers_are_cut():
    nodes = [node(i, "Add", "l.0", [i - 1] if i else ["x"], None) for i in range(2 * MOST + 1)]
    layers = assign_layers(nodes, [step(0, "Add", "l.0", ["x"], [])])
    assert [len(layer["nodes"]) for layer in layers] == [267, 267, 267]
    assert layers[0]["title"] == "l 0, part 1 of 3"
    assert [n["layer"] for n in nodes] == [0] * 267 + [1] * 267 + [2] * 267


def test_bert_folds(engine):
    data = qx.explain(engine, measure=False).data
    numbered = [layer for layer in data["layers"] if layer["path"]]
    assert [layer["number"] for layer in numbered] == [0, 1, 2]
    assert len({layer["run"] for layer in numbered}) == 1
    assert data["layers"][0]["title"] == "Before the layers" and data["layers"][-1]["title"] == "After the layers"


def test_unlike_blocks_do_not_fold():
    data = qx.explain(qx.build(chain(60, 6), tune=False, packing=False), measure=False).data
    assert len({layer["run"] for layer in data["layers"]}) == 6
