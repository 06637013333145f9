"""What the operators' GPU kernels share before a launch: is Triton here, what the device can do, block sizes.

Triton is imported by the files of device code (`*_kernel.py`) alone, and those only when a kernel is bound, so a
machine without it loses nothing but the kernels.
"""

import functools
import importlib.util
from collections.abc import Sequence

from .call import Call, Device
from .kernel_checks import dtypes_are

_HOPPER = 90
FP8_CAPABILITY = 89  # from which on a device multiplies 8-bit floats
_FLOATS = ("float32", "float16", "bfloat16")


@functools.cache
def triton_is_here() -> str | None:
    """None when Triton can be imported, else why GPU kernels cannot be compiled."""
    return None if importlib.util.find_spec("triton") else "the package 'triton' is not installed"


def takes_floats(call: Call, allowed: Sequence[str] = _FLOATS) -> str | None:
    """Triton is here and all float operands of the call share one of the allowed dtypes."""
    return triton_is_here() or dtypes_are(call, allowed)


def compute_capability(call: Call) -> int:
    """Of the call's device: 90 for Hopper; 0 where it is not a CUDA device."""
    return capability_of(call.device)


def capability_of(device: Device) -> int:
    """90 for Hopper; 0 where it is not a CUDA device."""
    found = [int(word[3:]) for word in device.capability if word.startswith("sm_") and word[3:].isdigit()]
    return max(found, default=0)


def may_overlap(call: Call) -> bool:
    """Whether kernels of this device may start while the one before them ends (programmatic dependent launch).

    A kernel launched so waits for its predecessor on the device before it touches anything but constants; results never
    depend on it.
    """
    if compute_capability(call) < 90:
        return False
    from triton import knobs

    return not knobs.runtime.interpret


def not_hopper(call: Call) -> str | None:
    """None on a device that kernels written for Hopper run on, else which one it is."""
    found = compute_capability(call)
    return None if found == _HOPPER else f"the device is sm_{found}, the kernel is written for sm_{_HOPPER}"


def power_of_2(number: int) -> int:
    """The least power of two that is not smaller than `number`, at least 1."""
    return 1 << max(number - 1, 0).bit_length()


def blocks(count: int, size: int) -> int:
    """How many blocks of `size` cover `count`."""
    return -(-count // size)
