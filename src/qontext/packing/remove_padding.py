"""Padding removal: `[B, S]` becomes `[T]` with `cu_seqlens`.

Once, before the embedding, the ids of real tokens are gathered; every token-wise operator and the attention then run
on `[T, ...]`; a padded tensor is made again only where something asks for one (an output, an operator that mixes
tokens in a way of its own). Results at padded positions are zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
import torch

from ..errors import QontextError
from ..graph.attributes import attributes_of, values_of
from ..graph.dims import Dim
from ..graph.ledger import Ledger, ids_of, origin_of, set_ids, set_origin
from ..graph.tensors import constant_of
from ..ops.declare import DOMAIN, Op
from ..ops.infer import Inference

ELEMENTWISE = frozenset(
    {"Add", "Sub", "Mul", "Div", "Tanh", "Relu", "Sigmoid", "Erf", "Sqrt", "Neg", "Exp", "Pow", "Cast"}
)
PACKED_LAYOUT = {
    "B S (three N D)": "T (three N D)",
    "B S (N three D)": "T (N three D)",
    "B S (N D)": "T (N D)",
}


@dataclass(frozen=True)
class Packed:
    """One node that padding removal looked at: `reason` is empty when it now runs on packed tokens."""

    node: str
    op: str
    reason: str = ""


@dataclass
class PackingReport:
    """What padding removal did; `reason` says why it did nothing at all."""

    reason: str = ""
    nodes: list[Packed] = field(default_factory=list)

    @property
    def packed(self) -> int:
        return sum(not n.reason for n in self.nodes)


class _Refused(Exception):
    """This node keeps its padded form; the text says why."""


class _Pass:
    def __init__(self, graph: ir.Graph, inference: Inference, mask: ir.Value):
        self.graph = graph
        self.inference = inference
        self.mask = mask
        self.packed: dict[ir.Value, ir.Value] = {}  # results of nodes that run on tokens now
        self.gathered: dict[ir.Value, ir.Value] = {}  # packed copies of values that stay padded as well
        self.padded: dict[ir.Value, ir.Value] = {}
        self.report = PackingReport()
        self.batch, self.length = inference.shape(mask) or (None, None)
        first = next(iter(graph))
        index = self._node(first, DOMAIN, "PackIndex", [mask], {}, 3, "packing/index")
        self.token_index, self.cu_seqlens, self.max_seqlen = index.outputs
        self.anchor = index

    # -- pieces ------------------------------------------------------------------------------------------------

    def _node(
        self,
        before: ir.Node,
        domain: str,
        op: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, Any],
        outputs: int,
        name: str,
    ) -> ir.Node:
        node = ir.Node(domain, op, inputs, attributes_of(attributes), num_outputs=outputs, name=name)
        set_origin(node, "packing")
        for i, value in enumerate(node.outputs):
            value.name = name if outputs == 1 else f"{name}:{i}"
        self.graph.insert_before(before, node)
        self.inference.infer(node)
        return node

    def token_shaped(self, value: ir.Value | None) -> bool:
        """True for [B, S, ...] with the mask's own B and S."""
        shape = None if value is None else self.inference.shape(value)
        return shape is not None and len(shape) >= 2 and shape[0] == self.batch and shape[1] == self.length

    def pack(self, value: ir.Value, before: ir.Node) -> ir.Value:
        """The packed form of a token-shaped value, made by a gather when it has none yet."""
        if value in self.packed:
            return self.packed[value]
        if value not in self.gathered:
            name = f"packing/pack/{value.name}"
            node = self._node(before, DOMAIN, "PackTokens", [value, self.token_index], {}, 1, name)
            self.gathered[value] = node.outputs[0]
        return self.gathered[value]

    def unpack(self, value: ir.Value) -> ir.Value:
        """The padded form of a value that was packed, zero at padded positions; made once."""
        packed = self.packed[value]
        if value not in self.padded:
            inputs = [packed, self.token_index, self.mask]
            producer = packed.producer()
            assert producer is not None
            node = ir.Node(DOMAIN, "UnpackTokens", inputs, num_outputs=1, name=f"packing/unpack/{value.name}")
            set_origin(node, "packing")
            node.outputs[0].name = node.name
            self.graph.insert_after(producer, node)
            self.inference.infer(node)
            self.padded[value] = node.outputs[0]
        return self.padded[value]

    # -- one node ----------------------------------------------------------------------------------------------

    def visit(self, node: ir.Node) -> None:
        try:
            inputs, attributes, op = self.convert(node)
        except _Refused as refused:
            self.keep(node, str(refused))
            return
        new = ir.Node(
            DOMAIN if op == "FirstTokens" else node.domain,
            op,
            inputs,
            attributes_of(attributes),
            num_outputs=len(node.outputs),
            name=node.name,
        )
        set_origin(new, origin_of(node))
        for old, value in zip(node.outputs, new.outputs, strict=True):
            value.name = f"{old.name}/packed" if old.name else ""
        self.graph.insert_before(node, new)
        try:
            self.inference.infer(new)
        except QontextError as error:
            self.graph.remove(new, safe=True)
            self.keep(node, f"it does not take packed tokens: {error.message}")
            return
        set_ids(new, ids_of(node))
        set_ids(node, ())
        self.report.nodes.append(Packed(node.name or "", node.op_type))
        for old, value in zip(node.outputs, new.outputs, strict=True):
            if op == "FirstTokens":
                if old.is_graph_output():
                    value.name, old.name = old.name, f"{old.name}/before_packing"
                old.replace_all_uses_with(value, replace_graph_outputs=True)
            else:
                self.packed[old] = value

    def keep(self, node: ir.Node, reason: str) -> None:
        """Leaves a node as it is; what it reads of packed values is padded again for it."""
        touched = [v for v in node.inputs if v is not None and v in self.packed]
        if touched:
            self.report.nodes.append(Packed(node.name or "", node.op_type, reason))
        for i, value in enumerate(node.inputs):
            if value in touched and value is not None:
                node.replace_input_with(i, self.unpack(value))

    def convert(self, node: ir.Node) -> tuple[list[ir.Value | None], dict[str, Any], str]:
        """Inputs, attributes and operator of the packed form. Raises _Refused."""
        attributes = values_of(node)
        if node.op_type == "EmbedLayerNorm":
            return self._embedding(node), attributes, node.op_type
        if not any(v in self.packed for v in node.inputs if v is not None):
            raise _Refused("none of its inputs is packed")
        declared = self.inference.ops.get(node.op_type)
        if declared is not None and declared.domain == node.domain and declared.token_wise:
            return self._rows(declared, node), attributes, node.op_type
        if node.domain == "" and node.op_type in ELEMENTWISE:
            return [self._row(v, node) for v in node.inputs], attributes, node.op_type
        if node.op_type in ("QKVToContext", "QuantQKVToContext"):
            return self._attention(node, attributes, heads=1)
        if node.op_type == "Attention" and node.domain == DOMAIN:
            return self._attention(node, attributes, heads=3)
        if node.op_type == "Gather" and attributes.get("axis", 0) == 1:
            return self._first(node), {}, "FirstTokens"
        raise _Refused(f"{node.op_type} is not known to treat tokens one by one")

    def _rows(self, declared: Op, node: ir.Node) -> list[ir.Value | None]:
        """The inputs of an operator that is declared token-wise: those with rows packed, the others as they are."""
        inputs: list[ir.Value | None] = []
        for param, value in zip(declared.inputs, node.inputs, strict=False):
            if value is not None and param.has_rows:
                if not self.token_shaped(value) or len(self.inference.shape(value) or ()) < param.axes.count(" ") + 2:
                    raise _Refused(f"{value.name!r} has no row for each token")
                value = self.pack(value, node)
            inputs.append(value)
        return inputs

    def _row(self, value: ir.Value | None, node: ir.Node) -> ir.Value | None:
        """An operand of an elementwise operator: packed when it is token-shaped, itself when all tokens share it."""
        if value is None:
            return None
        if self.token_shaped(value):
            return self.pack(value, node)
        shape = self.inference.shape(value)
        if shape is None:
            raise _Refused(f"the shape of {value.name!r} is unknown")
        if any(isinstance(d, Dim) for d in shape) or (len(shape) > 2 and any(d != 1 for d in shape[:-1])):
            raise _Refused(f"{value.name!r} is neither one value a token nor shared by all tokens")
        if len(shape) > 2:
            raise _Refused(f"{value.name!r} has {len(shape)} axes")
        return value

    def _embedding(self, node: ir.Node) -> list[ir.Value | None]:
        inputs = list(node.inputs) + [None] * (9 - len(node.inputs))
        ids, word, positions, position_table, types, type_table, weight, bias, mask = inputs
        if not self.token_shaped(ids):
            raise _Refused("its ids are not [B, S] like the attention mask")
        if mask is not None or len([v for v in node.outputs if v.name]) > 1:
            raise _Refused("its extra outputs are wanted in padded form")
        if position_table is not None:
            counted = positions is None and values_of(node).get("padding_idx", -1) < 0
            if not counted and (positions is None or not self.token_shaped(positions)):
                raise _Refused("its positions are not given for each token")
            if positions is None:
                positions = self._places(node, values_of(node).get("position_offset", 0))
            else:
                positions = self.pack(positions, node)
        assert ids is not None
        if types is not None and not self.token_shaped(types):
            raise _Refused("its token types are not given for each token")
        types = None if types is None else self.pack(types, node)
        return [self.pack(ids, node), word, positions, position_table, types, type_table, weight, bias]

    def _places(self, before: ir.Node, offset: int) -> ir.Value:
        """Positions that count from `offset`: the place of each token in its padded row."""
        length = self._node(before, "", "Shape", [self.mask], {"start": 1, "end": 2}, 1, "packing/length")
        inputs = [self.token_index, length.outputs[0]]
        place = self._node(before, "", "Mod", inputs, {}, 1, "packing/place")
        if not offset:
            return place.outputs[0]
        number = {"value": torch.tensor([offset])}
        first = self._node(before, "", "Constant", [], number, 1, "packing/first_position")
        both = [place.outputs[0], first.outputs[0]]
        return self._node(before, "", "Add", both, {}, 1, "packing/positions").outputs[0]

    def _attention(
        self, node: ir.Node, attributes: dict[str, Any], heads: int
    ) -> tuple[list[Any], dict[str, Any], str]:
        layout = attributes["layout"]
        if layout not in PACKED_LAYOUT:
            raise _Refused(f"layout {layout!r} has no packed form")
        if sum(bool(v.name) for v in node.outputs) > 1:
            raise _Refused("its scores, values or present keys are wanted, which are padded by definition")
        count = 10 if heads == 1 else 13
        given = list(node.inputs) + [None] * (count - len(node.inputs))
        names = _QKV_INPUTS if heads == 1 else _ATTENTION_INPUTS
        by_name = dict(zip(names, given, strict=False))
        for name in names[:heads]:
            if by_name[name] not in self.packed:
                raise _Refused(f"its {name} is not packed")
        mask = by_name["mask"]
        if mask is None:
            raise _Refused("it attends to padding: the model gives it no mask")
        if attributes.get("mask_means") == "ignore" or not self._is_padding_mask(mask):
            raise _Refused(f"its mask {mask.name!r} says more than which tokens are padding")
        for name in ("lengths", "key_lengths", "prefix_lengths", "past_key", "past_value"):
            if by_name.get(name) is not None:
                raise _Refused(f"its input {name!r} has no packed form")
        for name in names[:heads]:
            by_name[name] = self.packed[by_name[name]]
        by_name["mask"] = None
        for name in names:
            if name.startswith("cu_seqlens"):
                by_name[name] = self.cu_seqlens
            if name.startswith("max_seqlen"):
                by_name[name] = self.max_seqlen
        inputs = [by_name[n] for n in names]
        while inputs and inputs[-1] is None:
            inputs.pop()
        return inputs, {**attributes, "layout": PACKED_LAYOUT[layout]}, node.op_type

    def _is_padding_mask(self, mask: ir.Value) -> bool:
        """True when the mask is the attention mask itself, cast to bool and given axes of size 1."""
        value: ir.Value | None = mask
        while value is not None and value is not self.mask:
            producer = value.producer()
            if producer is None or producer.op_type not in ("Cast", "Unsqueeze", "Reshape"):
                return False
            value = producer.inputs[0]
        return value is self.mask

    def _first(self, node: ir.Node) -> list[ir.Value | None]:
        data, index = node.inputs
        position = constant_of(index)
        if data not in self.packed or position is None or position.dim() != 0 or int(position) != 0:
            raise _Refused("it gathers other tokens than the first of each sequence")
        return [self.packed[data], self.cu_seqlens]


