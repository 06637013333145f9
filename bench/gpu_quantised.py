"""Measures our encoders in fp16, fp8 and int8 on one GPU and writes the record as JSON.

Usage: python bench/gpu_quantised.py --output bench/results [--cases "base b1" ...] [--precision fp16 fp8 int8]
"""

import argparse
import json
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--output", default="bench/results", help="folder of the record")
parser.add_argument("--cases", nargs="+", default=[], help="only cases whose name begins so, such as 'large b1'")
precisions = ["fp16", "fp8", "int8", "fp8 with attention"]
parser.add_argument("--precision", nargs="+", default=precisions[:3], choices=precisions)
parser.add_argument("--runs", type=int, default=200, help="timed calls of each precision and way")
parser.add_argument("--rounds", type=int, default=2)
parser.add_argument("--seconds", type=float, default=0.12, help="most seconds of a rival in a round")
parser.add_argument(
    "--deadline", type=float, default=100.0, help="seconds for everything; what does not fit is left out"
)
arguments = parser.parse_args()

from qontext.benchmark.gpu_quantised import cases_named, run_quantised  # noqa: E402

folder = Path(arguments.output)
folder.mkdir(parents=True, exist_ok=True)
target = folder / "gpu-quantised.json"
record = run_quantised(
    cases_named(arguments.cases),
    arguments.precision,
    arguments.runs,
    arguments.rounds,
    arguments.seconds,
    arguments.deadline,
    say=lambda text: print(text, flush=True),
    keep=lambda found: target.write_text(json.dumps(found, indent=1) + "\n") and None,
)
for problem in record["problems"]:
    print("problem:", problem)
target.write_text(json.dumps(record, indent=1) + "\n")
print(target)
