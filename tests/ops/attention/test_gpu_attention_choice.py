"""Which GPU kernel takes which attention, without a GPU: every refusal names the number that failed."""

import importlib.util

import pytest
import torch

from qontext.ops.attention_common.gpu import Longest, Sizes
from qontext.ops.attention_common.gpu_choice import block_of, plain_tile
from qontext.ops.attention_common.gpu_hopper import plan_for
from qontext.ops.call import Device
from qontext.ops.catalogue import BY_NAME
from qontext.ops.declare import call_of
from qontext.plugins.conformance import kernels_of

H200 = Device("cuda", frozenset({"sm_90"}), "NVIDIA H200")
OLD = Device("cuda", frozenset({"sm_75"}), "Tesla T4")
OP = BY_NAME["QKVToContext"]
needs_triton = pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="Triton is not installed")


def refusals(
    device=H200, size=64, dtype=torch.float16, layout="B S (three N D)", mask=None, lengths=None, **attributes
):
    """{kernel: why it refuses, None when it takes the call} for a projection of 2 sequences of 5 tokens, 3 heads."""
    shape = (10, 9 * size) if layout.startswith("T") else (2, 5, 9 * size)
    packed = (torch.tensor([0, 5, 10]).int(), torch.tensor(5).int()) if layout.startswith("T") else (None, None)
    inputs = [torch.zeros(shape, dtype=dtype), lengths, mask, None, *packed, None]
    attributes = {"num_heads": 3, "layout": layout, **attributes}
    outputs = attributes.pop("outputs", (True, False, False))
    call = call_of(OP, inputs, attributes, outputs, device)
    return {kernel.name: kernel.supports(call) for kernel in kernels_of(OP, "cuda")}


@needs_triton
def test_plain_attention_goes_to_the_kernels_without_masks():
    found = refusals()
    assert found["hopper.attention"] is None
    assert found["triton.attention"] is None
    assert "0 of its inputs are masks" in found["triton.masked_attention"]
    assert found["torch.sdpa_cuda"] is None


@needs_triton
@pytest.mark.parametrize(
    ("change", "plain", "masked"),
    [
        ({"mask": torch.ones(2, 5, dtype=torch.bool)}, "input 'mask' is given", None),
        ({"softcap": 30.0}, r"softcap is 30\.0", None),
        ({"lengths": torch.ones(2).int(), "empty_row": "uniform"}, "empty_row is 'uniform'", None),
        ({"size": 264}, "head size is 264; the kernel takes 1 to 256", "head size is 264"),
        ({"device": OLD}, "sm_75; the kernel needs sm_80", "sm_75"),
        ({"outputs": (True, True, False)}, "'scores' is wanted", "'scores' is wanted"),
    ],
)
def test_refusals_say_what_failed(change, plain, masked):
    found = refusals(**change)
    for name, words in (("triton.attention", plain), ("triton.masked_attention", masked)):
        if words is None:
            assert found[name] is None
        else:
            with pytest.raises(AssertionError, match=words):
                raise AssertionError(found[name])


@needs_triton
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": torch.float32}, "operands are float32"),
        ({"size": 80}, "head sizes are 80 and 80"),
        ({"kind": "causal"}, "kind is 'causal'"),
        ({"window_left": 3}, r"window is \(3, -1\)"),
        ({"device": Device("cuda", frozenset({"sm_100"}))}, "sm_100; the kernel is written for sm_90"),
    ],
)
def test_the_hopper_kernel_says_what_it_does_not_take(change, words):
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(refusals(**change)["hopper.attention"])


def test_kernels_that_read_lengths_back_refuse_packed_sequences():
    found = refusals(layout="T (three N D)")
    assert "is packed; the kernel would wait for the device" in found["torch.sdpa_cuda"]
    assert "is packed" in found["torch.bmm_cuda"]


def test_few_heads_are_shared_among_programs():
    one = plan_for(Sizes(1, 16, 1, 64, 64), Longest(384, 384), 132)
    assert one is not None and (one.tiles, one.share) == (6, 6)
    assert plan_for(Sizes(256, 16, 1, 64, 64), Longest(128, 128), 132) is None
    assert plan_for(Sizes(1, 16, 1, 64, 64), Longest(513, 513), 132) is None
    assert plan_for(Sizes(1, 16, 1, 128, 128), Longest(300, 300), 132) is None


@pytest.mark.parametrize("size", [8, 24, 52, 64, 104, 128, 256])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_tiles_fit_shared_memory(size, itemsize):
    """Keys and values in flight, and the queries, within the 227 KB that a program may have."""
    block = block_of(size)
    assert block >= max(size, 16)
    for queries, mean in ((1, 1), (128, 128), (384, 200), (8192, 8192)):
        tile = plain_tile(block, itemsize, queries, mean)
        held = (tile.queries + 2 * tile.keys * tile.stages) * block * itemsize
        assert held <= 227 << 10, tile
