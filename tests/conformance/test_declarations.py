"""What a declaration promises: documentation, names, checks with clear words, inference over symbolic shapes."""

import dataclasses
import importlib
import re

import op_cases
import pytest
import torch

from qontext.axes import LEGEND
from qontext.dtypes import BY_NAME as DTYPES
from qontext.errors import ArgumentError, DTypeError, ShapeError
from qontext.graph.dims import Dim, symbol
from qontext.ops.call import Operand
from qontext.ops.catalogue import BY_NAME, OPS

B, S, T = symbol("B"), symbol("S"), symbol("T")
EVERY_OP = pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)


def float_operand(*shape, dtype="float32"):
    return Operand(dtype, shape)


def inferred(name, *inputs, **attributes):
    op = BY_NAME[name]
    operands = [*inputs, *[None] * (len(op.inputs) - len(inputs))]
    outputs = op.infer_outputs(operands, op.complete_attributes(attributes))
    return [None if o is None else (o.dtype, o.shape) for o in outputs]


def test_catalogue_names_every_operator_folder_once():
    assert len(BY_NAME) == len(OPS)
    for op in OPS:
        assert importlib.import_module(f"qontext.ops.{op.method}.op").OP is op


@EVERY_OP
def test_declaration_is_documented(op):
    assert len(op.doc) > 20
    assert re.match(r"https://\S+$", op.source), op.source
    assert op.kernels, "no kernel beside the reference"
    assert op.cost is not None


@EVERY_OP
def test_axes_are_in_the_legend(op):
    """Letters are explained once for all operators; words in lower case explain themselves."""
    letters = set()
    for param in (*op.inputs, *op.outputs):
        for token in re.split(r"[\s|*]+", param.axes):
            letters.add(re.sub(r"[+-]\d+$", "", token))
    unknown = {x for x in letters if re.match("[A-Z]", x) and x not in LEGEND}
    assert unknown == set()


@EVERY_OP
def test_dtypes_are_known(op):
    for param in (*op.inputs, *op.outputs):
        names = op.types.get(param.dtype, param.dtype.split("|"))
        assert [n for n in names if n not in DTYPES] == []


@EVERY_OP
def test_names_do_not_collide(op):
    names = [p.name for p in op.inputs] + [a.name for a in op.attributes]
    assert len(set(names)) == len(names)
    assert len({p.name for p in op.outputs}) == len(op.outputs)


@EVERY_OP
def test_cost_counts_every_case(op):
    """Bytes are at least what the wanted outputs hold, flops are not negative."""
    for case in op_cases.checked_cases(op):
        inputs = op_cases.inputs_of(op, case, case.dtypes[0])
        call = op_cases.call_for(op, case, inputs)
        if any(not isinstance(d, int) for o in call.outputs if o is not None for d in o.shape):
            continue  # sizes that depend on data have no cost before the run
        cost = op.cost(call)
        least = sum(t.numel() * t.element_size() for t in op_cases.poisoned(call) if t is not None)
        assert cost.bytes >= least
        assert cost.flops >= 0


@EVERY_OP
def test_missing_inputs_are_named(op):
    required = [p.name for p in op.inputs if not p.optional]
    with pytest.raises(ShapeError) as error:
        op.infer_outputs([None] * len(op.inputs), {a.name: a.default for a in op.attributes})
    for name in required:
        assert f"input {name!r} is missing" in str(error.value)


@EVERY_OP
def test_unknown_attributes_are_named(op):
    with pytest.raises(ArgumentError, match=rf"unknown attribute 'colour'; {op.name} has "):
        op.complete_attributes({a.name: a.choices[0] for a in op.attributes if a.choices} | {"colour": 1})


@EVERY_OP
def test_wrong_dtype_names_tensor_got_and_expected(op):
    case = op_cases.checked_cases(op)[0]
    inputs = op_cases.inputs_of(op, case, case.dtypes[0])
    call = op_cases.call_for(op, case, inputs)
    for i, (param, operand) in enumerate(zip(op.inputs, call.inputs, strict=True)):
        if operand is None:
            continue
        wrong = [*call.inputs[:i], dataclasses.replace(operand, dtype="float64"), *call.inputs[i + 1 :]]
        with pytest.raises(DTypeError, match=rf"input '{param.name}' is float64, expected \w+"):
            op.infer_outputs(wrong, call.attributes)


@EVERY_OP
def test_wrong_rank_names_tensor_got_and_allowed(op):
    """Seven axes more than any form of the declaration has."""
    case = op_cases.checked_cases(op)[0]
    inputs = op_cases.inputs_of(op, case, case.dtypes[0])
    call = op_cases.call_for(op, case, inputs)
    for i, (param, operand) in enumerate(zip(op.inputs, call.inputs, strict=True)):
        if operand is None or "..." in param.axes:
            continue
        shape = (*operand.shape, *[3] * 7)
        wrong = [*call.inputs[:i], dataclasses.replace(operand, shape=shape), *call.inputs[i + 1 :]]
        with pytest.raises(ShapeError) as error:
            op.infer_outputs(wrong, call.attributes)
        message = str(error.value)
        assert f"input {param.name!r} has shape [{', '.join(map(str, shape))}]" in message
        assert "needs" in message


