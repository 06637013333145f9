"""Frequencies of rotary embeddings with all their scalings, and turning queries and keys by them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..rotary_embedding.reference import reference as turn

Tensor = torch.Tensor
SCALINGS = ("none", "linear", "dynamic", "yarn", "llama3")
PAIRINGS = {"rope_gptj": "interleaved", "rope_gpt_neox": "half"}


@dataclass(frozen=True)
class Rotary:
    """Rotation of the first `size` elements of each head.

    pairing:       "half" (i with i + size / 2) or "interleaved" (2i with 2i + 1)
    base, scaling, factor: see the attributes of GptAttention
    trained:       length that the model was trained on
    low, high:     llama3: wavelengths beyond trained / low are stretched, below trained / high kept
                   yarn: pairs that turn less than `low` times over the trained length are stretched, more than `high`
                   times kept
    magnitude:     factor on cos and sin; 0 takes the scaling's own (yarn: 0.1 ln(factor) + 1)
    rounded:       yarn: the borders between pairs are whole numbers
    """

    size: int
    pairing: str
    base: float = 10000.0
    scaling: str = "none"
    factor: float = 1.0
    trained: int = 0
    low: float = 0.0
    high: float = 0.0
    magnitude: float = 0.0
    rounded: bool = True

    def frequencies(self, length: int) -> Tensor:
        """Angle a position turns each pair by, float64 [size / 2], for a sequence of `length` tokens."""
        base = self.base
        if self.scaling == "dynamic" and length > self.trained:
            stretch = self.factor * length / self.trained - (self.factor - 1)
            base *= stretch ** (self.size / (self.size - 2))
        plain = base ** -(torch.arange(0, self.size, 2, dtype=torch.float64) / self.size)
        if self.scaling == "linear":
            return plain / self.factor
        if self.scaling == "llama3":
            turns = self.trained * plain / (2 * math.pi)
            kept = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
            return plain / self.factor * (1 - kept) + plain * kept
        if self.scaling == "yarn":
            kept = 1 - self._stretched()
            return plain / self.factor * (1 - kept) + plain * kept
        return plain

    def _stretched(self) -> Tensor:
        """yarn: how much of each pair is interpolated, between 0 and 1."""

        def pair_that_turns(times: float) -> float:
            return self.size * math.log(self.trained / (times * 2 * math.pi)) / (2 * math.log(self.base))

        first, last = pair_that_turns(self.high), pair_that_turns(self.low)
        if self.rounded:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, self.size - 1)
        width = last - first if last != first else 0.001  # a border without width would divide by zero
        return ((torch.arange(self.size // 2, dtype=torch.float64) - first) / width).clamp(0, 1)

    @property
    def tempered(self) -> float:
        """The factor on cos and sin."""
        if self.magnitude:
            return self.magnitude
        return 0.1 * math.log(self.factor) + 1 if self.scaling == "yarn" and self.factor > 1 else 1.0

    @property
    def depends_on_length(self) -> bool:
        """Whether the angles of a position depend on how long its sequence is."""
        return self.scaling == "dynamic"

    def angles(self, positions: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """cos and sin, float64 [T, size / 2], of positions [T] of one sequence of `length` tokens."""
        angle = positions.double()[:, None] * self.frequencies(length)
        return angle.cos() * self.tempered, angle.sin() * self.tempered

    def turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Heads [T, N, D] turned by angles [T, size / 2], in the dtype of x."""
        flat = turn(
            x.flatten(1),
            cos.to(x.dtype),
            sin.to(x.dtype),
            layout="T (N D)",
            pairing=self.pairing,
            num_heads=x.shape[1],
        )
        return flat.view(x.shape)


class AngleTable:
    """cos and sin of positions, worked out once and longer when longer sequences come."""

    def __init__(self, rotary: Rotary):
        self.rotary = rotary
        self._cos = self._sin = torch.empty(0, rotary.size // 2)

    def look_up(self, positions: Tensor, longest: int) -> tuple[Tensor, Tensor]:
        """cos and sin, float32 [T, size / 2], of positions below `longest`."""
        if longest > len(self._cos):
            cos, sin = self.rotary.angles(torch.arange(max(2 * len(self._cos), longest, 256)), 0)
            self._cos, self._sin = cos.float(), sin.float()
        return self._cos[positions], self._sin[positions]


def rotary_of(attributes: Mapping[str, Any]) -> Rotary | None:
    """The rotation that GptAttention's attributes say, None when there is none."""
    pairing = PAIRINGS.get(attributes["position"])
    if pairing is None or not attributes["rotary_dim"]:
        return None
    return Rotary(
        attributes["rotary_dim"],
        pairing,
        attributes["rotary_base"],
        attributes["rotary_scaling"],
        attributes["rotary_factor"],
        attributes["rotary_max_positions"],
        attributes["rotary_low"],
        attributes["rotary_high"],
        attributes["rotary_magnitude"],
        attributes["rotary_rounded"],
    )
