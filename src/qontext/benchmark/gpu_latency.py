"""Latency of encoders on one GPU over batch and length, as systems publish it: mean, p95 and p99 of single calls."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import torch

from ..dtypes import by_name, relative_rms
from ..ops.gpu_facts import gpu_facts
from .encoders import random_encoder
from .gpu_encoders import Case, built, ours, reference, replay_of
from .gpu_timing import time_in_turns
from .machine import machine

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
LENGTHS = (128, 384)


def run_latency(
    sizes: Iterable[str] = ("base", "large"),
    precision: str = "fp16",
    runs: int = 1000,
    seconds: float = 10.0,
    say: Callable[[str], None] = print,
    keep: Callable[[dict[str, Any]], None] = lambda record: None,
) -> dict[str, Any]:
    """Every size, length and batch: `runs` waited-for calls after 100 untimed ones, inputs and outputs on the device.

    Where that takes longer than `seconds` there are fewer calls, and the row says how many. The result of each is
    compared with float32 first; one that is off is a problem and is not timed. `keep` is called with the record after
    every row.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    result: dict[str, Any] = {
        "what": "latency of encoders on a GPU, inputs and outputs on the device, CUDA graph",
        "precision": precision,
        "machine": {**machine(), "gpu": asdict(gpu_facts())},
        "builds": {},
        "rows": [],
        "problems": [],
    }
    for size in sizes:
        model = random_encoder(size).cuda()
        engine = built(model, size, precision, result, say)
        for length in LENGTHS:
            for batch in reversed(BATCHES):  # the largest first: one arena serves all
                case = Case(size, batch, length)
                ids, _ = case.make(model.config.vocab_size)
                call = ours(engine, ids, None)["qontext"]
                call()
                error = relative_rms(call(), reference(model, ids, None))
                if not error <= 3 * by_name(precision).tolerance:
                    result["problems"].append(f"{case.name}: error {error:.1e}")
                    continue
                replay = replay_of(engine)
                call_time = time_in_turns({"call": call}, runs, 1, 100, seconds, warm_up_seconds=seconds)["call"]
                row: dict[str, Any] = {
                    "case": case.name,
                    "size": size,
                    "batch": batch,
                    "length": length,
                    "error": error,
                }
                row |= {"call": asdict(call_time), "per_s": batch / call_time.mean * 1e3}
                if replay is not None:
                    row["graph"] = asdict(time_in_turns({"graph": replay}, 50, 1, 5, 1.0)["graph"])
                result["rows"].append(row)
                keep(result)
                say(f"{case.name}: mean {call_time.mean:.3f} ms, p99 {call_time.p99:.3f}, {call_time.runs} runs")
        del model, engine
        torch.cuda.empty_cache()
    return result
