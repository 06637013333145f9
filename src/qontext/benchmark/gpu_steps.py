"""Where the time of encoders goes on a GPU: by kernel, beside the least that bytes and operations allow."""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..builder.ranges import pick
from ..engine import Engine
from ..importers import import_model
from ..ops.catalogue import BY_NAME
from ..ops.eight_bits import KINDS
from ..ops.gpu_facts import gpu_facts
from ..runtime.ceilings import Ceilings, ceilings_of
from ..runtime.inputs import Inputs
from ..runtime.profile import StepProfile, profile
from .encoders import random_encoder
from .gpu_encoders import CASES, Case, built, ours, replay_of
from .gpu_quantised import calibrated
from .gpu_replay import events, replayed
from .machine import machine

FLOATS = ("fp16", "bf16")


def run_steps(
    cases: Sequence[Case] = CASES, precision: str = "fp16", runs: int = 15, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Times every step of every case between events of the device and sums them up by operator and kernel.

    Steps are launched one by one here, none before its predecessor has ended, so their sum is more than the replay of
    the graph, in which they overlap; the record has both. A GPU under steady load lowers its clock to keep within its
    power, so calls are timed after rests and one after the other, and so is the vendor's product of the first layer of
    the feed-forward network in fp16, without bias and activation: what matrix products can reach here.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    result: dict[str, Any] = {
        "what": "encoders on a GPU by kernel",
        "precision": precision,
        "machine": {**machine(), "gpu": asdict(gpu_facts())},
        "builds": {},
        "rows": [],
    }
    for size in dict.fromkeys(case.size for case in cases):
        model = random_encoder(size)
        engine = _engine_of(model, size, precision, result, say)
        ceilings = ceilings_of(engine.compiled.programs["encode"].device)
        result["copy_tb_per_s"] = ceilings.copy_bytes_per_s / 1e12
        result["product_tflops"] = {name: rate / 1e12 for name, rate in ceilings.flops_per_s.items()}
        for case in (c for c in cases if c.size == size):
            result["rows"].append(_row(case, engine, model.config, ceilings, runs, say))
    return result


def _engine_of(model: Any, size: str, precision: str, result: dict[str, Any], say: Callable[[str], None]) -> Engine:
    """An engine of the model; how long that took goes into `result["builds"]`."""
    if precision in FLOATS:
        return built(model, size, precision, result, say)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        imported = import_model(Path(folder), task="encode")
    return calibrated(imported, size, precision, model.config.vocab_size, result, say)


def _row(
    case: Case, engine: Engine, config: Any, ceilings: Ceilings, runs: int, say: Callable[[str], None]
) -> dict[str, Any]:
    ids, mask = case.make(config.vocab_size)
    call = ours(engine, ids, mask)["qontext"]
    call()
    replay = replay_of(engine)
    given = {"input_ids": ids} if mask is None else {"input_ids": ids, "attention_mask": mask}
    executor = engine._executors["encode"]
    inputs = Inputs(executor.program, engine.input_rules, engine.settings.max_tokens, engine.max_length)
    seen = profile(executor, BY_NAME, inputs.prepare({n: t.cuda() for n, t in given.items()}).tensors, runs=runs)
    kernels = by_kernel(seen.steps, ceilings, seen.sizes)
    total = sum(k["us"] for k in kernels)
    row = {"case": case.name, "kernels": kernels, "steps_us": total, "least_us": sum(k["least_us"] for k in kernels)}
    if replay is not None:
        row["graph_us"] = events(replay, 15)
    row["rested_us"], row["steady_us"] = rested_and_steady(call)
    tokens = int(ids.numel() if mask is None else mask.sum())
    row["vendor_tflops"] = vendor_tflops(tokens, config.hidden_size, config.intermediate_size)
    shown = ", ".join(f"{k['op']} {k['us']:.0f} ({k['least_us']:.0f})" for k in kernels[:6])
    say(f"{case.name}: graph {row.get('graph_us', 0):.0f} us, steps {total:.0f}, least {row['least_us']:.0f}: {shown}")
    return row


def rested_and_steady(call: Callable[[], object], seconds: float = 1.0) -> tuple[float, float]:
    """Median microseconds of calls after rests, and of the last quarter of `seconds` of calls without any."""

    def timed() -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        return (time.perf_counter() - start) * 1e6

    rested, steady = [], []
    for _ in range(5):
        time.sleep(0.2)
        rested.append(timed())
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        steady.append(timed())
    return statistics.median(rested), statistics.median(steady[-max(1, len(steady) // 4) :])


def vendor_tflops(tokens: int, hidden: int, inner: int) -> float:
    """TFLOP/s of the vendor's product [tokens, hidden] x [hidden, inner] in fp16 under steady load."""
    x, weight = (torch.randn(n, hidden, device="cuda").half() for n in (tokens, inner))
    out = torch.empty(tokens, inner, device="cuda", dtype=torch.float16)
    us = replayed([lambda: torch.mm(x, weight.t(), out=out)], least_us=60_000.0)
    return 2.0 * tokens * hidden * inner / us / 1e6


def by_kernel(steps: Sequence[StepProfile], ceilings: Ceilings, sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    """Steps summed up by operator, kernel and shape of the result, those that take most time first.

    `tuned_us` is what the planner measured where it chose at this very size: small kernels in a chain, which shows them
    as they run in a graph.
    """
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for one in steps:
        outputs = [o for o in one.step.call.outputs if o is not None]
        held = (o.dtype for o in one.step.call.inputs if o is not None and o.dtype in KINDS)
        dtype = next(held, outputs[0].dtype if outputs else "float32")  # what is multiplied
        shape = one.shapes[0] if one.shapes else ""
        rows = None if one.step.rows is None else one.step.rows.value(sizes)
        chosen = None if rows is None else pick(one.step.ranges, rows)
        key = (one.step.op, one.step.kernel if chosen is None else chosen.kernel, shape)
        fresh = {"op": key[0], "kernel": key[1], "shape": shape, "count": 0}
        row = found.setdefault(key, fresh | dict.fromkeys(("us", "bytes", "flops", "least_us"), 0.0))
        row["count"] += 1
        row["us"] += one.us
        row["bytes"] += one.cost.bytes
        row["flops"] += one.cost.flops
        if chosen is not None and one.step.rows is not None and chosen.size.value(one.step.rows) == rows:
            taken = dict(chosen.timings).get(chosen.kernel)  # a call that could not be made up was not timed
            if taken is not None:
                row["tuned_us"] = row.get("tuned_us", 0.0) + taken
        row["least_us"] += ceilings.best_us(one.cost.bytes, one.cost.flops, dtype)
    return sorted(found.values(), key=lambda r: -r["us"])
