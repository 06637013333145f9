"""What calibration found, as a JSON file: a second run reads it and touches no data."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import ArgumentError, CalibrationError
from ..graph.model import Model
from ..graph.tensors import constant_of

_WHAT, _VERSION = "qontext calibration", 1
PARTS = ("/query", "/key", "/value")
"""What is added to the name of an attention for the ranges of its operands."""


@dataclass(frozen=True)
class LayerRange:
    """What one layer reads: the range that becomes 0..255, factors [K] that the columns are divided by before, and,
    where it was asked for, the mean squares [K] of the columns."""

    low: float
    high: float
    smoothing: tuple[float, ...] = ()
    outliers: float = 1.0
    energy: tuple[float, ...] = ()


@dataclass(frozen=True)
class Calibration:
    """Ranges of a model's layers.

    model:   hash of graph and weights; method, percentile: how the ranges were chosen
    samples: sequences that were seen
    layers:  by name of the linear layer; of attention by its name with one of PARTS
    """

    model: str
    method: str
    percentile: float
    samples: int
    layers: Mapping[str, LayerRange] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Where a scale comes from, in words."""
        chosen = f"{self.method} {self.percentile:g}" if self.method == "percentile" else self.method
        return f"{chosen} of {self.samples} samples"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the cache. Raises CalibrationError when it cannot be written."""
        data = {"what": _WHAT, "version": _VERSION, **asdict(self)}
        target = Path(path)
        fresh = target.with_name(f"{target.name}.{os.getpid()}.new")
        try:
            fresh.write_text(json.dumps(data, indent=1) + "\n")
            fresh.replace(target)
        except OSError as error:
            raise CalibrationError(f"cannot write the calibration {target}: {error}") from error
        finally:
            fresh.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Calibration":
        """Reads a cache. Raises CalibrationError for a file that is missing or is none."""
        try:
            data = json.loads(Path(path).read_text())
            if data["what"] != _WHAT or data["version"] != _VERSION:
                raise ValueError(f"it is {data['what']!r} version {data['version']!r}")
            layers = {str(n): _layer(row) for n, row in data["layers"].items()}
            numbers = float(data["percentile"]), int(data["samples"])
            return cls(str(data["model"]), str(data["method"]), *numbers, layers)
        except OSError as error:
            raise CalibrationError(f"cannot read the calibration {path}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CalibrationError(
                f"{path} is no calibration that this qontext reads ({type(error).__name__}: {str(error)[:200]}); "
                f"delete it and run `qontext calibrate MODEL --data FILE -o {path}`"
            ) from error

    def check(self, model: str, method: str | None = None, percentile: float | None = None) -> None:
        """Raises CalibrationError when this was made for another model, or (where given) by another method."""
        found = f"it was made by {self.source}"
        if self.model != model:
            raise CalibrationError(
                f"the calibration belongs to another model: its hash is {self.model[:12]}, the model's {model[:12]} "
                "(graph and weights); calibrate this model"
            )
        if method is not None and (method != self.method or (method == "percentile" and percentile != self.percentile)):
            asked = f"{method} {percentile:g}" if method == "percentile" and percentile is not None else method
            raise CalibrationError(f"the calibration was asked for by {asked}, but {found}; write to another file")


def _layer(row: Mapping[str, Any]) -> LayerRange:
    numbers = float(row["low"]), float(row["high"]), tuple(float(s) for s in row["smoothing"]), float(row["outliers"])
    energy = tuple(float(e) for e in row.get("energy", ()))
    if not all(math.isfinite(n) for n in (*numbers[:2], *numbers[2], *energy)) or not all(s > 0 for s in numbers[2]):
        raise ValueError("a range or a factor is not finite or not over 0")
    return LayerRange(*numbers, energy)


def model_hash(model: Model) -> str:
    """SHA-256 over the operators of the imported graph and all weights, by name."""
    hashed = hashlib.sha256()
    for node in model.graph:
        hashed.update(f"{node.domain}:{node.op_type}:{node.name};".encode())
    for name in sorted(model.graph.initializers):
        tensor = constant_of(model.graph.initializers[name])
        if tensor is None:
            raise ArgumentError(f"the weight {name!r} has no values")
        hashed.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        hashed.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
    return hashed.hexdigest()
