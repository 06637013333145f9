"""Meanings that changed between opsets, and corners that the node tests leave out, with ONNX Runtime as the oracle."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from interpreter import run_model
from node_cases import to_torch
from onnx import TensorProto, helper

from qontext.dtypes import from_torch, relative_rms

_RNG = np.random.default_rng(7)


def _floats(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return _RNG.standard_normal(shape).astype(dtype)


def _ints(*values: Any, dtype: Any = np.int64) -> np.ndarray:
    return np.array(values, dtype=dtype)


class Node(NamedTuple):
    """One node as a model of its own. An input that is None is absent."""

    op: str
    opset: int
    inputs: list[np.ndarray | None]
    attributes: Mapping[str, Any] | None = None
    outputs: int = 1

    def __str__(self) -> str:
        settings = "".join(
            f"-{k}={v}" for k, v in (self.attributes or {}).items() if isinstance(v, (int, float, str, list))
        )
        return f"{self.op}-{self.opset}{settings}"

    def model(self) -> onnx.ModelProto:
        names = ["" if x is None else f"x{i}" for i, x in enumerate(self.inputs)]
        outputs = [f"y{i}" for i in range(self.outputs)]
        node = helper.make_node(self.op, names, outputs, **(self.attributes or {}))
        kinds = {n: helper.np_dtype_to_tensor_dtype(x.dtype) for n, x in zip(names, self.inputs, strict=True) if n}
        graph = helper.make_graph(
            [node],
            "one_node",
            [helper.make_tensor_value_info(n, kinds[n], x.shape) for n, x in self.named().items()],
            [helper.make_empty_tensor_value_info(y) for y in outputs],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)

    def named(self) -> dict[str, np.ndarray]:
        return {f"x{i}": np.asarray(x) for i, x in enumerate(self.inputs) if x is not None}


X = _floats(2, 3, 4, 5)
TIES = _ints([3, 1, 3, 2, 3, 1], [5, 5, 0, 5, 0, 0], dtype=np.float32)

OPSETS = [
    # softmax over all axes from one on, then along one
    *[Node(op, 11, [X], {"axis": a}) for op in ("Softmax", "LogSoftmax", "Hardmax") for a in (0, 1, 2, -1)],
    *[Node(op, o, [X]) for op in ("Softmax", "LogSoftmax", "Hardmax") for o in (11, 12, 13, 21)],
    *[Node("Softmax", 13, [X], {"axis": a}) for a in (0, 1, -2)],
    # axes: attribute, then input
    Node("Squeeze", 11, [_floats(1, 3, 1, 2)]),
    Node("Squeeze", 11, [_floats(1, 3, 1, 2)], {"axes": [0, -2]}),
    Node("Squeeze", 13, [_floats(1, 3, 1, 2), _ints(-2)]),
    Node("Unsqueeze", 11, [X], {"axes": [0, 5]}),
    Node("Unsqueeze", 13, [X, _ints(-1, 1)]),
    Node("ReduceSum", 11, [X], {"axes": [1, -1], "keepdims": 0}),
    Node("ReduceSum", 13, [X, _ints(1, -1)], {"keepdims": 0}),
    Node("ReduceSum", 13, [X], {"noop_with_empty_axes": 1}),
    Node("ReduceMean", 13, [X], {"axes": [-1]}),
    Node("ReduceMean", 18, [X, _ints(-1, 0)]),
    Node("ReduceMean", 18, [_ints([-7, 2], [4, 9], dtype=np.int32), _ints(1)]),
    Node("ReduceMax", 12, [X]),
    Node("ReduceMin", 18, [X, _ints(2)], {"keepdims": 0}),
    Node("ReduceProd", 13, [X], {"axes": [0, 3]}),
    Node("ReduceL2", 11, [X], {"axes": [1]}),
    Node("ReduceSumSquare", 18, [X, _ints(1)], {"noop_with_empty_axes": 1}),
    Node("ReduceLogSumExp", 13, [X], {"axes": [2, 3]}),
    # split
    Node("Split", 11, [X], {"axis": 3, "split": [1, 4]}, 2),
    Node("Split", 11, [X], {"axis": 2}, 2),
    Node("Split", 13, [X, _ints(2, 0, 3)], {"axis": -1}, 3),
    Node("Split", 18, [X], {"axis": 3, "num_outputs": 3}, 3),
    # reshape, slice, pad
    Node("Reshape", 13, [X, _ints(0, -1, 5)]),
    Node("Reshape", 14, [_floats(0, 4), _ints(2, 0)], {"allowzero": 1}),
    Node("Flatten", 13, [X], {"axis": -2}),
    Node("Flatten", 11, [X], {"axis": 4}),
    Node("Expand", 13, [_floats(3, 1), _ints(2, 1, 4)]),
    Node("Slice", 13, [X, _ints(-1, 100), _ints(-100, -100), _ints(3, 1), _ints(-2, -1)]),
    Node("Slice", 11, [X, _ints(0), _ints(2**63 - 1), _ints(-1), _ints(3)]),
    Node("Pad", 11, [X, _ints(0, 0, 1, -1, 0, 0, 0, 2)]),
    Node("Pad", 13, [X, _ints(0, 1, 2, 2, 0, 0, 2, 3)], {"mode": "reflect"}),
    Node("Pad", 18, [X, _ints(2, -1, 1, 3), np.float32(7), _ints(-1, 2)]),
    Node("Pad", 19, [X, _ints(1, 2, 2, 4), None, _ints(1, 3)], {"mode": "wrap"}),
    Node("Pad", 18, [X, _ints(1, 2, 2, 4), None, _ints(1, 3)], {"mode": "edge"}),
    Node("Trilu", 14, [X, np.int64(2)], {"upper": 0}),
    Node("Trilu", 14, [X, np.int64(-50)]),
    Node("Tile", 13, [X, _ints(1, 2, 1, 3)]),
    # arithmetic
    Node("Clip", 11, [X, np.float32(-0.5), None]),
    Node("Clip", 13, [X, np.float32(1), np.float32(-1)]),
    Node("Clip", 12, [_ints(1, 5, 9, dtype=np.int32), None, np.int32(6)]),
    Node("Div", 14, [_ints(7, -7, 7, -7), _ints(2, 2, -2, -2)]),
    Node("Mod", 13, [_ints(7, -7, 7, -7), _ints(3, 3, -3, -3)]),
    Node("Mod", 13, [X, _floats(5)], {"fmod": 1}),
    Node("Pow", 13, [_floats(3) ** 2, _ints(2, 3, -1)]),
    Node("Pow", 15, [_ints(2, 3, 4), np.float32(2)]),
    Node("Max", 13, [X, _floats(5), _floats(3, 1, 1)]),
    Node("Mean", 13, [X, _floats(5)]),
    Node("Where", 16, [_floats(4, 1) > 0, X, _floats(5)]),
    Node("PRelu", 16, [X, _floats(3, 1, 1)]),
    Node("Softplus", 1, [_ints(-1e4, -20, 0, 20, 1e4, dtype=np.float32)]),
    Node("HardSigmoid", 6, [X], {"alpha": 0.3, "beta": 0.4}),
    Node("Gelu", 20, [X], {"approximate": "tanh"}),
    # positions and order
    Node("ArgMax", 13, [TIES], {"axis": 1, "select_last_index": 1}),
    Node("ArgMin", 11, [TIES], {"axis": -1, "keepdims": 0}),
    Node("TopK", 11, [TIES, _ints(4)], None, 2),
    Node("TopK", 11, [TIES, _ints(3)], {"largest": 0, "axis": 1}, 2),
    Node("CumSum", 14, [X, np.int64(-2)], {"exclusive": 1, "reverse": 1}),
    Node("OneHot", 11, [_ints([-1, 2], [9, 0]), _ints(3), _ints(2, 5, dtype=np.float32)], {"axis": 1}),
    Node("Gather", 13, [X, _ints([-1, 0], [2, -3])], {"axis": 1}),
    Node("Gather", 11, [X, np.int32(-2)], {"axis": -1}),
    Node("GatherElements", 13, [X, _ints([[[-1]]])], {"axis": 2}),
    Node("GatherND", 13, [X, _ints([[1], [-1]], [[0], [2]])], {"batch_dims": 1}),
    Node("ScatterElements", 18, [TIES, _ints([0, -1]), _ints([8, 9], dtype=np.float32)], {"axis": 1}),
    Node("ScatterND", 13, [X, _ints([1, -1], [0, 0]), _floats(2, 4, 5)]),
    Node("ScatterND", 18, [TIES, _ints([1], [1], [0]), _floats(3, 6)], {"reduction": "max"}),
    Node("Range", 11, [np.float32(1), np.float32(2), np.float32(0.3)]),
    Node("EyeLike", 9, [_floats(3, 4)], {"k": -1, "dtype": TensorProto.INT32}),
    Node("Shape", 15, [X], {"start": -3, "end": -1}),
    # products
    Node("Gemm", 13, [_floats(4, 3), _floats(5, 4), _floats(5)], {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}),
    Node("MatMul", 13, [_floats(2, 1, 3, 4), _floats(5, 4, 2)]),
    Node("MatMul", 13, [_floats(4), _floats(2, 4, 3)]),
    Node("Einsum", 12, [_floats(2, 3, 4), _floats(2, 5, 4)], {"equation": "bid, bjd -> bij"}),
    Node("Conv", 11, [_floats(2, 4, 9), _floats(6, 2, 3)], {"group": 2, "auto_pad": "SAME_LOWER", "strides": [2]}),
    # normalisation
    Node("LayerNormalization", 17, [X, _floats(4, 5), _floats(4, 5)], {"axis": 2, "epsilon": 1e-3}),
    Node("LayerNormalization", 17, [X, _floats(5)], None, 3),
    Node("InstanceNormalization", 6, [X, _floats(3), _floats(3)]),
    Node("GroupNormalization", 21, [_floats(2, 4, 3), _floats(4), _floats(4)], {"num_groups": 2}),
    *[
        Node("BatchNormalization", o, [X, _floats(3), _floats(3), _floats(3), _floats(3) ** 2], {"epsilon": 1e-2})
        for o in (9, 14, 15)
    ],
    Node("Dropout", 13, [X, np.float32(0.3)], None, 2),
    # casts and quantisation
    Node("Cast", 13, [_ints(-1.7, 0.0, 0.4, 2.9, float("nan"), dtype=np.float32)], {"to": TensorProto.BOOL}),
    Node("Cast", 13, [_ints(-1.7, 0.4, 2.9, dtype=np.float32)], {"to": TensorProto.INT32}),
    Node("Cast", 13, [_ints(300, -1)], {"to": TensorProto.UINT8}),
    Node("QuantizeLinear", 13, [X * 50, _floats(3) ** 2 + 0.1, _ints(3, 0, -9, dtype=np.int8)], {"axis": 1}),
    Node("QuantizeLinear", 21, [_floats(6, 4), np.float32(0.02) + _floats(3, 4) ** 2], {"axis": 0, "block_size": 2}),
    Node("DequantizeLinear", 10, [_ints(0, 128, 255, dtype=np.uint8), np.float32(0.1), np.uint8(7)]),
    Node("DequantizeLinear", 21, [_ints([1, 2, 3, 4, 5], dtype=np.int8), _floats(1, 3)], {"axis": 1, "block_size": 2}),
    Node("DynamicQuantizeLinear", 11, [X], None, 3),
    Node("DynamicQuantizeLinear", 11, [X**2 + 1], None, 3),
    Node("MatMulInteger", 10, [_ints([3, 250], [9, 4], dtype=np.uint8), _ints([-3, 5], [100, -128], dtype=np.int8)]),
    Node(
        "RotaryEmbedding", 23, [_floats(2, 5, 24), _floats(9, 3), _floats(9, 3), _ints(*[[0, 3, 1, 8, 2]] * 2)]
    )._replace(attributes={"num_heads": 3, "rotary_embedding_dim": 6, "interleaved": 1}),
]


def _oracle(node: Node) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(node.model().SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, node.named())


def _assert_same(found: torch.Tensor, right: np.ndarray) -> None:
    wanted = to_torch(right)
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    if wanted.is_floating_point():
        assert relative_rms(found, wanted) <= from_torch(wanted.dtype).tolerance
    else:
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("node", OPSETS, ids=[f"{i}-{n}" for i, n in enumerate(OPSETS)])
def test_equals_onnxruntime(node: Node) -> None:
    results = run_model(node.model(), node.named())
    for found, right in zip(results.values(), _oracle(node), strict=True):
        _assert_same(found, right)
