"""Times how long a saved engine of BERT-base (random weights) takes to load, and writes the record as JSON.

Usage: python bench/engine_load.py [--output FOLDER] [--precision fp32 bf16]

Every load runs in a process of its own whose imports are done; the file lies in the page cache, as it does on a server
that starts again. The loaded engine's output is compared with that of the engine that was saved.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--output", default="bench/results")
parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
parser.add_argument("--runs", type=int, default=7)
arguments = parser.parse_args()

import torch  # noqa: E402

import qontext  # noqa: E402
from qontext.benchmark.encoders import random_encoder  # noqa: E402
from qontext.benchmark.machine import machine  # noqa: E402
from qontext.dtypes import relative_rms  # noqa: E402
from qontext.importers import import_model  # noqa: E402

LOAD = """
import sys, time
import torch
from qontext import load
start = time.perf_counter()
engine = load(sys.argv[1])
seconds = time.perf_counter() - start
torch.save(engine.run({"input_ids": torch.load(sys.argv[2])})["last_hidden_state"], sys.argv[3])
print(seconds)
"""


def measured(folder: Path, precision: str) -> dict[str, object]:
    """Seconds of every load of one engine; raises SystemExit when a loaded engine computes something else."""
    engine = qontext.build(import_model(folder, task="encode"), precision=precision)
    file, ids, found = folder / f"{precision}.qx", folder / "ids.pt", folder / "found.pt"
    engine.save(file)
    torch.save(torch.randint(5, 30000, (2, 32)), ids)
    wanted = engine.run({"input_ids": torch.load(ids)})["last_hidden_state"]
    seconds = []
    for _ in range(arguments.runs):
        command = [sys.executable, "-c", LOAD, str(file), str(ids), str(found)]
        seconds.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        if not relative_rms(torch.load(found).float(), wanted.float()) < 1e-3:
            raise SystemExit(f"the loaded engine ({precision}) computes something else")
    return {
        "precision": precision,
        "file_bytes": file.stat().st_size,
        "median_s": statistics.median(seconds),
        "seconds": seconds,
    }


with tempfile.TemporaryDirectory() as name:
    random_encoder("base").save_pretrained(name)
    rows = [measured(Path(name), precision) for precision in arguments.precision]
record = {"what": "engine load", "model": "base", "machine": machine(), "rows": rows}
for row in rows:
    print(f"{row['precision']}: {row['median_s']:.2f} s for {row['file_bytes'] / 1e6:.0f} MB")
target = Path(arguments.output) / "engine-load.json"
target.parent.mkdir(parents=True, exist_ok=True)
target.write_text(json.dumps(record, indent=1) + "\n")
print(target)
