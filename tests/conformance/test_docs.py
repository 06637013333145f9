"""The catalogue page is what the declarations say today."""

from qontext.ops.catalogue import OPS
from qontext.ops.docs import PAGE, page


def test_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m qontext.ops.docs"


def test_page_shows_every_operator_input_attribute_and_kernel():
    text = page()
    for op in OPS:
        part = text.split(f"\n## {op.name}\n")[1].split("\n## ")[0]
        for param in (*op.inputs, *op.outputs):
            assert f"| `{param.name}`{'?' if param.optional else ''} |" in part
        for attribute in op.attributes:
            assert f"| `{attribute.name}` |" in part
        for kernel in op.kernels:
            assert f"`{kernel.name}`" in part
        assert op.source in part
