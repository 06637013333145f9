"""The peers in int8, behind the same call as those in floats."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .peers import (
    PeerMissing,
    Run,
    ctranslate2_encoder,
    exported,
    feeds_of,
    onnx_runtime_fused,
    onnx_runtime_session,
    run_openvino,
)

_FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}  # of everything that is not int8

Sample = tuple[torch.Tensor, torch.Tensor]
Builder = Callable[[Any, Path, int, Sequence[Sample]], Run]


def onnx_runtime_dynamic(model: Any, folder: Path, threads: int, samples: Sequence[Sample]) -> Run:
    """ONNX Runtime after its optimiser, weights per channel, activations per tensor at run time."""
    fused = onnx_runtime_fused(model, folder)
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = folder / "ort_int8.onnx"
    if not target.exists():
        logging.getLogger().setLevel(logging.ERROR)  # it advises on every call
        extra = {"DefaultTensorType": 1}
        quantize_dynamic(str(fused), str(target), weight_type=QuantType.QInt8, per_channel=True, extra_options=extra)
    return onnx_runtime_session(target, threads)


def openvino_dynamic(group: int) -> Builder:
    """OpenVINO with int8 weights and activations quantised at run time in groups along K."""

    def build(model: Any, folder: Path, threads: int, samples: Sequence[Sample]) -> Run:
        ov, nncf = _openvino_and_nncf()
        target = folder / "openvino_weights.xml"
        if not target.exists():
            read = ov.Core().read_model(str(exported(model, folder)))
            ov.save_model(nncf.compress_weights(read, mode=nncf.CompressWeightsMode.INT8_ASYM), str(target), False)
        return run_openvino(ov, target, threads, {**_FLOAT32, "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(group)})

    return build


def openvino_static(model: Any, folder: Path, threads: int, samples: Sequence[Sample]) -> Run:
    """OpenVINO after NNCF's post-training quantisation, in its preset for transformers."""
    ov, nncf = _openvino_and_nncf()
    target = folder / "openvino_static.xml"
    if not target.exists():
        read = ov.Core().read_model(str(exported(model, folder)))
        data = nncf.Dataset(list(samples), lambda sample: feeds_of(*sample))
        kind = nncf.ModelType.TRANSFORMER
        ov.save_model(nncf.quantize(read, data, model_type=kind, subset_size=len(samples)), str(target), False)
    return run_openvino(ov, target, threads, _FLOAT32)


def ctranslate2_int8(model: Any, folder: Path, threads: int, samples: Sequence[Sample]) -> Run:
    """CTranslate2, activations by token at run time."""
    return ctranslate2_encoder(model, folder, "int8_float32", threads)


def _openvino_and_nncf() -> tuple[Any, Any]:
    try:
        import nncf
        import openvino as ov
    except ImportError as error:
        raise PeerMissing(f"it needs openvino and nncf: {error}") from error
    nncf.set_log_level(logging.ERROR)
    return ov, nncf


def random_samples(vocabulary: int, count: int = 8, length: int = 128) -> list[Sample]:
    """Samples for models with random weights, where only the speed counts."""
    generator = torch.Generator().manual_seed(3)
    ids = [torch.randint(5, vocabulary, (1, length), generator=generator) for _ in range(count)]
    return [(i, torch.ones_like(i)) for i in ids]


def last_hidden(output: Any) -> torch.Tensor:
    """The output of a rival as a float32 tensor of its own memory."""
    return torch.as_tensor(np.array(output)) if not isinstance(output, torch.Tensor) else output.float().clone()


INT8_PEERS: Mapping[str, Builder] = {
    "ONNX Runtime": onnx_runtime_dynamic,
    "OpenVINO dynamic": openvino_dynamic(128),
    "OpenVINO NNCF": openvino_static,
    "CTranslate2": ctranslate2_int8,
}
