"""`qontext doctor`: what this machine offers, what is missing, and what that costs."""

import importlib.util
from typing import Any

from .. import native
from ..benchmark.machine import machine
from ..builder.tuning_cache import cache_folder
from ..ops.gpu_facts import gpu_facts, gpu_problem
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
    facts = machine()
    status = native.status()
    notes = []
    if not status.available:
        notes.append(f"the native CPU kernels are absent ({status.reason}); torch kernels run instead, slower")
    if "bf16" not in " ".join(facts["instruction_sets"]):
        notes.append("no bf16 instructions: precision='bf16' would be slower than fp32 here")
    found = gpu_facts()
    gpus = [
        {
            "device": f"cuda:{i}",
            "name": gpu.name,
            "capability": f"{gpu.capability[0]}.{gpu.capability[1]}",
            "memory_gb": round(gpu.memory / 1e9, 1),
            "problem": gpu_problem(found, i) or "",
        }
        for i, gpu in enumerate(found.gpus)
    ]
    if not gpus:
        notes.append(f"device='cuda' cannot be used: {gpu_problem(found)}")
    notes += [f"{gpu['device']} cannot be used: {gpu['problem']}" for gpu in gpus if gpu["problem"]]
    return {
        "qontext": __version__,
        **facts,
        "native_kernels": {"available": status.available, "reason": status.reason, "isa": status.isa},
        "gpus": gpus,
        "driver": found.driver,
        "cuda": found.cuda,
        "cache": str(cache_folder()),
        "optional": {name: importlib.util.find_spec(name) is not None for name in _OPTIONAL},
        "notes": notes,
    }


def _gpu(gpu: dict[str, Any]) -> str:
    return f"{gpu['device']} {gpu['name']} ({gpu['memory_gb']} GB, compute capability {gpu['capability']})"


def render(facts: dict[str, Any]) -> str:
    """The facts as text."""
    kernels = facts["native_kernels"]
    sets = ", ".join(facts["instruction_sets"]) or "no vector instructions known"
    lines = [
        f"qontext {facts['qontext']} on {facts['system']}",
        f"processor    {facts['processor']}, {facts['threads']} threads, {sets}",
        f"kernels      {'native, ' + kernels['isa'] if kernels['available'] else 'absent: ' + kernels['reason']}",
        f"GPUs         {', '.join(_gpu(g) for g in facts['gpus']) or 'none'}",
        f"versions     {', '.join(f'{k} {v}' for k, v in facts['versions'].items())}",
        f"cache        {facts['cache']}",
        "optional",
    ]
    lines += [f"  {name:13}{'yes' if facts['optional'][name] else 'no ':3}  {why}" for name, why in _OPTIONAL.items()]
    return "\n".join([*lines, *(f"note         {n}" for n in facts["notes"])])
