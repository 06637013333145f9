"""Calibration: runs samples through a float engine and turns what layers read into ranges and smoothing factors."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..builder.plan import Step
from ..errors import ArgumentError, CalibrationError, all_problems
from ..ops.attention_common.layouts import split_qkv
from ..ops.attention_common.problem import kv_heads
from ..quant.smoothing import search
from .cache import PARTS, Calibration, LayerRange
from .histogram import Histogram
from .methods import METHODS
from .watch import Runner, attention_steps, linear_steps, watch

ROWS = 96  # rows of a layer's input that the search for smoothing factors sees
Progress = Callable[[int, int], None]
Batch = Mapping[str, Any]


def check_method(method: str, percentile: float) -> None:
    """Raises ArgumentError for a method or percentile that does not exist."""
    problems = []
    if method not in METHODS:
        problems.append(f"method is {method!r}, allowed: {', '.join(METHODS)}")
    if not 50.0 < percentile <= 100.0:
        problems.append(f"percentile is {percentile:g}, it must be over 50 and at most 100")
    if problems:
        raise ArgumentError(all_problems("calibrate", problems))


def collected(batches: Batch | Iterable[Batch], most: int | None = None) -> list[Batch]:
    """The batches as a list, with `most` sequences at least or all. Raises CalibrationError for none, or a NaN."""
    made: list[Batch] = []
    for batch in [batches] if isinstance(batches, Mapping) else batches:
        if not isinstance(batch, Mapping):
            raise CalibrationError(f"a batch is a {type(batch).__name__}, expected arrays by input name")
        for name, value in batch.items():
            array = torch.as_tensor(value) if not isinstance(value, np.ndarray) else torch.from_numpy(np.array(value))
            if array.is_floating_point() and not bool(torch.isfinite(array).all()):
                raise CalibrationError(f"batch {len(made)} holds NaN or infinity in {name!r}; no scale comes of it")
        if sequences([batch]):
            made.append(batch)
        if most is not None and sequences(made) >= most:
            break
    if not made:
        raise CalibrationError("there are no samples: the data is empty; give at least one sequence")
    return made


def sequences(batches: Sequence[Batch]) -> int:
    """How many sequences batches hold."""
    return sum(len(next(iter(batch.values()))) for batch in batches if batch)


def calibrate(
    runner: Runner,
    batches: Sequence[Batch],
    model: str,
    method: str = "percentile",
    percentile: float = 99.99,
    smooth: bool = True,
    by_row: bool = False,
    progress: Progress = lambda done, of: None,
    energy: bool = False,
    watching: Callable[[Step, torch.Tensor, torch.Tensor], None] | None = None,
) -> Calibration:
    """Runs the samples: once, or twice when factors are to be found first.

    Args:
        runner: an engine in float32.
        batches: as `collected` gives them.
        model: the hash of the model.
        smooth: search smoothing factors.
        by_row: scales will be found at run time, row by row: no ranges are needed, one pass is enough.
        progress: called with (sequences done, sequences in all).
        energy: find the mean squares of columns too, in the pass that finds ranges.
        watching: called with what every layer reads and gives, in the first pass.
    Raises:
        CalibrationError: a layer reads NaN or infinity.
    """
    whole = sequences(batches)
    passes = int(smooth) + int(not by_row)
    done = 0

    def run(seen: Callable[[Step, torch.Tensor, torch.Tensor], None]) -> None:
        nonlocal done
        also = watching if done == 0 else None

        def look(step: Step, x: torch.Tensor, y: torch.Tensor) -> None:
            seen(step, x, y)
            if also is not None:
                also(step, x, y)

        for batch in batches:
            watch(runner, [batch], look, lambda outputs: None)
            done += sequences([batch])
            progress(done, whole * passes)

    program = runner.compiled.programs["encode"]
    steps = {s.name: s for s in linear_steps(program)}
    smoothing, outliers = _smoothing(steps, run, by_row) if smooth else ({}, {})
    attention = {s.name: s for s in attention_steps(program)}
    squares: dict[str, _Squares] = {name: _Squares() for name in steps} if energy else {}
    ranges = {} if by_row else _ranges(steps, attention, run, smoothing, method, percentile, squares)
    layers = {name: LayerRange(*found) for name, found in ranges.items() if name not in steps}
    for name in steps:
        low, high = ranges.get(name, (0.0, 0.0))
        divided = smoothing.get(name)
        if name in ranges or divided is not None:
            numbers = () if divided is None else tuple(divided.tolist())
            mean = squares[name].mean() if name in squares else ()
            layers[name] = LayerRange(low, high, numbers, outliers.get(name, 1.0), mean)
    return Calibration(model, method, percentile, whole, layers)


class _Squares:
    """Sums of the squares of columns."""

    def __init__(self) -> None:
        self.sums: torch.Tensor | None = None
        self.rows = 0

    def add(self, x: torch.Tensor) -> None:
        """Counts the rows of x [..., K]."""
        flat = x.reshape(-1, x.shape[-1]).double()
        sums = flat.square().sum(0)
        self.sums = sums if self.sums is None else self.sums + sums
        self.rows += len(flat)

    def mean(self) -> tuple[float, ...]:
        """The mean squares [K]; nothing where no row came by."""
        return () if self.sums is None or not self.rows else tuple((self.sums / self.rows).float().tolist())


def _finite(name: str, x: torch.Tensor) -> torch.Tensor:
    x = x.reshape(-1, x.shape[-1])
    if not bool(torch.isfinite(x).all()):
        raise CalibrationError(f"layer {name!r} reads NaN or infinity on the samples; the float model fails on them")
    return x


def _smoothing(
    steps: Mapping[str, Step],
    run: Callable[[Callable[[Step, torch.Tensor, torch.Tensor], None]], None],
    by_row: bool,
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Factors of the layers that gain from them, and how far the largest column stands out, by layer."""
    most: dict[str, torch.Tensor] = {}
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in steps}

    def seen(step: Step, x: torch.Tensor, y: torch.Tensor) -> None:
        if step.name not in steps:
            return
        flat = _finite(step.name, x)
        largest = flat.abs().amax(0).float()
        held = most.get(step.name)
        most[step.name] = largest if held is None else torch.maximum(held, largest)
        if sum(len(r) for r in rows[step.name]) < 4 * ROWS:  # evenly spread over the rows of a batch
            rows[step.name].append(flat[:: max(1, len(flat) // (ROWS // 4))].float().clone())

    run(seen)
    found, outliers = {}, {}
    for name, largest in most.items():
        weight = steps[name].call.inputs[1]
        assert weight is not None and weight.constant is not None
        every = torch.cat(rows.pop(name))
        x = every[torch.linspace(0, len(every) - 1, min(ROWS, len(every))).long()]
        outliers[name] = float(largest.max() / largest.median().clamp_min(1e-30))
        factors = search(x, largest, weight.constant.detach().float(), by_row)
        if factors is not None:
            found[name] = factors.cpu()
    return found, outliers


def _ranges(
    steps: Mapping[str, Step],
    attention: Mapping[str, Step],
    run: Callable[[Callable[[Step, torch.Tensor, torch.Tensor], None]], None],
    smoothing: Mapping[str, torch.Tensor],
    method: str,
    percentile: float,
    squares: Mapping[str, _Squares],
) -> dict[str, tuple[float, float]]:
    """The range of what every layer reads, after its factors, and of Q, K and V. Layers that read one tensor share its
    histogram.

    squares: add up those of what each layer in it reads.
    """
    seen_by: dict[str, Histogram] = {}
    shared: dict[tuple[int, bytes], str] = {}
    of = {}
    for name, step in steps.items():
        factors = smoothing.get(name)
        key = (step.inputs[0], b"" if factors is None else factors.numpy().tobytes())
        of[name] = shared.setdefault(key, name)

    def seen(step: Step, x: torch.Tensor, y: torch.Tensor) -> None:
        if step.name in squares:
            squares[step.name].add(x)
        if step.name in attention:
            settings = step.call.attributes
            parts = split_qkv(x, settings["layout"], settings["num_heads"], kv_heads(settings))
            for part, values in zip(PARTS, parts, strict=True):
                seen_by.setdefault(step.name + part, Histogram()).add(_finite(step.name, values))
        elif of[step.name] == step.name:
            flat = _finite(step.name, x)
            factors = smoothing.get(step.name)
            seen_by.setdefault(step.name, Histogram()).add(flat if factors is None else flat / factors.to(flat.device))

    run(seen)
    chosen = {name: METHODS[method](histogram, percentile) for name, histogram in seen_by.items()}
    found = {name: chosen[of[name]] for name in steps if of[name] in chosen}
    return found | {n + part: chosen[n + part] for n in attention for part in PARTS if n + part in chosen}
