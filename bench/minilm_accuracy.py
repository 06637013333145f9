"""Measures what few bits cost on the real MiniLM, by precision and by how weights were rounded; writes JSON.

Usage: python bench/minilm_accuracy.py [--output FILE] [--only NAME ...]
       python bench/minilm_accuracy.py --save FOLDER [--scheme NAME]
       python bench/minilm_accuracy.py --saved FOLDER [--output FILE]

On a machine without a GPU, fp8 is computed by the references of the operators (some minutes). `--save` writes the
engine of one scheme and what it is compared with, `--saved` measures it on a machine that has no MiniLM.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from fp8_somewhere import fp8_somewhere

from qontext.benchmark.minilm import run_minilm, run_saved, save_for_elsewhere


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="bench/results/minilm-accuracy.json")
    parser.add_argument("--only", nargs="+", default=[], help="schemes whose names begin so; others' rows stay")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--scheme", default="fp8, compensated")
    parser.add_argument("--saved", type=Path)
    options = parser.parse_args()
    target = Path(options.output)
    target.parent.mkdir(parents=True, exist_ok=True)

    before = json.loads(target.read_text())["rows"] if options.only and target.exists() else []

    def keep(record: Any) -> None:
        fresh = {row["scheme"] for row in record["rows"]}
        record = {**record, "rows": [row for row in before if row["scheme"] not in fresh] + record["rows"]}
        target.write_text(json.dumps(record, indent=1) + "\n")

    with fp8_somewhere() as by:
        if options.save:
            save_for_elsewhere(options.save, options.scheme)
            return
        if options.saved:
            keep(run_saved(options.saved, "cuda", by))
            return
        run_minilm(by, tuple(options.only), lambda text: print(text, flush=True), keep)
    print(target)


if __name__ == "__main__":
    main()
