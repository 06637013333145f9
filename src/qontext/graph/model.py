"""A model between import and build: one graph, its ledger, and what tasks need to know beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from .ledger import Ledger


@dataclass(frozen=True)
class InputRule:
    """How a run fills an input that the caller left out, and what it may hold.

    default:  None (must be given), "ones", "zeros", "arange" (0..S-1 in each row), or "positions_after_padding"
              (RoBERTa: count of tokens that are not `padding_idx`, plus `padding_idx`)
    like:     the input whose shape a default takes
    limit:    values must lie in [0, limit); None for no check here
    """

    default: str | None = None
    like: str = "input_ids"
    limit: int | None = None
    padding_idx: int = 0


@dataclass
class Model:
    """What the three doors return.

    name:       for people: folder name, file name, class name
    graph:      the `onnx_ir` graph (standard operators, or already some of ours)
    ledger:     every node of the graph as imported
    inputs:     rules for optional inputs, by name
    task:       "fill-mask", "embed", "classify", "token-classify", "answer", "encode", or None when unknown
    config:     JSON-able facts for tasks: labels, pooling, max_length, pad and mask ids, vocabulary size
    tokenizer:  text of tokenizer.json, or None
    source:     where it came from: "huggingface", "onnx", "torch", "network"
    programs:   further graphs over the same weights, by name: "prefill", "decode" and "beams" of a decoder
    states:     of the further graphs: inputs that hold a cache -> the outputs that are these inputs after a step
    attention_mask: name of the input [B, S] that says which tokens are real (0 = padding); None switches packing off
    """

    name: str
    graph: ir.Graph
    ledger: Ledger
    inputs: Mapping[str, InputRule] = field(default_factory=dict)
    task: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None
    source: str = "network"
    attention_mask: str | None = None
    programs: dict[str, ir.Graph] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.graph.num_nodes()} nodes, {len(self.graph.initializers)} weights, "
            f"task {self.task or 'unknown'}, from {self.source}"
        )
