"""What a measurement must say about where it was made."""

import datetime
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from ..ops.device import cpu_flags, cpu_name

_PACKAGES = (
    "qontext",
    "torch",
    "triton",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "ctranslate2",
    "transformers",
    "onnx",
    "numpy",
)
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def machine() -> dict[str, Any]:
    """Processor, instruction sets, threads, versions and date."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": cpu_name(),
        "instruction_sets": [f for f in _FLAGS if f in cpu_flags()],
        "threads": torch.get_num_threads(),
        "system": platform.platform(terse=True),
        "versions": versions,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
