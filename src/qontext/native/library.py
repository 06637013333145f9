"""Loads the kernel library, chooses its instruction set, and says why it is absent where it is."""

import ctypes
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from qontext.errors import ArgumentError, DeviceError
from qontext.native import openmp
from qontext.native.tape import Noted

ISAS = ("generic", "avx2", "avx512", "avx512_bf16", "amx")
CAP_VARIABLE = "QONTEXT_CPU_ISA"
_ABI = 1
_HERE = Path(__file__).parent
_FILE = _HERE / ("libqontext.dylib" if sys.platform == "darwin" else "libqontext.so")
_NOTE = _HERE / "NOT_BUILT.txt"


@dataclass(frozen=True)
class Status:
    """What the kernel library is on this machine.

    `available`: it is loaded. `reason`: why not, empty when it is. `isa`: the instruction set in force. `usable`: those
    that are built and that this processor runs. `threads`: the OpenMP runtime it shares, or "own pool".
    """

    available: bool
    reason: str
    isa: str
    usable: tuple[str, ...]
    threads: str

    def __str__(self) -> str:
        if not self.available:
            return self.reason
        return f"{self.isa} (of {', '.join(self.usable)}), threads: {self.threads}"


def _check_name(name: str, asked_by: str) -> int:
    if name not in ISAS:
        raise ArgumentError(f"{asked_by} asks for the instruction set {name!r}; known are {', '.join(ISAS)}")
    return ISAS.index(name)


def _open() -> tuple[ctypes.CDLL | None, str]:
    if not _FILE.exists():
        why = _NOTE.read_text().strip() if _NOTE.exists() else "the install did not run its build step"
        return None, f"not built: {why}"
    try:
        return ctypes.CDLL(str(_FILE)), ""
    except OSError as error:
        return None, f"not loadable: {error}"


_POINTER, _INT = ctypes.c_void_p, ctypes.c_int64
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "qx_abi": (),
    "qx_isa_built": (_INT,),
    "qx_isa_supported": (_INT,),
    "qx_set_isa": (_INT,),
    "qx_get_isa": (),
    "qx_set_openmp": (_POINTER,) * 4,
    # The argument blocks are made by struct.pack: a bytes object is passed as the address of its data.
    "qx_attention": (ctypes.c_char_p, _INT),
    "qx_quant_attention": (ctypes.c_char_p, _INT),
    "qx_decode": (ctypes.c_char_p, _INT),
    "qx_layer_norm": (ctypes.c_char_p, _INT),
    "qx_embed_layer_norm": (ctypes.c_char_p, _INT),
    "qx_bias_act": (ctypes.c_char_p, _INT),
    "qx_pack_index": (ctypes.c_char_p,),
    "qx_linear_bytes": (ctypes.c_char_p,),
    "qx_linear_pack": (ctypes.c_char_p, _INT),
    "qx_linear": (ctypes.c_char_p, _INT),
    "qx_quant_linear_bytes": (ctypes.c_char_p,),
    "qx_quant_linear_pack": (ctypes.c_char_p, _INT),
    "qx_quant_linear": (ctypes.c_char_p, _INT),
    "qx_gather_rows": (ctypes.c_char_p, _INT),
    "qx_scatter_rows": (ctypes.c_char_p, _INT),
    "qx_replay": (_POINTER, _INT, _POINTER),
}
_NOTED = ("qx_attention", "qx_layer_norm", "qx_linear", "qx_quant_linear")  # may be on a tape


@cache
def _load() -> tuple[SimpleNamespace | None, Status]:
    """The C functions (None when absent) and the status at load. Raises ArgumentError for an unknown cap."""
    cap = os.environ.get(CAP_VARIABLE)
    highest = _check_name(cap, f"the environment variable {CAP_VARIABLE}") if cap else len(ISAS) - 1
    library, reason = _open()
    if library is None:
        return None, Status(False, reason, "", (), "")
    functions = SimpleNamespace()
    for name, arguments in _SIGNATURES.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            return None, Status(False, f"not usable: {_FILE.name} lacks {name}; install qontext again", "", (), "")
        function.argtypes = arguments
        function.restype = None if name == "qx_set_openmp" else _INT
        setattr(functions, name, Noted(function) if name in _NOTED else function)
    if functions.qx_abi() != _ABI:
        found = functions.qx_abi()
        return None, Status(
            False, f"not usable: {_FILE.name} has ABI {found}, wanted {_ABI}; install qontext again", "", (), ""
        )
    runtime = openmp.find()
    if runtime is not None:
        functions.qx_set_openmp(*runtime.addresses)
    usable = tuple(n for i, n in enumerate(ISAS) if functions.qx_isa_built(i) and functions.qx_isa_supported(i))
    functions.qx_set_isa(max(ISAS.index(name) for name in usable if ISAS.index(name) <= highest))
    return functions, Status(True, "", ISAS[functions.qx_get_isa()], usable, runtime.path if runtime else "own pool")


def status() -> Status:
    """The state of the library now. Raises ArgumentError when QONTEXT_CPU_ISA names no instruction set."""
    functions, at_load = _load()
    if functions is None:
        return at_load
    return Status(True, "", isa(), at_load.usable, at_load.threads)


def available() -> bool:
    """Whether the kernels of this package can be called."""
    return _load()[0] is not None


def functions() -> SimpleNamespace:
    """The C functions. Raises DeviceError when the library is absent."""
    found, state = _load()
    if found is None:
        raise DeviceError(
            f"the CPU kernel library of qontext is {state.reason}; "
            "use torch operators, or install a C++ compiler and then qontext again"
        )
    return found


def isa() -> str:
    """The instruction set in force."""
    return ISAS[functions().qx_get_isa()]


def set_isa(name: str) -> None:
    """Puts an instruction set in force for all later calls. Raises ArgumentError when it cannot be used here."""
    index = _check_name(name, "set_isa")
    if not functions().qx_set_isa(index):
        raise ArgumentError(
            f"set_isa asks for {name!r}, which is not built or not run by this processor; "
            f"usable are {', '.join(status().usable)}"
        )
