"""What is said about unusable declarations and wrong kernels."""

import dataclasses

import pytest
import torch
from layer_norm_plugin import LAYER_NORM

import qontext as qx
from qontext.errors import PluginError
from qontext.ops.catalogue import BY_NAME
from qontext.plugins import Attribute, Case, Kernel, Op, Param, check_operator


def declared(**changes) -> Op:
    """y = 2 x, changed."""
    settings = {
        "name": "Twice",
        "doc": "y = 2 x.",
        "domain": "mine",
        "inputs": (Param("x", "... E"),),
        "outputs": (Param("y", "... E"),),
        "reference": lambda x: 2 * x,
        "cases": lambda: [Case("odd", lambda g, dtype: [torch.randn(3, 5, generator=g).to(dtype)])],
    }
    return Op(**{**settings, **changes})


def kernel(compute, name="mine.twice", supports=lambda call: None, **settings) -> Kernel:
    return Kernel(name, "cpu", supports, lambda call: lambda inputs, out=None: compute(inputs, out), **settings)


def test_a_good_operator_passes_and_says_what_ran():
    checked = check_operator(declared(kernels=(kernel(lambda inputs, out: inputs[0] + inputs[0]),)))
    assert {c.kernel for c in checked} == {"mine.twice", "reference.twice"}
    assert {c.dtype for c in checked} == {"float32", "float16", "bfloat16"}
    assert not any(c.refused for c in checked)


def test_the_example_passes():
    assert {c.case for c in check_operator(LAYER_NORM)} == {"one_token", "odd", "homework"}


@pytest.mark.parametrize("name", ["LayerNorm", "Gelu", "PackIndex"])
def test_operators_of_ours_pass(name):
    op = dataclasses.replace(BY_NAME[name], name=f"My{name}", domain="mine")
    assert any(not c.refused for c in check_operator(op))


BAD = {
    "name": ({"name": "two words"}, "its name is 'two words'"),
    "our domain": ({"domain": "qontext"}, "belongs to qontext or ONNX"),
    "standard domain": ({"domain": "ai.onnx.ml"}, "belongs to qontext or ONNX"),
    "no domain": ({"domain": ""}, "its domain is ''"),
    "version": ({"version": 0}, "its version is 0"),
    "one kernel": ({"kernels": kernel(None)}, "kernels is a Kernel, expected a tuple of Kernel"),
    "no kernel": ({"kernels": ("fast",)}, "kernels holds 'fast', expected Kernel"),
    "no function": ({"kernels": (Kernel("mine.k", "cpu", None, None),)}, "'mine.k': supports is None.*(?s:.*)bind is"),
    "device": ({"kernels": (Kernel("mine.k", "tpu", repr, repr),)}, "'mine.k' runs on 'tpu', allowed: cpu, cuda"),
    "same kernels": ({"kernels": (kernel(None), kernel(None))}, "two kernels are called 'mine.twice'"),
    "reserved": ({"kernels": (kernel(None, "onnx.twice"),)}, "kernel 'onnx.twice' begins with"),
    "inplace": ({"kernels": (kernel(None, inplace=((0, 1),)),)}, "inplace names output 0 and input 1"),
    "reference": ({"reference": None}, "reference is None, expected a function"),
    "cost": ({"cost": 7}, "cost is 7, expected a function or None"),
    "axes": ({"inputs": (Param("x", "B (S E)"),)}, r"'x' has axes 'B \(S E\)', where '\(S', 'E\)' cannot be read"),
    "dots": ({"inputs": (Param("x", "... E ..."),)}, "'...' may stand once"),
    "dtype": ({"inputs": (Param("x", "... E", "float"),)}, "'x' has dtype 'float', which is neither"),
    "types": ({"types": {"T": ("half",)}}, "type 'T' allows \\['half'\\]"),
    "free output": (
        {"outputs": (Param("y", "B Q"),)},
        "output 'y' has axes 'B Q', but no input says B, Q; give infer=",
    ),
    "open output": ({"outputs": (Param("y", "... E", "I"),)}, "output 'y' has dtype 'I', which no input decides"),
    "rows": ({"token_wise": 1}, "token_wise is 1, expected True or False"),
    "no rows": (
        {"token_wise": True, "inputs": (Param("x", "R E"),), "outputs": (Param("y", "R E"),)},
        "no input has rows(?s:.*)output 'y' has axes 'R E', expected rows",
    ),
    "no output": ({"outputs": (Param("y", "... E", optional=True),)}, "no output that is always there"),
    "names": ({"attributes": (Attribute("x", int, 1),)}, "the name 'x' is used twice"),
    "taken name": ({"inputs": (Param("outputs", "... E"),)}, "'outputs' cannot be a name here"),
    "kind": ({"attributes": (Attribute("a", dict, {}),)}, "attribute 'a' is of kind <class 'dict'>"),
    "default": ({"attributes": (Attribute("a", int, "1"),)}, "attribute 'a' allows '1', which is no int"),
    "choices": ({"attributes": (Attribute("a", int, 3, (1, 2)),)}, r"'a' has default 3, allowed: \(1, 2\)"),
    "updates": ({"updates": {"z": "x"}}, "updates says that 'z' is 'x'"),
}


