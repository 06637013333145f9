"""The modules of examples/homework, imported once under their own names."""

import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path[:0] = [str(EXAMPLES / "homework"), str(EXAMPLES / "layer_norm_plugin")]

import bert_config  # noqa: E402
import bert_folder  # noqa: E402
import builder  # noqa: E402
import calibrator  # noqa: E402
import layer_norm_plugin  # noqa: E402
import onnx_weights  # noqa: E402
import trt_helper  # noqa: E402

LAYER_NORM = layer_norm_plugin.LAYER_NORM

__all__ = [
    "EXAMPLES",
    "LAYER_NORM",
    "bert_config",
    "bert_folder",
    "builder",
    "calibrator",
    "onnx_weights",
    "trt_helper",
]
