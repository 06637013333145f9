"""docs/benchmarks.md says what the records say."""

import json

import pytest

from qontext.benchmark.page import PAGE, RESULTS, page
from qontext.benchmark.tables import TABLES

RECORDS = sorted(RESULTS.glob("*.json"))


def test_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m qontext.benchmark.page"


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.name)
def test_records_say_where_and_when_they_were_made(path):
    machine = json.loads(path.read_text())["machine"]
    assert machine["date"] and machine["versions"]["torch"]
    assert any(path.name.startswith(start) for start, _, _ in TABLES)
