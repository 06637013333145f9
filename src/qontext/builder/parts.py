"""The three parts of a program on a GPU: what finds the tokens, what works on packed tokens, what pads again.

Head: steps that the middle needs and that read the padded form (PackIndex, gathers of ids). When the inputs lie on
the host they run there, so that one copy takes everything to the device and nothing is ever read back.
Core: steps over packed tokens alone, which treat every row or every sequence by itself. Sizes may therefore be
rounded up: rows beyond the tokens are computed from harmless ids and never read, sequences beyond the batch are
empty. This is what a CUDA graph holds.
Tail: the rest, with the sizes as they are; it makes fresh tensors, so it is also what takes results out of the graph.
A program without PackIndex is all core, and its sizes are never rounded.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..graph.dims import Dim
from ..ops.call import Operand
from ..ops.catalogue import OPS
from ..packing.remove_padding import ELEMENTWISE

if TYPE_CHECKING:
    from .plan import Step

# Steps of a user's operator stay in the tail: nothing says that its kernels may be captured.
_TOKEN_WISE = frozenset(op.name for op in OPS if op.token_wise)
_BY_SEQUENCE = frozenset({"QKVToContext", "Attention", "FirstTokens", "EmbedLayerNorm"})


@dataclass(frozen=True)
class Parts:
    """How a program is divided; its steps stand in the order head, core, tail.

    head, core:   how many steps
    host:         the steps of the head planned for the CPU
    tokens:       the symbol of the packed tokens, None when nothing is packed (then sizes are taken as they are)
    batch:        the symbol of the sequences
    core_inputs:  slots that the core reads and that are neither constants nor its own
    host_inputs:  those of them that kernels read on the host (the longest sequence)
    core_outputs: slots of the core that the tail or the caller reads
    tail_inputs:  slots that kernels of the tail read from before the core
    """

    head: int
    core: int
    host: tuple["Step", ...] = ()
    tokens: str | None = None
    batch: str | None = None
    core_inputs: tuple[int, ...] = ()
    host_inputs: frozenset[int] = frozenset()
    core_outputs: tuple[int, ...] = ()
    tail_inputs: tuple[int, ...] = ()


def divide(
    steps: Sequence["Step"], operands: Sequence[Operand | None], constants: Set[int]
) -> tuple[list[int], list[int], list[int]]:
    """Positions of the steps of head, core and tail, each in the order it had."""
    packers = [s for s in steps if s.op == "PackIndex"]
    if len(packers) != 1:
        return [], list(range(len(steps))), []
    symbols = _symbols_of(packers[0], operands)
    head: list[int] = []
    core: list[int] = []
    tail: list[int] = []
    made_by_core: set[int] = set()
    made_by_tail: set[int] = set()
    for index, step in enumerate(steps):
        given = {s for s in step.inputs if s >= 0}
        if not given & made_by_tail and _fits_core(step, operands, constants, symbols):
            core.append(index)
            made_by_core.update(step.outputs)
        elif given & (made_by_core | made_by_tail):
            tail.append(index)
            made_by_tail.update(step.outputs)
        else:
            head.append(index)
    return head, core, tail


def parts_of(
    steps: Sequence["Step"],
    counts: tuple[int, int],
    host: Sequence["Step"],
    operands: Sequence[Operand | None],
    constants: Set[int],
    outputs: Mapping[str, int],
) -> Parts:
    """The record of a division, from steps in their new order."""
    head, core = counts
    mine, rest = steps[head : head + core], steps[head + core :]
    made = {s for step in mine for s in step.outputs if s >= 0}
    made_later = {s for step in rest for s in step.outputs}
    read = tuple(s for s in _read(mine) if s not in made and s not in constants)
    wanted = [s for s in (*_read(rest), *outputs.values()) if s in made]
    on_device = {s for step in (*mine, *rest) for i, s in enumerate(step.inputs) if i not in step.host}
    packers = [s for s in steps[:head] if s.op == "PackIndex"]
    tokens, batch = _symbols_of(packers[0], operands) if packers else (None, None)
    return Parts(
        head,
        core,
        tuple(host),
        tokens,
        batch,
        read,
        frozenset(s for s in read if s not in on_device),
        tuple(dict.fromkeys(wanted)),
        tuple(s for s in _read(rest) if s not in made | made_later | set(constants) and s in on_device),
    )


def _read(steps: Sequence["Step"]) -> list[int]:
    return list(dict.fromkeys(s for step in steps for s in step.inputs if s >= 0))


def _symbols_of(packer: "Step", operands: Sequence[Operand | None]) -> tuple[str, str]:
    """The symbols of the packed tokens and of the sequences."""
    index, mask = operands[packer.outputs[0]], operands[packer.inputs[0]]
    assert index is not None and index.shape and isinstance(index.shape[0], Dim)
    assert mask is not None and mask.shape and isinstance(mask.shape[0], Dim)
    return index.shape[0].symbols[0], mask.shape[0].symbols[0]


def treats_tokens_apart(step: "Step") -> bool:
    """Every row is treated by itself, or every sequence by the lengths that the step is given."""
    if step.kernel.startswith("onnx."):
        return step.op in ELEMENTWISE
    return step.token_wise or step.op in _BY_SEQUENCE


def _fits_core(step: "Step", operands: Sequence[Operand | None], constants: Set[int], symbols: tuple[str, str]) -> bool:
    """Every row or sequence is treated by itself, and all sizes come from packed tokens and sequences."""
    standard = step.kernel.startswith("onnx.")
    if step.op not in (ELEMENTWISE if standard else _TOKEN_WISE | _BY_SEQUENCE):
        return False
    if any(s not in constants and s >= 0 and not _sized(operands[s], symbols) for s in step.inputs):
        return False
    made = [operands[s] for s in step.outputs if s >= 0]
    return all(_sized(o, symbols) for o in made) and any(_rows(o) for o in made)


def _sized(operand: Operand | None, symbols: tuple[str, str]) -> bool:
    if operand is None or operand.shape is None:
        return False
    return all(isinstance(d, int) or (isinstance(d, Dim) and set(d.symbols) <= set(symbols)) for d in operand.shape)


def _rows(operand: Operand | None) -> bool:
    return operand is not None and bool(operand.shape) and isinstance((operand.shape or (0,))[0], Dim)
