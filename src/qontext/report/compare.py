"""Compare: an engine against the model it was built from, step by step. Where does the error start?

The imported graph runs with the references. Then the engine runs twice on the same inputs: once as always, which gives
the error that has accumulated at each step; once with the reference put in place of every result as soon as it was
compared, which gives the error that each step adds by itself. When an output is beyond the tolerance, bisection finds
the first step after which it is too late: with all results up to there taken from the reference, the outputs are right.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch

from ..builder.plan import Step
from ..dtypes import by_name, from_torch, relative_rms
from ..engine import Engine
from ..errors import ArgumentError
from ..graph.model import Model
from ..ops.operators import operators
from ..runtime.inputs import Inputs
from ..runtime.profile import sample_run_inputs
from .counterparts import Tokens, aligned, check_same_model, exits, sizes_of
from .graphs import node_rows, step_links
from .layers import assign_layers
from .reference_run import run_reference

_WHOLE = 5.0
_INT8 = 2e-2  # relative RMS error of one int8 layer; its bytes themselves are exact
_VIEWS = frozenset(
    {"Reshape", "Transpose", "Identity", "Expand", "Slice", "Split", "Squeeze", "Unsqueeze", "Cast", "Flatten"}
    | {"UnpackTokens", "PackTokens", "PackIndex", "Dropout"}
)

Values = Mapping[int, list[torch.Tensor]]


@dataclass(frozen=True)
class Comparison:
    """The result: `data` is JSON-able, `str()` is text, `ok` says whether all outputs are within the tolerance."""

    data: dict[str, Any]

    @property
    def ok(self) -> bool:
        return bool(self.data["ok"])

    def __str__(self) -> str:
        from .compare_text import render

        return render(self.data)


def compare(
    model: Model, engine: Engine, inputs: Mapping[str, Any] | None = None, tolerance: float | None = None
) -> Comparison:
    """Compares every step of an engine with the model it was built from.

    Args:
        model: what `import_model` returns for the source of the engine.
        inputs: as for `engine.run`; made up (2 sequences of 24 tokens, one of them padded) when left out.
        tolerance: largest relative RMS error of outputs; five times that of the engine's type when left out, since
            the error of a single operator accumulates.
    Raises:
        ArgumentError: the engine was built from another model.
        InputError, ShapeError, DTypeError: as for `engine.run`.
    """
    check_same_model(model.ledger, engine.compiled.ledger)
    program = next(iter(engine.compiled.programs.values()))
    each = by_name(engine.precision).tolerance or _INT8
    limit = _WHOLE * each if tolerance is None else tolerance
    if not limit > 0:
        raise ArgumentError(f"compare: tolerance is {limit}, it must be above 0")
    given = _made_up(engine) if inputs is None else inputs
    prepared = Inputs(program, engine.input_rules, engine.settings.max_tokens, engine.max_length).prepare(given).tensors
    host = {name: tensor.cpu() for name, tensor in prepared.items()}
    values, outputs = _reference(model, engine, host)
    mask = host.get(model.attention_mask or "")
    run = _Run(engine, prepared, values, outputs, Tokens.of(mask))
    free, forced = run.measured(inject=False), run.measured(inject=True)
    rows = _rows(engine, each, free.errors, forced.errors, run.reasons)
    beyond = next((r["index"] for r in rows if r["error"] is not None and r["error"] > limit), None)
    ok = all(e <= limit for e in free.outputs.values())
    steps = program.steps
    data = {
        "model": model.name,
        "engine": engine.name,
        "precision": engine.precision,
        "device": program.device.name,
        "inputs": sizes_of(host),
        "tolerance": limit,
        "step_tolerance": each,
        "rows": rows,
        "compared": sum(r["error"] is not None for r in rows),
        "outputs": [{"name": n, "error": e} for n, e in free.outputs.items()],
        "ok": ok,
        "first_beyond": beyond,
        "wrong_by_itself": [r["index"] for r in rows if r["own"] is not None and r["own"] > _WHOLE * r["allowed"]],
        "bisection": None if ok else _bisect(len(steps), lambda k: run.measured(inject=True, before=k).worst, limit),
    }
    return Comparison(data)


def _made_up(engine: Engine) -> dict[str, torch.Tensor]:
    program = next(iter(engine.compiled.programs.values()))
    length = min(24, engine.max_length or 24)
    made = sample_run_inputs(program, engine.input_rules, 2, length)
    for name, tensor in made.items():
        if "mask" in name and tensor.dim() == 2:
            tensor[-1, length // 2 + 1 :] = 0
    return made


def _reference(
    model: Model, engine: Engine, inputs: Mapping[str, torch.Tensor]
) -> tuple[dict[int, list[torch.Tensor]], dict[str, torch.Tensor]]:
    """Reference values by step, and of the outputs by name."""
    program = next(iter(engine.compiled.programs.values()))
    wanted = exits(model.graph, program.steps)
    place: dict[ir.Value, list[int]] = {}
    for index, found in enumerate(wanted):
        for value in found:
            place.setdefault(value, []).append(index)
    held: dict[ir.Value, torch.Tensor] = {}

    def seen(node: ir.Node, results: Sequence[torch.Tensor | None]) -> None:
        for value, tensor in zip(node.outputs, results, strict=False):
            if tensor is not None and (value in place or value.is_graph_output()):
                held[value] = tensor.detach().clone()

    run_reference(model.graph, inputs, operators(engine.compiled.plugins), seen)
    values = {i: [held[v] for v in found if v in held] for i, found in enumerate(wanted)}
    return values, {str(v.name): held[v] for v in model.graph.outputs if v in held}


@dataclass
class _Measured:
    """Errors of one run: by step (relative RMS, largest difference), and of the outputs."""

    errors: dict[int, tuple[float, float]]
    outputs: dict[str, float]

    @property
    def worst(self) -> float:
        return max(self.outputs.values(), default=0.0)


class _Run:
    """An engine with the reference values of its steps."""

    def __init__(
        self,
        engine: Engine,
        inputs: Mapping[str, torch.Tensor],
        values: Values,
        outputs: Mapping[str, torch.Tensor],
        tokens: Tokens,
    ):
        self.engine, self.inputs, self.values, self.outputs, self.tokens = engine, inputs, values, outputs, tokens
        self.reasons: dict[int, str] = {}

    def measured(self, inject: bool, before: int | None = None) -> _Measured:
        """Errors of a run; with `inject`, results of the steps (those before a position) become the reference's."""
        errors: dict[int, tuple[float, float]] = {}
        index = 0

        def tap(step: Step, results: tuple[torch.Tensor | None, ...]) -> None:
            nonlocal index
            references = self.values.get(index, [])
            for out in results if references else ():
                held = None if out is None else out.cpu()
                expected = None if held is None else aligned(references, held, self.tokens)
                if out is None or held is None or expected is None:
                    continue
                error = relative_rms(held, expected), _largest(held, expected)
                errors[index] = max(errors.get(index, (0.0, 0.0)), error)
                if inject and (before is None or index < before) and step.op not in _VIEWS:
                    out.copy_(expected)
            if index not in errors:
                self.reasons[index] = _why_not(step, references, results)
            index += 1

        got = self.engine.run(self.inputs, tap, output_device="cpu")
        errors_out = {}
        for name, out in got.items():
            expected = aligned([self.outputs[name]], out, self.tokens) if name in self.outputs else None
            errors_out[name] = relative_rms(out, expected) if expected is not None else float("inf")
        return _Measured(errors, errors_out)


