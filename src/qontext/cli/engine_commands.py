"""build, run, bench, doctor."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ArgumentError
from .calibrate_command import Samples
from .console import note, show, working
from .engines import open_engine
from .options import Device, Json, ModelArgument, Precision, Verbose


def build_command(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="the .qx file to write")],
    precision: Precision = "fp32",
    device: Device = "cpu",
    onnx: Annotated[Path | None, typer.Option(help="also write the fused model as ONNX")] = None,
    max_tokens: Annotated[int, typer.Option(help="largest batch x length of one run")] = 131_072,
    max_length: Annotated[int | None, typer.Option(help="longest sequence; the model's own when left out")] = None,
    tune: Annotated[bool, typer.Option(help="time rival kernels")] = True,
    graphs: Annotated[bool, typer.Option(help="on a GPU, capture CUDA graphs")] = True,
    keep: Annotated[
        list[str] | None, typer.Option(help="a layer that stays in floats; * stands for anything (repeatable)")
    ] = None,
    calibration: Annotated[Path | None, typer.Option(help="int8: what `qontext calibrate` wrote")] = None,
    samples: Samples = None,
    activations: Annotated[
        str | None, typer.Option(help="int8: scales by token (run time) or tensor (static), or none")
    ] = None,
    smooth: Annotated[bool, typer.Option(help="int8: smooth outliers")] = True,
    compensate: Annotated[bool, typer.Option(help="with samples: round weights with compensation")] = True,
    max_error: Annotated[float | None, typer.Option(help="int8: largest error on the samples")] = None,
    attention: Annotated[bool, typer.Option(help="int8, fp8: attention multiplies eight bits too")] = False,
    weight_bits: Annotated[int, typer.Option(help="with --activations none: 8, or 4 in groups")] = 8,
    group: Annotated[int, typer.Option(help="values along K that share a scale, with --weight-bits 4")] = 128,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Builds an engine file."""
    from ..calibration.quantise import QuantOptions
    from ..engine import build
    from ..importers import import_model
    from ..tasks.samples import read_samples

    if calibration is not None and samples is not None:
        raise ArgumentError("build: give --calibration (scales found before) or --samples (found now), not both")

    if model.endswith(".qx"):
        raise ArgumentError(f"build: {model} is an engine already; name the model it was built from")
    with working(f"building {model}") as tell:

        def log(text: str) -> None:
            tell(text)
            if verbose:
                note(text)

        limits = {"max_tokens": max_tokens, "max_length": max_length}
        source = import_model(model)
        parts = ("linear", "attention") if attention else ("linear",)
        options = QuantOptions(
            activations, smooth, max_error, quantise=parts, weight_bits=weight_bits, group=group, compensate=compensate
        )
        engine = build(
            source, precision, device, **limits, tune=tune, graphs=graphs, keep=keep or (), log=log,
            calibration=calibration if samples is None else list(read_samples(samples, source)),
            quantisation=None if options == QuantOptions() else options,
        )  # fmt: skip
        engine.save(output)
        if onnx is not None:
            engine.save_onnx(onnx)
    steps = len(engine.compiled.programs["encode"].steps)
    nodes = len(engine.compiled.ledger.sources)
    data = {
        "engine": str(output),
        "bytes": output.stat().st_size,
        "source_nodes": nodes,
        "steps": steps,
        "precision": precision,
        "errors": engine.compiled.errors,
        "kept": {layer.name: layer.kept for layer in engine.compiled.quantised if layer.kept},
    }
    show(data, json, lambda: f"{output}: {nodes} nodes -> {steps} steps, {precision}, {data['bytes'] / 1e6:.1f} MB")


def run_command(
    model: ModelArgument,
    inputs: Annotated[Path, typer.Option("--inputs", "-i", help="an .npz file with one array an input")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="write the outputs as .npz")] = None,
    precision: Precision = "fp32",
    device: Device = "cpu",
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Runs a model or an engine on arrays."""
    import numpy as np

    try:
        with np.load(inputs, allow_pickle=False) as arrays:
            given = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, AttributeError) as error:
        raise ArgumentError(f"cannot read {inputs}: {error}; it must be an .npz file of plain arrays") from error
    outputs = open_engine(model, precision, device, verbose, tune=False).run(given)
    if output is not None:
        np.savez(output, **outputs)
    data = {n: {"shape": list(a.shape), "dtype": str(a.dtype)} for n, a in outputs.items()}
    if json and output is None:
        for name, array in outputs.items():
            data[name]["values"] = array.tolist()
    show(data, json, lambda: "\n".join(f"{n}: {a.dtype}{list(a.shape)}\n{a}" for n, a in outputs.items()))


def bench_command(
    model: Annotated[str, typer.Argument(help="base, large, mini or minilm")] = "base",
    precision: Annotated[
        list[str] | None, typer.Option("--precision", "-p", help="fp32, bf16, int8 (repeatable)")
    ] = None,
    shape: Annotated[
        list[str] | None, typer.Option("--shape", help="batch x length, such as 8x128 (repeatable)")
    ] = None,
    ragged: Annotated[bool, typer.Option(help="the ragged batch of 64 too")] = True,
    peer: Annotated[list[str] | None, typer.Option("--peer", help="only these peers (repeatable)")] = None,
    seconds: Annotated[float, typer.Option(help="timed seconds a rival and round")] = 2.0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="write the record as JSON")] = None,
    json: Json = False,
) -> None:
    """Compares with torch, ONNX Runtime, OpenVINO and CTranslate2 in one process, outputs checked first."""
    import json as text

    from ..benchmark.encoders import SHAPES, run_benchmark
    from ..benchmark.int8_peers import INT8_PEERS
    from ..benchmark.peers import PEERS

    known = {**PEERS, **INT8_PEERS}
    unknown = [p for p in peer or [] if p not in known]
    if unknown:
        raise ArgumentError(f"bench: unknown peers {unknown}; allowed: {', '.join(known)}")
    wrong = [p for p in precision or [] if p not in ("fp32", "bf16", "int8")]
    if wrong:
        raise ArgumentError(f"bench: unknown precisions {wrong}; allowed: fp32, bf16, int8")
    record = run_benchmark(
        model,
        precision or ("fp32", "bf16"),
        [_shape(s) for s in shape] if shape else SHAPES,
        ragged,
        peer or (),
        seconds,
        say=note,
    )
    if output is not None:
        output.write_text(text.dumps(record, indent=1))
    show(record, json, lambda: text.dumps(record["summary"], indent=1))


def _shape(text: str) -> tuple[int, int]:
    try:
        batch, length = (int(x) for x in text.split("x"))
    except ValueError:
        raise ArgumentError(f"bench: shape {text!r} is not of the form 8x128") from None
    return batch, length


def doctor_command(json: Json = False) -> None:
    """Says what this machine offers and what is missing."""
    from .doctor import examine, render

    facts: dict[str, Any] = examine()
    show(facts, json, lambda: render(facts))


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command("build")(build_command)
    app.command("run")(run_command)
    app.command("bench")(bench_command)
    app.command("doctor")(doctor_command)
