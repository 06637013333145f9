"""The LayerNorm plugin's own unit test, run as its README says."""

import importlib
import re
from pathlib import Path

import pytest
import torch

from qontext.errors import PluginError
from qontext.ops.call import Device
from qontext.plugins.conformance import (
    call_for,
    checked_cases,
    inputs_of,
    kernels_of,
    run_and_compare,
    with_gaps,
)

ROOT = Path(__file__).parents[2]


def test_the_unit_test_of_the_plugin_passes(run_example):
    done = run_example("layer_norm_plugin", "test_layer_norm_plugin.py")
    assert done.returncode == 0, done.stdout + done.stderr
    (error,) = re.findall(r"^check: True, largest error (\S+), allowed 6e-06$", done.stdout, re.MULTILINE)
    assert float(error) <= 6e-6
    assert "0  LayerNormPlugin  homework.layer_norm  -> float32[B, S, 768]" in done.stdout
    assert re.search(r"^\[4, 64, 768\]: \d+ us, [\d.]+ GB/s", done.stdout, re.MULTILINE)


def test_it_would_find_a_wrong_kernel(run_example, monkeypatch):
    """The same script while the operation that adds beta forgets it."""
    right = torch.addcmul
    monkeypatch.setattr(torch, "addcmul", lambda beta, x, gamma, out: right(torch.zeros_like(beta), x, gamma, out=out))
    with pytest.raises(PluginError, match=r"homework\.layer_norm, case 'one_token', float32: y: relative error"):
        run_example("layer_norm_plugin", "test_layer_norm_plugin.py")


def test_its_gpu_kernel_in_the_interpreter(monkeypatch):
    """The Triton kernel on every case, in float32 and float16, where no GPU compiles it."""
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("the unit test above runs the compiled kernel")
    monkeypatch.syspath_prepend(ROOT / "examples" / "layer_norm_plugin")
    op = importlib.import_module("layer_norm_plugin").LAYER_NORM
    device = Device("cuda", frozenset({"sm_90"}), "interpreter", "cpu")
    (kernel,) = kernels_of(op, "cuda")
    for case in checked_cases(op):
        for dtype in ("float32", "float16"):
            inputs = inputs_of(op, case, dtype)
            call = call_for(op, case, inputs, device)
            assert kernel.supports(call) is None
            assert run_and_compare(op, kernel, case, dtype, call, inputs) == []
            assert run_and_compare(op, kernel, case, dtype, call, with_gaps(inputs)) == []
