"""SVG and DOT: well formed, complete, and the same every time, in every process."""

import hashlib
import itertools
import subprocess
import sys
import xml.etree.ElementTree as xml

import pytest

from qontext.errors import ArgumentError
from qontext.ops.network import Network
from qontext.report.layout import BOX_HEIGHT, BOX_WIDTH, place
from qontext.report.picture import boxes_of, boxes_of_rows, dot, svg


def test_every_node_is_drawn_once(model):
    boxes = boxes_of(model.graph)
    assert sum(b.kind == "node" for b in boxes) == model.graph.num_nodes()
    root = xml.fromstring(svg(boxes, "river"))
    boxes_drawn = [g for g in root.iter() if g.tag.endswith("}g") and g.find("{*}rect") is not None]
    assert len(boxes_drawn) == len(boxes)
    lines = sum(len(b.reads) for b in boxes)
    assert len([p for p in root.iter() if p.get("marker-end")]) == lines
    text = dot(boxes, "river")
    assert text.count("->") == lines and text.count("fillcolor") == len(boxes)
    assert text.startswith('digraph "river" {') and text.rstrip().endswith("}")


def test_the_same_in_another_process(model, folder):
    code = (
        "import sys,hashlib,qontext as qx;from qontext.report.picture import *;"
        "b=boxes_of(qx.import_model(sys.argv[1]).graph,'attention');"
        "print(hashlib.sha256((svg(b,'t')+dot(b,'t')).encode()).hexdigest())"
    )
    boxes = boxes_of(model.graph, "attention")
    mine = hashlib.sha256((svg(boxes, "t") + dot(boxes, "t")).encode()).hexdigest()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(folder)],
        capture_output=True, text=True, env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)}, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == mine


def test_one_attention_block(model, engine):
    before = [b.label for b in boxes_of(model.graph, "attention") if b.kind == "node"]
    after = [b.label for b in boxes_of(engine.compiled.fused, "attention") if b.kind == "node"]
    assert before.count("Attention") == 1 and before.count("Linear") == 4
    assert after.count("QKVToContext") == 1 and after.count("Linear") == 2
    only = boxes_of(model.graph, "bert.encoder.layer.1.intermediate")
    assert [b.label for b in only if b.kind == "node"] == ["Linear", "Gelu"]


def test_what_cannot_be_drawn_says_so(model):
    with pytest.raises(ArgumentError, match="no module or node is called"):
        boxes_of(model.graph, "bert.nowhere")
    net = Network()
    net.output(net.op("Abs", net.input("x", "float32", ["B"])), "y")
    with pytest.raises(ArgumentError, match="no attention"):
        boxes_of(net.graph, "attention")
    net = Network()
    x = net.input("x", "float32", ["B"])
    for _ in range(2001):
        x = net.op("Abs", x)
    net.output(x, "y")
    with pytest.raises(ArgumentError, match="2001 nodes, a picture shows up to 2000"):
        boxes_of(net.graph)


def test_rows_of_a_report_can_be_drawn(engine):
    import qontext as qx

    steps = qx.explain(engine, measure=False).data["steps"]
    boxes = boxes_of_rows(steps, "index")
    assert sum(b.kind == "node" for b in boxes) == len(steps)
    xml.fromstring(svg(boxes, "steps"))


def test_boxes_do_not_touch_and_lines_go_down():
    edges = [(i, j) for i in range(40) for j in (i + 1, i + 3, 2 * i) if i < j < 40]
    placed = place(45, edges)
    assert len(placed.centres) == 45 and len(placed.lines) == len(set(edges))
    for i, (x, y) in enumerate(placed.centres):
        for u, v in placed.centres[i + 1 :]:
            assert abs(x - u) >= BOX_WIDTH or abs(y - v) >= BOX_HEIGHT
    assert {(a, b) for a, b, _ in placed.lines} == set(edges)
    for start, end, points in placed.lines:
        assert points[0][0] == placed.centres[start][0] and points[-1][0] == placed.centres[end][0]
        assert all(a[1] <= b[1] for a, b in itertools.pairwise(points))


def test_an_empty_graph_and_lone_nodes():
    assert place(0, []).centres == ()
    assert len(set(place(6, []).centres)) == 6
