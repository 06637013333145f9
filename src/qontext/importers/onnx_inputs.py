"""Inputs of an imported graph: names of their sizes, which may be left out, and which one is the attention mask.

Exporters name dynamic axes as they like, or not at all. The graph needs one name for one size: ids and masks are
`[B, S]`, so their axes are called "B" and "S" wherever the file leaves them open.
"""

import re
from collections.abc import Sequence

import onnx_ir as ir

from ..dtypes import from_onnx
from ..errors import UnsupportedModelError, all_problems
from ..graph.dims import AnyDim, Dim, parse_dim, to_onnx
from ..graph.mask_use import used_as_mask
from ..graph.model import InputRule
from ..ops.infer import Inference

_IDS = re.compile(r"ids?(\b|_|\d|$)|mask|segment|token|position|input", re.IGNORECASE)
_TYPES = re.compile(r"token_?type|segment", re.IGNORECASE)
_WORDS = re.compile(r"^(input_?ids?|ids|tokens?|token_ids?|input)(\b|_\d+|$)", re.IGNORECASE)
_MAX_SIZE = (1 << 31) - 1
# Sizes that later passes name themselves.
_RESERVED = re.compile(r"^(T|Tkv|Skv|three|u\d+)$")


def check_types(graph: ir.Graph) -> None:
    """Raises UnsupportedModelError for inputs and weights of a type or rank that qontext cannot hold."""
    problems = []
    for value in graph.inputs:
        if value.dtype is None or value.shape is None:
            problems.append(f"input {value.name!r} has no {'data type' if value.dtype is None else 'shape'}")
        elif any(isinstance(d, int) and not 0 <= d <= _MAX_SIZE for d in value.shape):
            problems.append(f"input {value.name!r} has shape {value.shape}, allowed are sizes up to {_MAX_SIZE}")
    for value in (*graph.inputs, *graph.initializers.values()):
        kind = value.const_value.dtype if value.const_value is not None else value.dtype
        if kind is None:
            continue
        try:
            from_onnx(kind)
        except KeyError:
            problems.append(f"{'weight' if value.is_initializer() else 'input'} {value.name!r} is {kind.name}")
    if problems:
        raise UnsupportedModelError(all_problems("inputs and weights that qontext cannot hold", problems))


def name_sizes(graph: ir.Graph) -> None:
    """Writes shapes of inputs in which every open axis has a name, the same one where the size is the same."""
    names: dict[str, str] = {}
    open_axes: dict[ir.Value, list[AnyDim]] = {}
    for value in graph.inputs:
        declared = [d if isinstance(d, int) else d.value for d in value.shape or ()]
        if _id_like(value):
            # These share their axes, whatever the file calls them.
            for text, name in zip(declared, ("B", "S"), strict=True):
                if isinstance(text, str):
                    names.setdefault(text, name)
    for value in graph.inputs:
        declared = [d if isinstance(d, int) else d.value for d in value.shape or ()]
        usual = _usual(value)
        dims: list[AnyDim] = []
        for axis, text in enumerate(declared):
            if isinstance(text, int):
                dims.append(text)
            elif _id_like(value) or (text is None and usual[axis]):
                dims.append(Dim((usual[axis] or "",)))
            else:
                dims.append(Dim((_free(text if text is not None else f"{value.name}_{axis}", names),)))
        open_axes[value] = dims
    for value, dims in open_axes.items():
        value.shape = to_onnx(dims)


def _whole(value: ir.Value) -> bool:
    return value.dtype is not None and not value.dtype.is_floating_point()


def _id_like(value: ir.Value) -> bool:
    """Ids and masks `[B, S]`: whole numbers (a mask may be a float) of two axes with a telling name."""
    name = str(value.name)
    if value.shape is None or len(value.shape) != 2 or name.startswith("decoder_"):
        return False
    return bool(_IDS.search(name)) if _whole(value) else "mask" in name.lower()


def _usual(value: ir.Value) -> list[str | None]:
    """What open axes without a name are called: batch first, then the sequence."""
    rank = len(value.shape or ())
    if rank == 4 and "mask" in str(value.name).lower():
        return ["B", None, "S", "S"]
    if rank == 2 and not (_whole(value) or _id_like(value)):
        return ["B", None]
    return ["B", "S", *[None] * (rank - 2)][:rank]


