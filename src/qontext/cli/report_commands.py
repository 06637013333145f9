"""explain, compare."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ArgumentError
from .console import note, show, working
from .engines import open_engine
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
    from ..report import explain

    with told_in(html, model):
        engine = open_engine(model, precision, device, verbose)
        with working("measuring"):
            report = explain(engine, batch, length, measure)
        if html is not None:
            report.save(html)
            note(f"wrote {html}")
    if html is None or json:
        show(report.data, json, lambda: str(report))


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


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command("explain")(explain_command)
