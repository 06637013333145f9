"""Attention with any combination of heads, past, lengths, masks and windows means what ONNX Attention 25 means."""

import math

import numpy as np
import onnx.helper as oh
import torch
from attention_helpers import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from qontext.ops.attention.op import OP
from qontext.ops.declare import call_of
from qontext.ops.device import device_of

ONNX_NAMES = {"mask": "M", "past_key": "PK", "past_value": "PV", "key_lengths": "L"}


@st.composite
def problems(draw):
    key_heads, groups = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    return {
        "sizes": (draw(st.integers(1, 2)), draw(st.integers(1, 6)), draw(st.integers(1, 9))),
        "heads": (key_heads * groups, key_heads),
        "head_sizes": (draw(st.sampled_from([8, 16, 20])), draw(st.sampled_from([8, 24]))),
        "joined": draw(st.booleans()),
        "cache": draw(st.sampled_from(["none", "past", "lengths"])),
        "mask": draw(st.sampled_from(["none", "bool", "additive", "infinite"])),
        "kind": draw(st.sampled_from(["full", "causal"])),
        "window": (draw(st.sampled_from([-1, 0, 2])), draw(st.sampled_from([-1, 0, 3]))),
        "softcap": draw(st.sampled_from([0.0, 1.5])),
        "seed": draw(st.integers(0, 1000)),
    }


def onnx_context(arrays: dict[str, np.ndarray], attributes: dict[str, object]) -> torch.Tensor:
    """The context that onnx's reference computes in float64."""
    order = ["Q", "K", "V", "M", "PK", "PV", "L"]
    names = [n if n in arrays else "" for n in order]
    while not names[-1]:
        names.pop()
    outputs = ["Y", "", ""] if "PK" not in arrays else ["Y", "K2", "V2"]
    node = oh.make_node("Attention", names, [n for n in outputs if n], **attributes)
    kinds = {np.dtype(bool): TensorProto.BOOL, np.dtype(np.int64): TensorProto.INT64}
    given = [oh.make_tensor_value_info(n, kinds.get(a.dtype, TensorProto.DOUBLE), a.shape) for n, a in arrays.items()]
    graph = oh.make_graph([node], "one", given, [oh.make_tensor_value_info("Y", TensorProto.DOUBLE, None)])
    evaluator = ReferenceEvaluator(oh.make_model(graph, opset_imports=[oh.make_opsetid("", 25)]))
    return torch.from_numpy(np.asarray(evaluator.run(["Y"], arrays)[0]))


@settings(max_examples=60, deadline=None)
@given(problems())
def test_every_kernel_means_what_onnx_means(problem):
    generator = torch.Generator().manual_seed(problem["seed"])
    batch, length, key_length = problem["sizes"]
    heads, key_heads = problem["heads"]
    size, value_size = problem["head_sizes"]

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    past = int(torch.randint(0, 4, (), generator=generator)) if problem["cache"] == "past" else 0
    given = {
        "query": normal(batch, heads, length, size),
        "key": normal(batch, key_heads, key_length, size),
        "value": normal(batch, key_heads, key_length, value_size),
    }
    if problem["joined"]:
        given = {name: x.transpose(1, 2).flatten(2) for name, x in given.items()}
    if problem["cache"] == "past":
        given["past_key"] = normal(batch, key_heads, past, size)
        given["past_value"] = normal(batch, key_heads, past, value_size)
    if problem["cache"] == "lengths":
        given["key_lengths"] = torch.randint(0, key_length + 1, (batch,), generator=generator)
    if problem["mask"] != "none":
        allowed = torch.rand(batch, 1, length, past + key_length, generator=generator) < 0.7
        additive = torch.where(allowed, 0.0, -math.inf if problem["mask"] == "infinite" else -3.0)
        given["mask"] = allowed if problem["mask"] == "bool" else additive

    joined = {"q_num_heads": heads, "kv_num_heads": key_heads} if problem["joined"] else {}
    letters = {"query": "Q", "key": "K", "value": "V", **ONNX_NAMES}
    arrays = {letters[n]: (x.double() if x.is_floating_point() else x).numpy() for n, x in given.items()}
    left, right = problem["window"]
    attributes = {"left_window_size": left, "right_window_size": right, "is_causal": int(problem["kind"] == "causal")}
    want = onnx_context(arrays, {**joined, **attributes, "softcap": problem["softcap"]})

    inputs = [given.get(p.name) for p in OP.inputs]
    ours = {
        "layout": "B S (N D)" if problem["joined"] else "B N S D",
        "kind": problem["kind"],
        "window_left": left,
        "window_right": right,
        "softcap": problem["softcap"],
    }
    if problem["joined"]:
        ours |= {"num_heads": heads, "num_kv_heads": key_heads}
    call = call_of(OP, inputs, ours, (True, False, False, False), device_of("cpu"))
    assert_close(OP.reference(*inputs, **call.attributes)[0], want)
    for kernel in OP.kernels:
        if kernel.supports(call) is None:
            out = [torch.full(call.outputs[0].shape, math.nan), *[None] * 3] if kernel.writes_out else None
            assert_close(kernel.bind(call)(inputs, out)[0], want)
