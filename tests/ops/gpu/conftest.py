"""Triton's interpreter rounds to 8-bit floats wrongly across powers of two, and loses NaN: here torch rounds."""

import sys

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def right_rounding(monkeypatch):
    interpreter = sys.modules.get("triton.runtime.interpreter")
    if interpreter is None:
        yield
        return
    convert = interpreter._convert_float

    def rounded(values, source, target, mode):
        if target.primitive_bitwidth == 8 and source.primitive_bitwidth == 32:
            floats = torch.from_numpy(np.ascontiguousarray(values).view(np.float32))
            return floats.to(torch.float8_e4m3fn).view(torch.uint8).numpy()
        return convert(values, source, target, mode)

    monkeypatch.setattr(interpreter, "_convert_float", rounded)
    yield


# One tile of QuantLinear, and the norm by several rows, stand for the others, whose code is the same.
SLOW = (
    "[triton.quant_tile.64x32x256]",
    "takes_inputs_with_gaps[triton.quant_tile.64x64x128]",
    "[triton.skip_layer_norm.by_warp]",
    "takes_inputs_with_gaps[triton.fp8_attention]",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.name.endswith(SLOW):
            item.add_marker(pytest.mark.slow)
