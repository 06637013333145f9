"""What QuantLinear's GPU kernels share: what they take, operands made ready once, and the way from a call to rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...graph.dims import text
from ..call import Bound, Call
from ..eight_bits import KINDS
from ..gpu_launch import FP8_CAPABILITY, blocks, compute_capability, may_overlap, power_of_2, triton_is_here
from ..gpu_norm import WIDEST_TILE, rows_per_program, warps_for
from ..linear.gpu_rows import sizes
from ..native_kernel import even

_NAMES = ("weight", "weight_scale", "bias", "x_scale", "x_zero", "x_factor", "y_scale", "y_zero", "y_factor")
_PLACES = (1, 2, 3, 5, 6, 7, 10, 11, 12)


@dataclass(frozen=True)
class Ready:
    """Operands made ready once; see `gpu_kernel.py` for what they are.

    held:      x comes in eight bits
    by_row:    the kernels are given scales of rows: those of x, or those of floats turned into eight bits on the way
    y_inverse, y_zero: None for a result in floats
    """

    weight: torch.Tensor
    scales: torch.Tensor
    columns: torch.Tensor | None
    shift: torch.Tensor | None
    bias: torch.Tensor | None
    held: bool
    by_row: bool
    x_scale: float | None
    x_zero: float | None
    x_factor: torch.Tensor | None
    y_inverse: float | None
    y_zero: float | None
    y_factor: torch.Tensor | None

    @property
    def n(self) -> int:
        return self.weight.shape[0]

    @property
    def k(self) -> int:
        return self.weight.shape[1]

    @property
    def integers(self) -> bool:
        return self.weight.dtype == torch.int8

    @property
    def tail(self) -> tuple[torch.Tensor | float | None, ...]:
        """What kernels are given behind the residual."""
        return self.y_factor, self.y_inverse, self.y_zero


# (x in eight bits [rows, K], row_scale, row_zero, residual [rows, N], y [rows, N]): fills y; there is at least one row.
Compute = Callable[
    [torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None, torch.Tensor],
    None,
]


def takes(call: Call, kinds: Sequence[str] = KINDS) -> str | None:
    """Triton is here, the weight is of a kind that the device multiplies, and what is packed beforehand is constant."""
    x, weight = call.inputs[:2]
    assert x is not None and weight is not None
    reason = triton_is_here()
    if reason is not None:
        return reason
    if weight.dtype not in kinds:
        return f"the weight is {weight.dtype}, the kernel multiplies {' and '.join(kinds)}"
    found = compute_capability(call)
    if weight.dtype != "int8" and found < FP8_CAPABILITY:
        return f"the device is sm_{found}, products of float8_e4m3 need sm_{FP8_CAPABILITY}"
    for name, place in zip(_NAMES, _PLACES, strict=True):
        operand = call.inputs[place]
        if operand is not None and operand.constant is None:
            return f"{name} is no constant"
    if weight.shape is None or 0 in weight.shape:
        return f"the weight {text(weight.shape)} is empty"
    k = weight.shape[1]
    assert isinstance(k, int)
    if x.dtype not in KINDS and k > WIDEST_TILE:
        return f"x has rows of {k} floats, at most {WIDEST_TILE} are turned into eight bits"
    return None


def multiples(call: Call, of: int) -> str | None:
    """Both sizes of the weight are multiples of a number."""
    _, n, k = sizes(call)
    return f"the weight is [{n}, {k}], the kernel takes multiples of {of}" if n % of or k % of else None


def not_float32(call: Call) -> str | None:
    """The result is in halves or in eight bits."""
    y = call.outputs[0]
    wide = y is not None and y.dtype == "float32"
    return "the result is float32, the kernel gives halves and eight bits" if wide else None


def _constant(call: Call, place: int) -> torch.Tensor | None:
    operand = call.inputs[place]
    return None if operand is None or operand.constant is None else even(operand.constant.detach())


def ready(call: Call) -> Ready:
    """The constants of a call that `takes` says nothing of."""
    weight, scales, bias = _constant(call, 1), _constant(call, 2), _constant(call, 3)
    assert weight is not None and scales is not None and call.inputs[0] is not None
    x_scale, x_zero, y_scale, y_zero = (_number(call, place) for place in (5, 6, 10, 11))
    held = call.inputs[0].dtype in KINDS
    integers, static = weight.dtype == torch.int8, held and x_scale is not None
    sums = weight.sum(1, dtype=torch.int32).float() if integers else None
    shift = None if bias is None else bias.float()
    if static:
        assert x_scale is not None
        scales = scales * x_scale
        if sums is not None and x_zero is not None:
            moved = (128.0 - x_zero) * sums * scales
            shift = moved if shift is None else shift + moved
    return Ready(
        weight, scales, None if static else sums, shift, bias, held, not static, x_scale, x_zero, _constant(call, 7),
        None if y_scale is None else float(1 / torch.tensor(y_scale)), y_zero or 0.0 if y_scale else None,
        _constant(call, 12),
    )  # fmt: skip


def _number(call: Call, place: int) -> float | None:
    constant = _constant(call, place)
    return None if constant is None else float(constant)


def over_rows(call: Call, made: Ready, compute: Compute) -> Bound:
    """QuantLinear for any number of rows and leading axes by a function over rows in eight bits."""
    hold, given = None if made.held else bind_hold(call, made), call.outputs[0]
    assert given is not None
    n, k, dtype = made.n, made.k, given.type.torch

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x, residual, row_scale, row_zero = even(inputs[0]), inputs[4], inputs[8], inputs[9]
        y: torch.Tensor = x.new_empty((*x.shape[:-1], n), dtype=dtype) if out is None else out[0]
        rows = x.numel() // k
        if rows:
            flat = x.view(rows, k)
            if hold is not None:
                flat, row_scale, row_zero = hold(flat)
            rest = None if residual is None else even(residual).view(rows, n)
            compute(flat, _vector(row_scale, rows), _vector(row_zero, rows), rest, y.view(rows, n))
        return y

    return run


def _vector(of_rows: torch.Tensor | None, rows: int) -> torch.Tensor | None:
    return None if of_rows is None else even(of_rows).view(rows)


def bind_hold(
    call: Call, made: Ready
) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
    """Turns rows of floats into eight bits: (held, row_scale, row_zero). For an x that no operator in front holds."""
    from ..eight_bits_kernel import hold_rows

    overlap, columns, k, kind = may_overlap(call), power_of_2(made.k), made.k, made.weight.dtype
    inverse = None if made.x_scale is None else float(1 / torch.tensor(made.x_scale))
    static = (inverse, made.x_scale, None if inverse is None else made.x_zero or 0.0)

    def hold(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        rows = len(x)
        held = torch.empty((rows, k), dtype=kind, device=x.device)
        scale = torch.empty(rows, device=x.device)
        zero = torch.empty(rows, device=x.device) if made.integers else None
        each = rows_per_program(columns, rows)
        hold_rows[(blocks(rows, each),)](
            x, made.x_factor, held, scale, zero, *static, rows, k, columns, each, overlap,
            num_warps=warps_for(columns * each), launch_pdl=overlap,
        )  # fmt: skip
        return held, scale, zero

    return hold
