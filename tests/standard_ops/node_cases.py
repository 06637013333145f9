"""The ONNX node tests, collected in this process from the installed onnx package, and their tensors in torch."""

import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
import onnx
import torch

from qontext.ops.standard.catalogue import BY_NAME

_AS_BITS = {
    np.dtype(ml_dtypes.bfloat16): (np.int16, torch.bfloat16),
    np.dtype(ml_dtypes.float8_e4m3fn): (np.uint8, torch.float8_e4m3fn),
    np.dtype(ml_dtypes.float8_e4m3fnuz): (np.uint8, torch.float8_e4m3fnuz),
    np.dtype(ml_dtypes.float8_e5m2): (np.uint8, torch.float8_e5m2),
    np.dtype(ml_dtypes.float8_e5m2fnuz): (np.uint8, torch.float8_e5m2fnuz),
}
_ONE_TO_A_BYTE = {
    np.dtype(ml_dtypes.int4): np.int8,
    np.dtype(ml_dtypes.uint4): np.uint8,
    np.dtype(ml_dtypes.int2): np.int8,
    np.dtype(ml_dtypes.uint2): np.uint8,
}


class Case(NamedTuple):
    """One node test: a model, and for each data set its inputs and the outputs that are right."""

    name: str
    model: onnx.ModelProto
    data_sets: Sequence[tuple[Sequence[np.ndarray], Sequence[np.ndarray]]]
    rtol: float
    atol: float

    @property
    def ops(self) -> set[str]:
        return {node.op_type for node in self.model.graph.node}


def to_torch(array: np.ndarray | onnx.TensorProto) -> torch.Tensor:
    """A torch tensor of the same values; two- and four-bit integers one to a byte."""
    array = onnx.numpy_helper.to_array(array) if isinstance(array, onnx.TensorProto) else np.asarray(array)
    if array.dtype in _ONE_TO_A_BYTE:
        array = array.astype(_ONE_TO_A_BYTE[array.dtype])
    if array.dtype in _AS_BITS:
        bits, dtype = _AS_BITS[array.dtype]
        return torch.from_numpy(array.view(bits).copy()).view(dtype)
    return torch.from_numpy(array.copy())


@functools.cache
def all_cases() -> tuple[Case, ...]:
    """Every node test of the installed onnx package. Generating them takes about five seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        # The generators draw from the global state.
        before = np.random.get_state()
        np.random.seed(0)
        found = collect_testcases(None)
        np.random.set_state(before)
    return tuple(Case(c.name, c.model, c.data_sets, c.rtol, c.atol) for c in found)


@functools.cache
def cases() -> dict[str, Case]:
    """The node tests that use nothing but operators of the catalogue on tensors, by name."""
    chosen = {}
    for case in all_cases():
        standard = all(node.domain in ("", "ai.onnx") for node in case.model.graph.node)
        values = [v.type for v in (*case.model.graph.input, *case.model.graph.output)]
        tensors = all(v.WhichOneof("value") == "tensor_type" for v in values)
        if standard and tensors and case.data_sets and case.ops <= BY_NAME.keys():
            chosen[case.name] = case
    return chosen


def expected_failures() -> dict[str, str]:
    """The committed list: name of a node test and why it cannot pass."""
    lines = Path(__file__).with_name("expected_failures.txt").read_text().splitlines()
    entries = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return dict(entries)
