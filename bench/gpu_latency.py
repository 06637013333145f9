"""Measures the latency table of BERT encoders on one GPU and writes the record as JSON.

Usage: python bench/gpu_latency.py --output bench/results [--sizes base large] [--runs 1000] [--seconds S]
"""

import argparse
import json
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--output", default="bench/results", help="folder of the record")
parser.add_argument("--sizes", nargs="+", default=["base", "large"])
parser.add_argument("--precision", default="fp16", choices=["fp16", "bf16"])
parser.add_argument("--runs", type=int, default=1000)
parser.add_argument("--seconds", type=float, default=10.0, help="most seconds of one cell")
arguments = parser.parse_args()

from qontext.benchmark.gpu_latency import run_latency  # noqa: E402

folder = Path(arguments.output)
folder.mkdir(parents=True, exist_ok=True)
target = folder / f"gpu-latency-{arguments.precision}.json"
record = run_latency(
    arguments.sizes,
    arguments.precision,
    arguments.runs,
    arguments.seconds,
    say=lambda text: print(text, flush=True),
    keep=lambda found: target.write_text(json.dumps(found, indent=1) + "\n") and None,
)
for problem in record["problems"]:
    print("problem:", problem)
target.write_text(json.dumps(record, indent=1) + "\n")
print(target)
