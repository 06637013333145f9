"""Which value of the imported graph a step of an engine computes, and how the two lie in memory."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir
import torch

from ..builder.plan import Step
from ..dtypes import relative_rms
from ..errors import ArgumentError, all_problems
from ..graph.ledger import Ledger, ids_of


def exits(graph: ir.Graph, steps: Sequence[Step]) -> list[list[ir.Value]]:
    """For each step, the values by which the nodes it stands for are read from outside, in the graph's order."""
    home = {number: i for i, step in enumerate(steps) for number in step.ids}
    members: list[list[ir.Node]] = [[] for _ in steps]
    for node in graph:
        homes = {home.get(number) for number in ids_of(node)}
        if len(homes) == 1 and (index := homes.pop()) is not None:
            members[index].append(node)
    found = []
    for nodes in members:
        inside = set(nodes)
        found.append(
            [
                value
                for node in nodes
                for value in node.outputs
                if value.is_graph_output() or any(use.node not in inside for use in value.uses())
            ]
        )
    return found


def check_same_model(imported: Ledger, built: Ledger) -> None:
    """Raises ArgumentError unless the engine was built from this model."""
    problems = []
    if len(imported.sources) != len(built.sources):
        problems.append(f"the model has {len(imported.sources)} nodes, the engine was built from {len(built.sources)}")
    for number, source in imported.sources.items():
        other = built.sources.get(number)
        if other is not None and (source.op_type, source.name) != (other.op_type, other.name):
            problems.append(
                f"node {number} is {source.op_type} {source.name!r}, in the engine {other.op_type} {other.name!r}"
            )
    if problems:
        raise ArgumentError(all_problems("compare: the engine was not built from this model", problems, 5))


@dataclass
class Tokens:
    """Where the real tokens of a padded batch lie: `index` into [B*S], and the sizes B and S; None without a mask."""

    index: torch.Tensor | None = None
    batch: int = 0
    length: int = 0
    keep: torch.Tensor | None = field(default=None, repr=False)

    @classmethod
    def of(cls, mask: torch.Tensor | None) -> "Tokens":
        if mask is None:
            return cls()
        real = mask.cpu() != 0
        return cls(real.flatten().nonzero().flatten(), real.shape[0], real.shape[1], real)


def aligned(references: Sequence[torch.Tensor], out: torch.Tensor, tokens: Tokens) -> torch.Tensor | None:
    """What `out` should be, made of reference values: as it is, packed, reshaped, or several side by side.

    All tensors lie on the host. Rows of padding are taken from `out`, since nobody reads them. None when the shapes
    fit in no way.
    """
    candidates = [found for r in references if (found := _fit(r, out, tokens)) is not None]
    if not candidates and 1 < len(references) <= 4 and len({r.shape[:-1] for r in references}) == 1:
        joined = (torch.cat(order, -1) for order in itertools.permutations(references))
        candidates = [found for r in joined if (found := _fit(r, out, tokens)) is not None]
    if not candidates:
        return None
    return min(candidates, key=lambda c: relative_rms(out, c.to(out.dtype))) if len(candidates) > 1 else candidates[0]


def _fit(reference: torch.Tensor, out: torch.Tensor, tokens: Tokens) -> torch.Tensor | None:
    if reference.dtype.is_floating_point != out.dtype.is_floating_point:
        return None
    if reference.shape == out.shape:
        padded = tokens.keep is not None and out.shape[:2] == tokens.keep.shape and out.dim() > 2
        if padded and tokens.keep is not None:
            keep = tokens.keep.reshape(*tokens.keep.shape, *[1] * (out.dim() - 2))
            return torch.where(keep, reference, out.to(reference.dtype))
        return reference
    rows = _rows(reference, out, tokens)
    if rows is not None and rows.numel() == out.numel():
        return rows.reshape(out.shape)
    if reference.numel() == out.numel() and reference.shape[-1:] == out.shape[-1:]:
        return reference.reshape(out.shape)
    return None


def _rows(reference: torch.Tensor, out: torch.Tensor, tokens: Tokens) -> torch.Tensor | None:
    """A padded value as rows of real tokens; heads are put side by side."""
    if tokens.index is None or reference.dim() < 2:
        return None
    batch, length = tokens.batch, tokens.length
    if reference.dim() == 4 and reference.shape[0] == batch and reference.shape[2] == length:
        reference = reference.transpose(1, 2)
    if reference.shape[:2] == (batch, length) or reference.shape[0] == batch * length:
        flat = reference.reshape(batch * length, -1)
    else:
        return None
    return flat if out.shape[0] == batch * length != len(tokens.index) else flat[tokens.index]


def sizes_of(inputs: Mapping[str, torch.Tensor]) -> str:
    """The inputs in words: "input_ids [2, 16]"."""
    return ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in inputs.items())
