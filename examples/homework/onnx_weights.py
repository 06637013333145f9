"""The weights of an ONNX file by the names that the builder uses.

Exporters fold the transposes of linear layers, so their weights stand in the file as "onnx::MatMul_448", and equal
vectors (biases of zeros) as one. What the nodes say is reliable: each comes from a module, and reads its weights.
"""

import numpy as np
import onnx_ir as ir
from bert_config import BertConfig

import qontext as qx
from qontext.errors import UnsupportedModelError, WeightsError, all_problems
from qontext.graph.ledger import origin_of
from qontext.graph.tensors import constant_of

_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


def onnx_to_trt_name(onnx_name: str) -> str:
    """The builder's name of a weight, as in the TensorFlow checkpoint: parts joined with "_", layers as "l0".

    >>> onnx_to_trt_name("bert.encoder.layer.0.attention.self.query.weight")
    'l0_attention_self_query_kernel'
    >>> onnx_to_trt_name("bert.embeddings.LayerNorm.bias")
    'bert_embeddings_layernorm_beta'
    >>> onnx_to_trt_name("bert.embeddings.word_embeddings.weight")
    'bert_embeddings_word_embeddings'
    """
    parts = [part.strip("_") for part in onnx_name.lower().split(".")]
    if parts[:3] == ["bert", "encoder", "layer"]:
        parts = [f"l{parts[3]}", *parts[4:]]
    kinds = {"weight": "kernel", "bias": "bias"}
    if len(parts) > 1 and "layernorm" in parts[-2]:
        kinds = {"weight": "gamma", "bias": "beta"}
    if parts[-1] == "weight" and parts[-2].endswith("embeddings"):
        return "_".join(parts[:-1])
    return "_".join([*parts[:-1], kinds.get(parts[-1], parts[-1])])


def load_onnx_weights_and_quant(path: str, config: BertConfig) -> dict[str, np.ndarray]:
    """The weights of an ONNX file by the builder's names.

    Raises:
        WeightsError: weights that this configuration needs are missing or of another shape, all of them named.
        UnsupportedModelError: a model that is quantised already.
    """
    weights = module_weights(path)
    problems = []
    for name, shape in needed_weights(config).items():
        if name not in weights:
            problems.append(f"{name} {list(shape)} is missing")
        elif weights[name].shape != shape:
            problems.append(f"{name} is {list(weights[name].shape)}, expected {list(shape)}")
    if problems:
        raise WeightsError(all_problems(f"{path} does not hold this BERT (export it with model2onnx.py)", problems))
    return weights


def needed_weights(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what the network reads; the decoder may be the word embedding."""
    e, f = config.hidden_size, config.intermediate_size
    needed: dict[str, tuple[int, ...]] = {
        "bert_embeddings_word_embeddings": (config.vocab_size, e),
        "bert_embeddings_position_embeddings": (config.max_position_embeddings, e),
        "bert_embeddings_token_type_embeddings": (config.type_vocab_size, e),
    }
    norms = ["bert_embeddings_layernorm", "cls_predictions_transform_layernorm"]
    linears = {"cls_predictions_transform_dense": (e, e)}
    for layer in range(config.num_hidden_layers):
        norms += [f"l{layer}_attention_output_layernorm", f"l{layer}_output_layernorm"]
        linears |= {f"l{layer}_attention_self_{part}": (e, e) for part in ("query", "key", "value")}
        linears |= {f"l{layer}_attention_output_dense": (e, e)}
        linears |= {f"l{layer}_intermediate_dense": (f, e), f"l{layer}_output_dense": (e, f)}
    for name in norms:
        needed |= {f"{name}_gamma": (e,), f"{name}_beta": (e,)}
    for name, shape in linears.items():
        needed |= {f"{name}_kernel": shape, f"{name}_bias": shape[:1]}
    return needed


def module_weights(path: str) -> dict[str, np.ndarray]:
    """Weights of an ONNX file by the builder's names; matrices of linear layers are `[M, K]`.

    Raises UnsupportedModelError for a model with quantised weights.
    """
    graph = qx.import_model(path).graph
    quantised = [node.name for node in graph if node.op_type in _QUANTISED]
    if quantised:
        raise UnsupportedModelError(
            f"{path} has {len(quantised)} quantising nodes ({quantised[0]}, ...); this builder takes float models"
        )
    found: dict[str, np.ndarray] = {}
    for name, value in graph.initializers.items():
        tensor = constant_of(value)
        if "." in name and tensor is not None and tensor.is_floating_point():
            found[onnx_to_trt_name(name)] = tensor.numpy()
    for node in graph:
        for index, value in enumerate(node.inputs):
            role = _role(node, index)
            tensor = constant_of(value)
            if role is None or tensor is None or tensor.dim() == 0 or not tensor.is_floating_point():
                continue
            kind, transposed = role
            array = np.ascontiguousarray(tensor.numpy().T) if transposed else tensor.numpy()
            found.setdefault(onnx_to_trt_name(f"{origin_of(node)}.{kind}"), array)
    return found


def _role(node: ir.Node, index: int) -> tuple[str, bool] | None:
    """What an input of a node is to its module: "weight" or "bias", and whether it stands transposed."""
    usual = {
        ("Gather", 0): ("weight", False),
        ("MatMul", 1): ("weight", True),
        ("Transpose", 0): ("weight", False),
        ("LayerNormalization", 1): ("weight", False),
        ("LayerNormalization", 2): ("bias", False),
    }
    if (node.op_type, index) in usual:
        return usual[node.op_type, index]
    if node.op_type == "Add":
        return "bias", False
    if node.op_type == "Mul" and "layernorm" in origin_of(node).lower():
        return "weight", False
    return None
