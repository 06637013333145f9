"""QuantLinear by the vendor's products of eight bits, called through torch.

float8_e4m3: cuBLASLt multiplies, scales by row and column, and adds the bias; sums leave as halves. int8: the library
leaves sums in int32. What it cannot do takes one pass of ours over what it left (`finish_sums`).
"""

import functools

import torch

from ..call import Bound, Call, Kernel
from ..gpu_launch import blocks, may_overlap, power_of_2
from ..linear.gpu_rows import aligned, least_rows, sizes
from .gpu_rows import Compute, Ready, multiples, over_rows, ready, takes

_COLUMNS, _TILE, _WARPS = 1024, 8192, 8
_LEAST_INTEGER_ROWS = 17  # `torch._int_mm` takes more than 16


@functools.cache
def _ones(device: torch.device, rows: int) -> torch.Tensor:
    return torch.ones((rows, 1), device=device)


def unit_scales(rows: int, device: torch.device) -> torch.Tensor:
    """Scales of 1 `[rows, 1]`, made once for every power of two of rows."""
    return _ones(device, power_of_2(max(rows, 1 << 17)))[:rows]


def _halves_supports(call: Call) -> str | None:
    reason = takes(call, ("float8_e4m3",)) or multiples(call, 16)
    if reason is not None:
        return reason
    if call.device.torch.type != "cuda":
        return "torch has these products on a GPU only"
    bias, y = call.inputs[3], call.outputs[0]
    floats = next((o.dtype for o in (bias, y) if o is not None and o.dtype not in ("int8", "float8_e4m3")), "float16")
    return None if floats in ("float16", "bfloat16") else f"the result is {floats}, the library gives halves"


def _needs_a_pass(call: Call) -> bool:
    """What follows the product is more than a bias."""
    return call.attributes["activation"] != "none" or any(call.inputs[i] is not None for i in (4, 10))


def bind_finish(call: Call, made: Ready, by_row: bool, scaled: bool) -> Compute:
    """The pass over sums: (sums, row_scale, row_zero, residual, y)."""
    from .gpu_kernel import finish_sums

    kind, overlap, columns = call.attributes["activation"], may_overlap(call), min(power_of_2(made.n), _COLUMNS)
    vectors = (None, None, None) if scaled else (made.scales, made.columns, made.shift)
    each = _TILE // columns

    def finish(
        sums: torch.Tensor,
        row_scale: torch.Tensor | None,
        row_zero: torch.Tensor | None,
        residual: torch.Tensor | None,
        y: torch.Tensor,
    ) -> None:
        rows = (row_scale, row_zero) if by_row else (None, None)
        finish_sums[(blocks(len(sums), each), blocks(made.n, columns))](
            sums, *vectors, *rows, residual, *made.tail, y, len(sums),
            made.n, columns, each, kind, overlap, num_warps=_WARPS, launch_pdl=overlap,
        )  # fmt: skip

    return finish


def _halves_bind(call: Call) -> Bound:
    made, bias = ready(call), call.inputs[3]
    unit_scales(1, made.weight.device)  # now: memory that a graph is captured with belongs to the graph
    turned, scales = aligned(made.weight).t(), made.scales[None, :]
    floats = torch.float16 if bias is None else bias.type.torch
    y_operand = call.outputs[0]
    if y_operand is not None and y_operand.dtype in ("float16", "bfloat16"):
        floats = y_operand.type.torch
    finish = bind_finish(call, made, False, True) if _needs_a_pass(call) else None

    def compute(
        x: torch.Tensor,
        row_scale: torch.Tensor | None,
        row_zero: torch.Tensor | None,
        residual: torch.Tensor | None,
        y: torch.Tensor,
    ) -> None:
        by = unit_scales(len(x), x.device) if row_scale is None else row_scale[:, None]
        left = y if finish is None else torch.empty((len(x), made.n), dtype=floats, device=x.device)
        torch.ops.aten._scaled_mm.out(
            aligned(x), turned, by, scales, made.bias, None, floats, use_fast_accum=True, out=left
        )
        if finish is not None:
            finish(left, None, None, residual, y)

    return over_rows(call, made, compute)


def _integers_supports(call: Call) -> str | None:
    reason = takes(call, ("int8",)) or multiples(call, 8)
    if reason is None and call.device.torch.type != "cuda":
        return "torch has these products on a GPU only"
    if reason is None and sizes(call)[0] is None:
        return None
    return reason or least_rows(call, _LEAST_INTEGER_ROWS)


def _integers_bind(call: Call) -> Bound:
    made = ready(call)
    turned = made.weight.t()
    finish = bind_finish(call, made, made.by_row, False)

    def compute(
        x: torch.Tensor,
        row_scale: torch.Tensor | None,
        row_zero: torch.Tensor | None,
        residual: torch.Tensor | None,
        y: torch.Tensor,
    ) -> None:
        rows = len(x)
        if rows < _LEAST_INTEGER_ROWS:  # rows of no meaning, which are not read
            x = torch.cat([x, x.new_zeros(_LEAST_INTEGER_ROWS - rows, made.k)])
        finish(torch._int_mm(x, turned)[:rows], row_scale, row_zero, residual, y)

    return over_rows(call, made, compute)


KERNELS = (
    Kernel("cublas.quant_linear", "cuda", _halves_supports, _halves_bind, writes_out=True),
    Kernel("cublas.quant_linear_int8", "cuda", _integers_supports, _integers_bind, writes_out=True),
)
