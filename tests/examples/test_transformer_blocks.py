"""The lesson runs, its page and notebook are what it writes, and what its texts say is so."""

import difflib
import json
import re
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
HERE = ROOT / "examples" / "transformer_blocks"
DOCS = ROOT / "docs"
# What the machine decides: times, rates, and everything that follows from them.
_MEASURED = re.compile(
    r"[\d.,]+ (?:s|ms|µs|[TGM]?B/s|[TGM]?flop/s)\b|[\d.,]+e-\d+|, [\d.]+ times as fast|Memory is the limit of .*"
)


@pytest.fixture(scope="module")
def written():
    sys.path.insert(0, str(HERE))
    threads = torch.get_num_threads()  # the lesson takes one
    try:
        import write

        yield write, write.run_cells()
    finally:
        torch.set_num_threads(threads)
        sys.path.remove(str(HERE))
        for name in ("write", "lesson", "modules", "block"):
            sys.modules.pop(name, None)


def _text(cell):
    return json.dumps(cell.get("outputs"), ensure_ascii=False)


def lasting(text):
    """A text without what differs from run to run."""
    return _MEASURED.sub("#", text)


def test_the_page_is_what_the_cells_give(written):
    write, cells = written
    text, pictures = write.page(cells)
    kept, fresh = (lasting(t).splitlines() for t in ((DOCS / "transformer-blocks.md").read_text("utf-8"), text))
    changed = [line for line in difflib.unified_diff(kept, fresh, n=0, lineterm="") if line[:3] not in ("---", "+++")]
    assert not changed, "\n".join(["the page is out of date, run `make docs`:", *changed])
    for name, drawing in pictures.items():
        assert (DOCS / "transformer-blocks" / name).read_text(encoding="utf-8") == drawing, f"{name}: run `make docs`"
    assert {p.name for p in (DOCS / "transformer-blocks").iterdir()} == set(pictures)


def test_the_notebook_holds_the_same_cells(written):
    write, cells = written
    kept = json.loads((HERE / "transformer_blocks.ipynb").read_text(encoding="utf-8"))
    fresh = json.loads(write.notebook(cells))
    assert kept["nbformat"] == 4 and len(kept["cells"]) == len(fresh["cells"]) > 40
    for mine, theirs in zip(kept["cells"], fresh["cells"], strict=True):
        assert mine["source"] == theirs["source"] and mine["cell_type"] == theirs["cell_type"]
        assert lasting(_text(mine)) == lasting(_text(theirs))


def test_what_the_texts_say(written):
    _, cells = written
    blocks = {}
    for cell in cells:
        found = re.match(r"(\w+)\.beside_torch\(\)", cell.source) if cell.kind == "code" else None
        if found:
            ours, theirs = (int(n) for n in re.findall(r"\*\*(\d+) kernels\*\*", cell.value.text)[::-1])
            blocks[found.group(1)] = ours, theirs
    assert list(blocks) == ["vanilla", "heads", "ragged", "cross", "bert", "prefill", "decode"]
    assert blocks["vanilla"][0] == blocks["heads"][0] == 3, "row 32: at most 4"
    assert blocks["vanilla"][1] == 9
    assert blocks["bert"][0] == 7 and blocks["cross"][0] == 5
    texts = [c.value.text for c in cells if c.kind == "code" and hasattr(c.value, "text")]
    assert any("200 tokens, the linear layers see 110" in t for t in texts)
    assert any("empty_row=uniform" in t for t in texts) and any("causal" in t for t in texts)
    assert any("comes from Concat" in t for t in texts)


def test_links_of_the_page_lead_somewhere():
    text = (DOCS / "transformer-blocks.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s#]+)", text):
        assert (DOCS / target).exists(), target
