"""Latency of an engine, with the flags of demo/BERT's perf.py and perf_varseqlen.py.

python perf.py -e demo.qx -b 1 -b 8 -s 64
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np

import qontext as qx
from qontext.errors import ArgumentError


@dataclass(frozen=True)
class Latency:
    """Milliseconds a run, over `iterations` runs after `warm_up` runs that do not count."""

    batch_size: int
    sequence_length: int
    average_ms: float
    percentile_95_ms: float
    percentile_99_ms: float
    iterations: int
    warm_up: int


def measure(engine: qx.Engine, batch: int, length: int, iterations: int, warm_up: int, seed: int) -> Latency:
    """Runs full-length batches of random ids. The arrays are the engine's own inputs, so nothing is transferred."""
    rule = engine.input_rules.get("input_ids")
    limit = rule.limit if rule is not None else None
    if "input_ids" not in engine.input_names or limit is None:
        names = ", ".join(engine.input_names)
        raise ArgumentError(f"perf: {engine.name} has no input 'input_ids' with a vocabulary; its inputs are {names}")
    inputs = {"input_ids": np.random.default_rng(seed).integers(0, limit, (batch, length))}
    for _ in range(warm_up):
        engine.run(inputs)
    times = []
    for _ in range(iterations):
        start = time.perf_counter()
        engine.run(inputs)
        times.append((time.perf_counter() - start) * 1e3)
    average, p95, p99 = float(np.mean(times)), *(float(np.percentile(times, p)) for p in (95, 99))
    return Latency(batch, length, average, p95, p99, iterations, warm_up)


def main(argv: list[str] | None = None) -> int:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(
        description="Latency of an engine", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("-e", "--engine", required=True, help="engine file")
    add("-b", "--batch-size", action="append", type=int, help="batch, repeatable (1)")
    add("-s", "--sequence-length", action="append", type=int, help="length, repeatable (128, or the engine's longest)")
    add("-i", "--iterations", type=int, default=200, help="timed runs")
    add("-w", "--warm-up-runs", type=int, default=10, help="runs before them")
    add("-d", "--device", type=int, default=0, help="number of the device; an engine on a CPU has one")
    add("-r", "--random-seed", type=int, default=12345, help="seed of the ids")
    add("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    try:
        rows = _rows(options)
    except qx.errors.QontextError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return 0
    for row in rows:
        print(
            f"batch {row.batch_size:4d}  length {row.sequence_length:4d}  average {row.average_ms:9.3f} ms  "
            f"95th {row.percentile_95_ms:9.3f} ms  99th {row.percentile_99_ms:9.3f} ms"
        )
    return 0


def _rows(options: argparse.Namespace) -> list[Latency]:
    engine = qx.load(options.engine)
    if options.device != 0:
        raise ArgumentError(f"-d {options.device}: this engine is for {engine.device}, which has device 0 only")
    if options.iterations < 1 or options.warm_up_runs < 0:
        raise ArgumentError(f"-i {options.iterations} -w {options.warm_up_runs}: at least 1 timed run and 0 before it")
    lengths = options.sequence_length or [min(128, engine.max_length or 128)]
    return [
        measure(engine, batch, length, options.iterations, options.warm_up_runs, options.random_seed)
        for batch in options.batch_size or [1]
        for length in lengths
    ]


if __name__ == "__main__":
    sys.exit(main())
