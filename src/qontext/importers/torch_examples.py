"""Example inputs of a module: their names, the sizes that may change from run to run, and sizes fit for tracing.

The exporter takes a size of 0 or 1 for a constant, and two sizes that happen to be equal for one size. So examples
are repeated along their open axes until these are at least 2 and different from each other.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..errors import ArgumentError, all_problems

Axes = dict[str, dict[int, str]]
"""Names of open axes by input: {"input_ids": {0: "B", 1: "S"}}."""

_PLAIN = (bool, int, float, str)


def named_examples(module: torch.nn.Module, examples: object) -> dict[str, Any]:
    """The examples by the names of the arguments of `forward`. Raises ArgumentError for anything that does not fit."""
    if isinstance(examples, torch.Tensor):
        examples = (examples,)
    if not isinstance(examples, (Mapping, tuple, list)):
        raise ArgumentError(
            f"example_inputs is a {type(examples).__name__}; allowed are a dict by argument name and a tuple of tensors"
        )
    args, kwargs = ((), dict(examples)) if isinstance(examples, Mapping) else (tuple(examples), {})
    try:
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
    except TypeError as error:
        raise ArgumentError(f"example_inputs do not fit {type(module).__name__}.forward: {error}") from error
    named: dict[str, Any] = {}
    for parameter in bound.signature.parameters.values():
        if parameter.name not in bound.arguments:
            continue
        value = bound.arguments[parameter.name]
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            named.update(value)
        elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            named.update({f"{parameter.name}_{i}": v for i, v in enumerate(value)})
        else:
            named[parameter.name] = value
    problems = [
        f"{name!r} is a {type(value).__name__}"
        for name, value in named.items()
        if not isinstance(value, (torch.Tensor, *_PLAIN)) and value is not None
    ]
    if problems:
        raise ArgumentError(all_problems("example_inputs take tensors and plain settings", problems))
    if not any(isinstance(v, torch.Tensor) for v in named.values()):
        raise ArgumentError("example_inputs hold no tensor; give one for each input of the module")
    return named


def open_axes(examples: Mapping[str, Any], wanted: Mapping[str, Any] | Sequence[Any] | None) -> Axes:
    """Which axes are open, and which of them are the same size.

    Ids and masks (whole numbers, two axes) are `[B, S]`, floats with three axes `[B, S, features]`. In every other
    input axis 0 is open when its size in the example is B, and an axis behind it when its size is S. `wanted`
    overrules this input by input. Raises ArgumentError for a `wanted` that does not fit the examples.
    """
    tensors = {name: v for name, v in examples.items() if isinstance(v, torch.Tensor)}
    given = _wanted(tensors, wanted)
    axes: Axes = dict(given)
    free = [name for name in tensors if name not in given and _leads(tensors[name])]
    # `[B, S, S]` is a mask of scores beside ids or features, and features of S numbers where it stands alone.
    first = [name for name in free if not _square(tensors[name])] or free[:1]
    rest = [name for name in tensors if name not in given and name not in first]
    if _length_first(tensors, first, rest):
        names = {0: "S", 1: "B"}
    else:
        names = {0: "B", 1: "S"}
    axes.update({name: dict(names) for name in first})
    sizes = {s: tensors[n].shape[a] for n, open_here in axes.items() for a, s in open_here.items()}
    for name in rest:
        axes[name] = _like(tensors[name], sizes)
    return axes


def _like(tensor: torch.Tensor, sizes: Mapping[str, int]) -> dict[int, str]:
    """Open axes of another input: a batch stands first, a length behind it, or first where both axes are lengths."""
    shape, found = tensor.shape, {}
    for axis, size in enumerate(shape):
        fitting = [symbol for symbol, known in sizes.items() if known == size and size > 1]
        if axis == 0 and not (tensor.dim() == 2 and shape[0] == shape[1]):
            fitting = [s for s in fitting if s != "S"]
        elif axis > 0:
            fitting = [s for s in fitting if s != "B"]
        if fitting:
            found[axis] = "S" if "S" in fitting else fitting[0]
    return found


def _leads(tensor: torch.Tensor) -> bool:
    """True for inputs that say what B and S are."""
    whole = not tensor.is_floating_point() and not tensor.is_complex()
    return (whole and tensor.dim() == 2) or (tensor.is_floating_point() and tensor.dim() == 3)


def _square(tensor: torch.Tensor) -> bool:
    """True for `[B, S, S]`."""
    return tensor.dim() == 3 and tensor.shape[1] == tensor.shape[2]


def _length_first(tensors: Mapping[str, torch.Tensor], first: Sequence[str], rest: Sequence[str]) -> bool:
    """True when a mask `[B, ..., S]` shows that the features are `[S, B, features]`."""
    for name in first:
        shape = tensors[name].shape
        if len(shape) != 3 or shape[0] == shape[1]:
            continue
        for other in rest:
            mask = tensors[other].shape
            if len(mask) in (3, 4) and (mask[0], mask[-1]) == (shape[1], shape[0]):
                return True
    return False


def _wanted(tensors: Mapping[str, torch.Tensor], wanted: object) -> Axes:
    """`dynamic_shapes` as names by axis: text, `torch.export.Dim`, or None and numbers for what is fixed."""
    if wanted is None:
        return {}
    if isinstance(wanted, (tuple, list)):
        wanted = dict(zip(tensors, wanted, strict=False))
    if not isinstance(wanted, Mapping):
        raise ArgumentError(f"dynamic_shapes is a {type(wanted).__name__}; allowed is a dict by input name")
    problems: list[str] = []
    axes: Axes = {}
    for name, shape in wanted.items():
        if name not in tensors:
            problems.append(f"there is no tensor {name!r} among the example inputs {', '.join(tensors)}")
            continue
        pairs = dict(enumerate(shape)) if isinstance(shape, (tuple, list)) else shape
        pairs = {} if pairs is None else pairs
        if not isinstance(pairs, Mapping):
            problems.append(f"{name!r} has {shape!r}; allowed is a dict of names by axis")
            continue
        rank = tensors[name].dim()
        axes[name] = {}
        for axis, symbol in pairs.items():
            if not isinstance(axis, int) or not -rank <= axis < rank:
                problems.append(f"{name!r} has no axis {axis!r}, its example has {rank}")
            elif symbol is not None and not isinstance(symbol, int):
                # Unnamed requests (Dim.AUTO, Dim.DYNAMIC) are sizes of their own.
                text = symbol if isinstance(symbol, str) else getattr(symbol, "__name__", "")
                axes[name][axis % rank] = text if text.isidentifier() else f"{name}_{axis % rank}"
    if problems:
        raise ArgumentError(all_problems("dynamic_shapes", problems))
    return axes


def traceable(examples: Mapping[str, Any], axes: Axes) -> dict[str, Any]:
    """The examples, repeated along open axes until sizes are at least 2 and no two of them are equal.

    Raises ArgumentError when examples disagree about a size.
    """
    sizes: dict[str, int] = {}
    problems = []
    for name, open_here in axes.items():
        for axis, symbol in open_here.items():
            found = examples[name].shape[axis]
            if sizes.setdefault(symbol, found) != found:
                problems.append(f"{name!r} has {found} on axis {axis} ({symbol}), another input has {sizes[symbol]}")
            if found == 0:
                problems.append(f"{name!r} has 0 on axis {axis} ({symbol}); give an example with content")
    if problems:
        raise ArgumentError(all_problems("example_inputs contradict each other", problems))
    targets: dict[str, int] = {}
    # The length first: it may be at the model's limit already, a batch has none.
    for symbol in sorted(sizes, key=lambda s: (s != "S", s)):
        target = max(2, sizes[symbol])
        while target in targets.values():
            target += 1
        targets[symbol] = target
    result = dict(examples)
    for name, open_here in axes.items():
        tensor = examples[name].detach()
        for axis, symbol in open_here.items():
            if targets[symbol] != tensor.shape[axis]:
                rows = torch.arange(targets[symbol], device=tensor.device) % tensor.shape[axis]
                tensor = tensor.index_select(axis, rows)
        result[name] = tensor
    return result
