"""Fits the tables of `native/src/gelu_table.h`: what GELU loses below zero, by polynomials on 32 short intervals.

gelu(x) = max(x, 0) - |x| q(|x|) with q(a) = 1 - Phi(a), or the tanh form's stand-in for it. Interval i is centred at
i / 5; its polynomial in t = 5 a - i is the one of least largest relative error. The last interval is zero.

Usage: python tools/fit_gelu.py > src/qontext/native/src/gelu_table.h
"""

import math
from collections.abc import Callable

import numpy as np

STEPS_PER_UNIT, INTERVALS, DEGREE = 5, 32, 4


def lost_by_erf(a: float) -> float:
    return 0.5 * math.erfc(a / math.sqrt(2))


def lost_by_tanh(a: float) -> float:
    return 1 / (1 + math.exp(2 * math.sqrt(2 / math.pi) * (a + 0.044715 * a**3)))


def fit(function: Callable[[float], float], interval: int) -> np.ndarray:
    """Coefficients, constant first, by Lawson's reweighted least squares."""
    low = -0.5 if interval else 0.0
    t = low + (0.5 - low) * (1 - np.cos(np.pi * (np.arange(400) + 0.5) / 400)) / 2
    wanted = np.array([function((interval + at) / STEPS_PER_UNIT) for at in t])
    powers = np.vander(t, DEGREE + 1, increasing=True) / wanted[:, None]
    weight, best, least = np.ones(400), np.zeros(DEGREE + 1), math.inf
    for _ in range(60):
        root = np.sqrt(weight)
        found = np.linalg.lstsq(powers * root[:, None], root, rcond=None)[0]
        error = np.abs(powers @ found - 1)
        if error.max() < least:
            least, best = error.max(), found
        weight *= np.sqrt(error / error.max()) + 1e-9
        weight /= weight.max()
    return best


def table(name: str, function: Callable[[float], float]) -> str:
    columns = [fit(function, i) for i in range(INTERVALS - 1)] + [np.zeros(DEGREE + 1)]
    lines = []
    for row in np.stack(columns, axis=1).astype(np.float32):
        numbers = [f"{value:.9g}" for value in row.tolist()]
        numbers = [n if any(c in n for c in ".e") else n + ".0" for n in numbers]
        parts = [", ".join(f"{n}f" for n in numbers[i : i + 8]) for i in range(0, INTERVALS, 8)]
        lines.append("    {" + ",\n     ".join(parts) + "},")
    return f"alignas(64) constexpr float {name}[{DEGREE + 1}][{INTERVALS}] = {{\n" + "\n".join(lines) + "\n};"


print("// Made by tools/fit_gelu.py, which says what the numbers are.\n#pragma once\n")
print("namespace qx {\nnamespace QX_NS {\n")
print(f"constexpr float gelu_steps_per_unit = {STEPS_PER_UNIT}.0f;")
print(f"constexpr int gelu_degree = {DEGREE}, gelu_intervals = {INTERVALS};\n")
print(table("lost_by_erf", lost_by_erf) + "\n")
print(table("lost_by_tanh", lost_by_tanh) + "\n")
print("}  // namespace QX_NS\n}  // namespace qx")
