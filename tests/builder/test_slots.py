"""Constants where their readers want them. The device is torch's `meta`: it has places, and no memory."""

import onnx_ir as ir
import torch

from qontext.builder.slots import Slots
from qontext.graph.tensors import to_onnx
from qontext.ops.call import Device
from qontext.ops.catalogue import BY_NAME
from qontext.ops.infer import Inference

ELSEWHERE = Device("cuda", name="elsewhere", place="meta")


def constant(tensor, name):
    value = ir.Value(name=name, const_value=to_onnx(tensor, name))
    ir.Graph([], [], nodes=[], initializers=[value])
    return value


def slots(device=ELSEWHERE):
    return Slots(Inference(BY_NAME), device)


def test_weights_move_and_what_is_read_on_the_host_stays():
    found = slots()
    shape = constant(torch.tensor([2, -1]), "shape")
    weight = constant(torch.randn(3, 4), "weight")
    on_device, on_host = found.of(weight), found.of(shape, host=True)
    assert found.constants[on_device].device.type == "meta"
    assert found.constants[on_host].tolist() == [2, -1]
    assert found.operands[on_device].constant is found.constants[on_device]
    assert found.operands[on_device].shape == (3, 4)


def test_a_constant_read_on_both_sides_has_two_slots():
    found = slots()
    value = constant(torch.tensor([1.0]), "both")
    assert found.of(value) != found.of(value, host=True)
    assert [found.of(value), found.of(value, host=True)] == [found.of(value), found.of(value, host=True)]
    assert len(found.constants) == 2


def test_memory_that_two_constants_share_moves_once():
    found = slots()
    tensor = torch.randn(5, 2)
    a, b = found.of(constant(tensor, "a")), found.of(constant(tensor, "b"))
    other = found.of(constant(tensor.t().contiguous(), "c"))
    assert found.constants[a] is found.constants[b]
    assert found.constants[other] is not found.constants[a]


def test_computed_values_have_one_slot_and_absent_ones_none():
    found = slots()
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["T", 4]))
    assert found.of(value, host=True) == found.of(value) == found.of(value, host=True)
    assert found.of(None) == found.of(ir.Value(name="")) == -1


def test_on_the_host_nothing_is_told_apart():
    found = slots(Device())
    value = constant(torch.tensor([1.0]), "v")
    assert found.of(value) == found.of(value, host=True)
    assert found.constants[found.of(value)].device.type == "cpu"
