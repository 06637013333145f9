"""Our encoders in fp16, fp8 and int8 on one GPU, in one process, outputs checked against float32 first.

Rules: random weights and ids; fp8 and int8 are calibrated on other random ids of the same run; every result is compared
with Hugging Face in float32 (TF32 off) before it is timed, and one that is off is reported and not timed. Timed are
single calls with inputs and outputs on the device, each waited for, and the replay of the graph alone, in rotated
rounds. What does not fit into the time that was given is left out, which the record says.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ..builder.plan import Step
from ..builder.tune import Tuner
from ..calibration.quantise import QuantOptions
from ..dtypes import relative_rms
from ..engine import Engine, build
from ..errors import QontextError
from ..graph.model import Model
from ..importers import import_model
from ..ops.gpu_facts import gpu_facts
from .encoders import flops, random_encoder
from .gpu_encoders import CASES, Case, first_line, reference, replay_of
from .gpu_timing import time_in_turns
from .machine import machine

WITH_ATTENTION = "fp8 with attention"
PRECISIONS = ("fp16", "fp8", "int8", WITH_ATTENTION)
# Largest relative RMS error of the last hidden state. Random weights keep no outliers down: in fp8 every layer adds 3 %
# and more of its result, and the norms behind it hand that on.
LIMITS = {"fp16": 6e-3, "fp8": 0.15, "int8": 0.06, WITH_ATTENTION: 0.18}
_SAMPLES = 32  # sequences for calibration
_LENGTH = 128
_REPEATS = 3  # timed runs of each kernel while an engine is built
_A_CASE = 2.5  # seconds that a case takes

Say = Callable[[str], None]


def run_quantised(
    cases: Sequence[Case] = CASES,
    precisions: Sequence[str] = PRECISIONS,
    runs: int = 200,
    rounds: int = 2,
    seconds: float = 0.12,
    deadline: float = 100.0,
    say: Say = print,
    keep: Callable[[dict[str, Any]], None] = lambda record: None,
) -> dict[str, Any]:
    """Measures and returns everything as one JSON-able record; see the module's text for the rules.

    Args:
        runs, rounds, seconds: as for `time_in_turns`.
        deadline: seconds for everything: an engine that would leave no time for its cases is not built.
        keep: called with the record after every case.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    start = time.perf_counter()
    result: dict[str, Any] = {
        "what": "encoders in eight bits on a GPU",
        "machine": {**machine(), "gpu": asdict(gpu_facts())},
        "builds": {},
        "rows": [],
        "problems": [],
    }
    for size in dict.fromkeys(case.size for case in cases):
        model = random_encoder(size)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            imported = import_model(Path(folder), task="encode")
            model = model.cuda()
            engines: dict[str, Engine] = {}
            mine = [c for c in cases if c.size == size]
            for precision in precisions:
                longest = max((b["seconds"] for b in result["builds"].values()), default=0.0)
                needed = longest + _A_CASE * len(mine)
                if engines and time.perf_counter() - start + needed > deadline:
                    result["problems"].append(f"{size} in {precision}: {deadline:.0f} s were not enough")
                    continue
                try:
                    engines[precision] = calibrated(imported, size, precision, model.config.vocab_size, result, say)
                except (QontextError, RuntimeError) as error:
                    result["problems"].append(f"{size} in {precision}: {first_line(error)}")
            for case in mine:
                if time.perf_counter() - start > deadline:
                    result["problems"].append(f"{case.name}: {deadline:.0f} s were not enough")
                    continue
                result["rows"].append(_measured(case, model, engines, (runs, rounds, seconds), result, say))
                keep(result)
            del imported, engines, model
        torch.cuda.empty_cache()
    return result


def samples_of(vocabulary: int) -> list[dict[str, torch.Tensor]]:
    """Random ids for calibration."""
    generator = torch.Generator().manual_seed(5)
    half = _SAMPLES // 2
    return [{"input_ids": torch.randint(5, vocabulary, (half, _LENGTH), generator=generator)} for _ in range(2)]


