"""Measures the embed pipeline on many short texts and writes the record as JSON.

Usage: python bench/embed_throughput.py --output bench/results [--size base] [--texts 100000] [--device cuda]
"""

import argparse
import json
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--output", default="bench/results", help="folder of the record")
parser.add_argument("--size", default="base", choices=["mini", "base", "large"])
parser.add_argument("--texts", type=int, default=100_000)
parser.add_argument("--precision", default="fp16", choices=["fp32", "bf16", "fp16"])
parser.add_argument("--device", default="cuda")
arguments = parser.parse_args()

from qontext.benchmark.throughput import run_throughput  # noqa: E402

record = run_throughput(arguments.size, arguments.texts, arguments.precision, arguments.device)
folder = Path(arguments.output)
folder.mkdir(parents=True, exist_ok=True)
target = folder / f"embed-throughput-{arguments.device}-{arguments.precision}.json"
target.write_text(json.dumps(record, indent=1) + "\n")
print(target)
