"""The ONNX node tests and their expanded twins: numbers with real tensors, shapes and dtypes with `meta` tensors."""

import numpy as np
import onnx
import pytest
import torch
from interpreter import host_inputs, interpret, run_model
from node_cases import Case, all_cases, cases, expected_failures, to_torch

from qontext.ops.standard.catalogue import BY_NAME

# The list of failures may shrink; lower this number when it does.
MOST_FAILURES = 40

# Every node test of these operators, and every expanded twin, must be run: prefix of its name, operator.
OWED = {
    "test_attention_": "Attention",
    "test_layer_normalization_": "LayerNormalization",
    "test_rms_normalization_": "RMSNormalization",
    "test_gelu_": "Gelu",
    "test_rotary_embedding": "RotaryEmbedding",
    "test_softmax_": "Softmax",
    "test_swish": "Swish",
}


def _assert_equal(found: torch.Tensor, right: np.ndarray, case: Case) -> None:
    wanted = to_torch(right)
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    if wanted.dtype.is_floating_point:
        # The case's own tolerance is meant for float32: half types may differ in the last bit, float8 must not.
        exact = wanted.dtype.itemsize == 1
        rtol = 0.0 if exact else max(case.rtol, 2 * torch.finfo(wanted.dtype).eps)
        atol = 0.0 if exact else case.atol
        torch.testing.assert_close(found.double(), wanted.double(), rtol=rtol, atol=atol, equal_nan=True)
    else:
        assert torch.equal(found, wanted)


def _run(case: Case) -> None:
    names = [v.name for v in case.model.graph.input]
    for inputs, outputs in case.data_sets:
        results = run_model(case.model, dict(zip(names, inputs, strict=True)))
        for found, right in zip(results.values(), outputs, strict=True):
            _assert_equal(found, right, case)


@pytest.mark.parametrize("name", list(cases()))
def test_numbers(name: str) -> None:
    reason = expected_failures().get(name)
    if reason is None:
        _run(cases()[name])
        return
    try:
        _run(cases()[name])
    except Exception:
        pytest.xfail(reason)
    pytest.fail(f"{name} passes: strike it from expected_failures.txt ({reason})")


def test_list_of_failures_only_shrinks() -> None:
    failures = expected_failures()
    assert not failures.keys() - cases().keys(), "the list names node tests that are not run"
    assert all(reason.strip() for reason in failures.values())
    assert len(failures) <= MOST_FAILURES


@pytest.mark.parametrize(("prefix", "op"), list(OWED.items()))
def test_every_case_of_the_owed_operators_is_run(prefix: str, op: str) -> None:
    """None drops out because the operator, or one that its twin needs, left the catalogue."""
    plain = {case.name for case in all_cases() if case.ops == {op}}
    twins = {case.name for case in all_cases() if case.name.startswith(prefix) and "_expanded" in case.name}
    assert len(plain) > 0
    assert len(twins) >= len(plain)
    assert not (plain | twins) - (cases().keys() - expected_failures().keys())


def test_every_operator_has_a_case() -> None:
    used = set().union(*(case.ops for name, case in cases().items() if name not in expected_failures()))
    assert not {name for name in BY_NAME if onnx.defs.has(name)} - used


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.dtype.itemsize]
    return torch.equal(a.view(bits), b.view(bits))


def _variants(case: Case, tensors: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    """The inputs with all data on `meta`, and with one data input there while the others are real (weights)."""
    host = host_inputs(case.model)
    data = [i for i, v in enumerate(case.model.graph.input) if v.name not in host]
    chosen = [set(data)] if data else []
    if len(data) > 1:
        chosen += [{i} for i in data]
    return [[t.to("meta") if i in places else t for i, t in enumerate(tensors)] for places in chosen]


@pytest.mark.parametrize("name", [n for n in cases() if n not in expected_failures()])
def test_shapes_on_meta(name: str) -> None:
    case = cases()[name]
    data_dependent = any(BY_NAME[op].data_dependent for op in case.ops)
    for inputs, _ in case.data_sets:
        tensors = [to_torch(x) for x in inputs]
        before = [t.clone() for t in tensors]
        real = [(t.shape, t.dtype) for t in interpret(case.model, tensors)]
        assert all(map(_same_bits, tensors, before)), "an input was written to"
        for variant in _variants(case, tensors):
            if data_dependent:
                with pytest.raises(NotImplementedError):
                    interpret(case.model, variant)
            else:
                assert [(t.shape, t.dtype) for t in interpret(case.model, variant)] == real
