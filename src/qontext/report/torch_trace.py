"""The kernels of a torch module, as torch's profiler sees them, each with the module it ran in."""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

_RUNS = 5
_MARK = "module:"
# Operators that compute nothing: they make views, or room for results. "lift_fresh" and such only hand on.
_VIEWS = """
view reshape _reshape_alias transpose t permute expand expand_as slice select split chunk unbind as_strided squeeze
unsqueeze narrow detach alias empty empty_like empty_strided resolve_conj resolve_neg resize_ lift_fresh item
_local_scalar_dense is_nonzero unsafe_chunk unsafe_split split_with_sizes _unsafe_view numpy_T result_type contiguous
unflatten flatten movedim _nested_tensor_size data_ptr set_ broadcast_to
"""
# Operators that only call others.
_WRAPPERS = """
linear matmul softmax layer_norm rms_norm embedding masked_fill to _to_copy clone dropout einsum
scaled_dot_product_attention zeros ones full arange zeros_like ones_like
"""
_NO_KERNELS = frozenset((_VIEWS + _WRAPPERS).split())


@dataclass(frozen=True)
class Trace:
    """The kernels of a run in order, and median microseconds of whole runs without the profiler."""

    kernels: tuple["Kernel", ...]
    run_us: float


@dataclass(frozen=True)
class Kernel:
    """One kernel of a run: its name, the path of the innermost module around it, and median microseconds."""

    name: str
    module: str
    us: float


def trace(module: torch.nn.Module, inputs: Mapping[str, Any], compiled: bool = False) -> Trace:
    """The kernels of one run, timed over several.

    Args:
        module: stays as it is; it runs in evaluation mode without gradients.
        inputs: arguments of `forward` by name.
        compiled: through `torch.compile` with kernels that show themselves; they know no modules.
    """
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            return _compiled(module, inputs) if compiled else _traced(module, inputs, module)
    finally:
        module.train(training)


def _compiled(module: torch.nn.Module, inputs: Mapping[str, Any]) -> Trace:
    import torch._inductor.config as inductor

    with inductor.patch({"cpp.enable_kernel_profile": True, "freezing": True}):
        run = torch.compile(module, dynamic=False)
        run(**inputs)
        return _traced(run, inputs, None)


def _traced(run: Any, inputs: Mapping[str, Any], module: torch.nn.Module | None) -> Trace:
    cuda = any(t.is_cuda for t in inputs.values() if isinstance(t, torch.Tensor))
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    runs: list[list[Kernel]] = []
    whole = _whole_us(run, inputs, cuda)
    with _marked(module):
        for _ in range(_RUNS):
            with profile(activities=activities) as seen:
                run(**inputs)
                if cuda:
                    torch.cuda.synchronize()
            runs.append(list(_kernels([e for e in seen.events() if e.cpu_parent is None], "", cuda)))
    same = [r for r in runs if [k.name for k in r] == [k.name for k in runs[-1]]]
    kernels = [Kernel(k.name, k.module, statistics.median(r[i].us for r in same)) for i, k in enumerate(same[-1])]
    return Trace(tuple(kernels), whole)


def _whole_us(run: Any, inputs: Mapping[str, Any], cuda: bool) -> float:
    """Median of whole runs after a first one, microseconds."""
    times = []
    for _ in range(_RUNS + 1):
        start = time.perf_counter()
        run(**inputs)
        if cuda:
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e6)
    return statistics.median(times[1:])


def _kernels(events: Sequence[Any], module: str, cuda: bool) -> Iterator[Kernel]:
    """Kernels below some events, in order of time."""
    for event in sorted(events, key=lambda e: e.time_range.start):
        if event.name.startswith(_MARK):
            yield from _kernels(event.cpu_children, event.name.removeprefix(_MARK), cuda)
        elif cuda:
            yield from (Kernel(k.name, module, k.duration) for k in event.kernels)
            yield from _kernels(event.cpu_children, module, cuda)
        elif _computes(event):
            yield Kernel(_short(event.name), module, event.cpu_time_total)
        else:
            yield from _kernels(event.cpu_children, module, cuda)


def _computes(event: Any) -> bool:
    """True for an event that is a kernel of the host: not a view, and no mere wrapper of other kernels."""
    name = event.name
    if "cpp_fused" in name:
        return True
    if "::" not in name or name.startswith(("profiler::", "ProfilerStep")):
        return False
    return _short(name) not in _NO_KERNELS


def _short(name: str) -> str:
    return name.rpartition("::")[2]


@contextmanager
def _marked(module: torch.nn.Module | None) -> Iterator[None]:
    """Every module says its path to the profiler while it runs."""
    open_marks: list[Any] = []
    hooks = []

    def enter(path: str) -> Any:
        def hook(*_: Any) -> None:
            mark = record_function(_MARK + path)
            mark.__enter__()
            open_marks.append(mark)

        return hook

    def leave(*_: Any) -> None:
        open_marks.pop().__exit__(None, None, None)

    for path, child in module.named_modules() if module is not None else ():
        hooks += [child.register_forward_pre_hook(enter(path)), child.register_forward_hook(leave)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
