"""The peers: each builder takes a Hugging Face encoder and returns a call (ids, mask) -> last hidden state.

A peer whose package is missing is reported, never left out in silence.
"""

import copy
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import QontextError

Run = Callable[[torch.Tensor, torch.Tensor], Any]
"""ids [B, S] and mask [B, S], int64 -> last hidden state [B, S, E], an array or a tensor."""


class PeerMissing(QontextError):
    """A peer cannot take part; the message says why."""

    code = "QX600"


def torch_eager(model: Any, folder: Path, precision: str, threads: int) -> Run:
    """Hugging Face transformers as they come, with scaled-dot-product attention."""
    mine = copy.deepcopy(model).to(_DTYPE[precision])

    def run(ids: torch.Tensor, mask: torch.Tensor) -> Any:
        with torch.inference_mode():
            return mine(input_ids=ids, attention_mask=mask).last_hidden_state

    return run


def torch_compile(model: Any, folder: Path, precision: str, threads: int) -> Run:
    """The same through torch.compile with frozen weights, compiled for each shape."""
    import torch._inductor.config as inductor

    mine = copy.deepcopy(model).to(_DTYPE[precision])
    compiled = torch.compile(mine, dynamic=False)

    def run(ids: torch.Tensor, mask: torch.Tensor) -> Any:
        with torch.no_grad(), inductor.patch(freezing=True):
            return compiled(input_ids=ids, attention_mask=mask).last_hidden_state

    return run


def onnx_runtime(model: Any, folder: Path, precision: str, threads: int) -> Run:
    """ONNX Runtime after its transformers optimiser (fused attention, skip-LN, GELU). It has no bf16 on CPUs."""
    if precision != "fp32":
        raise PeerMissing("ONNX Runtime computes fp32 only on CPUs")
    return onnx_runtime_session(onnx_runtime_fused(model, folder), threads)


def onnx_runtime_fused(model: Any, folder: Path) -> Path:
    """The model after ONNX Runtime's transformers optimiser. Raises PeerMissing."""
    try:
        from onnxruntime.transformers.fusion_options import FusionOptions
        from onnxruntime.transformers.optimizer import optimize_model
    except ImportError as error:
        raise PeerMissing(f"onnxruntime is not installed: {error}") from error
    fused = folder / "ort_fused.onnx"
    if not fused.exists():
        config = model.config
        optimised = optimize_model(
            str(exported(model, folder)),
            model_type="bert",
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            optimization_options=FusionOptions("bert"),
            opt_level=0,
        )
        optimised.save_model_to_file(str(fused))
    return fused


def onnx_runtime_session(path: Path, threads: int) -> Run:
    """A session over a file that the optimiser wrote."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = {i.name: np.int32 if i.type == "tensor(int32)" else np.int64 for i in session.get_inputs()}

    def run(ids: torch.Tensor, mask: torch.Tensor) -> Any:
        given = feeds_of(ids, mask)
        return session.run(None, {n: given[n].astype(k) for n, k in kinds.items()})[0]

    return run


def openvino(model: Any, folder: Path, precision: str, threads: int) -> Run:
    """OpenVINO with the latency hint on one stream."""
    try:
        import openvino as ov
    except ImportError as error:
        raise PeerMissing(f"openvino is not installed: {error}") from error
    hint = {"fp32": "f32", "bf16": "bf16"}[precision]
    return run_openvino(ov, exported(model, folder), threads, {"INFERENCE_PRECISION_HINT": hint})


def run_openvino(ov: Any, path: Path, threads: int, settings: Mapping[str, str]) -> Run:
    """A model file compiled by OpenVINO for the latency of single batches; `settings` are put to the usual ones."""
    compiled = ov.Core().compile_model(
        str(path),
        "CPU",
        {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", **settings},
    )
    request = compiled.create_infer_request()
    names = {n for port in compiled.inputs for n in port.get_names()}

    def run(ids: torch.Tensor, mask: torch.Tensor) -> Any:
        feeds = {n: a for n, a in feeds_of(ids, mask).items() if n in names}
        return request.infer(feeds, share_inputs=True, share_outputs=True)[0]

    return run


def ctranslate2(model: Any, folder: Path, precision: str, threads: int) -> Run:
    """CTranslate2, which removes padding itself."""
    return ctranslate2_encoder(model, folder, {"fp32": "float32", "bf16": "bfloat16"}[precision], threads)


def ctranslate2_encoder(model: Any, folder: Path, kind: str, threads: int) -> Run:
    """CTranslate2 in one of its compute types. Raises PeerMissing."""
    try:
        import ctranslate2 as ct2
    except ImportError as error:
        raise PeerMissing(f"ctranslate2 is not installed: {error}") from error
    if kind not in ct2.get_supported_compute_types("cpu"):
        raise PeerMissing(f"CTranslate2 does not offer {kind} on this processor")
    target = folder / "ct2"
    if not (target / "model.bin").exists():
        source = folder / "hf_with_pooler"
        _save_for_ct2(model, source)
        ct2.converters.TransformersConverter(str(source)).convert(str(target), force=True)
    encoder = ct2.Encoder(str(target), device="cpu", compute_type=kind, intra_threads=threads, inter_threads=1)

    def run(ids: torch.Tensor, mask: torch.Tensor) -> Any:
        tokens = ct2.StorageView.from_array(ids.to(torch.int32).numpy())
        lengths = ct2.StorageView.from_array(mask.sum(1).to(torch.int32).numpy())
        hidden = encoder.forward_batch(tokens, lengths).last_hidden_state
        return np.array(hidden.to(ct2.DataType.float32) if hidden.dtype != ct2.DataType.float32 else hidden)

    return run


PEERS: Mapping[str, Callable[[Any, Path, str, int], Run]] = {
    "torch eager": torch_eager,
    "torch.compile": torch_compile,
    "ONNX Runtime": onnx_runtime,
    "OpenVINO": openvino,
    "CTranslate2": ctranslate2,
}
_DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16}


def feeds_of(ids: torch.Tensor, mask: torch.Tensor) -> dict[str, np.ndarray]:
    """The arrays that exported models take."""
    return {
        "input_ids": ids.numpy(),
        "attention_mask": mask.numpy(),
        "token_type_ids": np.zeros(tuple(ids.shape), np.int64),
    }


class _Wrapped(torch.nn.Module):
    """Positional inputs for the exporter."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        return self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state


def exported(model: Any, folder: Path) -> Path:
    """The TorchScript export that the optimisers of the peers know best."""
    path = folder / "model.onnx"
    if path.exists():
        return path
    names = ["input_ids", "attention_mask", "token_type_ids"]
    free = {0: "batch", 1: "sequence"}
    mine = copy.deepcopy(model)
    mine.set_attn_implementation("eager")
    ids = torch.ones(2, 16, dtype=torch.long)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Wrapped(mine),
            (ids, torch.ones_like(ids), torch.zeros_like(ids)),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=names,
            output_names=["last_hidden_state"],
            dynamic_axes=dict.fromkeys([*names, "last_hidden_state"], free),
        )
    return path


def _save_for_ct2(model: Any, folder: Path) -> None:
    """CTranslate2's converter wants a pooler, a tokenizer and an attribute that transformers has dropped."""
    from transformers import BertModel

    config = copy.deepcopy(model.config)
    config.position_embedding_type = "absolute"
    whole = BertModel(config, add_pooling_layer=True).eval()
    whole.load_state_dict(model.state_dict(), strict=False)
    whole.save_pretrained(folder)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary += [f"w{i}" for i in range(config.vocab_size - len(vocabulary))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
