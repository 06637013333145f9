"""BERT layer by layer, on the homework's network helper. Weights are looked up by the builder's names."""

import math

import numpy as np
import onnx_ir as ir
from bert_config import BertConfig, BuilderConfig
from trt_helper import TrtNetworkHelper

from qontext.errors import UnsupportedModelError

Weights = dict[str, np.ndarray]


def set_tensor_name(tensor: ir.Value, prefix: str, name: str) -> None:
    tensor.name = prefix + name


def set_output_name(layer: ir.Node, prefix: str, name: str, out_idx: int = 0) -> None:
    set_tensor_name(layer.outputs[out_idx], prefix, name)


def set_output_range(layer: ir.Node, maxval: float, out_idx: int = 0) -> None:
    """The range of an INT8 tensor. Raises UnsupportedModelError: ranges come from the calibrator."""
    raise UnsupportedModelError(
        f"{layer.name}: a range of {maxval} for output {out_idx} cannot be set; the calibrator finds ranges (-i -p)"
    )


def custom_fc(
    config: BertConfig, network_helper: TrtNetworkHelper, input_tensor: ir.Value, out_dims: int, W: np.ndarray
) -> ir.Value:
    """A linear layer without bias; W holds `[out_dims, K]` numbers."""
    return network_helper.addLinear(input_tensor, W.reshape(out_dims, -1), None, "custom_fc")


def self_attention_layer(
    network_helper: TrtNetworkHelper,
    prefix: str,
    config: BertConfig,
    weights_dict: Weights,
    input_tensor: ir.Value,
    imask: ir.Value | None,
) -> ir.Value:
    """Three projections, softmax(q k^T / sqrt(D) + imask) v, heads joined again: `[B, S, E]`."""
    heads, size = config.num_attention_heads, config.head_size
    parts = []
    # [B, S, N*D] -> [B, N, S, D]; the key directly to [B, N, D, S].
    for name, order in (("query", (0, 2, 1, 3)), ("key", (0, 2, 3, 1)), ("value", (0, 2, 1, 3))):
        weight, bias = weights_dict[f"{prefix}{name}_kernel"], weights_dict[f"{prefix}{name}_bias"]
        x = network_helper.addLinear(input_tensor, weight, bias, name)
        parts.append(network_helper.addShuffle(x, None, (0, 0, heads, size), order, f"{name}_heads"))
    query, key, value = parts
    scores = network_helper.addMatMul(query, key, "scores")
    scores = network_helper.addScale(scores, 1 / math.sqrt(size), "scaled_scores")
    if imask is not None:
        scores = network_helper.addAdd(scores, imask, "masked_scores")
    probabilities = network_helper.addSoftmax(scores, -1, "softmax")
    context = network_helper.addMatMul(probabilities, value, "context")
    return network_helper.addShuffle(context, (0, 2, 1, 3), (0, 0, config.hidden_size), None, "joined_heads")


def self_output_layer(
    network_helper: TrtNetworkHelper,
    prefix: str,
    config: BertConfig,
    weights_dict: Weights,
    hidden_states: ir.Value,
    input_tensor: ir.Value,
) -> ir.Value:
    """Linear, the residual addition, LayerNorm."""
    weight, bias = weights_dict[f"{prefix}dense_kernel"], weights_dict[f"{prefix}dense_bias"]
    x = network_helper.addLinear(hidden_states, weight, bias, "dense")
    x = network_helper.addAdd(x, input_tensor, "residual")
    gamma, beta = weights_dict[f"{prefix}layernorm_gamma"], weights_dict[f"{prefix}layernorm_beta"]
    return network_helper.addLayerNorm(x, gamma, beta, "layer_norm")


def attention_layer(
    network_helper: TrtNetworkHelper,
    prefix: str,
    config: BertConfig,
    weights_dict: Weights,
    input_tensor: ir.Value,
    imask: ir.Value | None,
) -> ir.Value:
    """Self-attention and its output layer."""
    scope = network_helper.network.scope
    with scope("attention.self"):
        x = self_attention_layer(network_helper, f"{prefix}attention_self_", config, weights_dict, input_tensor, imask)
    with scope("attention.output"):
        return self_output_layer(network_helper, f"{prefix}attention_output_", config, weights_dict, x, input_tensor)


def activation(network_helper: TrtNetworkHelper, config: BertConfig, x: ir.Value) -> ir.Value:
    """The activation that the configuration names."""
    if config.hidden_act in ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"):
        return network_helper.addGELU(x, "gelu")
    if config.hidden_act == "gelu":
        return network_helper.addErfGELU(x, "gelu")
    if config.hidden_act == "relu":
        return network_helper.addReLU(None, x, "relu")
    raise UnsupportedModelError(f"hidden_act is {config.hidden_act!r}; this builder knows gelu, gelu_new and relu")


