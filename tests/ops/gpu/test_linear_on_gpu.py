"""Linear's compiled kernels on sizes that the interpreter cannot do: many tiles a program, long K, odd edges."""

import pytest
import torch
import torch.nn.functional as F

from qontext.dtypes import by_name, relative_rms
from qontext.ops.catalogue import BY_NAME
from qontext.ops.declare import call_of
from qontext.ops.device import device_of
from qontext.ops.linear import gpu_alternating, gpu_early, gpu_persistent, gpu_tiles
from qontext.plugins.conformance import kernels_of, with_constants

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]
LINEAR, JOINED = BY_NAME["Linear"], BY_NAME["LinearSkipLayerNorm"]
OURS = (*gpu_tiles.KERNELS, *gpu_persistent.KERNELS, *gpu_alternating.KERNELS)
# Tiles of 128 x 128: more than there are multiprocessors, twice and five times as many; edges in every direction.
SIZES = ((2200, 1096, 520), (4111, 1352, 72), (300, 7000, 2056), (1, 136, 3080))


def problem(rows, n, k, dtype):
    torch.manual_seed(rows)
    x, bias, residual = (torch.randn(*s, device="cuda").to(dtype) for s in ((rows, k), (n,), (rows, n)))
    weight = (torch.randn(n, k, device="cuda") * k**-0.5).to(dtype)
    want = F.gelu(F.linear(x.double(), weight.double(), bias.double())) + residual.double()
    return [x, weight, bias, residual, None, None, None], want


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kernel", OURS, ids=lambda k: k.name)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_many_tiles_a_program(kernel, sizes, dtype):
    inputs, want = problem(*sizes, by_name(dtype).torch)
    call = call_of(LINEAR, inputs, {"activation": "gelu_erf"}, [True], device_of("cuda"))
    run = kernel.bind(call)
    first = torch.full_like(inputs[3], float("nan"))
    run(inputs, [first])
    assert relative_rms(first, want) <= by_name(dtype).tolerance
    for _ in range(20):  # a race would not give the same bits every time
        again = torch.full_like(first, float("nan"))
        run(inputs, [again])
        assert torch.equal(again, first)


def joined_problem(rows, k, n, dtype):
    torch.manual_seed(rows)
    shapes = ((rows, k), (n, k), (rows, n), (n,), (n,), (n,))
    inputs = [torch.randn(*s, device="cuda") for s in shapes]
    inputs[1] *= k**-0.5
    inputs = [t.to(dtype) for t in inputs]
    x, weight, skip, scale, shift, bias = (t.double() for t in inputs)
    return inputs, F.layer_norm(x @ weight.t() + bias + skip, (n,), scale, shift, 1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("sizes", [(128, 3072, 768), (77, 1096, 200), (1, 4096, 1024), (250, 520, 72)], ids=str)
@pytest.mark.parametrize("kernel", kernels_of(JOINED, "cuda"), ids=lambda k: k.name)
def test_parts_are_added_up(kernel, sizes, dtype):
    """The weights are constants here, so they may be read before the kernel in front has ended."""
    inputs, want = joined_problem(*sizes, by_name(dtype).torch)
    call = with_constants(call_of(JOINED, inputs, {}, [True, False], device_of("cuda")), inputs)
    if kernel.supports(call) is not None:
        pytest.skip(kernel.supports(call))
    run, first = kernel.bind(call), torch.full_like(inputs[2], float("nan"))
    run(inputs, [first, None])
    assert relative_rms(first, want) <= by_name(dtype).tolerance
    for _ in range(20):
        again = torch.full_like(first, float("nan"))
        run([t.clone() for t in inputs], [again, None])
        assert torch.equal(again, first)


@pytest.mark.parametrize("rows", [1, 64, 130])
def test_the_weight_may_be_asked_for_before_the_kernel_in_front_has_ended(rows):
    torch.manual_seed(rows)
    x, weight, bias = (torch.randn(*s, device="cuda").half() for s in ((rows, 1024), (200, 1024), (200,)))
    weight *= 1 / 32
    inputs = [x, weight, bias, None, None, None, None]
    call = with_constants(call_of(LINEAR, inputs, {"activation": "gelu_erf"}, [True], device_of("cuda")), inputs)
    (kernel,) = gpu_early.KERNELS
    assert kernel.supports(call) is None
    run, y = kernel.bind(call), torch.full((rows, 200), float("nan"), device="cuda", dtype=torch.float16)
    run(inputs, [y])
    want = F.gelu(F.linear(x.double(), weight.double(), bias.double()))
    assert relative_rms(y, want) <= by_name("float16").tolerance


@pytest.mark.parametrize("kernel", kernels_of(LINEAR, "cuda"), ids=lambda k: k.name)
def test_operands_that_begin_on_odd_addresses(kernel):
    """Two bytes past a multiple of 16, where copies by tensor maps cannot begin."""
    inputs, want = problem(400, 136, 72, torch.float16)

    def moved(tensor):
        room = torch.empty(tensor.numel() + 1, dtype=tensor.dtype, device="cuda")
        return room[1:].copy_(tensor.flatten()).view(tensor.shape)

    inputs = [None if t is None else moved(t) for t in inputs]
    call = call_of(LINEAR, inputs, {"activation": "gelu_erf"}, [True], device_of("cuda"))
    if kernel.supports(call) is not None:
        pytest.skip(kernel.supports(call))
    y = moved(torch.full_like(inputs[3], float("nan")))
    kernel.bind(call)(inputs, [y])
    assert relative_rms(y, want) <= by_name("float16").tolerance
