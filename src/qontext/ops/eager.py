"""Running an operator at once on torch tensors, and the kernel that every operator has: its reference."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..dtypes import by_name
from .call import Bound, Call, Kernel, Result, Tensors
from .declare import Op, call_of
from .device import device_of

_HALVES = (torch.float16, torch.bfloat16)


def reference_kernel(op: Op, device: str = "cpu") -> Kernel:
    """The reference as a kernel: halves are computed in float32, results cast to the declared dtypes."""

    def bind(call: Call) -> Bound:
        kinds = [None if o is None else by_name(o.dtype).torch for o in call.outputs]

        def run(inputs: Tensors, out: Tensors | None = None) -> Result:
            given = [None if t is None else t.float() if t.dtype in _HALVES else t for t in inputs]
            result = op.reference(*given, **call.attributes)
            results = result if isinstance(result, tuple) else (result,)
            return tuple(
                None if kind is None or r is None else r.to(kind) for r, kind in zip(results, kinds, strict=False)
            )

        return run

    return Kernel(f"reference.{op.method}", device, lambda call: None, bind)


def candidates(op: Op, call: Call) -> tuple[list[Kernel], list[tuple[str, str]]]:
    """Kernels that can run this call, in the declared order with the reference last, and (name, reason) of those
    that cannot."""
    able, refused = [], []
    for kernel in op.kernels:
        if kernel.device != call.device.type:
            continue
        reason = kernel.supports(call)
        if reason is None:
            able.append(kernel)
        else:
            refused.append((kernel.name, reason))
    return [*able, reference_kernel(op, call.device.type)], refused


def run_eagerly(
    op: Op, tensors: Sequence[torch.Tensor | None], attributes: Mapping[str, Any], wanted: Sequence[bool]
) -> Any:
    """Checks, takes the first kernel that can, and runs it. Returns a tensor, or a tuple for several outputs."""
    first = next((t for t in tensors if isinstance(t, torch.Tensor)), None)
    call = call_of(op, tensors, attributes, wanted, device_of(first.device if first is not None else None))
    kernel = candidates(op, call)[0][0]
    inputs = [*tensors, *[None] * (len(op.inputs) - len(tensors))]
    place = first.device if first is not None else None
    out = None
    if kernel.writes_out:
        out = [
            None if o is None else torch.empty([_size(d) for d in o.shape or ()], dtype=o.type.torch, device=place)
            for o in call.outputs
        ]
    result = kernel.bind(call)(inputs, out)
    results = result if isinstance(result, tuple) else (result,)
    picked = tuple(r for r, w in zip(results, wanted, strict=False) if w)
    return picked[0] if len(picked) == 1 else picked


def _size(dim: object) -> int:
    assert isinstance(dim, int), "eager calls have numbers for sizes; a data-dependent output needs writes_out=False"
    return dim