def test_linear_over_symbolic_tokens():
    x, weight, bias = float_operand(B, S, 8), float_operand(6, 8), float_operand(6)
    assert inferred("Linear", x, weight, bias) == [("float32", (B, S, 6))]
    packed = float_operand(T, 8, dtype="bfloat16")
    assert inferred("Linear", packed, float_operand(6, 8, dtype="bfloat16")) == [("bfloat16", (T, 6))]


def test_norms_keep_symbolic_shapes():
    x, e = float_operand(B, S, 8), float_operand(8)
    for name in ("LayerNorm", "RMSNorm"):
        assert inferred(name, x, e) == [("float32", (B, S, 8))]
    both = ("float32", (B, S, 8))
    by_row = [("float32", (B, S))] * 2
    assert inferred("SkipLayerNorm", x, x, e, e) == [both, both, ("int8", (B, S, 8)), *by_row]
    image = float_operand(B, 6, symbol("S1"), symbol("S2"))
    wanted = ("float32", (B, 6, symbol("S1"), symbol("S2")))
    assert inferred("GroupNorm", image, float_operand(6), float_operand(6), num_groups=2) == [wanted]


def test_embedding_over_symbolic_batches():
    ids, mask, e = Operand("int64", (B, S)), Operand("int32", (B, S)), float_operand(8)
    word, places = float_operand(99, 8), float_operand(40, 8)
    got = inferred("EmbedLayerNorm", ids, word, None, places, None, None, e, e, mask)
    assert got == [("float32", (B, S, 8)), ("float32", (B, S, 8)), ("int32", (B,))]
    row = Operand("int64", (1, S))
    got = inferred("EmbedLayerNorm", ids, word, row, places, None, None, e, e)
    assert got == [("float32", (B, S, 8)), ("float32", (B, S, 8)), None]
    flat = Operand("int64", (T,))
    got = inferred("EmbedLayerNorm", flat, word, flat, places, None, None, e, e)
    assert got[0] == ("float32", (T, 8))


def test_packing_over_symbolic_batches():
    mask = Operand("int64", (B, S))
    one_more = Dim(("B",), 1, 1)
    assert inferred("PackIndex", mask) == [("int64", (T,)), ("int32", (one_more,)), ("int32", ())]
    index, x = Operand("int64", (T,)), float_operand(B, S, 8)
    assert inferred("PackTokens", x, index) == [("float32", (T, 8))]
    assert inferred("PackTokens", Operand("int64", (B, S)), index) == [("int64", (T,))]
    assert inferred("UnpackTokens", float_operand(T, 8), index, mask) == [("float32", (B, S, 8))]
    assert inferred("FirstTokens", float_operand(T, 8), Operand("int32", (one_more,))) == [("float32", (B, 8))]


def test_contradicting_sizes_are_all_named():
    x, weight, bias, residual = torch.zeros(2, 8), torch.zeros(6, 8), torch.zeros(5), torch.zeros(3, 6)
    with pytest.raises(ShapeError) as error:
        BY_NAME["Linear"](x, weight, bias, residual)
    message = str(error.value)
    assert "Linear: 2 problems" in message
    assert "input 'bias' has shape [5]; allowed: [M] axis M is 6 elsewhere and 5 here" in message
    assert "input 'residual' has shape [3, 6]" in message
    with pytest.raises(
        ShapeError, match=r"'weight' has shape \[6, 7\]; allowed: \[M K\] axis K is 8 elsewhere and 7 here"
    ):
        BY_NAME["Linear"](x, torch.zeros(6, 7))


def test_mixed_float_types_are_named():
    with pytest.raises(DTypeError, match="input 'weight' is bfloat16, but float32 is used elsewhere in this call"):
        BY_NAME["LayerNorm"](torch.zeros(2, 8), torch.zeros(8, dtype=torch.bfloat16))


def test_attributes_out_of_their_choices():
    with pytest.raises(ArgumentError, match=r"attribute 'activation' is 'swish', allowed: .*'silu'"):
        BY_NAME["Linear"](torch.zeros(2, 8), torch.zeros(6, 8), activation="swish")
    with pytest.raises(ArgumentError, match=r"attribute 'epsilon' is 'small'.*expected float"):
        BY_NAME["LayerNorm"](torch.zeros(2, 8), epsilon="small")
    with pytest.raises(ArgumentError, match=r"attribute 'num_groups' \(int\) is missing"):
        BY_NAME["GroupNorm"](torch.zeros(2, 8), torch.zeros(8), torch.zeros(8))
    with pytest.raises(ShapeError, match="'num_groups' is 3, which does not divide the 8 channels"):
        BY_NAME["GroupNorm"](torch.zeros(2, 8), torch.zeros(8), torch.zeros(8), num_groups=3)


def test_calls_that_no_operator_takes():
    x, op = torch.zeros(2, 8), BY_NAME["LayerNorm"]
    with pytest.raises(ArgumentError, match="4 positional inputs given, at most 3"):
        op(x, None, None, None)
    with pytest.raises(ArgumentError, match="input 'x' is given twice"):
        op(x, x=x)
    with pytest.raises(ArgumentError, match=r"input 'x' is a list, expected a torch\.Tensor"):
        op([1.0])
    with pytest.raises(ArgumentError, match="no output 'mean'"):
        op(x, outputs=("mean",))
