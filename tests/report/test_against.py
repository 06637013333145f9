"""An engine beside torch and beside another engine: kernels by layer."""

import pytest
import torch
from exported import SelfAttention

import qontext as qx
from qontext.errors import ArgumentError
from qontext.report.against import against, torch_model
from qontext.report.torch_trace import trace


@pytest.fixture(scope="module")
def notebook():
    layer = SelfAttention(24)
    inputs = {"x": torch.randn(2, 9, 24), "mask": (torch.rand(2, 9, 9) > 0.3).float()}
    return layer, inputs, qx.build(qx.import_model(layer, example_inputs=inputs), tune=False)


def test_the_layer_of_the_notebook(notebook):
    """Row 32 of the feature table: torch runs 10 kernels on a GPU, TensorRT 7, and here there are at most 4."""
    layer, inputs, engine = notebook
    found = against(engine, layer, inputs, 2, 9).data
    mine, theirs = found["sides"]
    assert mine["kernels"] == 3
    names = [k["name"] for k in found["rows"][0]["sides"][1]["kernels"]]
    assert names.count("addmm") == 2 and names.count("bmm") == 2 and names.count("_softmax") == 1
    assert theirs["kernels"] == len(names) == 9
    assert {"div", "eq", "masked_fill_"} <= set(names)
    assert found["rows"][0]["layer"] == "the whole model" and len(found["rows"]) == 1
    assert all(k["us"] > 0 for side in found["rows"][0]["sides"] for k in side["kernels"])
    assert mine["run_us"] > 0 and theirs["run_us"] > 0


def test_modules_are_found(notebook):
    layer, inputs, _ = notebook
    kernels = trace(layer, inputs).kernels
    assert [k.module for k in kernels if k.name == "addmm"] == ["qkv_proj", "out_proj"]
    assert not layer._forward_hooks and not layer.qkv_proj._forward_pre_hooks


def test_bert_by_layer(engine, folder):
    found = against(engine, torch_model(str(folder)), batch=2, length=12)
    rows = {row["layer"]: row["sides"] for row in found.data["rows"]}
    assert list(rows) == ["before the layers", "layer 0", "layer 1", "layer 2", "after the layers"]
    for layer in ("layer 0", "layer 1", "layer 2"):
        mine, theirs = rows[layer]
        assert mine["count"] == 7 and theirs["count"] == 12
        assert [k["name"] for k in theirs["kernels"]].count("addmm") == 6
    assert sum(s[0]["count"] for s in rows.values()) == found.data["sides"][0]["kernels"]
    assert "Kernels of layer 0" in str(found)


def test_two_engines(engine, model):
    found = against(engine, qx.build(model, tune=False, packing=False), batch=2, length=12).data
    counts = [tuple(s["count"] for s in row["sides"]) for row in found["rows"]]
    assert counts[1] == counts[2] == counts[3] and counts[1][0] == 7
    page = qx.explain(engine, 2, 12).beside(type("Against", (), {"data": found})()).html()
    assert 'id="against"' in page


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler's own
def test_torch_compile(notebook):
    layer, inputs, engine = notebook
    theirs = against(engine, layer, inputs, 2, 9, compiled=True).data["sides"][1]
    assert theirs["name"].startswith("torch.compile") and 3 <= theirs["kernels"] <= 9


def test_folders_without_a_torch_class(tmp_path):
    with pytest.raises(ArgumentError, match=r"has none"):
        torch_model(str(tmp_path))
    (tmp_path / "config.json").write_text('{"architectures": ["NoSuchModel"]}')
    with pytest.raises(ArgumentError, match="no class"):
        torch_model(str(tmp_path))
