"""The ONNX backend node tests of the operators that encoders are made of, through the public interface.

Each case is imported, built and run; the expanded twins are the same cases with the operator's own function body in its
place, so they test the fusions too. What fails stands with its reason in `expected_failures.txt`, which only shrinks.
"""

import functools
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch

import qontext as qx
from qontext.builder.compile import inferred, operators
from qontext.fusion.catalogue import fuse
from qontext.importers.onnx_model import import_onnx

OPERATORS = (
    "attention",
    "layer_normalization",
    "rms_normalization",
    "gelu",
    "rotary_embedding",
    "softmax",
    "swish",
    "quantizelinear",
    "dequantizelinear",
)
# Casts from and to integers of 2 and 4 bits.
_NARROW_CASTS = re.compile(r"test_cast(_no_saturate)?_\w*U?INT[24](_\w+)?")


class Case(NamedTuple):
    """One node test: a model, its inputs by name, and the outputs that are right."""

    model: onnx.ModelProto
    inputs: dict[str, np.ndarray]
    outputs: list[np.ndarray]
    rtol: float
    atol: float


def _operator(name: str) -> str | None:
    """The operator whose test this is: its op_type in the names of tests, and nothing else's."""
    body = name.removeprefix("test_")
    if _NARROW_CASTS.fullmatch(name):
        return "narrow casts"
    return next((op for op in OPERATORS if body == op or body.startswith(f"{op}_")), None)


@functools.cache
def cases() -> dict[str, Case]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        before = np.random.get_state()
        np.random.seed(0)
        found = collect_testcases(None)
        np.random.set_state(before)
    chosen = {}
    for case in found:
        if _operator(case.name) is None:
            continue
        for given, right in case.data_sets:
            inputs = {v.name: a for v, a in zip(case.model.graph.input, given, strict=True)}
            chosen[case.name] = Case(case.model, inputs, list(right), case.rtol, case.atol)
    return chosen


def expected_failures() -> dict[str, str]:
    """Name and reason of each case that cannot pass."""
    lines = Path(__file__).with_name("expected_failures.txt").read_text().splitlines()
    entries = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return dict(entries)


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """A torch tensor of the same values; narrow integers one to a byte."""
    array = onnx.numpy_helper.to_array(array) if isinstance(array, onnx.TensorProto) else np.asarray(array)
    name = array.dtype.name
    if name in ("int4", "int2", "uint4", "uint2"):
        return torch.from_numpy(array.astype(np.int8 if name.startswith("int") else np.uint8))
    if name == "bfloat16" or name.startswith("float8"):  # numpy has these from another package
        held = getattr(torch, name)
        return torch.from_numpy(array.view(np.int16 if held.itemsize == 2 else np.uint8).copy()).view(held)
    return torch.from_numpy(array.copy())


def run(case: Case) -> None:
    engine = qx.build(import_onnx(case.model), tune=False)
    results = engine.run({name: as_tensor(array) for name, array in case.inputs.items()})
    assert list(results) == [v.name for v in case.model.graph.output]
    for found, right in zip(results.values(), case.outputs, strict=True):
        wanted = as_tensor(right)
        assert found.dtype == wanted.dtype
        assert found.shape == wanted.shape
        if not wanted.is_floating_point():
            assert torch.equal(found, wanted)
            continue
        last_bit = 2 * torch.finfo(wanted.dtype).eps
        torch.testing.assert_close(
            found.double(), wanted.double(), rtol=max(case.rtol, last_bit), atol=max(case.atol, 1e-7), equal_nan=True
        )


@pytest.mark.parametrize("name", list(cases()))
def test_node(name: str) -> None:
    reason = expected_failures().get(name)
    if reason is None:
        run(cases()[name])
        return
    with pytest.raises((qx.errors.QontextError, AssertionError)):
        run(cases()[name])


def test_expanded_attention_becomes_attention_again_or_the_ledger_says_why() -> None:
    """What stays in parts hands out its scores or probabilities, which a fused attention does not keep."""
    count, silent = 0, []
    for name, case in cases().items():
        if not name.startswith("test_attention_") or "_expanded" not in name:
            continue
        model = import_onnx(case.model)
        fuse(model.graph, model.ledger, inferred(model.graph, operators(())))
        if any(node.domain == "qontext" and node.op_type in ("Attention", "QKVToContext") for node in model.graph):
            count += 1
        elif not any("read" in refusal.reason for refusal in model.ledger.refusals if refusal.rule == "attention"):
            silent.append(name)
    assert silent == []
    assert count >= 78


def test_the_suite_is_whole() -> None:
    """The counts of onnx 1.23; a newer release may only bring more."""
    counts = {op: [0, 0] for op in (*OPERATORS, "narrow casts")}
    for name in cases():
        operator = _operator(name)
        assert operator is not None
        counts[operator]["_expanded" in name] += 1
    least = {
        "attention": (93, 93),
        "layer_normalization": (19, 38),
        "rms_normalization": (19, 19),
        "gelu": (4, 4),
        "rotary_embedding": (8, 8),
        "softmax": (7, 14),
        "swish": (1, 1),
        "quantizelinear": (13, 0),
        "dequantizelinear": (13, 0),
        "narrow casts": (20, 0),
    }
    assert {op: tuple(min(a, b) for a, b in zip(n, least[op], strict=True)) for op, n in counts.items()} == least


def test_expected_failures_exist() -> None:
    assert set(expected_failures()) <= set(cases())
