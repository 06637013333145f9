"""Quantisation: the modes. Schemes, calibration and kernels build on them."""
