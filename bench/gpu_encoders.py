"""Measures BERT encoders on one GPU against torch and ONNX Runtime and writes the record as JSON.

Usage: python bench/gpu_encoders.py --output bench/results [--cases "base b1" ...] [--compile "base b1 S128"] [--runs N]

For the peer ONNX Runtime install onnxruntime-gpu (with the CUDA of torch).
"""

import argparse
import json
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--output", default="bench/results", help="folder of the record")
parser.add_argument("--precision", default="fp16", choices=["fp16", "bf16"])
parser.add_argument("--cases", nargs="+", default=[], help="only cases whose name begins so, such as 'large b1'")
parser.add_argument("--compile", nargs="+", default=[], metavar="CASE", help="cases for torch.compile: a minute each")
parser.add_argument("--runs", type=int, default=300, help="timed calls of each rival")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--seconds", type=float, default=2.0, help="most seconds of a rival in a round")
parser.add_argument("--name", default="", help="suffix of the file name")
arguments = parser.parse_args()

from qontext.benchmark.gpu_encoders import CASES, run_benchmark  # noqa: E402

cases = [c for c in CASES if not arguments.cases or any(c.name.startswith(n) for n in arguments.cases)]
record = run_benchmark(
    cases,
    arguments.precision,
    compiled_for=arguments.compile,
    runs=arguments.runs,
    rounds=arguments.rounds,
    seconds=arguments.seconds,
    say=lambda text: print(text, flush=True),
)
for problem in record["problems"]:
    print("problem:", problem)
folder = Path(arguments.output)
folder.mkdir(parents=True, exist_ok=True)
target = folder / f"gpu-encoders-{arguments.precision}{arguments.name}.json"
target.write_text(json.dumps(record, indent=1) + "\n")
print(target)
