"""Measures what few bits cost on the real MiniLM, by precision and by how weights were rounded; writes JSON.

Usage: python bench/minilm_accuracy.py [--output FILE] [--only NAME ...]

On a machine without a GPU, fp8 is computed by the references of the operators (some minutes).
"""

import argparse
import json
from pathlib import Path
from typing import Any

from fp8_somewhere import fp8_somewhere

from qontext.benchmark.minilm import run_minilm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="bench/results/minilm-accuracy.json")
    parser.add_argument("--only", nargs="+", default=[], help="schemes whose names begin so")
    options = parser.parse_args()
    target = Path(options.output)
    target.parent.mkdir(parents=True, exist_ok=True)

    def keep(record: Any) -> None:
        target.write_text(json.dumps(record, indent=1) + "\n")

    with fp8_somewhere() as by:
        run_minilm(by, tuple(options.only), lambda text: print(text, flush=True), keep)
    print(target)


if __name__ == "__main__":
    main()
