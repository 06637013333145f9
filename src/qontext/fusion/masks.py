"""The mask of an attention becomes the boolean mask itself, or the kind of the attention."""

from dataclasses import dataclass

import onnx_ir as ir

from ..errors import NoFusion
from ..ops.catalogue import BY_NAME as OPS
from ..ops.declare import Op
from .mask_facts import Fact, empty_row_of, understand
from .rewriter import Rewriter
from .rule import Conditions, Rule

ATTENTIONS = ("Attention", "QKVToContext", "QuantQKVToContext")
_BOOL = int(ir.DataType.BOOL)
_SHIFTS = frozenset({"past_key", "key_lengths", "lengths"})  # with them "causal" counts from another place


@dataclass(frozen=True)
class Found:
    fact: Fact
    empty_row: str


def check(node: ir.Node, rewriter: Rewriter) -> Found:
    seen = Conditions(node)
    seen.candidate(rewriter.is_ours(node, *ATTENTIONS), "this is no fused attention")
    op = OPS[node.op_type]
    mask = rewriter.input(node, op.input_index("mask"))
    mask = seen.found(
        None if mask is None or _is_plain(rewriter, mask) else mask, "it has no mask, or a plain one already"
    )
    attributes = rewriter.attributes(node)
    means = attributes.get("mask_means", "by_type")
    whole = mask.dtype is not None and not mask.dtype.is_floating_point() and mask.dtype != ir.DataType.BOOL
    seen.holds(means == "by_type" and not whole, f"its {mask.dtype} mask is read as it is ({means}), zero or not")
    try:
        fact = understand(rewriter, mask)
        seen.depth += 1
        empty_row = attributes.get("empty_row", "zeros")
        if fact.fill is not None and not fact.everything:
            empty_row = empty_row_of(fact.fill, mask.dtype)
    except NoFusion as no:
        raise seen.refusal(no.reason) from no
    kind = attributes.get("kind", "full")
    seen.holds(not fact.causal or kind in ("full", "causal"), f"it is causal, but the attention is of kind {kind}")
    shifted = any(rewriter.input(node, op.input_index(name)) is not None for name in _SHIFTS & _inputs_of(op))
    seen.holds(not fact.causal or not shifted, "it is causal, and the queries do not start with the first key")
    return Found(fact, empty_row)


def _inputs_of(op: Op) -> frozenset[str]:
    return frozenset(param.name for param in op.inputs)


def _is_plain(rewriter: Rewriter, mask: ir.Value) -> bool:
    """An input, cast to boolean and then given axes where it needs them: the form that this rule makes."""
    for kind in ("Unsqueeze", "Cast"):
        node = rewriter.producer(mask, kind)
        if mask.dtype == ir.DataType.BOOL and node is not None and node.domain == "" and node.inputs[0] is not None:
            mask = node.inputs[0]
    return (
        mask.producer() is None
        and not mask.is_initializer()
        and (mask.dtype is None or not mask.dtype.is_floating_point())
    )


def rewrite(node: ir.Node, found: Found, rewriter: Rewriter) -> None:
    fact, op = found.fact, OPS[node.op_type]
    inputs = list(node.inputs)
    at = op.input_index("mask")
    inputs[at] = None if fact.root is None else _value(rewriter, fact, node)
    attributes = {**rewriter.attributes(node), "empty_row": found.empty_row if fact.root is not None else "zeros"}
    if fact.causal:
        attributes["kind"] = "causal"
    rewriter.replace(
        RULE.name,
        [node, *fact.nodes],
        op,
        inputs,
        attributes,
        list(node.outputs),
        note=_words(fact),
        origin=[node],  # the arithmetic of a mask stands far from the attention
    )


def _words(fact: Fact) -> str:
    if fact.root is None:
        return "masks nothing else" if fact.causal else "masks nothing"
    fill = "" if fact.fill is None else f", fill {fact.fill:.3g}"
    return f"mask is {'not ' if fact.inverted else ''}{fact.root.name}{fill}"


def _value(rewriter: Rewriter, fact: Fact, node: ir.Node) -> ir.Value:
    """The boolean mask as the attention takes it: [B, Skv], or four axes."""
    assert fact.root is not None
    root = fact.root
    if root.dtype != ir.DataType.BOOL:
        root = as_bool(rewriter, root, node)
    if fact.inverted:
        root = rewriter.insert(node, "Not", [root]).outputs[0]
    if fact.place == "rows":
        root = rewriter.unsqueeze(node, root, [0, 1])
    elif fact.place == "batch":
        root = rewriter.unsqueeze(node, root, [1])
    return root


def as_bool(rewriter: Rewriter, value: ir.Value, node: ir.Node) -> ir.Value:
    """`value` cast to boolean: true where it is not 0. An input of the graph is cast once for everybody."""
    if value.producer() is not None:
        return rewriter.insert(node, "Cast", [value], {"to": _BOOL}).outputs[0]
    for reader in rewriter.consumers(value):
        if reader.op_type == "Cast" and reader.domain == "" and reader.outputs[0].dtype == ir.DataType.BOOL:
            first = next(iter(rewriter.graph))
            if reader is not first:
                rewriter.move_first(reader)
            return reader.outputs[0]
    first = next(iter(rewriter.graph))
    return rewriter.insert(first, "Cast", [value], {"to": _BOOL}, origin=[node]).outputs[0]


RULE = Rule(
    name="mask",
    doc="Whatever computes a padding or causal mask becomes the boolean mask itself, [B, Skv] where keys alone decide, "
    "or the kind of the attention; `empty_row` keeps what a wholly masked row gets: zeros for -inf and boolean masks, "
    "uniform or as_unmasked for finite fills. Masks that allow everything go.",
    anchors=frozenset(ATTENTIONS),
    check=check,
    rewrite=rewrite,
    why="after attention, and before qkv, so that QKVToContext gets the mask it is fastest with",
)
