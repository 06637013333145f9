"""EmbedLayerNorm on the GPU: look-up, addition and norm in one Triton kernel (`gpu_kernel.py`).

Ids are not read back, since that would stop the device: a token whose id, position or type lies outside its table
gives a row of NaN, and no memory outside a table is read. Whoever has the ids on the host checks them there.
Limit: tables of at most `WIDEST_TILE` columns.
"""

from collections.abc import Sequence
from typing import Any

import torch

from ..call import Bound, Call, Kernel
from ..gpu_launch import blocks, may_overlap, power_of_2, takes_floats
from ..gpu_norm import WIDEST_TILE, rows_per_program, warps_for
from ..kernel_checks import last_axis, last_axis_known
from ..native_kernel import even, even_or_none
from .ids import too_long

_STEP = 128


def _supports(call: Call) -> str | None:
    table = call.inputs[1]
    assert table is not None
    # The mask may be float32 beside tables of another dtype.
    tables = Call(call.op, call.inputs[:8], call.outputs[:2], call.attributes, call.device)
    reason = takes_floats(tables) or last_axis_known(table, "word_embedding")
    if reason is None and not 0 < last_axis(table) <= WIDEST_TILE:
        return f"the tables have {last_axis(table)} columns, the kernel takes 1 to {WIDEST_TILE}"
    return reason


def _source_of_places(call: Call) -> str:
    if call.inputs[3] is None:
        return "none"
    if call.inputs[2] is not None:
        return "given"
    return "padding" if call.attributes["padding_idx"] >= 0 else "counted"


def _bind(call: Call) -> Bound:
    from ..gpu_rows_kernel import count_rows
    from .gpu_kernel import embed_rows

    width, epsilon = last_axis(call.inputs[1]), call.attributes["epsilon"]
    offset, padding = call.attributes["position_offset"], call.attributes["padding_idx"]
    columns, source, overlap = power_of_2(width), _source_of_places(call), may_overlap(call)
    wants_sum, counts = call.wants(1), call.inputs[8] is not None and call.wants(2)

    def run(
        inputs: Sequence[Any], out: Sequence[Any] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        ids, words, places, positions, kinds, types, weight, bias, mask = inputs
        ids, length = even(ids), ids.shape[-1]
        rows = ids.numel()
        if source == "counted" and length + offset > positions.shape[0]:
            raise too_long(length, offset, positions.shape[0])
        y = words.new_empty((*ids.shape, width)) if out is None else out[0]
        total = None if not wants_sum else torch.empty_like(y) if out is None else out[1]
        if rows:
            shared = source == "given" and places.numel() < rows
            each = rows_per_program(columns, rows)
            embed_rows[(blocks(rows, each),)](
                ids, even(words), even_or_none(places), even_or_none(positions), even_or_none(kinds),
                even_or_none(types), even(weight), even(bias), y, total,
                rows, length, words.shape[0], positions.shape[0] if positions is not None else 0,
                types.shape[0] if types is not None else 0, offset, padding, epsilon,
                width, columns, each, "shared" if shared else source, _STEP, overlap,
                num_warps=warps_for(columns * each), launch_pdl=overlap,
            )  # fmt: skip
        lengths = None
        if counts:
            lengths = ids.new_empty(mask.shape[0], dtype=torch.int32) if out is None else out[2]
            if mask.shape[0]:
                count_rows[(mask.shape[0],)](
                    even(mask),
                    lengths,
                    mask.shape[1],
                    min(power_of_2(mask.shape[1]), 1024),
                    overlap,
                    launch_pdl=overlap,
                )
        return y, total, lengths

    return run


KERNELS = (Kernel("triton.embed_layer_norm", "cuda", _supports, _bind, writes_out=True),)
