"""The examples of docs/qkv-to-context.md are true."""

import doctest
from pathlib import Path

import torch

from qontext.ops.qkv_to_context.op import OP

PAGE = Path(__file__).parents[3] / "docs" / "qkv-to-context.md"


def test_examples_of_the_page():
    torch.manual_seed(0)
    found = doctest.testfile(str(PAGE), module_relative=False)
    assert found.attempted > 10
    assert found.failed == 0


def test_page_describes_every_input_attribute_layout_and_kernel():
    text = PAGE.read_text(encoding="utf-8")
    layouts = next(a.choices for a in OP.attributes if a.name == "layout")
    names = [p.name for p in (*OP.inputs, *OP.outputs)] + [a.name for a in OP.attributes] + [k.name for k in OP.kernels]
    assert [n for n in (*names, *layouts) if f"`{n}`" not in text] == []
