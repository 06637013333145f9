"""EmbedLayerNorm on the CPU."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ... import native
from ...errors import InputError
from ..call import Bound, Call, Kernel
from ..kernel_checks import dtypes_are, last_axis, last_axis_known
from ..native_kernel import even, even_or_none, native_takes_floats
from .ids import check_ids, numbered_from_padding, too_long

AddPositions = Callable[[torch.Tensor, Sequence[Any]], Any]


def _tables(call: Call) -> Call:
    """The call without its mask, which may be float32 beside tables of another dtype."""
    return Call(call.op, call.inputs[:8], call.outputs[:2], call.attributes, call.device)


def _native_supports(call: Call) -> str | None:
    if call.wants(1):
        return "the sum before the normalisation is wanted, which this kernel does not store"
    return native_takes_floats(_tables(call))


def _native_bind(call: Call) -> Bound:
    embed, epsilon = native.embed_layer_norm, call.attributes["epsilon"]
    offset, padding = call.attributes["position_offset"], call.attributes["padding_idx"]
    has_positions, given = call.inputs[3] is not None, call.inputs[2] is not None
    counts = call.inputs[8] is not None and call.wants(2)

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> tuple[torch.Tensor, None, torch.Tensor | None]:
        ids, words, places, positions, kinds, types, gamma, beta, mask = inputs
        ids = even(ids)
        if has_positions:
            if given:
                places = even(places.expand(ids.shape))
            elif padding >= 0:
                places = numbered_from_padding(ids, padding)
            elif ids.shape[-1] + offset > positions.shape[0]:
                raise too_long(ids.shape[-1], offset, positions.shape[0])
        y = words.new_empty((*ids.shape, words.shape[1])) if out is None else out[0]
        try:
            embed(
                ids, even(words), even(gamma), even(beta), out=y,
                position=even_or_none(positions), positions=places, position_offset=offset,
                type=even_or_none(types), types=even_or_none(kinds), eps=epsilon,
            )  # fmt: skip
        except InputError:
            # The library knows which id is bad by its flat place; say it by name and indices.
            for name, index, table, rows in (
                ("input_ids", ids, "word_embedding", words),
                ("position_ids", places, "position_embedding", positions),
                ("token_type_ids", kinds, "token_type_embedding", types),
            ):
                if index is not None:
                    check_ids(name, index, table, rows.shape[0])
            raise
        lengths = None
        if counts:
            lengths = torch.sum(mask != 0, -1, dtype=torch.int32, out=None if out is None else out[2])
        return y, None, lengths

    return run


def _torch_supports(call: Call) -> str | None:
    table = call.inputs[1]
    assert table is not None
    return dtypes_are(_tables(call), ("float32", "float16", "bfloat16")) or last_axis_known(table, "word_embedding")


def _positions(call: Call) -> AddPositions | None:
    """The function that adds position embeddings to the sum, chosen once."""
    if call.inputs[3] is None:
        return None
    offset, padding = call.attributes["position_offset"], call.attributes["padding_idx"]

    def given(total: torch.Tensor, inputs: Sequence[Any]) -> None:
        check_ids("position_ids", inputs[2], "position_embedding", inputs[3].shape[0])
        total.add_(F.embedding(inputs[2], inputs[3]))

    def from_padding(total: torch.Tensor, inputs: Sequence[Any]) -> None:
        ids = numbered_from_padding(inputs[0], padding)
        check_ids("position_ids", ids, "position_embedding", inputs[3].shape[0])
        total.add_(F.embedding(ids, inputs[3]))

    def counted(total: torch.Tensor, inputs: Sequence[Any]) -> None:
        length, table = inputs[0].shape[-1], inputs[3]
        if length + offset > table.shape[0]:
            raise too_long(length, offset, table.shape[0])
        total.add_(table[offset : offset + length])

    if call.inputs[2] is not None:
        return given
    return from_padding if padding >= 0 else counted


def _torch_bind(call: Call) -> Bound:
    width, epsilon = (last_axis(call.inputs[1]),), call.attributes["epsilon"]
    add_positions = _positions(call)
    types_given, has_types = call.inputs[4] is not None, call.inputs[5] is not None
    counts = call.inputs[8] is not None and call.wants(2)

    def run(
        inputs: Sequence[Any], out: Sequence[Any] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        check_ids("input_ids", inputs[0], "word_embedding", inputs[1].shape[0])
        total = F.embedding(inputs[0], inputs[1])
        if add_positions is not None:
            add_positions(total, inputs)
        if types_given:
            check_ids("token_type_ids", inputs[4], "token_type_embedding", inputs[5].shape[0])
            total.add_(F.embedding(inputs[4], inputs[5]))
        elif has_types:
            total.add_(inputs[5][0])
        lengths = (inputs[8] != 0).sum(-1, dtype=torch.int32) if counts else None
        return F.layer_norm(total, width, inputs[6], inputs[7], epsilon), total, lengths

    return run


KERNELS = (
    Kernel("native.embed_layer_norm", "cpu", _native_supports, _native_bind, writes_out=True),
    Kernel("torch.embed_layer_norm", "cpu", _torch_supports, _torch_bind),
)
