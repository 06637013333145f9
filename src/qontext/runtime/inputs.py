"""From what a caller passes to `run` to the tensors a program reads: checks, conversions, defaults."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..builder.plan import Program
from ..errors import DTypeError, InputError, ShapeError, all_problems
from ..graph.dims import Dim, text
from ..graph.model import InputRule
from .id_ranges import range_check

# Defaults that follow from the shape of the input they stand beside.
_BY_SHAPE = ("ones", "zeros", "arange")

_NO_RULE = InputRule()

Array = Any  # numpy.ndarray, torch.Tensor, or nested lists of numbers

# Batches of so many shapes are known to be right at a time.
_REMEMBERED = 64

Signature = tuple[tuple[str, torch.Size, torch.dtype, torch.device], ...]


@dataclass(frozen=True)
class Prepared:
    """Inputs of a program, and what is left to check.

    check: raises InputError for values out of range. It has been called already for inputs on the host; for those on
        a device it waits for numbers from there, so the caller calls it when it has to wait anyway.
    ones: inputs that were left out and filled with ones.
    fixed: inputs that were left out and filled by their shape alone; on a GPU they are the same tensors each time.
    """

    tensors: dict[str, torch.Tensor]
    check: Callable[[], None] = lambda: None
    ones: frozenset[str] = frozenset()
    fixed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Known:
    """What preparing found out about batches of one signature: inputs to fill in, and those to check by value."""

    filled: Mapping[str, torch.Tensor]
    checked: tuple[str, ...]
    ones: frozenset[str]


class Inputs:
    """What a program takes.

    A program of a GPU takes its inputs where they are: on the host when all of them lie there, else on its device.

    Args:
        program: says names, dtypes and shapes.
        rules: which inputs may be left out and how they are filled.
        max_tokens, max_length: limits of the build.
    """

    def __init__(
        self, program: Program, rules: Mapping[str, InputRule], max_tokens: int, max_length: int | None
    ) -> None:
        self._program = program
        self._rules = rules
        self._most = max_tokens, max_length
        self._limits = {name: rule.limit for name, rule in rules.items() if rule.limit is not None}
        self._known: dict[Signature, _Known] = {}

    def prepare(self, given: Mapping[str, Array]) -> Prepared:
        """The complete, checked inputs of the program.

        Args:
            given: arrays by name.
        Raises:
            InputError: unknown or missing names, values out of range, sizes over the limits.
            DTypeError, ShapeError: naming the input, what it got and what was expected.
        """
        if not isinstance(given, Mapping):
            raise InputError(f"run takes a dict of arrays by input name, got a {type(given).__name__}")
        signature = _signature(given)
        known = None if signature is None else self._known.get(signature)
        if known is not None:
            tensors = {**given, **known.filled}
            return self._prepared(tensors, known)
        tensors = self._complete(given)
        checked = tuple(n for n in self._limits if n in given and tensors[n].numel())
        missing = [n for n in self._program.inputs if n not in given]
        known = _Known(
            {n: tensors[n] for n in missing if self._rules[n].default in _BY_SHAPE},
            checked,
            frozenset([n for n in missing if self._rules[n].default == "ones"]),
        )
        as_given = signature is not None and all(tensors[n].data_ptr() == given[n].data_ptr() for n in given)
        if signature is not None and as_given and len(known.filled) == len(missing):
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[signature] = known
        return self._prepared(tensors, known)

    def _prepared(self, tensors: Mapping[str, torch.Tensor], known: _Known) -> Prepared:
        check = range_check({n: tensors[n] for n in known.checked}, self._limits)
        order = self._program.inputs
        return Prepared({n: tensors[n] for n in order}, check, known.ones, frozenset(known.filled))

    def _complete(self, given: Mapping[str, Array]) -> dict[str, torch.Tensor]:
        """All inputs as tensors of the program's dtypes and of shapes that fit each other and the limits."""
        program, rules = self._program, self._rules
        problems = [
            f"unknown input {n!r}; the engine has {', '.join(program.inputs)}" for n in given if n not in program.inputs
        ]
        for name in program.inputs:
            rule = rules.get(name, _NO_RULE)
            if name not in given and (rule.default is None or rule.like not in given):
                problems.append(f"input {name!r} is missing")
        if problems:
            raise InputError(all_problems("run", problems))
        tensors = {n: _tensor(program, n, given[n]) for n in program.inputs if n in given}
        tensors = _gathered(tensors, program.device.torch)
        for name in program.inputs:
            if name not in tensors:
                rule = rules[name]
                tensors[name] = _default(rule, tensors[rule.like], _dtype(program, name), program.device.type != "cpu")
        _check_sizes(program, tensors, *self._most)
        return tensors


