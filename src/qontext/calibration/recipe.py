"""From a calibration to the recipe of a quantised build."""

from collections.abc import Mapping

import torch

from ..quant.recipe import Recipe, StaticScale
from .cache import PARTS, Calibration, LayerRange


def recipe_of(calibration: Calibration, static: bool, kind: str = "int8") -> Recipe:
    """Scales (when they are to be static) and smoothing factors of all layers."""
    scales = {}
    smoothing, energies = {}, {}
    for name, layer in calibration.layers.items():
        if name.endswith(PARTS):
            continue
        if static:
            scales[name] = StaticScale.of_range(layer.low, layer.high, calibration.source, kind)
        if layer.smoothing:
            smoothing[name] = torch.tensor(layer.smoothing, dtype=torch.float32)
        if layer.energy:
            energies[name] = torch.tensor(layer.energy, dtype=torch.float32)
    outliers = {name: layer.outliers for name, layer in calibration.layers.items() if not name.endswith(PARTS)}
    magnitudes = _magnitudes(calibration.layers) if static else {}
    return Recipe(scales, {}, smoothing, outliers, magnitudes=magnitudes, source=calibration.source, energies=energies)


def _magnitudes(layers: Mapping[str, LayerRange]) -> dict[str, tuple[float, float, float]]:
    """The largest of Q, K and V, by attention."""
    found = {name: max(-layer.low, layer.high) for name, layer in layers.items()}
    stems = [name.removesuffix(PARTS[0]) for name in found if name.endswith(PARTS[0])]
    return {s: (found[s + PARTS[0]], found[s + PARTS[1]], found[s + PARTS[2]]) for s in stems}
