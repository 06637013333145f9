"""From a calibration to the recipe of a quantised build."""

import torch

from ..quant.recipe import Recipe, StaticScale
from .cache import Calibration


def recipe_of(calibration: Calibration, static: bool, kind: str = "int8") -> Recipe:
    """Scales (when they are to be static) and smoothing factors of all layers."""
    scales = {}
    smoothing, energies = {}, {}
    for name, layer in calibration.layers.items():
        if static:
            scales[name] = StaticScale.of_range(layer.low, layer.high, calibration.source, kind)
        if layer.smoothing:
            smoothing[name] = torch.tensor(layer.smoothing, dtype=torch.float32)
        if layer.energy:
            energies[name] = torch.tensor(layer.energy, dtype=torch.float32)
    outliers = {name: layer.outliers for name, layer in calibration.layers.items()}
    return Recipe(scales, {}, smoothing, outliers, energies=energies)
