"""What few bits cost on the real MiniLM, by precision and by how weights were rounded: accuracy alone, no times.

Sentence embeddings as in `accuracy.py`, of the same sentences, calibrated on the same others. What runs on a GPU runs
here by the references of the operators where there is none.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..calibration.quantise import QuantOptions
from ..quant.recipe import int8_share
from .accuracy import compared, qontext_engine, tokenised, torch_run
from .encoders import random_encoder
from .machine import machine
from .sentences import evaluation_sentences, sample_sentences

Say = Callable[[str], None]
BUDGET = 0.03  # largest relative RMS error of the last hidden state, of the schemes that keep layers


def schemes(device: str) -> dict[str, dict[str, Any]]:
    """Arguments of `build`, and whether samples are given; device: where fp8 runs, "cuda" for a fake too."""
    fp8: dict[str, Any] = {"precision": "fp8", "device": device, "tune": False}
    plain: dict[str, Any] = {"precision": "int8", "tune": False}
    given: dict[str, dict[str, Any]] = {
        "int8": {**plain},
        "int8, static scales": {**plain, "activations": "tensor"},
        "int8 weights": {**plain, "activations": "none"},
        **{
            f"int4 weights, groups of {group}": {**plain, "activations": "none", "weight_bits": 4, "group": group}
            for group in (32, 64, 128)
        },
        "fp8": fp8,
        f"fp8, layers kept until the error is under {BUDGET}": {**fp8, "max_error": BUDGET},
    }
    found: dict[str, dict[str, Any]] = {
        "int8, no samples": dict(plain),
        "fp8, no samples": dict(fp8),
    }
    for name, settings in given.items():
        for how, compensate in (("to the nearest", False), ("compensated", True)):
            if "max_error" in settings and not compensate:
                continue
            build = {k: v for k, v in settings.items() if k in ("precision", "device", "tune")}
            options = {k: v for k, v in settings.items() if k not in build}
            quantisation = QuantOptions(**options, compensate=compensate)
            found[f"{name}, {how}"] = {**build, "samples": True, "quantisation": quantisation}
    return found


def run_minilm(
    device: str,
    only: tuple[str, ...] = (),
    say: Say = print,
    keep: Callable[[Mapping[str, Any]], None] = lambda record: None,
) -> dict[str, Any]:
    """Measures every scheme whose name begins with one of `only` (all for none) and returns one JSON-able record.

    keep: called with the record after every scheme.
    """
    real = random_encoder("minilm")
    batches, samples = tokenised(evaluation_sentences()), tokenised(sample_sentences())
    result: dict[str, Any] = {
        "what": "accuracy of MiniLM in few bits",
        "machine": machine(),
        "fp8_by": "the references of the operators" if not torch.cuda.is_available() else "the kernels of the GPU",
        "sentences": len(batches),
        "samples": len(samples),
        "rows": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        real.save_pretrained(folder)
        for name, preset in schemes(device).items():
            if only and not name.startswith(only):
                continue
            run, engine = qontext_engine(Path(folder), samples, preset)
            layers = engine.compiled.quantised
            row = {
                "scheme": name,
                "share": int8_share(layers),
                **asdict(compared(run, torch_run(real), batches)),
                "kept": [layer.name for layer in layers if layer.kept],
                "weights_alone": [_errors(layer) for layer in layers if layer.nearest is not None],
            }
            result["rows"].append(row)
            keep(result)
            say(
                f"{name}: cosine mean {row['mean']:.5f}, least {row['least']:.5f}, nearest the same "
                f"{row['nearest']:.1%}, in 8 bits or fewer {row['share']:.0%}"
            )
    return result


def _errors(layer: Any) -> dict[str, Any]:
    return {"layer": layer.name, "to_the_nearest": layer.nearest, "as_rounded": layer.rounded}
