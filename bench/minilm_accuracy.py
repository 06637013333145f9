"""Measures what few bits cost on the real MiniLM, by precision and by how weights were rounded; writes JSON.

Usage: python bench/minilm_accuracy.py [--output FILE] [--only NAME ...]

On a machine without a GPU, fp8 is computed by the references of the operators (some minutes).
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from qontext.benchmark.minilm import run_minilm

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="bench/results/minilm-accuracy.json")
    parser.add_argument("--only", nargs="+", default=[], help="schemes whose names begin so")
    options = parser.parse_args()
    target = Path(options.output)
    target.parent.mkdir(parents=True, exist_ok=True)

    def keep(record: Any) -> None:
        target.write_text(json.dumps(record, indent=1) + "\n")

    def run() -> None:
        run_minilm("cuda", tuple(options.only), lambda text: print(text, flush=True), keep)

    if torch.cuda.is_available():
        run()
    else:
        import pytest

        sys.path.append(str(ROOT / "tests" / "engine"))
        from gpu_fake import fake_gpu

        with pytest.MonkeyPatch.context() as patch:
            fake_gpu(patch)
            run()
    print(target)


if __name__ == "__main__":
    main()
