"""What makes the declaration of an operator usable; each problem is one sentence.

Operators of the user's are checked when they enter a network or a build, before anything is computed with them.
"""

import keyword
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..dtypes import BY_NAME as DTYPES
from . import axes_match
from .call import Kernel
from .declare import DOMAIN, REQUIRED, Attribute, Op, Param

_TOKEN = re.compile(r"(\d+|[A-Za-z_]\w*([+-]\d+)?)(\*(\d+|[A-Za-z_]\w*([+-]\d+)?))*")
_DOMAIN = re.compile(r"[A-Za-z][\w.-]*")
_KINDS = (int, float, str, bool, list)
_DEVICES = ("cpu", "cuda")
# Keywords of the call itself, which an input or attribute of that name would hide.
_TAKEN = ("self", "outputs", "name")
# Prefixes by which planner and reports tell kernels of standard operators and references.
_PREFIXES = ("onnx.", "reference.")


def declaration_problems(op: Op) -> list[str]:
    """Everything that is wrong with the declaration of an operator of the user's; empty when it can be used."""
    problems = [*_identity(op)]
    for what, kind in (("inputs", Param), ("outputs", Param), ("attributes", Attribute), ("kernels", Kernel)):
        problems += _tuple_of(what, getattr(op, what), kind)
    if problems:
        return problems
    return [*_names(op), *_parameters(op), *_attributes(op), *_kernels(op), *_functions(op), *_updates(op), *_rows(op)]


def _identity(op: Op) -> Iterator[str]:
    if not _is_name(op.name):
        yield f"its name is {op.name!r}, expected a Python name"
    if not isinstance(op.domain, str) or not _DOMAIN.fullmatch(op.domain):
        yield f"its domain is {op.domain!r}, expected a name such as 'my_company'"
    elif op.domain == DOMAIN or op.domain == "ai.onnx" or op.domain.startswith("ai.onnx."):
        yield f"its domain is {op.domain!r}, which belongs to qontext or ONNX; give it a domain of its own"
    if not isinstance(op.version, int) or isinstance(op.version, bool) or op.version < 1:
        yield f"its version is {op.version!r}, expected a whole number from 1"


def _tuple_of(what: str, given: Any, kind: type) -> Iterator[str]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        yield f"{what} is a {type(given).__name__}, expected a tuple of {kind.__name__}"
        return
    for item in given:
        if not isinstance(item, kind):
            yield f"{what} holds {item!r}, expected {kind.__name__}"


def _is_name(text: object) -> bool:
    return isinstance(text, str) and text.isidentifier() and text.isascii() and not keyword.iskeyword(text)


def _names(op: Op) -> Iterator[str]:
    """Names are Python names, and different where one call uses them together."""
    together = [p.name for p in op.inputs] + [a.name for a in op.attributes]
    for names in (together, [p.name for p in op.outputs]):
        seen: set[str] = set()
        for name in names:
            if not _is_name(name) or name in _TAKEN:
                yield f"{name!r} cannot be a name here; allowed are Python names other than {', '.join(_TAKEN)}"
            elif name in seen:
                yield f"the name {name!r} is used twice"
            seen.add(name)
    if all(p.optional for p in op.outputs):
        yield "it has no output that is always there"


def _parameters(op: Op) -> Iterator[str]:
    for name, dtypes in op.types.items():
        unknown = [d for d in dtypes if d not in DTYPES]
        if unknown or not dtypes:
            yield f"type {name!r} allows {unknown or 'nothing'}; known are {', '.join(DTYPES)}"
    unreadable = [problem for p in (*op.inputs, *op.outputs) for problem in _axes(p)]
    if unreadable:
        yield from unreadable
        return
    for param in (*op.inputs, *op.outputs):
        unknown = [d for d in param.dtype.split("|") if param.dtype not in op.types and d not in DTYPES]
        if unknown:
            yield (
                f"{param.name!r} has dtype {param.dtype!r}, which is neither one of its types "
                f"({', '.join(op.types) or 'none'}) nor a known name ({', '.join(DTYPES)})"
            )
    if op.infer is not None:
        return
    letters = {letter for p in op.inputs for letter in _letters(p.axes)}
    types = {p.dtype for p in op.inputs}
    for param in op.outputs:
        missing = sorted(_letters(param.axes) - letters) if param.axes != axes_match.ANY else [param.axes]
        if missing:
            yield f"output {param.name!r} has axes {param.axes!r}, but no input says {', '.join(missing)}; give infer="
        if (param.dtype in op.types and param.dtype not in types) or "|" in param.dtype:
            yield f"output {param.name!r} has dtype {param.dtype!r}, which no input decides; give infer="