def _largest(out: torch.Tensor, expected: torch.Tensor) -> float:
    return float((out.double() - expected.double()).abs().max()) if out.numel() else 0.0


def _why_not(step: Step, references: Sequence[torch.Tensor], results: Sequence[torch.Tensor | None]) -> str:
    if not step.ids:
        return "the imported graph has no such step"
    if not references:
        return "its nodes give nothing that is read outside of them"
    shapes = " or ".join(str(list(r.shape)) for r in references)
    return (
        f"the reference is {shapes}, the step gives {', '.join(str(list(r.shape)) for r in results if r is not None)}"
    )


def _rows(
    engine: Engine,
    each: float,
    free: Mapping[int, tuple[float, float]],
    own: Mapping[int, tuple[float, float]],
    reasons: Mapping[int, str],
) -> list[dict[str, Any]]:
    program = next(iter(engine.compiled.programs.values()))
    rows = []
    for index, (step, link) in enumerate(zip(program.steps, step_links(program), strict=True)):
        dtype = next((o.type.torch for o in step.call.outputs if o is not None), torch.float32)
        rows.append(
            {
                "index": index,
                "name": step.name,
                "op": step.op,
                "kernel": step.kernels,
                "origin": step.origin,
                "sources": list(step.ids),
                "reads": link["reads"],
                "error": free[index][0] if index in free else None,
                "largest": free[index][1] if index in free else None,
                "own": own[index][0] if index in own else None,
                "allowed": max(from_torch(dtype).tolerance, each),
                "not_compared": reasons.get(index, "") if index not in free else "",
            }
        )
    layers = assign_layers(node_rows(engine.compiled.ledger, program.steps), rows)
    for row in rows:
        row["layer"] = layers[row["layer"]]["title"]
    return rows


def _bisect(count: int, worst: Callable[[int], float], limit: float) -> dict[str, Any]:
    """The first step up to which results must be the reference's for the outputs to come right."""
    low, high, runs = 0, count, [(count, worst(count))]
    if runs[0][1] > limit:
        return {"step": None, "runs": runs, "why": "the outputs stay wrong even after the reference's own results"}
    while low < high:
        middle = (low + high) // 2
        error = worst(middle)
        runs.append((middle, error))
        low, high = (low, middle) if error <= limit else (middle + 1, high)
    return {"step": low - 1, "runs": runs, "why": ""}
