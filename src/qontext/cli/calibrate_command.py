"""calibrate."""

from pathlib import Path
from typing import Annotated

import typer

from .console import counting, show
from .options import Json, ModelArgument

Samples = Annotated[Path | None, typer.Option(help="samples: a text file of one text a line, or an .npz of inputs")]
Length = Annotated[
    int | None, typer.Option("--length", help="tokens a sample is cut to; the model's limit if left out")
]


def calibrate_command(
    model: ModelArgument,
    data: Annotated[Path, typer.Option("--data", help="a text file of one text a line, or an .npz of inputs")],
    output: Annotated[Path, typer.Option("--output", "-o", help="the cache: read when it is there, else written")],
    method: Annotated[str, typer.Option(help="min-max, percentile, entropy or mse")] = "percentile",
    percentile: Annotated[float, typer.Option(help="per cent of the values that a range holds")] = 99.99,
    batch: Annotated[int, typer.Option("--batch", "-b", help="sequences a run", min=1)] = 8,
    count: Annotated[int | None, typer.Option("--samples", "-n", help="sequences to take; all if left out")] = None,
    length: Length = None,
    smooth: Annotated[bool, typer.Option(help="search smoothing factors (a second pass)")] = True,
    json: Json = False,
) -> None:
    """Finds static scales of linear layers on samples and keeps them in a file."""
    from ..engine import calibrate
    from ..importers import import_model
    from ..tasks.samples import read_samples

    source = import_model(model)
    there = output.exists()
    with counting("calibrating", 100) as advance:
        shown = 0

        def progress(done: int, of: int) -> None:
            nonlocal shown
            part = 100 * done // max(of, 1)
            advance(part - shown)
            shown = part

        found = calibrate(
            source, lambda: read_samples(data, source, batch, length), method, percentile,
            cache=output, count=count, smooth=smooth, progress=progress,
        )  # fmt: skip
    outliers = sorted(((r.outliers, n) for n, r in found.layers.items()), reverse=True)[:5]
    result = {
        "cache": str(output),
        "read": there,
        "method": found.source,
        "layers": len(found.layers),
        "smoothed": sum(bool(r.smoothing) for r in found.layers.values()),
        "outliers": [{"layer": n, "largest_over_median_column": o} for o, n in outliers],
    }

    def text() -> str:
        did = "read, no data touched" if there else "written"
        lines = [f"{output}: {did}; {result['layers']} layers by {found.source}, {result['smoothed']} smoothed"]
        return "\n".join(lines + [f"  {n}: the largest column is {o:.1f} x the median" for o, n in outliers])

    show(result, json, text)


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command("calibrate")(calibrate_command)
