"""The page of fusions is what the catalogue says today."""

from qontext.fusion.catalogue import RULES
from qontext.fusion.docs import PAGE, page


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m qontext.fusion.docs"


def test_page_names_every_rule_its_anchors_and_its_place() -> None:
    text = page()
    for rule in RULES:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{rule.name}` |"))
        assert rule.why
        assert rule.doc in row
        assert rule.why in row
        assert all(anchor in row for anchor in rule.anchors)