def transformer_layer(
    network_helper: TrtNetworkHelper,
    prefix: str,
    config: BertConfig,
    weights_dict: Weights,
    input_tensor: ir.Value,
    imask: ir.Value | None,
) -> ir.Value:
    """One encoder layer."""
    scope = network_helper.network.scope
    attended = attention_layer(network_helper, prefix, config, weights_dict, input_tensor, imask)
    with scope("intermediate"):
        weight, bias = (weights_dict[f"{prefix}intermediate_dense_{kind}"] for kind in ("kernel", "bias"))
        x = network_helper.addLinear(attended, weight, bias, "dense")
        x = activation(network_helper, config, x)
    with scope("output"):
        return self_output_layer(network_helper, f"{prefix}output_", config, weights_dict, x, attended)


def transformer_output_layer(
    network_helper: TrtNetworkHelper, config: BertConfig, weights_dict: Weights, input_tensor: ir.Value
) -> ir.Value:
    """The head that predicts masked words: logits `[B, S, vocabulary]`, the decoder being the word embedding."""
    prefix = "cls_predictions_"
    with network_helper.network.scope("cls.predictions"):
        weight, bias = (weights_dict[f"{prefix}transform_dense_{kind}"] for kind in ("kernel", "bias"))
        x = network_helper.addLinear(input_tensor, weight, bias, "transform")
        x = activation(network_helper, config, x)
        gamma, beta = (weights_dict[f"{prefix}transform_layernorm_{kind}"] for kind in ("gamma", "beta"))
        x = network_helper.addLayerNorm(x, gamma, beta, "layer_norm")
        words = weights_dict["bert_embeddings_word_embeddings"]
        decoder = weights_dict.get(f"{prefix}decoder_kernel", words)
        if decoder.shape == words.shape and np.array_equal(decoder, words):
            decoder = words  # one weight in memory, not two
        decoder_bias = weights_dict.get(f"{prefix}decoder_bias")
        if decoder_bias is None:
            decoder_bias = weights_dict[f"{prefix}bias"]
        return network_helper.addLinear(x, decoder, decoder_bias, "decoder")


def bert_model(
    network_helper: TrtNetworkHelper,
    config: BertConfig,
    weights_dict: Weights,
    input_tensor: ir.Value,
    input_mask: ir.Value | None,
) -> ir.Value:
    """All encoder layers on the embeddings."""
    imask = None if input_mask is None else additive_mask(network_helper, input_mask)
    x = input_tensor
    for layer in range(config.num_hidden_layers):
        with network_helper.network.scope(f"layer.{layer}"):
            x = transformer_layer(network_helper, f"l{layer}_", config, weights_dict, x, imask)
    return x


def additive_mask(network_helper: TrtNetworkHelper, input_mask: ir.Value) -> ir.Value:
    """0 where a token is real and -10000 where it is padding, `[B, 1, 1, S]`."""
    op = network_helper.network.op
    with network_helper.network.scope("mask"):
        real = op("Unsqueeze", op("Cast", input_mask, to=int(ir.DataType.FLOAT)), np.array([1, 2], np.int64))
        padding = op("Sub", np.float32(1.0), real)
        return network_helper.addScale(padding, -10000.0, "additive")


def emb_layernorm(
    network_helper: TrtNetworkHelper,
    config: BertConfig,
    weights_dict: Weights,
    builder_config: BuilderConfig,
    sequence_lengths: list[int],
    batch_sizes: list[int],
) -> tuple[ir.Value, ir.Value]:
    """Inputs, three embeddings, their sum, LayerNorm. Returns embeddings `[B, S, E]` and the mask input `[B, S]`.

    The homework has no mask and one sequence at a time; here the mask is a fourth input that may be left out.
    """
    builder_config.add_optimization_profile(batch_sizes, sequence_lengths)
    names = ("input_ids", "token_type_ids", "position_ids", "attention_mask")
    input_ids, token_type_ids, position_ids, mask = (
        network_helper.addInput(name, np.int32, (-1, -1)) for name in names
    )
    with network_helper.network.scope("embeddings"):
        tables = {n: weights_dict[f"bert_embeddings_{n}_embeddings"] for n in ("word", "token_type", "position")}
        words = network_helper.addEmbedding(input_ids, tables["word"], "word")
        types = network_helper.addEmbedding(token_type_ids, tables["token_type"], "token_type")
        positions = network_helper.addEmbedding(position_ids, tables["position"], "position")
        total = network_helper.addAdd(network_helper.addAdd(words, types, "sum"), positions, "sum_with_position")
        gamma, beta = (weights_dict[f"bert_embeddings_layernorm_{kind}"] for kind in ("gamma", "beta"))
        return network_helper.addLayerNorm(total, gamma, beta, "layer_norm"), mask
