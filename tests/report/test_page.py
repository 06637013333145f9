"""The page as a file: complete, self-contained, small, without anything of the user's."""

import getpass
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import transformers as tf

import qontext as qx
from qontext.errors import ArgumentError
from qontext.report.environment import scrubbed


@pytest.fixture(scope="module")
def page(engine):
    return qx.explain(engine, 2, 16).html()


def payload(page):
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S).group(1))


class Outside(HTMLParser):
    """Everything that a browser would fetch, and every tag with its parent."""

    def __init__(self):
        super().__init__()
        self.fetched, self.ids = [], []

    def handle_starttag(self, tag, attributes):
        held = dict(attributes)
        self.ids += [held["id"]] if "id" in held else []
        self.fetched += [v for k, v in attributes if k in ("src", "srcset", "data", "poster") and v]
        if held.get("href") and not held["href"].startswith("#"):
            self.fetched.append(held["href"])


def test_nothing_is_fetched(page):
    parser = Outside()
    parser.feed(page)
    assert parser.fetched == []
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)|fetch\(|XMLHttpRequest|import\(", page)
    assert len(parser.ids) == len(set(parser.ids))
    for part in ("graph", "fused", "unfused", "kernels", "memory", "precision", "build"):
        assert part in parser.ids


def test_no_paths_and_no_user(page, folder):
    assert str(folder) not in page and str(folder.parent) not in page
    assert str(Path.home()) + "/" not in page and f"/{getpass.getuser()}/" not in page
    assert not re.search(r"(?<![\w.])/(?:home|Users|tmp|var)/\w", page)


def test_paths_in_logs_are_cut():
    log = [
        "cannot read /home/ada/models/m.safetensors: gone",
        "C:\\Users\\ada\\x.onnx is odd",
        "/encoder/layer.0/MatMul",
    ]
    assert scrubbed(log) == ["cannot read m.safetensors: gone", "x.onnx is odd", "/encoder/layer.0/MatMul"]


def test_the_data_of_the_page_is_the_data_of_the_report(engine, page):
    data, held = qx.explain(engine, measure=False).data, payload(page)
    words = held["words"]
    assert [words[w] for w in held["nodes"]["op"]] == [n["op"] for n in data["nodes"]]
    assert [words[w] for w in held["steps"]["words"][0]] == [s["op"] for s in data["steps"]]
    for run, picture in enumerate(held["pictures"]):
        layer = next(x for x in data["layers"] if x["run"] == run)
        for side, rows in (("before", layer["nodes"]), ("after", layer["steps"])):
            xy = picture[side]["xy"]
            boxes = list(zip(xy[::2], xy[1::2], strict=True))
            assert len(boxes) >= len(rows) and len(set(boxes)) == len(boxes), "two boxes lie on each other"
            assert all(0 < x < picture[side]["w"] and 0 < y < picture[side]["h"] for x, y in boxes)
            for start, end, *_ in picture[side]["lines"]:
                assert boxes[start][1] < boxes[end][1], "a line goes up"


def test_text_of_the_model_cannot_become_code(engine, monkeypatch):
    data = {**qx.explain(engine, measure=False).data}
    data["engine"] = "<script>alert(1)</script>"
    data["nodes"] = [{**data["nodes"][0], "origin": "</script><b>", "name": "<i>"}, *data["nodes"][1:]]
    page = qx.report.Explanation(data).html()
    assert "<script>alert" not in page and "</script><b>" not in page
    assert payload(page)["words"].count("</script><b>") == 1


def test_ten_thousand_nodes_stay_under_five_megabytes(large_page):
    assert len(payload(large_page)["nodes"]["op"]) == 9984
    assert len(large_page.encode()) < 5_000_000


def test_tables_say_why(engine, page):
    assert "What would make it fuse" in page and "add the residual directly before the norm" in page
    assert "not from an addition" in page
    fused = qx.explain(engine, measure=False).data["fusions"]
    assert all(f"<code>{rule}</code>" in page for rule in {f["rule"] for f in fused})


def test_errors_by_layer_where_a_reference_is_given(model):
    report = qx.explain(qx.build(model, "bf16", tune=False), measure=False, reference=model)
    errors = [s["error"] for s in report.data["steps"] if s["error"] is not None]
    assert len(errors) > 20 and 0 < max(errors) < 0.05
    assert f"{max(errors):.2g}" in report.html()


def test_an_unwritable_place(engine, tmp_path):
    with pytest.raises(ArgumentError, match="cannot write r"):
        qx.explain(engine, measure=False).save(tmp_path / "no" / "r.html")


def test_an_unknown_program(engine):
    with pytest.raises(ArgumentError, match="no program 'decode'; it has encode"):
        qx.explain(engine, measure=False, program="decode")


def test_memory_adds_up(engine):
    data = qx.explain(engine, 2, 16).data
    memory = data["memory"]
    assert len(memory["live"]) == len(data["steps"]) and memory["peak"] == max(memory["live"])
    assert memory["arena"] == data["measured"]["arena_bytes"]
    held = {t.data_ptr(): t.nbytes for t in engine.compiled.programs["encode"].constants.values()}
    assert memory["weights"] >= 0.99 * sum(held.values())
    logits = 2 * 16 * 99 * 4
    assert memory["live"][-1] >= logits + memory["inputs"]


def test_int8_layers_are_listed_with_their_errors(model):
    report = qx.explain(qx.build(model, "int8", tune=False), measure=False, reference=model)
    linears = [s for s in report.data["steps"] if s["op"] == "QuantLinear"]
    assert len(report.data["quantised"]["layers"]) >= len(linears) > 0
    assert 1e-3 < max(s["error"] for s in linears if s["error"] is not None) < 0.1
    assert "Linear layers in int8" in report.html()


@pytest.mark.slow
def test_the_report_of_bert_base_takes_less_than_ten_seconds(tmp_path):
    torch.manual_seed(0)
    tf.BertForMaskedLM(tf.BertConfig()).save_pretrained(tmp_path)
    engine = qx.build(qx.import_model(tmp_path), tune=False)
    start = time.process_time()
    qx.explain(engine).save(tmp_path / "r.html")
    assert time.process_time() - start < 10
    assert (tmp_path / "r.html").stat().st_size < 1_000_000
