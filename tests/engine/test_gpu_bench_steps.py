"""The record of an encoder's time by kernel, as far as it needs no GPU."""

import torch
from networks import encoder

import qontext as qx
from qontext.benchmark.gpu_steps import by_kernel
from qontext.ops.catalogue import BY_NAME
from qontext.runtime.ceilings import Ceilings
from qontext.runtime.inputs import Inputs
from qontext.runtime.profile import profile


def test_steps_are_summed_up_by_kernel_and_shape():
    engine = qx.build(encoder(), tune=False)
    executor = engine._executors["encode"]
    inputs = Inputs(executor.program, engine.input_rules, 100, None).prepare({"input_ids": torch.ones(2, 8).long()})
    steps = profile(executor, BY_NAME, inputs.tensors)
    rows = by_kernel(steps.steps, Ceilings(1e9, {"float32": 1e9}), steps.sizes)
    assert sum(r["count"] for r in rows) == len(steps.steps)
    assert abs(sum(r["us"] for r in rows) - sum(s.us for s in steps.steps)) < 1e-6
    assert [r["us"] for r in rows] == sorted((r["us"] for r in rows), reverse=True)
    layer = next(r for r in rows if r["op"] == "Linear")
    assert layer["least_us"] == max(layer["bytes"], layer["flops"]) / 1e3
