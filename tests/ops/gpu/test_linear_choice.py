"""Which of Linear's GPU kernels the planner gets to time, and the number in each refusal. Nothing is launched."""

import re
import subprocess
import sys

import pytest
import torch

from qontext.ops.call import Device
from qontext.ops.catalogue import BY_NAME
from qontext.ops.declare import call_of
from qontext.plugins.conformance import kernels_of, with_constants

pytest.importorskip("triton")
LINEAR = BY_NAME["Linear"]
EPILOGUE = {"activation": "gelu_erf"}


def refusals(rows, n, k, dtype=torch.float16, attributes=EPILOGUE, capability="sm_90", weight=None):
    """{kernel: None or why not} for a call of these sizes; `weight` is one that is a constant."""
    x, w, bias = (torch.empty(*s, dtype=dtype, device="meta") for s in ((rows, k), (n, k), (n,)))
    device = Device("cuda", frozenset({capability}), "some GPU")
    call = call_of(LINEAR, [x, w, bias, None, None, None, None], attributes, [True], device)
    if weight is not None:
        call = with_constants(call, [x, weight, bias, None, None, None, None])
    return {kernel.name: kernel.supports(call) for kernel in kernels_of(LINEAR, "cuda")}


def able(*sizes, **settings):
    return [name for name, reason in refusals(*sizes, **settings).items() if reason is None]


@pytest.mark.parametrize("rows", [1, 128, 384, 1024, 16384])
@pytest.mark.parametrize(("n", "k"), [(3072, 768), (768, 3072), (4096, 1024)])
def test_few_rivals_are_timed(rows, n, k):
    found = able(rows, n, k)
    assert found[0] == "cublas.linear"
    assert 2 <= len(found) <= 7, found


def test_rivals_by_the_number_of_rows():
    assert "gluon.linear" in able(16384, 4096, 1024)
    assert not [name for name in able(16384, 4096, 1024) if "tile" in name]
    assert not [name for name in able(128, 4096, 1024) if "tile" not in name and name != "cublas.linear"]
    weight = torch.empty(3072, 768, dtype=torch.float16, device="meta")
    assert [name for name in able(128, 3072, 768, weight=weight) if "early" in name]
    assert not [name for name in able(384, 3072, 768, weight=weight) if "early" in name]
    assert not [name for name in able(128, 3072, 768, weight=weight, capability="sm_80") if "early" in name]


def joined(rows, n, k, capability="sm_90"):
    """Refusals of LinearSkipLayerNorm with constant weights."""
    shapes = ((rows, k), (n, k), (rows, n), (n,), (n,), (n,))
    tensors = [torch.empty(*s, dtype=torch.float16, device="meta") for s in shapes]
    op, device = BY_NAME["LinearSkipLayerNorm"], Device("cuda", frozenset({capability}), "some GPU")
    call = with_constants(call_of(op, tensors, {}, op.wanted(()), device), tensors)
    return {kernel.name: kernel.supports(call) for kernel in kernels_of(op, "cuda")}


@pytest.mark.parametrize(("n", "k"), [(768, 768), (768, 3072), (1024, 1024), (1024, 4096)])
def test_products_are_left_in_parts_for_few_rows(n, k):
    few = [name for name, reason in joined(128, n, k).items() if reason is None]
    assert 6 <= len(few) <= 9, few
    assert [name for name in few if re.search(r"early.*x\d+x\d+ \+ norm", name)]
    assert [name for name in few if re.search(r"tile.*\.k\d \+ norm", name)]
    assert [n for n, reason in joined(16384, n, k).items() if reason is None] == ["cublas.linear + norm"]


def test_refusals_of_parts_name_the_number_that_failed():
    few, old, long = joined(128, 64, 256), joined(128, 64, 768, "sm_80"), joined(128, 64, 8192)
    assert few["gluon.linear_early.64x64x256 + norm"] == "K is 256: 1 parts, the reader adds 2 to 12"
    assert "the device is sm_80" in old["gluon.linear_early.64x64x256 + norm"]
    assert long["gluon.linear_early.64x64x256 + norm"] == "K is 8192: 32 parts, the reader adds 2 to 12"
    weight = torch.empty(64, 8192, dtype=torch.float16, device="meta")
    whole = refusals(128, 64, 8192, weight=weight)["gluon.linear_early.64x64"]
    assert whole == "K is 8192: 1081344 bytes of shared memory, a program may take 225280"


@pytest.mark.parametrize("capability", ["sm_80", "sm_120"])
def test_other_gpus_get_what_they_can_run(capability):
    assert able(16384, 4096, 1024, capability=capability) == ["cublas.linear"]
    assert len(able(128, 4096, 1024, capability=capability)) > 1
    assert f"the device is {capability}" in refusals(16384, 4096, 1024, capability=capability)["gluon.linear"]


def test_a_plain_product_is_left_to_the_library():
    assert able(16384, 1024, 1024, attributes={"activation": "none"}) == ["cublas.linear"]


@pytest.mark.parametrize(
    ("sizes", "settings", "wanted"),
    [
        ((128, 20, 768), {}, r"the weight is \[20, 768\]"),
        ((128, 64, 33), {}, r"the weight is \[64, 33\]"),
        ((128, 64, 768), {"dtype": torch.float32}, "its operands are float32"),
        ((5000, 64, 768), {}, "5000 rows, this tile is meant for at most"),
        ((128, 64, 768), {}, "the weight is computed at run time"),
        ((100, 64, 768), {}, "100 rows, this kernel is meant for at least"),
    ],
)
def test_refusals_name_the_number_that_failed(sizes, settings, wanted):
    reasons = [reason for reason in refusals(*sizes, **settings).values() if reason is not None]
    assert any(re.search(wanted, reason) for reason in reasons), reasons


def test_triton_is_imported_for_kernels_alone():
    code = "import sys, qontext.ops.catalogue; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
