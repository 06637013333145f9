"""Puts this folder on the path, so that tests share `attention_steps`; and the devices that the grids run on."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qontext.ops import eager

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def place(request, monkeypatch):
    """The device that operands lie on. On a GPU its kernel takes them: the reference in its place is a failure."""
    import attention_steps

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    monkeypatch.setattr(attention_steps, "PLACE", torch.device(request.param))
    made = eager.reference_kernel

    def refused(op, device="cpu"):
        kernel = made(op, device)
        if device == "cpu":
            return kernel
        return replace(kernel, bind=lambda call: pytest.fail(f"{op.name} fell back on its reference"))

    monkeypatch.setattr(eager, "reference_kernel", refused)
    return attention_steps.PLACE