def _signature(given: Mapping[str, Array]) -> Signature | None:
    """Names, shapes, dtypes and places; None for what has to be converted to be a tensor that can be used as it is."""
    found = []
    for name, tensor in given.items():
        if not isinstance(tensor, torch.Tensor) or tensor.requires_grad or not tensor.is_contiguous():
            return None
        found.append((name, tensor.shape, tensor.dtype, tensor.device))
    return tuple(found)


def _dtype(program: Program, name: str) -> torch.dtype:
    operand = program.operands[program.inputs[name]]
    assert operand is not None
    return operand.type.torch


def _tensor(program: Program, name: str, array: Array) -> torch.Tensor:
    want = _dtype(program, name)
    try:
        tensor = array if isinstance(array, torch.Tensor) else torch.as_tensor(np.asarray(array))
    except (TypeError, ValueError, RuntimeError) as error:
        raise DTypeError(f"run: input {name!r} cannot be read as an array of numbers: {error}") from error
    if tensor.dtype != want:
        whole = not tensor.is_floating_point() and not tensor.is_complex()
        if want.is_floating_point != (not whole) and not (want.is_floating_point and tensor.dtype == torch.bool):
            raise DTypeError(f"run: input {name!r} is {tensor.dtype}, expected {want}")
        if tensor.is_complex():
            raise DTypeError(f"run: input {name!r} is complex, expected {want}")
        tensor = tensor.to(want)
    shape = program.input_shapes[name]
    if tensor.dim() != len(shape):
        raise ShapeError(f"run: input {name!r} has shape {list(tensor.shape)}, expected {text(shape)}")
    return tensor.detach().contiguous()


def _gathered(tensors: dict[str, torch.Tensor], place: torch.device) -> dict[str, torch.Tensor]:
    """All tensors on the host, or all at the place of the program."""
    if place.type != "cpu" and all(t.device.type == "cpu" for t in tensors.values()):
        return tensors
    return {name: t.to(place) for name, t in tensors.items()}


def _default(rule: InputRule, like: torch.Tensor, dtype: torch.dtype, keep: bool) -> torch.Tensor:
    """The values of an input that was left out; with `keep` one that is kept for the next time where it can be."""
    if rule.default in _BY_SHAPE:
        make = _kept if keep else _by_shape
        return make(rule.default, tuple(like.shape), dtype, like.device)
    if rule.default == "positions_after_padding":
        real = (like != rule.padding_idx).to(dtype)
        return real.cumsum(1) * real + rule.padding_idx
    raise InputError(f"run: unknown default rule {rule.default!r}")


def _by_shape(default: str, shape: tuple[int, ...], dtype: torch.dtype, place: torch.device) -> torch.Tensor:
    if default == "ones":
        return torch.ones(shape, dtype=dtype, device=place)
    if default == "zeros":
        return torch.zeros(shape, dtype=dtype, device=place)
    row = torch.arange(shape[1], dtype=dtype, device=place)
    return row.expand(shape[0], shape[1]).contiguous()


_kept = functools.lru_cache(maxsize=64)(_by_shape)


def _check_sizes(
    program: Program, tensors: Mapping[str, torch.Tensor], max_tokens: int, max_length: int | None
) -> None:
    sizes: dict[str, tuple[int, str]] = {}
    problems = []
    for name, tensor in tensors.items():
        for axis, (dim, size) in enumerate(zip(program.input_shapes[name], tensor.shape, strict=True)):
            if isinstance(dim, int) and dim != size:
                problems.append(f"input {name!r} has {size} on axis {axis}, expected {dim}")
            if isinstance(dim, Dim):
                other, owner = sizes.setdefault(dim.symbols[0], (size, name))
                if other != size:
                    problems.append(
                        f"input {name!r} has {size} on axis {axis} ({dim}), but {owner!r} has {other} there"
                    )
    if problems:
        raise ShapeError(all_problems("run", problems))
    if "B" in sizes and "S" in sizes:
        batch, length = sizes["B"][0], sizes["S"][0]
        if max_length is not None and length > max_length:
            raise InputError(
                f"run: sequences of {length} tokens were given, the engine takes at most {max_length}; "
                f"shorten them, or build with a larger max_length if the model has the positions"
            )
        if batch * length > max_tokens:
            raise InputError(
                f"run: {batch} x {length} = {batch * length} tokens were given, the engine takes at most {max_tokens}; "
                f"split the batch or build with a larger max_tokens"
            )


def check_right_padded(mask: Array) -> None:
    """Raises InputError unless every row of a mask is ones followed by zeros, as programs of decoders read it."""
    tensor = mask if isinstance(mask, torch.Tensor) else torch.as_tensor(np.asarray(mask))
    if tensor.dim() == 2 and bool((tensor[:, 1:].bool() & ~tensor[:, :-1].bool()).any()):
        row = int((tensor[:, 1:].bool() & ~tensor[:, :-1].bool()).any(1).nonzero()[0])
        raise InputError(
            f"run: row {row} of attention_mask has a token behind padding; a decoder takes right-padded input"
        )
