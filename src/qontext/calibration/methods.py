"""How the range that becomes 0..255 is chosen from a histogram: min-max, percentile, entropy, mean squared error."""

from collections.abc import Callable, Mapping

import torch

from .histogram import BINS, Histogram

Range = tuple[float, float]
_LEVELS = 256


def min_max(seen: Histogram, percentile: float) -> Range:
    """All that was seen."""
    return seen.low, seen.high


def by_percentile(seen: Histogram, percentile: float) -> Range:
    """The range that holds `percentile` per cent of the values, the others half at each end."""
    tail = (100.0 - percentile) / 200.0 * seen.total
    below = seen.counts.cumsum(0)
    edges = torch.linspace(-seen.reach, seen.reach, BINS + 1, dtype=torch.float64)
    low = edges[int(torch.searchsorted(below, tail, right=True))]
    high = edges[int(torch.searchsorted(below, seen.total - tail)) + 1]
    return max(seen.low, float(low)), min(seen.high, float(high))


def by_squares(seen: Histogram, percentile: float) -> Range:
    """The range that makes the least mean squared error, cut and rounded."""
    centres = seen.centres
    best, least = (seen.low, seen.high), float("inf")
    for low, high in _candidates(seen):
        scale = (high - low) / (_LEVELS - 1)
        back = ((centres.clamp(low, high) - low) / scale).round() * scale + low
        error = float((seen.counts * (back - centres) ** 2).sum())
        if error < least:
            best, least = (low, high), error
    return best


def by_entropy(seen: Histogram, percentile: float) -> Range:
    """The range whose 256 levels lose the least information (Kullback-Leibler divergence) about the histogram.

    The reference is the histogram with what lies outside moved to the ends of the range; the candidate spreads every
    level over the bins that it stands for and that hold something.
    """
    centres = seen.centres
    best, least = (seen.low, seen.high), float("inf")
    for low, high in _candidates(seen):
        inside = (centres >= low) & (centres <= high)
        bins = int(inside.sum())
        if bins < 2 * _LEVELS:  # fewer bins lose nothing, whatever the range
            continue
        first = int(inside.nonzero()[0])
        wanted = seen.counts[first : first + bins].clone()
        held = wanted.clone()
        wanted[0] += seen.counts[:first].sum()
        wanted[-1] += seen.counts[first + bins :].sum()
        level = torch.arange(bins) * min(_LEVELS, bins) // bins
        there = (held > 0).double()
        mass = torch.zeros(_LEVELS, dtype=torch.float64).index_add_(0, level, held)
        room = torch.zeros(_LEVELS, dtype=torch.float64).index_add_(0, level, there)
        spread = (mass / room.clamp_min(1))[level] * there
        p, q = wanted / wanted.sum(), (spread + 1e-12) / (spread.sum() + 1e-12 * bins)
        some = p > 0
        divergence = float((p[some] * (p[some] / q[some]).log()).sum())
        if divergence < least:
            best, least = (low, high), divergence
    return best


def _candidates(seen: Histogram) -> list[Range]:
    """Ranges that cut the two ends at one magnitude, in steps of 4 % down to a sixty-fourth."""
    most = max(-seen.low, seen.high)
    cuts = [most * 2.0 ** (-i / 16) for i in range(97)]
    ranges = [(max(seen.low, -cut), min(seen.high, cut)) for cut in cuts]
    return [r for r in dict.fromkeys(ranges) if r[1] > r[0]]


METHODS: Mapping[str, Callable[[Histogram, float], Range]] = {
    "min-max": min_max,
    "percentile": by_percentile,
    "entropy": by_entropy,
    "mse": by_squares,
}
