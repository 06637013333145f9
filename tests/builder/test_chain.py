"""Small kernels timed in a row."""

import pytest
import torch

from qontext.builder import chain
from qontext.builder.race import race_on_gpu
from qontext.builder.samples import Size, sample_inputs, sized_call
from qontext.builder.tune import bound
from qontext.graph.dims import symbol
from qontext.ops.call import Call, Operand
from qontext.ops.catalogue import BY_NAME
from qontext.ops.device import device_of
from qontext.ops.eager import candidates

LINEAR = BY_NAME["Linear"]
SIZE = Size(1, 128)


def linear(device="cpu", dtype="float32"):
    weight = torch.randn(64, 32, device=device, dtype=getattr(torch, dtype))
    x, y = (Operand(dtype, (symbol("T"), n)) for n in (32, 64))
    operands = (x, Operand(dtype, (64, 32), weight), *[None] * 5)
    call = Call("Linear", operands, (y,), {"activation": "none"}, device_of(device))
    sized = sized_call(call, SIZE)
    return sized, sample_inputs(LINEAR, sized, SIZE)


@pytest.mark.parametrize(("least", "count"), [(0, 8), (64 * 32 * 4 * 11, 11), (1 << 40, 48)])
def test_every_link_has_a_weight_of_its_own(least, count):
    call, inputs = linear()
    made = chain.with_own_weights(call, inputs, least)
    assert len(made) == count
    places = set()
    for one, given in made:
        assert one.inputs[1].constant is given[1]
        assert torch.equal(given[1], inputs[1])
        assert given[0] is inputs[0] and one.inputs[0] is call.inputs[0]
        places.add(given[1].data_ptr())
    assert len(places) == count


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_chain_takes_no_longer_than_its_links_alone():
    call, inputs = linear("cuda", "float16")
    able = candidates(LINEAR, call)[0][:-1]
    alone, failures = race_on_gpu([(k.name, bound(k, call, inputs, SIZE)) for k in able], 7)
    assert not failures
    stream = torch.cuda.current_stream()
    chained = chain.race_in_chains([(k, alone[k.name]) for k in able], call, inputs, SIZE, 7)
    assert torch.cuda.current_stream() == stream
    assert set(chained) == set(alone)
    for name, us in chained.items():
        assert 0.5 < us < 1.2 * alone[name]
