"""Measures BERT encoders against every installed peer and writes the record as JSON.

Usage: python bench/encoders.py [base|large|mini|minilm] [--output FOLDER] [--seconds S] [--no-ragged]
"""

import argparse
import json
import os
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", nargs="?", default="base")
parser.add_argument("--output", default="bench/results")
parser.add_argument("--seconds", type=float, default=2.0, help="timed seconds a rival and round")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
parser.add_argument("--shapes", nargs="+", default=[], help="batch x length, such as 1x128")
parser.add_argument("--peers", nargs="+", default=[])
parser.add_argument("--no-ragged", action="store_true")
parser.add_argument("--name", default="", help="suffix of the file name")
arguments = parser.parse_args()
os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))  # before any runtime starts its threads

from qontext.benchmark.encoders import SHAPES, run_benchmark  # noqa: E402

shapes = [tuple(int(x) for x in s.split("x")) for s in arguments.shapes] or SHAPES
record = run_benchmark(
    arguments.model,
    arguments.precision,
    shapes,
    not arguments.no_ragged,
    arguments.peers,
    arguments.seconds,
    arguments.rounds,
    say=lambda text: print(text, flush=True),
)
print(json.dumps(record["summary"], indent=1))
folder = Path(arguments.output)
folder.mkdir(parents=True, exist_ok=True)
target = folder / f"encoders-{arguments.model}{arguments.name}.json"
target.write_text(json.dumps(record, indent=1) + "\n")
print(target)
