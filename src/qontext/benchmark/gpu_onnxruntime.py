"""ONNX Runtime on a GPU as a peer, in its best form: its transformer optimiser has fused everything (attention, skip
layer norm, GELU, embedding), fp16, inputs and outputs bound to memory of the device, the run in a CUDA graph.

On the host (for tests of this file) the same in float32, without a graph."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..errors import DeviceError

Call = Callable[[], torch.Tensor]
PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
_INPUTS = ("input_ids", "attention_mask")
_EXPECTED = ("EmbedLayerNormalization", "Attention", "SkipLayerNormalization", "BiasGelu")


class _Encoder(torch.nn.Module):
    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return hidden


class OnnxRuntimePeer:
    """One exported and optimised model; called with a batch it gives a call without arguments.

    Args:
        model: a Hugging Face encoder.
        folder: where the model is written.
        device: "cuda" or "cpu".
    Raises:
        DeviceError: no ONNX Runtime with CUDA, or its optimiser left something unfused.
    """

    def __init__(self, model: Any, folder: Path, device: str = "cuda"):
        import onnxruntime

        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
        found = onnxruntime.get_available_providers()
        if PROVIDERS[device] not in found:
            raise DeviceError(
                f"ONNX Runtime {onnxruntime.__version__} has {', '.join(found)} and no {PROVIDERS[device]}; install "
                "onnxruntime-gpu"
            )
        onnxruntime.set_default_logger_severity(3)
        self.device = device
        self.path = folder / "fused.onnx"
        self.fused = _write(model, folder / "plain.onnx", self.path, half=device == "cuda")
        missing = [name for name in _EXPECTED if not self.fused.get(name)]
        if missing:
            raise DeviceError(f"ONNX Runtime's optimiser fused no {', '.join(missing)}; the peer would be a weak one")

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor | None) -> Call:
        """A run on ids and mask `[B, S]`, int64 on the device; its session holds a CUDA graph of this one shape."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        settings = {"enable_cuda_graph": "1"} if self.device == "cuda" else {}
        session = onnxruntime.InferenceSession(str(self.path), options, providers=[(PROVIDERS[self.device], settings)])
        given = dict(zip(_INPUTS, (ids, torch.ones_like(ids) if mask is None else mask), strict=True))
        binding = session.io_binding()
        held = []
        for entry in session.get_inputs():
            tensor = given[entry.name].to(torch.int32 if "int32" in entry.type else torch.int64).contiguous()
            held.append(tensor)
            binding.bind_input(entry.name, self.device, 0, _numpy_type(tensor), tuple(tensor.shape), tensor.data_ptr())
        (output,) = session.get_outputs()
        width = output.shape[-1]
        kind = torch.float16 if "float16" in output.type else torch.float32
        result = torch.empty(*ids.shape, width, dtype=kind, device=ids.device)
        binding.bind_output(output.name, self.device, 0, _numpy_type(result), tuple(result.shape), result.data_ptr())
        if self.device == "cuda":
            torch.cuda.synchronize()  # what it reads was written on a stream that it does not know

        def run() -> torch.Tensor:
            session.run_with_iobinding(binding)
            assert held
            return result

        return run


def _write(model: Any, plain: Path, fused: Path, half: bool) -> dict[str, int]:
    """Exports and optimises; returns how often each operator was fused."""
    from onnxruntime.transformers import optimizer

    module = copy.deepcopy(model).float().cpu()
    module.set_attn_implementation("eager")
    ids = torch.ones(2, 16, dtype=torch.long)
    axes = {0: "batch", 1: "sequence"}
    torch.onnx.export(
        _Encoder(module).eval(),
        (ids, ids),
        str(plain),
        input_names=list(_INPUTS),
        output_names=["hidden"],
        opset_version=17,
        dynamic_axes=dict.fromkeys((*_INPUTS, "hidden"), axes),
        dynamo=False,  # what its optimiser knows how to fuse
    )
    config = model.config
    optimised = optimizer.optimize_model(
        str(plain),
        model_type="bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        opt_level=0,
        use_gpu=True,
    )
    counts = dict(optimised.get_fused_operator_statistics())
    if half:
        optimised.convert_float_to_float16()
    optimised.save_model_to_file(str(fused), use_external_data_format=False)
    return counts


def _numpy_type(tensor: torch.Tensor) -> Any:
    return torch.empty(0, dtype=tensor.dtype).numpy().dtype.type
