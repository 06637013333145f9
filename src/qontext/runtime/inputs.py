"""From what a caller passes to `run` to the tensors a program reads: checks, conversions, defaults."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..builder.plan import Program
from ..errors import DTypeError, InputError, ShapeError, all_problems
from ..graph.dims import Dim, text
from ..graph.model import InputRule

Array = Any  # numpy.ndarray, torch.Tensor, or nested lists of numbers


def prepare_inputs(
    program: Program,
    rules: Mapping[str, InputRule],
    given: Mapping[str, Array],
    max_tokens: int,
    max_length: int | None,
) -> dict[str, torch.Tensor]:
    """The complete, checked inputs of a program.

    Args:
        program: says names, dtypes and shapes.
        rules: which inputs may be left out and how they are filled.
        given: arrays by name.
        max_tokens, max_length: limits of the build.
    Raises:
        InputError: unknown or missing names, values out of range, sizes over the limits.
        DTypeError, ShapeError: naming the input, what it got and what was expected.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"run takes a dict of arrays by input name, got a {type(given).__name__}")
    problems = [
        f"unknown input {n!r}; the engine has {', '.join(program.inputs)}" for n in given if n not in program.inputs
    ]
    for name in program.inputs:
        rule = rules.get(name, InputRule())
        if name not in given and (rule.default is None or rule.like not in given):
            problems.append(f"input {name!r} is missing")
    if problems:
        raise InputError(all_problems("run", problems))
    tensors = {n: _tensor(program, n, given[n]) for n in program.inputs if n in given}
    for name in program.inputs:
        if name not in tensors:
            rule = rules[name]
            tensors[name] = _default(rule, tensors[rule.like], _dtype(program, name))
    _check_sizes(program, tensors, max_tokens, max_length)
    for name, rule in rules.items():
        if rule.limit is not None and name in given and tensors[name].numel():
            _check_range(name, tensors[name], rule.limit)
    return {name: tensors[name] for name in program.inputs}


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
    return tensor.detach().to(program.device.type).contiguous()


def _default(rule: InputRule, like: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if rule.default == "ones":
        return torch.ones(like.shape, dtype=dtype, device=like.device)
    if rule.default == "zeros":
        return torch.zeros(like.shape, dtype=dtype, device=like.device)
    if rule.default == "arange":
        row = torch.arange(like.shape[1], dtype=dtype, device=like.device)
        return row.expand(like.shape[0], like.shape[1]).contiguous()
    if rule.default == "positions_after_padding":
        real = (like != rule.padding_idx).to(dtype)
        return real.cumsum(1) * real + rule.padding_idx
    raise InputError(f"run: unknown default rule {rule.default!r}")


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


def _check_range(name: str, tensor: torch.Tensor, limit: int) -> None:
    low, high = (int(x) for x in torch.aminmax(tensor))
    if low < 0 or high >= limit:
        bad = ((tensor < 0) | (tensor >= limit)).nonzero()[0].tolist()
        value = int(tensor[tuple(bad)])
        raise InputError(f"run: input {name!r} holds {value} at {bad}; allowed are 0 to {limit - 1}")