def _axes(param: Param) -> Iterator[str]:
    if not isinstance(param.axes, str) or not isinstance(param.dtype, str):
        yield f"{param.name!r} has axes {param.axes!r} and dtype {param.dtype!r}, expected text such as 'B S E' and 'T'"
        return
    for form in axes_match.alternatives(param.axes):
        wrong = [t for t in form if t != "..." and not _TOKEN.fullmatch(t)]
        if wrong:
            yield (
                f"{param.name!r} has axes {param.axes!r}, where {', '.join(map(repr, wrong))} cannot be read; allowed "
                "are letters, numbers, products such as 3*E, '...' and alternatives with |"
            )
        if form.count("...") > 1:
            yield f"{param.name!r} has axes {param.axes!r}; '...' may stand once in a form"


def _letters(axes: str) -> set[str]:
    """The letters that a shape binds or needs; numbers and literals say themselves."""
    found = {factor for form in axes_match.alternatives(axes) for token in form for factor in token.split("*")}
    return {f for f in found if not f.isdigit() and f != "three"}


def _attributes(op: Op) -> Iterator[str]:
    for attribute in op.attributes:
        if attribute.kind not in _KINDS:
            kinds = ", ".join(k.__name__ for k in _KINDS)
            yield f"attribute {attribute.name!r} is of kind {attribute.kind!r}, allowed: {kinds}"
            continue
        given = [*attribute.choices, *([attribute.default] if attribute.default is not REQUIRED else [])]
        for value in given:
            if not _fits(value, attribute.kind):
                yield f"attribute {attribute.name!r} allows {value!r}, which is no {attribute.kind.__name__}"
        if attribute.choices and attribute.default is not REQUIRED and attribute.default not in attribute.choices:
            yield f"attribute {attribute.name!r} has default {attribute.default!r}, allowed: {attribute.choices}"


def _fits(value: object, kind: type) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is list:
        return isinstance(value, (list, tuple)) and all(type(item) in (int, float, str) for item in value)
    return isinstance(value, kind)


def _kernels(op: Op) -> Iterator[str]:
    seen: set[str] = set()
    for kernel in op.kernels:
        if not isinstance(kernel.name, str) or not kernel.name:
            yield f"a kernel has the name {kernel.name!r}, expected text"
        elif kernel.name.startswith(_PREFIXES):
            yield f"kernel {kernel.name!r} begins with {' or '.join(_PREFIXES)}, which mean something else in reports"
        elif kernel.name in seen:
            yield f"two kernels are called {kernel.name!r}"
        seen.add(kernel.name)
        if kernel.device not in _DEVICES:
            yield f"kernel {kernel.name!r} runs on {kernel.device!r}, allowed: {', '.join(_DEVICES)}"
        for what in ("supports", "bind"):
            if not callable(getattr(kernel, what)):
                yield f"kernel {kernel.name!r}: {what} is {getattr(kernel, what)!r}, expected a function of a call"
        for output, source in kernel.inplace:
            if not (0 <= output < len(op.outputs) and 0 <= source < len(op.inputs)):
                yield f"kernel {kernel.name!r}: inplace names output {output} and input {source}, which are not there"


def _functions(op: Op) -> Iterator[str]:
    needed: dict[str, Callable[..., Any] | None] = {"reference": op.reference, "cases": op.cases}
    optional: dict[str, Callable[..., Any] | None] = {
        "infer": op.infer,
        "cost": op.cost,
        "body": op.body,
        "check": op.check,
    }
    for name, function in needed.items():
        if not callable(function):
            yield f"{name} is {function!r}, expected a function"
    for name, function in optional.items():
        if function is not None and not callable(function):
            yield f"{name} is {function!r}, expected a function or None"


def _updates(op: Op) -> Iterator[str]:
    outputs, inputs = {p.name for p in op.outputs}, {p.name for p in op.inputs}
    for output, source in op.updates.items():
        if output not in outputs or source not in inputs:
            yield f"updates says that {output!r} is {source!r}; its outputs are {outputs}, its inputs {inputs}"


def _rows(op: Op) -> Iterator[str]:
    if not isinstance(op.token_wise, bool):
        yield f"token_wise is {op.token_wise!r}, expected True or False"
    elif op.token_wise:
        without = [p for p in op.outputs if not p.has_rows]
        if not any(p.has_rows for p in op.inputs):
            yield "it is token_wise, but no input has rows: axes that begin with '...'"
        for param in without:
            found = f"output {param.name!r} has axes {param.axes!r}"
            yield f"it is token_wise, but {found}, expected rows: '... {param.axes}'"