_QKV_INPUTS = (
    "qkv",
    "lengths",
    "mask",
    "bias",
    "cu_seqlens",
    "max_seqlen",
    "prefix_lengths",
    "qkv_scale",
    "context_scale",
)
_ATTENTION_INPUTS = (
    "query", "key", "value", "mask", "bias", "past_key", "past_value", "key_lengths", "cu_seqlens_q", "cu_seqlens_kv",
    "max_seqlen_q", "max_seqlen_kv", "prefix_lengths",
)  # fmt: skip


def remove_padding(graph: ir.Graph, inference: Inference, ledger: Ledger, attention_mask: str | None) -> PackingReport:
    """Rewrites a fused graph to run on packed tokens.

    Args:
        graph: the fused graph; changed in place.
        ledger: learns what became superfluous.
        attention_mask: name of the graph input [B, S] that says which tokens are real, 0 for padding.
    Returns:
        What was packed and what was not, with reasons. The graph is untouched when `reason` is set.
    """
    mask = next((v for v in graph.inputs if v.name == attention_mask), None)
    if mask is None:
        return PackingReport("the model has no attention mask, so no token is known to be padding")
    shape = inference.shape(mask)
    if shape is None or len(shape) != 2 or not all(isinstance(d, Dim) for d in shape):
        return PackingReport(f"the attention mask {attention_mask!r} is not [B, S] with free B and S")
    if not any(n.op_type == "EmbedLayerNorm" for n in graph):
        return PackingReport("no fused embedding was found, and padding is removed in front of it")
    work = _Pass(graph, inference, mask)
    for node in list(graph):
        if node is not work.anchor and node.name is not None and not node.name.startswith("packing/"):
            work.visit(node)
    for value in list(graph.outputs):
        if value in work.packed:
            padded = work.unpack(value)
            name = value.name
            value.name = f"{name}/before_packing"
            padded.name = name
            value.replace_all_uses_with(padded, replace_graph_outputs=True)
    _sweep(graph, ledger)
    return work.report


def _sweep(graph: ir.Graph, ledger: Ledger) -> None:
    """Deletes what nobody reads any more: padded forms (their ids have moved) and the arithmetic of the mask."""
    for node in reversed(list(graph)):
        if not any(v.uses() or v.is_graph_output() for v in node.outputs):
            if ids_of(node):
                ledger.remove(node, "padding removal: cu_seqlens say what the mask said")
            graph.remove(node, safe=True)
