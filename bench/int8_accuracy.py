"""Measures accuracy (MiniLM) and speed (BERT-base) of int8 schemes against every installed peer; writes JSON.

Usage: python bench/int8_accuracy.py [--output FILE] [--seconds S] [--rounds N] [--no-speed]
           [--peers NAME ...] [--presets NAME ...]
       python bench/int8_accuracy.py --build --output FILE [--presets NAME ...]

`--build` takes the time of builds of BERT-base with calibration on 128 sentences instead; with `--presets` of some, and
rows of others that are in the file already stay there.
"""

import argparse
import json
import os
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--output", default="bench/results/int8-accuracy.json")
parser.add_argument("--seconds", type=float, default=2.0, help="timed seconds a rival and round")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--shape", default="1x128", help="batch x length of the timed runs")
parser.add_argument("--no-speed", action="store_true")
parser.add_argument("--build", action="store_true", help="time builds with calibration instead")
parser.add_argument("--presets", nargs="+", default=[], help="ours that take part, by name")
parser.add_argument("--peers", nargs="+", default=[])
arguments = parser.parse_args()
os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))  # before any runtime starts its threads

from qontext.benchmark.accuracy import build_seconds, run_accuracy  # noqa: E402


def say(text: str) -> None:
    print(text, flush=True)


target = Path(arguments.output)
if arguments.build:
    record = build_seconds(say=say, only=arguments.presets)
    if arguments.presets and target.exists():
        fresh = {row["preset"] for row in record["rows"]}
        record["rows"] += [r for r in json.loads(target.read_text())["rows"] if r["preset"] not in fresh]
else:
    batch, length = (int(x) for x in arguments.shape.split("x"))
    speed = not arguments.no_speed
    record = run_accuracy(
        arguments.peers, (batch, length), arguments.seconds, arguments.rounds, speed, say, arguments.presets
    )
    print("frontier:", ", ".join(record["frontier"]))
target.parent.mkdir(parents=True, exist_ok=True)
target.write_text(json.dumps(record, indent=1) + "\n")
print(target)
