"""Calibration: what layers read on samples, scales made of it, and the guard rails of quantised engines."""

from .cache import Calibration, LayerRange
from .calibrate import calibrate
from .methods import METHODS

__all__ = ["METHODS", "Calibration", "LayerRange", "calibrate"]
