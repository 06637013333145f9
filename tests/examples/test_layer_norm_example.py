"""The LayerNorm plugin's own unit test, run as its README says."""

import re

import pytest
import torch

from qontext.errors import PluginError


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
