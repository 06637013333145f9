"""qontext: an open inference engine for Transformers.

import qontext as qx
model = qx.import_model("path/to/bert")
engine = qx.build(model, precision="bf16")
out = engine.run({"input_ids": ids, "attention_mask": mask})
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import errors
from .version import __version__

__all__ = [
    "Engine",
    "KvCache",
    "Model",
    "Network",
    "QuantOptions",
    "__version__",
    "build",
    "calibrate",
    "errors",
    "explain",
    "import_model",
    "load",
    "pipeline",
]

if TYPE_CHECKING:
    from .calibration.quantise import QuantOptions
    from .engine import Engine, build, calibrate, load
    from .graph.model import Model
    from .importers import import_model
    from .ops.network import Network
    from .quant.caches import KvCache
    from .report import explain
    from .tasks import pipeline

# torch, onnx and the tokenizers take a second to import: each name brings its module when it is first used.
_HOME = {
    "Engine": ".engine",
    "build": ".engine",
    "calibrate": ".engine",
    "load": ".engine",
    "QuantOptions": ".calibration.quantise",
    "KvCache": ".quant.caches",
    "Model": ".graph.model",
    "Network": ".ops.network",
    "explain": ".report",
    "import_model": ".importers",
    "pipeline": ".tasks",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'qontext' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
