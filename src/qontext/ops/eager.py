"""Running an operator at once on torch tensors, and the kernel that every operator has: its reference."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..dtypes import by_name
from .call import Bound, Call, Kernel, Result, Tensors
from .declare import Op, call_of
from .device import current, device_of

_HALVES = (torch.float16, torch.bfloat16)


def reference_kernel(op: Op, device: str = "cpu") -> Kernel:
    """The reference as a kernel: halves are computed in float32, results cast to the declared dtypes.

    On a GPU it computes there; what a reference makes on the host (cumulative lengths) is moved, host outputs stay.
    What the operator updates comes to the reference as it is; its new contents are copied into it.
    """
    updated = op.updated_inputs

    def bind(call: Call) -> Bound:
        kinds = [None if o is None else by_name(o.dtype).torch for o in call.outputs]
        place = call.device.torch
        places = [torch.device("cpu") if p.host else place for p in op.outputs]

        def run(inputs: Tensors, out: Tensors | None = None) -> Result:
            given = [
                t if t is None or t.dtype not in _HALVES or i in updated.values() else t.float()
                for i, t in enumerate(inputs)
            ]
            result = op.reference(*given, **call.attributes)
            results = list(result) if isinstance(result, tuple) else [result]
            for output, source in updated.items():
                held, new = inputs[source], results[output]
                if held is not None and new is not None:
                    results[output] = held.copy_(new)
            return tuple(
                None if kind is None or r is None else r.to(where, kind)
                for r, kind, where in zip(results, kinds, places, strict=False)
            )

        return run

    return Kernel(f"reference.{op.method}", device, lambda call: None, bind)


def candidates(op: Op, call: Call) -> tuple[list[Kernel], list[tuple[str, str]]]:
    """Kernels that can run this call, in the declared order with the reference last, and (name, reason) of those
    that cannot."""
    able, refused = [], []
    mine = [k for k in op.kernels if k.device == call.device.type]
    for kernel in mine:
        reason = kernel.supports(call)
        if reason is None:
            able.append(kernel)
        else:
            refused.append((kernel.name, reason))
    if not mine and op.kernels:
        names = {k.device for k in op.kernels}
        refused.append(
            (
                f"{call.device.type}.{op.method}",
                f"{op.name} has kernels for {', '.join(sorted(names))} only; its reference runs in float32, slower",
            )
        )
    return [*able, reference_kernel(op, call.device.type)], refused


def run_eagerly(
    op: Op, tensors: Sequence[torch.Tensor | None], attributes: Mapping[str, Any], wanted: Sequence[bool]
) -> Any:
    """Checks, takes the first kernel that can, and runs it. Returns a tensor, or a tuple for several outputs.

    The operands decide the device: the first one that is not on the CPU, else the CPU. Host operands may lie anywhere.
    """
    found = [t.device for t in tensors if isinstance(t, torch.Tensor)]
    place = next((d for d in found if d.type != "cpu"), torch.device("cpu"))
    device = device_of(place)
    call = call_of(op, tensors, attributes, wanted, device)
    kernel = candidates(op, call)[0][0]
    inputs = [
        t.cpu() if t is not None and p.host and place.type == "cuda" else t
        for p, t in zip(op.inputs, [*tensors, *[None] * (len(op.inputs) - len(tensors))], strict=True)
    ]
    out = None
    if kernel.writes_out:
        out = [
            None
            if o is None
            else torch.empty([_size(d) for d in o.shape or ()], dtype=o.type.torch, device="cpu" if p.host else place)
            for p, o in zip(op.outputs, call.outputs, strict=True)
        ]
        for output, source in op.updated_inputs.items():
            out[output] = inputs[source]
    with current(device):
        result = kernel.bind(call)(inputs, out)
    results = result if isinstance(result, tuple) else (result,)
    picked = tuple(r for r, w in zip(results, wanted, strict=False) if w)
    return picked[0] if len(picked) == 1 else picked


def _size(dim: object) -> int:
    assert isinstance(dim, int), "eager calls have numbers for sizes; a data-dependent output needs writes_out=False"
    return dim
