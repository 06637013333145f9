"""What this machine's processors can do, in the words that `supports(call)` reads."""

import contextlib
import functools
import platform
from contextlib import AbstractContextManager

import torch

from ..errors import ArgumentError
from .call import Device
from .gpu_facts import gpu_facts


@functools.cache
def cpu_flags() -> frozenset[str]:
    """The processor's instruction sets, by their Linux names; empty where the system does not tell."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith(("flags", "Features")):
                    return frozenset(line.split(":", 1)[1].split())
    except OSError:
        pass
    return frozenset()


@functools.cache
def cpu_name() -> str:
    """The processor's product name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def parse_device(text: str) -> tuple[str, int]:
    """("cpu", 0), or ("cuda", which GPU) of "cpu", "cuda" or "cuda:1". Raises ArgumentError for anything else."""
    kind, _, index = text.partition(":") if isinstance(text, str) else ("", "", "")
    if kind not in ("cpu", "cuda") or (index and (kind == "cpu" or not index.isdecimal())):
        raise ArgumentError(f"device is {text!r}, allowed: cpu, cuda, or cuda:1 for the second GPU")
    return kind, int(index or 0)


@functools.cache
def _describe(kind: str, index: int) -> Device:
    if kind == "cuda":
        gpu = gpu_facts().gpus[index]
        major, minor = gpu.capability
        return Device("cuda", frozenset({f"sm_{major}{minor}"}), gpu.name, f"cuda:{index}")
    return Device("cpu", cpu_flags(), cpu_name())


def device_of(device: torch.device | str | None) -> Device:
    """The description of a torch device (the CPU when None)."""
    found = torch.device(device if device is not None else "cpu")
    if found.type == "meta":
        return Device("cpu")
    return _describe(found.type, found.index or 0)


def current(device: Device) -> AbstractContextManager[object]:
    """Makes a GPU the current one, on which kernels are launched; nothing for other devices."""
    place = device.torch
    return torch.cuda.device(place) if place.type == "cuda" else contextlib.nullcontext()
