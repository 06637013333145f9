"""docs/benchmarks.md: every record of bench/results as a table. `python -m qontext.benchmark.page` writes it."""

import json
from pathlib import Path

from .tables import TABLES, conditions

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
_HEAD = """# Measurements

Every table is a record of `bench/results/`, made by a script of `bench/` whose head says how to run it. Outputs are
checked before anything is timed. Speed is a ratio against peers in the same run; figures of shared machines move by
several per cent between runs. Written by `python -m qontext.benchmark.page`.
"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    left = sorted(RESULTS.glob("*.json"))
    for start, title, table in TABLES:
        mine = [path for path in left if path.name.startswith(start)]
        left = [path for path in left if path not in mine]
        if mine:
            parts.append(f"## {title}\n")
        for path in mine:
            record = json.loads(path.read_text())
            what = record.get("what", title)
            about = f"{what}, {record['model']}" if "model" in record else what
            parts.append(f"### `{path.name}`\n\n{about}. {conditions(record)}\n\n{table(record)}\n")
    if left:
        raise ValueError(f"no table is declared for {', '.join(path.name for path in left)}; see benchmark/tables.py")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
