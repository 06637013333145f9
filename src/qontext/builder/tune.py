"""Timing candidates: which kernel is fastest for a call on this machine.

The inputs are random tensors of the call's shapes at a representative size. A timing is kept under a key that names
the machine, the versions, the threads and the call, so that equal layers are timed once and a saved record spares the
work at the next build.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from ..errors import InputError, QontextError
from ..graph.dims import Dim
from ..ops.call import Call, Kernel, Operand
from ..ops.declare import Op

Timings = tuple[tuple[str, float], ...]
SEQUENCES, LENGTH = 4, 128


def call_key(call: Call) -> str:
    """What two calls must share to share a timing: operator, attributes, dtypes, shapes, which operands are weights."""

    def one(operand: Operand | None) -> str:
        if operand is None:
            return "-"
        shape = "?" if operand.shape is None else ",".join(_shape_text(d) for d in operand.shape)
        return f"{operand.dtype}[{shape}]{'w' if operand.constant is not None else ''}"

    attributes = ",".join(f"{k}={_plain(v)}" for k, v in sorted(call.attributes.items()))
    return (
        f"{call.op}({';'.join(one(o) for o in call.inputs)})->({';'.join(one(o) for o in call.outputs)})|{attributes}"
    )


def _plain(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)  # files hold attributes in float32


def _shape_text(dim: object) -> str:
    return dim if isinstance(dim, str) else str(dim) if isinstance(dim, int) else "*"


def machine_key(device_type: str, device_name: str) -> str:
    """The machine, versions and threads that a timing belongs to."""
    return f"{device_type}|{device_name}|torch {torch.__version__}|{torch.get_num_threads()} threads"


@dataclass
class Tuner:
    """Chooses kernels; remembers timings by machine and call.

    records:  {machine key: {call key: [[kernel, microseconds], ...]}}, what an engine file holds
    repeats:  timed runs of each candidate; 0 takes the first candidate without timing
    """

    records: dict[str, dict[str, list[list[str | float]]]] = field(default_factory=dict)
    repeats: int = 7
    timed: int = 0

    def choose(self, op: Op, call: Call, able: Sequence[Kernel]) -> tuple[Kernel, Timings]:
        """The fastest of `able` (the reference, which stands last, only competes when it is alone)."""
        rivals = able[:-1] or able
        if len(rivals) == 1 or self.repeats == 0:
            return rivals[0], ()
        mine = self.records.setdefault(machine_key(call.device.type, call.device.name), {})
        key = call_key(call)
        by_name = {k.name: k for k in rivals}
        if key not in mine or any(str(name) not in by_name for name, _ in mine[key]):
            inputs = sample_inputs(op, call)
            if inputs is None:
                return rivals[0], ()
            try:
                measured = self._race(rivals, call, inputs)
            except InputError:
                return rivals[0], ()  # the made-up sizes are beyond a limit of the call (a short table of positions)
            self.timed += 1
            mine[key] = [[name, us] for name, us in measured]
        timings = tuple((str(name), float(us)) for name, us in mine[key])
        return by_name[timings[0][0]], timings

    def _race(
        self, rivals: Sequence[Kernel], call: Call, inputs: Sequence[torch.Tensor | None]
    ) -> list[tuple[str, float]]:
        """Least microseconds of every rival, fastest first.

        The rivals take turns, so that a busy moment of the machine hits all alike, and the least time of each counts,
        since everything that disturbs a measurement adds to it.
        """
        runs = [(k.name, _bound(k, call, inputs)) for k in rivals]
        for _, run in runs:
            run()
            run()
        least = {name: float("inf") for name, _ in runs}
        for _ in range(self.repeats):
            for name, run in runs:
                start = time.perf_counter()
                run()
                least[name] = min(least[name], time.perf_counter() - start)
        return sorted(((name, seconds * 1e6) for name, seconds in least.items()), key=lambda m: m[1])


def _bound(kernel: Kernel, call: Call, inputs: Sequence[torch.Tensor | None]) -> Callable[[], object]:
    """A kernel ready to run on sample inputs. Raises what binding raises, naming the kernel."""
    try:
        run = kernel.bind(call)
    except QontextError as error:
        raise type(error)(f"while timing kernel {kernel.name!r}: {error.message}") from error
    out = None
    if kernel.writes_out:
        place = next(t for t in inputs if t is not None).device
        out = [None if o is None else torch.empty(s, dtype=o.type.torch, device=place) for o, s in _filled(call)]
    return lambda: run(inputs, out)


def _number(dim: object, sizes: dict[str, int]) -> int:
    if isinstance(dim, int):
        return dim
    if isinstance(dim, Dim):
        return dim.value({s: sizes.get(s, SEQUENCES * LENGTH) for s in dim.symbols})
    return SEQUENCES * LENGTH


def _sizes() -> dict[str, int]:
    return {"B": SEQUENCES, "S": LENGTH, "Skv": LENGTH, "batch": SEQUENCES, "batch_size": SEQUENCES, "sequence": LENGTH,
            "sequence_length": LENGTH, "seq": LENGTH, "seq_len": LENGTH}  # fmt: skip


def _filled(call: Call) -> list[tuple[Operand | None, tuple[int, ...]]]:
    sizes = _sizes()
    return [(o, () if o is None else tuple(_number(d, sizes) for d in o.shape or ())) for o in call.outputs]


def sample_inputs(op: Op, call: Call) -> list[torch.Tensor | None] | None:
    """Random inputs for a call; None when an input cannot be made up (it then goes untimed, first candidate wins)."""
    sizes = _sizes()
    generator = torch.Generator().manual_seed(0)
    made: list[torch.Tensor | None] = []
    for param, operand in zip(op.inputs, call.inputs, strict=True):
        if operand is None:
            made.append(None)
            continue
        if operand.constant is not None:
            made.append(operand.constant)
            continue
        if operand.shape is None:
            return None
        shape = tuple(_number(d, sizes) for d in operand.shape)
        if param.name.startswith("cu_seqlens"):
            made.append(torch.arange(SEQUENCES + 1, dtype=torch.int32) * LENGTH)
        elif param.name.startswith("max_seqlen"):
            made.append(torch.tensor(LENGTH, dtype=torch.int32))
        elif param.name in ("lengths", "key_lengths", "prefix_lengths"):
            made.append(torch.full(shape, LENGTH, dtype=operand.type.torch))
        elif param.name == "token_index":
            made.append(torch.arange(SEQUENCES * LENGTH))
        elif operand.type.is_float:
            made.append(torch.randn(shape, generator=generator).to(operand.type.torch))
        elif operand.dtype == "bool" or param.name in ("mask", "attention_mask"):
            made.append(torch.ones(shape, dtype=operand.type.torch))
        elif param.name in ("input_ids", "token_type_ids", "position_ids"):
            made.append(torch.zeros(shape, dtype=operand.type.torch))
        else:
            return None
    return made
