"""Measures where the time of BERT encoders goes on one GPU, kernel by kernel, and writes the record as JSON.

Usage: python bench/gpu_steps.py --output bench/results [--cases "base b128" ...] [--precision fp16]
"""

import argparse
import json
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--output", default="bench/results", help="folder of the record")
parser.add_argument("--precision", default="fp16", choices=["fp16", "bf16", "fp8", "int8"])
parser.add_argument("--cases", nargs="+", default=[], help="only cases whose name begins so, such as 'large b1'")
parser.add_argument("--runs", type=int, default=15)
arguments = parser.parse_args()

from qontext.benchmark.gpu_encoders import CASES  # noqa: E402
from qontext.benchmark.gpu_steps import run_steps  # noqa: E402

cases = [c for c in CASES if not arguments.cases or any(c.name.startswith(n) for n in arguments.cases)]
record = run_steps(cases, arguments.precision, arguments.runs, lambda text: print(text, flush=True))
folder = Path(arguments.output)
folder.mkdir(parents=True, exist_ok=True)
target = folder / f"gpu-steps-{arguments.precision}.json"
target.write_text(json.dumps(record, indent=1) + "\n")
print(target)
