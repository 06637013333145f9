"""explain, compare."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ArgumentError
from .console import note, show, working
from .engines import open_engine, read_texts
from .options import DEMO, Device, Json, ModelArgument, Precision, Verbose

_STAGES = ("imported", "fused")


def explain_command(
    model: ModelArgument = DEMO,
    html: Annotated[Path | None, typer.Option(help="write the report as one HTML file that opens offline")] = None,
    picture: Annotated[Path | None, typer.Option(help="write a picture of the graph: .svg or .dot")] = None,
    stage: Annotated[str, typer.Option(help="which graph the picture shows: imported or fused")] = "fused",
    only: Annotated[str, typer.Option(help="a module path, or 'attention' for the first attention block")] = "",
    batch: Annotated[int, typer.Option("--batch", "-b", help="sequences of the timed runs")] = 8,
    length: Annotated[int, typer.Option("--length", "-s", help="tokens a sequence")] = 128,
    measure: Annotated[bool, typer.Option(help="time every step")] = True,
    program: Annotated[str | None, typer.Option(help="of a decoder: encode, prefill or decode")] = None,
    against: Annotated[
        str, typer.Option(help="another MODEL or engine, or torch, or torch.compile: kernels of both by layer")
    ] = "",
    precision: Precision = "fp32",
    device: Device = "cpu",
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Says what was fused, what was not and why, and how fast every step is."""
    if stage not in _STAGES:
        raise ArgumentError(f"explain: stage is {stage!r}, allowed: {', '.join(_STAGES)}")
    if picture is not None:
        draw(model, picture, stage, only, precision, device, verbose)
        if html is None and not json:
            return
    from ..importers import import_model
    from ..report import explain
    from ..report.against import render

    with told_in(html, model):
        source = None if model.endswith(".qx") else import_model(model)
        engine = open_engine(source or model, precision, device, verbose)
        with working("measuring"):
            reference = source if precision != "fp32" else None
            report = explain(engine, batch, length, measure, program, reference)
        if against:
            report = report.beside(_other_side(engine, model, against, batch, length, precision, device, verbose))
        if html is not None:
            report.save(html)
            note(f"wrote {html}")
    if html is None or json:
        show(report.data, json, lambda: render(report.data["against"]) if against else str(report))


def _other_side(
    engine: Any, model: str, other: str, batch: int, length: int, precision: str, device: str, verbose: bool
) -> Any:
    """The engine beside torch, or beside another engine."""
    import os

    from ..report.against import TORCH, against, torch_model

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler writes a line for every start otherwise
    if other not in TORCH:
        return against(engine, open_engine(other, precision, device, verbose), batch=batch, length=length)
    with working(f"tracing {other}"):
        return against(engine, torch_model(model), batch=batch, length=length, compiled=TORCH[other])


def compare_command(
    model: ModelArgument,
    engine: Annotated[str, typer.Argument(metavar="ENGINE", help="a .qx engine built from MODEL; 'build' builds one")],
    data: Annotated[
        Path | None, typer.Option("--data", "-i", help="inputs: an .npz file, or .txt with one text a line")
    ] = None,
    tolerance: Annotated[float | None, typer.Option(help="largest relative RMS error of the outputs")] = None,
    precision: Precision = "fp32",
    device: Device = "cpu",
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Compares every step of an engine with the model it was built from, and finds where the error starts.

    Exits with 1 when an output is beyond the tolerance.
    """
    from ..importers import import_model
    from ..report.compare import compare

    source = import_model(model)
    built = open_engine(source if engine == "build" else engine, precision, device, verbose, tune=False)
    with working("comparing"):
        found = compare(source, built, None if data is None else _inputs(data, built), tolerance)
    show(found.data, json, lambda: str(found))
    if not found.ok:
        raise typer.Exit(1)


def _inputs(path: Path, engine: Any) -> dict[str, Any]:
    """The inputs of a run from a file: arrays, or texts for the tokenizer of the engine."""
    import numpy as np

    if path.suffix == ".txt":
        return _tokens(read_texts(None, path), engine)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, AttributeError) as error:
        raise ArgumentError(f"cannot read {path}: {error}; it must be an .npz file of plain arrays, or .txt") from error


@contextmanager
def told_in(html: Path | None, model: str) -> Iterator[None]:
    """When the model cannot be explained, the page says what is wrong; the error goes on to the command line."""
    try:
        yield
    except Exception as error:
        if html is not None:
            from ..report import failure

            failure(model, error).save(html)
            note(f"wrote {html}, which says what is wrong")
        raise


def draw(model: str, path: Path, stage: str, only: str, precision: str, device: str, verbose: bool) -> None:
    """Writes a picture of a graph. Raises ArgumentError for an ending that is no kind of picture."""
    from ..report import dot, svg
    from ..report.failure import write_page
    from ..report.picture import boxes_of

    if path.suffix not in (".svg", ".dot"):
        raise ArgumentError(f"explain: the picture is called {path.name!r}; its ending must be .svg or .dot")
    graph = _graph(model, stage, precision, device, verbose)
    title = f"{Path(model).name}, {stage}{f', {only}' if only else ''}"
    write_page(path, (svg if path.suffix == ".svg" else dot)(boxes_of(graph, only), title))
    note(f"wrote {path}")


def _graph(model: str, stage: str, precision: str, device: str, verbose: bool) -> Any:
    from ..importers import import_model

    if stage == "imported":
        if model.endswith(".qx"):
            raise ArgumentError(
                f"explain: {model} is an engine, which does not hold the imported graph; name its model"
            )
        return import_model(model).graph
    compiled = open_engine(model, precision, device, verbose, tune=False).compiled
    return compiled.fused if compiled.fused is not None else next(iter(compiled.programs.values())).graph


def _tokens(texts: list[str], engine: Any) -> dict[str, Any]:
    """Texts as one padded batch."""
    import numpy as np

    from ..tasks.tokenizer import Tokenizer

    if engine.tokenizer is None:
        raise ArgumentError("compare: the model has no tokenizer, so --data must be an .npz file of arrays")
    tokenizer = Tokenizer(engine.tokenizer, engine.config)
    found = tokenizer.tokens(texts, engine.max_length)
    longest = max(len(t.ids) for t in found)
    made = {
        "input_ids": [[*t.ids, *[tokenizer.pad_id] * (longest - len(t.ids))] for t in found],
        "attention_mask": [[1] * len(t.ids) + [0] * (longest - len(t.ids)) for t in found],
        "token_type_ids": [[*t.type_ids, *[0] * (longest - len(t.type_ids))] for t in found],
    }
    return {n: np.array(rows, dtype=np.int64) for n, rows in made.items() if n in engine.input_names}


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command("explain")(explain_command)
    app.command("compare")(compare_command)
