"""What this machine's processors can do, in the words that `supports(call)` reads."""

import functools
import platform

import torch

from .call import Device


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


@functools.cache
def _describe(kind: str, index: int) -> Device:
    if kind == "cuda":
        major, minor = torch.cuda.get_device_capability(index)
        return Device("cuda", frozenset({f"sm_{major}{minor}"}), torch.cuda.get_device_name(index))
    return Device("cpu", cpu_flags(), cpu_name())


def device_of(device: torch.device | str | None) -> Device:
    """The description of a torch device (the CPU when None)."""
    found = torch.device(device if device is not None else "cpu")
    if found.type == "meta":
        return Device("cpu")
    return _describe(found.type, found.index or 0)