def _free(text: str, names: dict[str, str]) -> str:
    """The size that the file calls `text`; an expression ("past + 1") is a size of its own."""
    if text not in names:
        clean = re.sub(r"\W+", "_", text, flags=re.ASCII)[:40].strip("_") or "d"
        clean = f"d_{clean}" if clean[0].isdigit() else clean
        taken = set(names.values())
        name, count = clean, 0
        while name in taken or _RESERVED.match(name):
            count += 1
            name = f"{clean}_{count}"
        names[text] = name
    return names[text]


def attention_mask_of(graph: ir.Graph) -> str | None:
    """The input `[B, S]` that says which tokens are real, None when there is no such input or more than one.

    Its name says mask and the graph uses it as one; an input that is only added or multiplied holds numbers.
    """
    named = [v for v in graph.inputs if "mask" in str(v.name).lower() and _by_tokens(v)]
    found = [str(v.name) for v in named if used_as_mask(v)]
    exact = [n for n in found if n.lower() in ("attention_mask", "input_mask", "mask")]
    chosen = exact or found
    return chosen[0] if len(chosen) == 1 else None


def _by_tokens(value: ir.Value) -> bool:
    dims = [d if isinstance(d, int) else parse_dim(d.value) for d in value.shape or ()]
    return len(dims) == 2 and dims[1] == Dim(("S",))


def rules_of(graph: ir.Graph, attention_mask: str | None) -> dict[str, InputRule]:
    """Which inputs may be left out, and the range of ids, read from the tables they are looked up in."""
    ids = next((str(v.name) for v in graph.inputs if _id_like(v) and _WORDS.search(str(v.name))), None)
    rules = {}
    for value in graph.inputs:
        name = str(value.name)
        default = None
        if ids is not None and name != ids and _id_like(value):
            if name == attention_mask:
                default = "ones"
            elif _TYPES.search(name):
                default = "zeros"
        limit = _rows_of_table(value)
        if default is not None or limit is not None:
            rules[name] = InputRule(default, ids or "input_ids", limit)
    return rules


def _rows_of_table(value: ir.Value) -> int | None:
    """Rows of the smallest embedding table that an input of ids is looked up in, directly or after a cast."""
    sizes: list[int] = []
    pending = [value]
    while pending:
        current = pending.pop()
        for node, index in current.uses():
            if node.op_type in ("Cast", "Identity") and node.domain == "":
                pending.append(node.outputs[0])
            elif node.op_type == "Gather" and node.domain == "" and index == 1:
                axis = node.attributes.get("axis")
                if axis is None or axis.as_int() == 0:
                    sizes += _table_rows(node.inputs[0])
            elif node.op_type == "EmbedLayerNorm" and index in (0, 2, 4):
                sizes += _table_rows(node.inputs[index + 1])
    return min(sizes, default=None)


def longest_of(graph: ir.Graph, inference: Inference) -> int | None:
    """The longest sequence that a table of positions has rows for; None where positions depend on the tokens.

    Positions that count up along the sequence are known by value while shapes are inferred: their largest grows with S.
    """
    if "S" not in inference.sizes:
        return None
    found = []
    for node in graph:
        if node.op_type == "EmbedLayerNorm" and node.inputs[2] is None:
            offset = node.attributes.get("position_offset")
            rows = _table_rows(node.inputs[3] if len(node.inputs) > 3 else None)
            found += [r - (offset.as_int() if offset is not None else 0) for r in rows]
        if node.op_type != "Gather" or node.domain != "":
            continue
        rows, places = _table_rows(node.inputs[0]), inference.look(node.inputs[1])
        if not rows or places is None or any(p.is_meta or p.numel() == 0 for p in places):
            continue
        first = {int(p.max()) - size for p, size in zip(places, inference.sizes["S"], strict=True)}
        if len(first) == 1:
            found.append(rows[0] - 1 - first.pop())
    return min(found, default=None)


def _table_rows(value: ir.Value | None) -> Sequence[int]:
    """Rows of a table of floats `[rows, E]`; none for anything else. Its values stay where they are."""
    held = value.const_value if value is not None and value.is_initializer() else None
    if held is None or len(held.shape) != 2 or not held.dtype.is_floating_point():
        return []
    return [int(held.shape.numpy()[0])]
