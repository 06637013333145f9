"""Validity rules that both operators share. Each answers with sentences, one a problem, naming the operand."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...graph.dims import AnyDim, text
from ..call import Operand


def differs(a: AnyDim, b: AnyDim) -> bool:
    """Both sizes are numbers, and not the same one."""
    return isinstance(a, int) and isinstance(b, int) and a != b


def check_attributes(attributes: Mapping[str, Any], prefix_lengths: Operand | None) -> list[str]:
    """Ranges of the attributes and the presence of `prefix_lengths`."""
    problems = []
    for name, least in (("scale", 0), ("softcap", 0), ("window_left", -1), ("window_right", -1)):
        if not attributes[name] >= least:
            problems.append(f"attribute {name!r} is {attributes[name]}, allowed: {least} and more")
    kind = attributes["kind"]
    if kind == "prefix" and prefix_lengths is None:
        problems.append("input 'prefix_lengths' [B] is missing, kind 'prefix' needs it")
    if kind != "prefix" and prefix_lengths is not None:
        problems.append(f"input 'prefix_lengths' is given, but kind is {kind!r}; it belongs to kind 'prefix'")
    return problems


def check_heads(num_heads: int, num_kv_heads: int) -> list[str]:
    """Positive counts of heads, query heads a multiple of key and value heads."""
    if num_heads < 1 or num_kv_heads < 1:
        return [f"num_heads is {num_heads} and num_kv_heads {num_kv_heads}, both have to be at least 1"]
    if num_heads % num_kv_heads:
        return [f"num_heads is {num_heads}, which is no multiple of num_kv_heads {num_kv_heads}"]
    return []


def check_presence(
    packed: bool, layout: str, inputs: Mapping[str, Operand | None], needs: Sequence[str], may: Sequence[str] = ()
) -> list[str]:
    """Packed layouts need every one of `needs` and may have those of `may`; padded layouts take none of them."""
    if packed:
        missing = [name for name in needs if inputs[name] is None]
        return [f"layout {layout!r} is packed and needs {_names(missing)}"] if missing else []
    given = [name for name in (*needs, *may) if inputs[name] is not None]
    return [f"layout {layout!r} is padded and takes no {_names(given)}; packed layouts begin with 'T'"] if given else []


def check_batch(batch: AnyDim, inputs: Mapping[str, Operand | None], names: Sequence[str]) -> list[str]:
    """Operands `[B]` have the batch size."""
    problems = []
    for name in names:
        operand = inputs[name]
        if operand is not None and operand.shape and differs(operand.shape[0], batch):
            problems.append(
                f"input {name!r} has shape {text(operand.shape)}, it needs [{batch}], one number a sequence"
            )
    return problems


def check_mask(
    name: str,
    mask: Operand | None,
    sizes: tuple[AnyDim, AnyDim, AnyDim, AnyDim],
    larger: bool = False,
    key_mask: bool = False,
) -> list[str]:
    """Shape of a mask or bias against (B, N, S, Skv), None where only the run knows.

    Args:
        larger: more rows and columns than needed are fine.
        key_mask: `[B or 1, S or 1, Skv]` for all heads and `[B, Skv]` over the keys are allowed too.
    """
    if mask is None or mask.shape is None:
        return []
    batch, heads, rows, columns = sizes
    counts = ", ".join(f"{k}={'?' if d is None else d}" for k, d in zip(("B", "N", "S", "Skv"), sizes, strict=True))
    problem = f"input {name!r} has shape {text(mask.shape)}, it needs [B or 1, N or 1, S or 1, Skv] with {counts}"
    problem += ", or larger in the last two" if larger else ""
    problem += "; or [B or 1, S or 1, Skv] for all heads, or [B, Skv] over the keys alone" if key_mask else ""
    if len(mask.shape) == 2 and key_mask:
        wrong = differs(mask.shape[0], batch) or _misfits(mask.shape[1], columns, larger)
        return [problem] if wrong else []
    if len(mask.shape) == 3 and not key_mask:
        return [f"{problem}; insert an axis to make it [B, 1, S, Skv]"]
    if len(mask.shape) not in (3, 4):
        return [problem]
    b, n, r, c = mask.shape if len(mask.shape) == 4 else (mask.shape[0], 1, *mask.shape[1:])
    wrong = any(have != 1 and differs(have, want) for have, want in ((b, batch), (n, heads)))
    wrong = wrong or (r != 1 and _misfits(r, rows, larger)) or _misfits(c, columns, larger)
    return [problem] if wrong else []


def _misfits(have: AnyDim, want: AnyDim, larger: bool) -> bool:
    return isinstance(have, int) and isinstance(want, int) and (have < want if larger else have != want)


def _names(names: Sequence[str]) -> str:
    return " and ".join(repr(n) for n in names)
