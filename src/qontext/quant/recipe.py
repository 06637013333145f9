"""What a quantised build is told, and what it tells."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ..errors import ArgumentError
from ..ops.eight_bits import LEAST_RANGE, MOST
from .compensation import Rounding
from .moments import Moments

# What was seen may be passed by as much again: floats of 8 bits are as exact at half of their range as at its end.
_ROOM = 2.0


@dataclass(frozen=True)
class StaticScale:
    """Scale and zero (a byte; None for fp8, which holds 0 itself) of a tensor, and where they come from."""

    scale: float
    zero: int | None
    source: str

    @classmethod
    def of_range(cls, low: float, high: float, source: str, kind: str = "int8") -> "StaticScale":
        """That maps [low, high], with 0 in it, to 0..255; in fp8 the larger end to half of the largest number.

        Raises ArgumentError for a range that is not finite.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        if not torch.isfinite(torch.tensor([low, high])).all():
            raise ArgumentError(f"the range [{low}, {high}] is not finite, so it has no scale ({source})")
        if high - low < LEAST_RANGE:
            return cls(1.0, 0 if kind == "int8" else None, source)
        if kind != "int8":
            return cls(float(torch.tensor(_ROOM * max(-low, high) / MOST)), None, source)
        scale = float(torch.tensor((high - low) / 255.0))  # float32, as engine files hold it
        return cls(scale, min(255, max(0, round(-low / scale))), source)


@dataclass(frozen=True)
class Recipe:
    """How to quantise a graph; keys are names of nodes.

    scales:    static scales of what the layer reads; a layer without one finds its scales at run time, row by row
    kept:      layers that stay in the float type, with the reason
    smoothing: factors [K] by which what a layer reads is divided and its weight multiplied
    outliers:  how many times the median column the largest one reaches, for reports
    weights_only: weights are int8, what layers read and the product stay floats
    energies: mean squares [K] of the columns that a layer reads, by which fp8 weights are rounded
    place: where weights are rounded
    kind: what is multiplied, "int8" or "float8_e4m3"
    group:     with weights_only: weights are int4 in groups of that many along K; 0 for int8
    attention: attention multiplies eight bits too
    magnitudes: largest of Q, K and V by name of the attention, for static scales; without them they are found at run
                time
    source:    where the magnitudes come from
    moments:   of what the layer reads: its weight is rounded with compensation; others are rounded to the nearest
    rounded:   the weights in few bits that builds with this recipe made so far, and how they were rounded, by name
    """

    scales: Mapping[str, StaticScale] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)
    smoothing: Mapping[str, torch.Tensor] = field(default_factory=dict)
    outliers: Mapping[str, float] = field(default_factory=dict)
    weights_only: bool = False
    kind: str = "int8"
    energies: Mapping[str, torch.Tensor] = field(default_factory=dict)
    place: torch.device | None = None
    group: int = 0
    attention: bool = False
    magnitudes: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    source: str = ""
    moments: Mapping[str, Moments] = field(default_factory=dict)
    rounded: dict[str, tuple[tuple[torch.Tensor, ...], Rounding | None]] = field(default_factory=dict, compare=False)


@dataclass
class QuantLayer:
    """What became of one linear layer or attention.

    name, origin:  the node, and the module it comes from
    weights:       "int8", "float8_e4m3", "int4", or "float" for a layer that was kept
    scale:         where the scale of what it reads comes from
    operations:    multiply-adds a token, counted twice; 0 for attention, whose operations depend on the length
    smoothed:      its columns were smoothed
    outliers:      how many times the median column of what it reads the largest one reaches; 0 when nobody looked
    kept:          why it was kept, empty when it was quantised
    what:          "linear" or "attention"
    error:         relative RMS error of its result against the float engine on the samples, None when none were run
    rounding:      how its weight was rounded when samples were looked at for it, empty when not
    nearest, rounded: relative RMS error of its result by its weight alone, on rows of the samples that were held back:
                   each value rounded to the nearest, and as it was done; None when nobody looked
    """

    name: str
    origin: str
    weights: str
    scale: str
    operations: float
    kept: str = ""
    error: float | None = None
    smoothed: bool = False
    outliers: float = 0.0
    what: str = "linear"
    rounding: str = ""
    nearest: float | None = None
    rounded: float | None = None


IN_FLOATS = "none: int8 weights, products of floats"
IMPORTED = "of the imported model"
BY_ROW = "found for each token at run time"
IN_BYTES = "found at run time: for each token and head of Q and K, for each sequence and head of V"


def in_words(group: int) -> str:
    """What stands for a scale of activations where weights alone are in four bits."""
    return f"none: int4 weights in groups of {group}, products of floats"


def int8_share(layers: list[QuantLayer]) -> float:
    """The part of the linear layers' operations that is done in eight bits."""
    whole = sum(layer.operations for layer in layers)
    return sum(layer.operations for layer in layers if not layer.kept) / whole if whole else 0.0