def calibrated(imported: Model, size: str, precision: str, vocabulary: int, result: dict[str, Any], say: Say) -> Engine:
    """An engine, calibrated on random ids where it holds eight bits.

    What it took, what its layers cost in exactness and its steps go into `result["builds"]`.
    """
    start, name = time.perf_counter(), precision
    samples = None if precision == "fp16" else samples_of(vocabulary)
    options, tuner = None, Tuner(repeats=_REPEATS)
    if precision == WITH_ATTENTION:
        precision, options = "fp8", QuantOptions(quantise=("linear", "attention"))
    engine = build(imported, precision, "cuda", calibration=samples, tuner=tuner, quantisation=options)
    seconds = time.perf_counter() - start
    errors = [layer.error for layer in engine.compiled.quantised if layer.error is not None]
    result["builds"][f"{size} {name}"] = {
        "seconds": seconds,
        "largest_layer_error": max(errors, default=None),
        "steps": [_said(step) for step in engine.compiled.programs["encode"].steps],
    }
    say(f"{size} in {name}: built in {seconds:.1f} s")
    return engine


def _said(step: Step) -> dict[str, Any]:
    """One step: its kernels, what they write, and what they were chosen from at the largest size, in microseconds."""
    written = [o.dtype for o in step.call.outputs if o is not None]
    return {"op": step.op, "kernel": step.kernels, "writes": written, "timings": [list(t) for t in step.timings[:3]]}


def _measured(
    case: Case, model: Any, engines: dict[str, Engine], effort: tuple[int, int, float], result: dict[str, Any], say: Say
) -> dict[str, Any]:
    """A row: errors of every precision, and the times of those that are right."""
    ids, mask = case.make(model.config.vocab_size)
    want = reference(model, ids, mask)
    real = torch.ones_like(ids).bool() if mask is None else mask.bool()
    there = real.to(want.device)
    inputs = {"input_ids": ids.cuda()} if mask is None else {"input_ids": ids.cuda(), "attention_mask": mask.cuda()}
    calls: dict[str, Callable[[], object]] = {}
    errors: dict[str, float] = {}
    for precision, engine in engines.items():
        name = f"{case.name} in {precision}"
        try:
            out = engine.run(inputs)["last_hidden_state"]
            errors[precision] = relative_rms(out[there], want[there])
        except (QontextError, RuntimeError) as error:
            result["problems"].append(f"{name}: {first_line(error)}")
            continue
        if not errors[precision] <= LIMITS[precision]:
            result["problems"].append(f"{name}: error {errors[precision]:.1e}, allowed {LIMITS[precision]:.0e}")
            continue
        calls[precision] = lambda engine=engine: engine.run(inputs)["last_hidden_state"]  # type: ignore[misc]
        engine.run(inputs)
        replay = replay_of(engine)
        if replay is not None:
            calls[f"{precision} graph alone"] = replay
    del want
    timed = time_in_turns(calls, effort[0], effort[1], warm_up=5, seconds=effort[2], warm_up_seconds=0.05)
    row = {
        "case": case.name,
        "sequences": case.batch,
        "tokens": int(real.sum()),
        "flops": sum(flops(model.config, 1, int(n)) for n in real.sum(1)),
        "errors": errors,
        "rivals": {n: {**asdict(t), "per_s": case.batch / t.median * 1e3} for n, t in timed.items()},
    }
    shown = ", ".join(f"{n} {t.median:.3f}" for n, t in timed.items())
    say(f"{case.name} (ms): {shown}; errors {', '.join(f'{n} {e:.1e}' for n, e in errors.items())}")
    return row


def cases_named(starts: Sequence[str], smaller: int = 1) -> list[Case]:
    """The cases whose names begin so, all for none; `smaller` divides their batches."""
    chosen = [c for c in CASES if not starts or any(c.name.startswith(s) for s in starts)]
    return [replace(c, batch=max(1, c.batch // smaller)) for c in chosen]