@pytest.mark.parametrize(("changes", "said"), BAD.values(), ids=BAD)
def test_bad_declarations_are_named_wherever_they_come_in(changes, said, tmp_path):
    op = declared(**changes)
    for use in (check_operator, lambda op: qx.Network(plugins=[op]), lambda op: qx.build(doubled(), plugins=[op])):
        with pytest.raises(PluginError, match=said):
            use(op)


def doubled() -> qx.Model:
    net = qx.Network("doubled")
    x = net.input("x", "float32", ("B", 4))
    net.output(net.op("Add", x, x), "y")
    return qx.Model("doubled", net.graph, net.ledger())


def test_all_problems_come_in_one_message():
    with pytest.raises(PluginError) as error:
        qx.build(doubled(), plugins=[declared(version=-1, domain="qontext"), declared(name="Linear"), "Gelu"])
    for said in ("its version is -1", "belongs to qontext", "'Linear' exists in qontext", "'Gelu' is a str"):
        assert said in str(error.value)


def test_clashes_and_wrong_lists_are_named():
    with pytest.raises(PluginError, match="operator 'Twice' is given twice"):
        qx.Network(plugins=[declared(), declared(version=2)])
    with pytest.raises(PluginError, match=r"plugins is a Op, expected a list of operators: plugins=\[op\]"):
        qx.build(doubled(), plugins=declared())


def forget(inputs, out):
    """Leaves the last row of the output as it was."""
    out[0][:-1] = 2 * inputs[0][:-1]
    return out[0]


def spoil(inputs, out):
    inputs[0].mul_(2)
    return inputs[0].clone()


WRONG = {
    "numbers": (kernel(lambda i, o: i[0] * 2.1), r"mine.twice, case 'odd', float32: y: relative error 5\.00e-02"),
    "dtype": (kernel(lambda i, o: (i[0] * 2).double()), "y is float64, declared float32"),
    "shape": (kernel(lambda i, o: (i[0] * 2)[:1]), r"y has shape \(1, 5\), reference \(3, 5\)"),
    "unfilled": (kernel(forget, writes_out=True), "y has 5 values that are not finite"),
    "elsewhere": (kernel(lambda i, o: i[0] * 2, writes_out=True), "y was not written where the caller asked"),
    "input changed": (kernel(spoil), "input x was changed"),
    "gaps": (
        kernel(lambda i, o: 2 * torch.as_strided(i[0], i[0].shape, (i[0].shape[1], 1))),
        "with gaps between the numbers of its inputs: y: relative error",
    ),
    "never": (kernel(None, supports=lambda call: "needs 9 cores, found 2"), "runs no case at all: needs 9 cores"),
    "count": (kernel(lambda i, o: ()), "the kernel gives 0 outputs, 1 are wanted"),
}


@pytest.mark.parametrize(("wrong", "said"), WRONG.values(), ids=WRONG)
def test_wrong_kernels_are_found(wrong, said):
    with pytest.raises(PluginError, match=said):
        check_operator(declared(kernels=(wrong,)))


def test_a_result_in_borrowed_memory_is_found():
    """The executor would write over it while it is still read."""
    same = declared(reference=lambda x: x * 1, kernels=(kernel(lambda i, o: i[0].view(-1).view(i[0].shape)),))
    with pytest.raises(PluginError, match="y shares the memory of input x; results need memory of their own"):
        check_operator(same)


def case(make=lambda g, dtype: [torch.ones(2, dtype=dtype)], name="a", **settings) -> Case:
    return Case(name, make, **settings)


CASES = {
    "none": ((), "it has no cases"),
    "inputs": ((case(lambda g, dtype: []),), "case 'a' makes 0 inputs, the operator has 1"),
    "rank": ((case(lambda g, dtype: [torch.zeros((), dtype=dtype)]),), "needs at least 1 axes, has 0"),
    "same": ((case(), case()), "two cases are called 'a'"),
    "wide": ((case(tolerance={"float32": 99}, reason="r"),), "'a' allows more than 10 times the tolerance"),
    "why": ((case(tolerance={"float32": 2}),), "'a' widens the tolerance without a reason"),
}


@pytest.mark.parametrize(("cases", "said"), CASES.values(), ids=CASES)
def test_wrong_cases_are_found(cases, said):
    with pytest.raises(PluginError, match=said):
        check_operator(declared(cases=lambda: cases))


def test_token_wise_operators_pass():
    assert check_operator(declared(token_wise=True))


def rows_of(x):
    return x.reshape(-1, x.shape[-1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reference": lambda x: x - rows_of(x).mean(0)}, "y of 2 of its 3 rows differs"),
        ({"reference": lambda x: rows_of(x).flip(0).reshape(x.shape)}, "y of 3 of its 3 rows differs"),
        (
            {"check": lambda inputs, given: ["it needs 3 axes"] if len(inputs[0].shape) < 3 else []},
            "rows without their leading axes are refused(?s:.*)it needs 3 axes",
        ),
    ],
)
def test_operators_that_are_not_token_wise_are_found_out(changes, words):
    def cases():
        yield Case("odd", lambda g, dtype: [torch.randn(1, 3, 5, generator=g).to(dtype)])

    with pytest.raises(PluginError, match=words):
        check_operator(declared(token_wise=True, cases=cases, **changes))


def test_a_token_wise_operator_needs_a_case_with_rows():
    def cases():
        yield Case("one", lambda g, dtype: [torch.randn(1, 5, generator=g).to(dtype)])

    with pytest.raises(PluginError, match="none of its cases has two rows"):
        check_operator(declared(token_wise=True, cases=cases))
