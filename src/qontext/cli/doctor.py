"""`qontext doctor`: what this machine offers, what is missing, and what that costs."""

import importlib.util
from typing import Any

from .. import native
from ..benchmark.machine import machine
from ..version import __version__

_OPTIONAL = {
    "transformers": "the oracle of tests and benches",
    "onnxruntime": "a peer in benches and the oracle of function bodies",
    "openvino": "a peer in benches",
    "ctranslate2": "a peer in benches",
    "triton": "GPU kernels",
}


def examine() -> dict[str, Any]:
    """Everything `doctor` prints, as data."""
    import torch

    facts = machine()
    status = native.status()
    notes = []
    if not status.available:
        notes.append(f"the native CPU kernels are absent ({status.reason}); torch kernels run instead, slower")
    if "bf16" not in " ".join(facts["instruction_sets"]):
        notes.append("no bf16 instructions: precision='bf16' would be slower than fp32 here")
    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    if not gpus:
        notes.append("no NVIDIA GPU here (this version computes on the CPU only)")
    return {
        "qontext": __version__,
        **facts,
        "native_kernels": {"available": status.available, "reason": status.reason, "isa": status.isa},
        "gpus": gpus,
        "optional": {name: importlib.util.find_spec(name) is not None for name in _OPTIONAL},
        "notes": notes,
    }


def render(facts: dict[str, Any]) -> str:
    """The facts as text."""
    kernels = facts["native_kernels"]
    sets = ", ".join(facts["instruction_sets"]) or "no vector instructions known"
    lines = [
        f"qontext {facts['qontext']} on {facts['system']}",
        f"processor    {facts['processor']}, {facts['threads']} threads, {sets}",
        f"kernels      {'native, ' + kernels['isa'] if kernels['available'] else 'absent: ' + kernels['reason']}",
        f"GPUs         {', '.join(facts['gpus']) or 'none'}",
        f"versions     {', '.join(f'{k} {v}' for k, v in facts['versions'].items())}",
        "optional",
    ]
    lines += [f"  {name:13}{'yes' if facts['optional'][name] else 'no ':3}  {why}" for name, why in _OPTIONAL.items()]
    return "\n".join([*lines, *(f"note         {n}" for n in facts["notes"])])
