"""What is mutated: small valid files of every kind that qontext reads."""

import functools
import json
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from qontext.importers.huggingface.config import encoder_config, family_of
from qontext.importers.huggingface.door import _paths
from qontext.importers.huggingface.weights import encoder_shapes, head_shapes

CONFIG = {
    "model_type": "bert", "architectures": ["BertForMaskedLM"], "vocab_size": 20, "hidden_size": 8,
    "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 12,
    "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0,
}  # fmt: skip


@functools.cache
def weights() -> bytes:
    """The safetensors of a BERT with CONFIG."""
    family = family_of(CONFIG)
    config = encoder_config(CONFIG, family)
    shapes = encoder_shapes(config, _paths(family, config)) | head_shapes(config, family.heads["fill-mask"], 2)
    generator = torch.Generator().manual_seed(0)
    return save({name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()})


def write_folder(folder: Path) -> None:
    """A Hugging Face folder of that model."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(weights())
    (folder / "tokenizer.json").write_text(tokenizers()[0])


@functools.cache
def tokenizers() -> tuple[str, ...]:
    """A WordPiece, a byte-level BPE and a Unigram tokenizer."""
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"abcdefg",
        "##a",
        "##b",
        "ab",
        "the",
        "##c",
        ".",
        ",",
        "river",
    ]
    first = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    first.normalizer = normalizers.BertNormalizer(lowercase=True)
    first.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    first.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    first.decoder = decoders.WordPiece()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = {p: i for i, p in enumerate(["<s>", "</s>", "<pad>", "<mask>", *letters, "ab", "abc"])}
    second = Tokenizer(models.BPE(pieces, [("a", "b"), ("ab", "c")]))
    second.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    second.decoder = decoders.ByteLevel()
    third = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁", -1.0), ("a", -2.0), ("b", -2.5), ("ab", -3.0)], 0))
    third.pre_tokenizer = pre_tokenizers.Metaspace()
    return first.to_str(), second.to_str(), third.to_str()


@functools.cache
def onnx_models() -> tuple[bytes, ...]:
    """An attention layer with its shape arithmetic, a layer norm and GELU in pieces, and a 4-bit weight."""
    return _attention(), _pieces(), _quantised()


def _model(
    nodes: list[onnx.NodeProto], shape: list[object], arrays: dict[str, np.ndarray], extra: object = None
) -> bytes:
    made = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [*made, *([extra] if extra is not None else [])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


def _array(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(0, 0.3, shape).astype(np.float32)


def _attention() -> bytes:
    node = helper.make_node
    nodes = [node("Shape", ["x"], ["shape"]), node("Slice", ["shape", "zero", "two", "zero"], ["lead"])]
    nodes += [node("Concat", ["lead", "heads"], ["split"], axis=0), node("Concat", ["lead", "width"], ["join"], axis=0)]
    for name in "qkv":
        nodes += [node("MatMul", ["x", f"w_{name}"], [f"m_{name}"]), node("Add", [f"m_{name}", "bias"], [f"a_{name}"])]
        nodes += [node("Reshape", [f"a_{name}", "split"], [f"r_{name}"])]
        order = [0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]
        nodes += [node("Transpose", [f"r_{name}"], [name], perm=order)]
    nodes += [node("MatMul", ["q", "k"], ["dots"]), node("Div", ["dots", "root"], ["scaled"])]
    nodes += [node("Softmax", ["scaled"], ["p"], axis=-1), node("MatMul", ["p", "v"], ["context"])]
    nodes += [node("Transpose", ["context"], ["turned"], perm=[0, 2, 1, 3]), node("Reshape", ["turned", "join"], ["y"])]
    numbers = {"zero": [0], "two": [2], "heads": [2, 4], "width": [8]}
    arrays = {name: np.array(value, np.int64) for name, value in numbers.items()}
    arrays |= {f"w_{name}": _array(8, 8) for name in "qkv"} | {"bias": _array(8), "root": np.float32(2)}
    return _model(nodes, ["B", "S", 8], arrays)


def _pieces() -> bytes:
    steps = """
        ReduceMean x last mean; Sub x mean d; Mul d d d2; ReduceMean d2 last var; Add var eps safe; Sqrt safe std;
        Div d std n; Mul n gamma g; Add g beta norm; Reshape norm to_flat flat; Gemm flat w gemm; Div gemm root scaled;
        Erf scaled erf; Add erf one e1; Mul gemm e1 m; Mul m half gelu; Shape x shape; Reshape gelu shape out;
        Add out x y
    """
    words = [step.split() for step in steps.split(";")]
    nodes = [helper.make_node(op, names[:-1], names[-1:]) for op, *names in words]
    arrays = {"last": np.array([-1]), "to_flat": np.array([-1, 8]), "eps": np.float32(1e-5), "root": np.float32(2**0.5)}
    arrays |= {"one": np.float32(1), "half": np.float32(0.5), "gamma": _array(8), "beta": _array(8), "w": _array(8, 8)}
    return _model(nodes, ["B", "S", 8], arrays)


def _quantised() -> bytes:
    node = helper.make_node
    nodes = [
        node("DequantizeLinear", ["w4", "scale"], ["w"], axis=0, block_size=4),
        node("MatMul", ["x", "w"], ["m"]),
        node("QuantizeLinear", ["m", "step"], ["q"], output_dtype=TensorProto.INT4),
        node("DequantizeLinear", ["q", "step"], ["y"]),
    ]
    packed = np.arange(32, dtype=np.uint8).tobytes()
    w4 = helper.make_tensor("w4", TensorProto.INT4, [8, 8], packed, raw=True)
    return _model(nodes, ["B", "S", 8], {"scale": np.abs(_array(2, 8)) + 0.1, "step": np.float32(0.25)}, w4)
