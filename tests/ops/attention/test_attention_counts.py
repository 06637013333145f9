"""Counts that no sequence can have: every kernel refuses them in the same words."""

import pytest
import torch
from attention_helpers import randn

from qontext.errors import InputError
from qontext.ops.attention.op import OP as attention
from qontext.ops.call import Call
from qontext.ops.declare import call_of
from qontext.ops.eager import candidates
from qontext.ops.qkv_to_context.op import OP as qkv_to_context

HEADS, LENGTH = 2, 5
OPERATORS = {"QKVToContext": qkv_to_context, "Attention": attention}
QKV_KERNELS = ("native.attention", "torch.sdpa", "torch.bmm", "reference.qkv_to_context")
ATTENTION_KERNELS = (*QKV_KERNELS[:3], "reference.attention")


def run(name: str, kernel: str, counts: torch.Tensor, **attributes: object) -> torch.Tensor:
    op = OPERATORS[name]
    e = HEADS * 8
    fixed = {"num_heads": HEADS, "layout": "B S (three N D)" if name == "QKVToContext" else "B S (N D)", **attributes}
    operands: list[torch.Tensor | None]
    if name == "QKVToContext":
        operands = [randn(1, 3, LENGTH, 3 * e), counts]
    else:
        operands = [randn(i, 3, LENGTH, e) for i in range(3)]
        operands += [None] * 4 + [counts]
    call: Call = call_of(op, operands, fixed, [True] + [False] * (len(op.outputs) - 1))
    able, refused = candidates(op, call)
    chosen = next((k for k in able if k.name == kernel), None)
    if chosen is None:
        pytest.skip(dict(refused)[kernel])
    operands += [None] * (len(op.inputs) - len(operands))
    outputs = [None if o is None else torch.full([int(d) for d in o.shape], torch.nan) for o in call.outputs]
    return chosen.bind(call)(operands, outputs)[0]


CASES = [("QKVToContext", k) for k in QKV_KERNELS] + [("Attention", k) for k in ATTENTION_KERNELS]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("empty_row", ["zeros", "as_unmasked", "uniform"])
@pytest.mark.parametrize(("name", "kernel"), CASES)
def test_more_keys_than_there_are(name: str, kernel: str, empty_row: str, dtype: torch.dtype) -> None:
    said = r"the number of valid keys,? of sequence 1 is 6; 0 to 5 are allowed, which is its length \(1 more of the 3"
    with pytest.raises(InputError, match=said):
        run(name, kernel, torch.tensor([5, 6, 99], dtype=dtype), empty_row=empty_row)


@pytest.mark.parametrize(("name", "kernel"), CASES)
def test_fewer_than_none(name: str, kernel: str) -> None:
    with pytest.raises(InputError, match=r"valid keys,? of sequence 2 is -1; 0 to 5 are allowed"):
        run(name, kernel, torch.tensor([0, 5, -1]))


@pytest.mark.parametrize(("name", "kernel"), CASES)
def test_what_is_allowed_runs(name: str, kernel: str) -> None:
    result = run(name, kernel, torch.tensor([0, 5, 1]))
    assert not result.isnan().any()
    assert not result[0].any()
