"""Matching declared axes ("B S 3*E", "... E", "T ...") against shapes, and building output shapes from them."""

import re
from collections.abc import Mapping

from ..graph.dims import AnyDim, Shape, product, text

Axes = dict[str, AnyDim]
_LITERALS = {"three": 3}
ANY = "any"  # a declaration that leaves the shape to the operator's own check


def alternatives(axes: str) -> list[list[str]]:
    """The declared forms: "B S E | T E" gives [["B", "S", "E"], ["T", "E"]]. An empty form is a scalar."""
    return [form.split() for form in axes.split("|")]


def _factors(token: str) -> list[str]:
    return token.split("*")


def _known(token: str, axes: Mapping[str, AnyDim]) -> AnyDim:
    """The size of an axis expression, None while a letter of it is unmatched."""
    dims: list[AnyDim] = []
    for factor in _factors(token):
        if factor.isdigit():
            dims.append(int(factor))
        elif factor in _LITERALS:
            dims.append(_LITERALS[factor])
        else:
            dims.append(axes.get(factor))
    return product(dims)


def _bind(token: str, size: AnyDim, axes: Axes) -> str | None:
    """Records what `size` says about the letters of `token`; a sentence when it contradicts earlier ones."""
    if size is None:
        return None
    unknown = [f for f in _factors(token) if not f.isdigit() and f not in _LITERALS and axes.get(f) is None]
    if not unknown:
        want = _known(token, axes)
        if isinstance(want, int) and isinstance(size, int) and want != size:
            return f"axis {token} is {want} elsewhere and {size} here"
        if isinstance(size, int) and want is not None and not isinstance(want, int) and re.fullmatch(r"\w+", token):
            axes[token] = size  # a number says more than a symbol
        return None
    if len(unknown) == 1:
        letter = unknown[0]
        rest = product([_known(f, axes) for f in _factors(token) if f != letter])
        if rest == 1:
            axes[letter] = size
        elif isinstance(rest, int) and isinstance(size, int):
            if size % rest:
                return f"axis {token} is {size}, which is no multiple of {rest}"
            axes[letter] = size // rest
    return None


def match_form(form: list[str], shape: Shape, axes: Axes) -> str | None:
    """Matches one form, adding to `axes`; None on success, else one sentence."""
    if "..." in form:
        at, fixed = form.index("..."), len(form) - 1
        if len(shape) < fixed:
            return f"needs at least {fixed} axes, has {len(shape)}"
        count = len(shape) - fixed
        axes.setdefault("...", count)
        if axes["..."] != count:
            return f"has {count} axes for '...' where another operand has {axes['...']}"
        for i, dim in enumerate(shape[at : at + count]):
            problem = _bind(f"lead{i}", dim, axes)
            if problem:
                return problem
        shape = shape[:at] + shape[at + count :]
        form = form[:at] + form[at + 1 :]
    if len(form) != len(shape):
        return f"needs {len(form)} axes, has {len(shape)}"
    for token, dim in zip(form, shape, strict=True):
        problem = _bind(token, dim, axes)
        if problem:
            return problem
    return None


def match(declared: str, shape: Shape | None, axes: Axes) -> str | None:
    """Matches a shape against the first form that fits. None on success (or when the rank is unknown, or any shape)."""
    if shape is None or declared == ANY:
        return None
    problems = []
    for form in alternatives(declared):
        attempt = dict(axes)
        problem = match_form(form, shape, attempt)
        if problem is None:
            axes.update(attempt)
            return None
        problems.append(f"[{' '.join(form)}] {problem}")
    return f"has shape {text(shape)}; allowed: " + "; ".join(problems)


def build(declared: str, axes: Mapping[str, AnyDim], rank: int | None = None) -> Shape | None:
    """The output shape that `declared` says, from matched axes.

    With several forms, the first whose letters are all matched wins, else the first of the given rank.
    """
    forms = alternatives(declared)
    chosen = None
    for form in forms:
        letters = [f for t in form if t != "..." for f in _factors(t) if not f.isdigit() and f not in _LITERALS]
        if all(axes.get(x) is not None for x in letters) and ("..." not in form or "..." in axes):
            chosen = form
            break
    if chosen is None:
        fitting = [f for f in forms if "..." not in f and (rank is None or len(f) == rank)]
        if not fitting:
            return None
        chosen = fitting[0]
    out: list[AnyDim] = []
    for token in chosen:
        if token == "...":
            count = axes["..."]
            assert isinstance(count, int)
            out += [axes.get(f"lead{i}") for i in range(count)]
        else:
            out.append(_known(token, axes))
    return tuple(out)
