"""Building a quantised engine with its guard rails: calibrate, build, compare, keep what costs too much."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..builder.compile import Log, Settings
from ..builder.precision import EIGHT_BITS
from ..errors import AccuracyError, ArgumentError, all_problems
from ..quant.recipe import Recipe
from ..runtime.profile import sample_run_inputs
from .cache import Calibration
from .calibrate import calibrate, check_method, collected, sequences
from .guard import Comparison, check_alive, compare, sensitivity
from .moments import Watching
from .recipe import recipe_of
from .watch import Runner

Batch = Mapping[str, Any]
Made = TypeVar("Made", bound=Runner)
_PARTS = ("linear", "attention")
_LENGTH = 16  # of made-up input


@dataclass(frozen=True)
class QuantOptions:
    """How to quantise.

    activations: "token" for scales found at run time, "tensor" for static ones, "none" for int8 weights alone with
                 products of floats; None takes static ones where a calibration is given (on a GPU: samples too), else
                 those of run time
    smooth:      search smoothing factors on the samples, use those of a calibration; fp8 has no use for them
    max_error:   largest relative RMS error of an output on the samples; the layers that cost most are kept until it
                 holds
    method, percentile: of static scales that are made of samples; None takes the percentile, and for fp8, where a wide
                 range costs nothing, all that was seen
    quantise:    what multiplies eight bits: "linear" layers, and "attention" too
    compensate:  with samples, round weights so that later columns make good what earlier ones lost
    weight_bits: 8, or with activations "none" 4, in groups of `group` values along K with a scale and a zero each
    """

    activations: str | None = None
    smooth: bool = True
    max_error: float | None = None
    method: str | None = None
    percentile: float = 99.99
    quantise: tuple[str, ...] = ("linear",)
    weight_bits: int = 8
    group: int = 128
    compensate: bool = True

    def method_for(self, precision: str) -> str:
        """How static scales of a precision are made of samples."""
        return self.method or ("percentile" if precision == "int8" else "min-max")


def check_options(
    options: QuantOptions, calibration: Calibration | None, samples: Sequence[Batch], settings: Settings
) -> None:
    """Raises ArgumentError for options that contradict each other or lack what they need."""
    problems = []
    if options.activations not in (None, "token", "tensor", "none"):
        problems.append(f"activations is {options.activations!r}, allowed: token, tensor, none")
    if options.activations == "none" and (settings.precision != "int8" or settings.device != "cpu"):
        problems.append(
            f"activations is 'none' with precision {settings.precision!r} on {settings.device!r}; layers with int8 "
            "weights alone run on the CPU"
        )
    unknown = [part for part in options.quantise if part not in _PARTS]
    if unknown or "linear" not in options.quantise:
        problems.append(f"quantise is {options.quantise!r}, allowed: ('linear',) and ('linear', 'attention')")
    elif options.activations == "none" and "attention" in options.quantise:
        problems.append("quantise names 'attention', whose operands are activations, but activations is 'none'")
    if options.weight_bits not in (4, 8):
        problems.append(f"weight_bits is {options.weight_bits}, allowed: 4, 8")
    elif options.weight_bits == 4 and options.activations != "none":
        problems.append(f"weight_bits is 4, which goes with activations 'none' alone; it is {options.activations!r}")
    if options.group < 2 or options.group % 2:
        problems.append(f"group is {options.group}, allowed: even numbers from 2")
    ranges = calibration is not None and any(r.low or r.high for r in calibration.layers.values())
    if options.activations == "tensor" and not ranges and not samples:
        problems.append("activations is 'tensor', but there is no calibration to take static scales from")
    if options.max_error is not None and not 0 < options.max_error < float("inf"):
        problems.append(f"max_error is {options.max_error}, it must be over 0")
    if options.max_error is not None and not samples:
        problems.append("max_error needs samples to measure the error on")
    if problems:
        raise ArgumentError(all_problems(f"build: {settings.precision}", problems))
    check_method(options.method_for(settings.precision), options.percentile)


def guarded_engine(
    make: Callable[[Settings, Recipe | None], Made],
    settings: Settings,
    model: Callable[[], str],
    calibration: Calibration | str | os.PathLike[str] | Batch | Iterable[Batch] | None,
    options: QuantOptions,
    log: Log,
) -> Made:
    """The engine that `build` hands out: see `quantised_engine`.

    Without samples it is run once on made-up input, and must give something.
    """
    if isinstance(calibration, (str, os.PathLike)):
        calibration = Calibration.load(calibration)
    given = calibration if isinstance(calibration, Calibration) else None
    samples = [] if calibration is None or isinstance(calibration, Calibration) else collected(calibration)
    engine = quantised_engine(make, settings, model, given, samples, options, log)
    if not samples:
        program = engine.compiled.programs["encode"]
        length = min(_LENGTH, engine.max_length or _LENGTH)
        check_alive(engine.run(sample_run_inputs(program, engine.input_rules, 2, length)), settings.precision)
    return engine


def quantised_engine(
    make: Callable[[Settings, Recipe | None], Made],
    settings: Settings,
    model: Callable[[], str],
    calibration: Calibration | None,
    samples: Sequence[Batch],
    options: QuantOptions,
    log: Log,
) -> Made:
    """Builds, compares with the float engine on the samples, and keeps layers until the budget holds.

    Args:
        make: builds an engine from settings and a recipe.
        model: gives the hash of the model.
        samples: batches; none leaves out smoothing, comparison and budget.
    Raises:
        ArgumentError: options that cannot be used. CalibrationError: a calibration of another model.
        AccuracyError: zeros, constants, NaN, or a budget that cannot hold.
    """
    check_options(options, calibration, samples, settings)
    kind, on_a_gpu = EIGHT_BITS[settings.precision], settings.device != "cpu"
    known = calibration is not None or (on_a_gpu and bool(samples))
    static = options.activations == "tensor" or (options.activations is None and known)
    smooth = options.smooth and kind == "int8"
    if calibration is not None:
        calibration.check(model())
    plain = replace(settings, precision="fp32", rest="", tune=False, keep=(), graphs=False, apart=True)
    floats = make(plain, None) if samples else None
    alone = options.activations == "none"
    watching = None if floats is None or not options.compensate else Watching(floats, samples)
    if calibration is None and floats is not None and (smooth or static) and not alone:
        log(f"calibrating on {sequences(samples)} sequences")
        method = options.method_for(settings.precision)
        calibration = calibrate(
            floats, samples, "", method, options.percentile, smooth, not static,
            energy=kind != "int8", watching=None if watching is None else watching.seen,
        )  # fmt: skip
    recipe = Recipe() if calibration is None else recipe_of(calibration, static, kind)
    if alone:
        recipe = Recipe(weights_only=True, group=options.group if options.weight_bits == 4 else 0)
    recipe = replace(recipe, attention="attention" in options.quantise)
    if not smooth:
        recipe = replace(recipe, smoothing={})
    if watching is not None:
        recipe = replace(recipe, moments=watching.found())
    if floats is None:
        return make(settings, recipe)
    return _within(make, settings, recipe, floats, samples, options.max_error, log)


def _within(
    make: Callable[[Settings, Recipe | None], Made],
    settings: Settings,
    recipe: Recipe,
    floats: Made,
    samples: Sequence[Batch],
    most: float | None,
    log: Log,
) -> Made:
    """The engine with the fewest layers kept (of those that were tried) whose error is within the budget."""

    def tried(kept: Mapping[str, str]) -> tuple[Made, Comparison]:
        engine = make(settings, replace(recipe, kept={**recipe.kept, **kept}))
        found = compare(floats, engine, samples, settings.precision)
        said = f"{settings.precision} against float on {sequences(samples)} sequences"
        log(f"{said}: error {found.error:.3g}, {len(kept)} layers kept")
        return engine, found

    engine, found = tried({})
    first = found
    if most is not None and found.error > most:
        taken_apart = engine if settings.device == "cpu" else make(replace(settings, tune=False, apart=True), recipe)
        costs = sensitivity(floats, taken_apart, samples[0])
        order = sorted(costs, key=lambda name: -costs[name])
        what = "layers and attentions" if recipe.attention else "linear layers"
        reasons = {n: f"alone it moves the results by {costs[n]:.2g}; the budget is {most:g}" for n in order}
        too_few, enough, count = 0, None, 1
        while enough is None:
            count = min(count, len(order))
            candidate = tried({n: reasons[n] for n in order[:count]})
            if candidate[1].error <= most:
                enough = (count, *candidate)
            elif count == len(order):
                raise AccuracyError(
                    f"max_error {most:g} cannot hold: with all {count} {what} in {settings.floats} the error "
                    f"is {candidate[1].error:.3g} (in {settings.precision} {first.error:.3g}); allow more, or build in "
                    "fp32"
                )
            else:
                too_few, count = count, count * 2
        while enough[0] - too_few > 1:
            middle = (enough[0] + too_few) // 2
            candidate = tried({n: reasons[n] for n in order[:middle]})
            if candidate[1].error <= most:
                enough = (middle, *candidate)
            else:
                too_few = middle
        _, engine, found = enough
    for layer in engine.compiled.quantised:
        layer.error = found.layers.get(layer.name)
    engine.compiled.errors.update(found.outputs)
    return engine
