"""Row 90 of the feature table: every operator has a page with the three sections, and the pages are true."""

import re
import xml.etree.ElementTree as xml

import pytest

from qontext.ops.catalogue import OPS
from qontext.report.operator_pages import DOCS, FOLDER, pages

pytest.importorskip("fast_sugiyama", reason="the pictures of the pages need it")
MADE = pages()
SECTIONS = ("## ONNX sub-graph", "## Every input", "## Notes on its kernels")


def test_the_pages_are_true():
    for name, content in MADE.items():
        assert (FOLDER / name).exists(), f"{name} is missing; run `make docs`"
        assert (FOLDER / name).read_text(encoding="utf-8") == content, f"{name} is out of date; run `make docs`"
    assert {p.name for p in FOLDER.iterdir()} == set(MADE), "pages of operators that are gone"


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_page_has_the_three_sections(op):
    text = MADE[f"{op.name}.md"]
    parts = re.split(r"^(## .*)$", text, flags=re.M)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert tuple(found) == SECTIONS
    for param in op.inputs:
        assert f"| `{param.name}`" in found["## Every input"]
    for kernel in op.kernels:
        assert f"`{kernel.name}`" in found["## Notes on its kernels"]
    picture = f"{op.name}.svg"
    assert (picture in found["## ONNX sub-graph"]) == (picture in MADE)
    if picture in MADE:
        xml.fromstring(MADE[picture])


def test_notes_belong_to_operators():
    names = {op.name for op in OPS}
    notes = {p.stem for p in (DOCS / "kernel-notes").glob("*.md")}
    assert notes <= names and {"QKVToContext", "Attention", "Linear", "SkipLayerNorm"} <= notes
