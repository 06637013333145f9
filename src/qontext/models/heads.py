"""Task heads, drawn unfused on top of the last hidden state."""

from collections.abc import Mapping, Sequence

import onnx_ir as ir
import torch

from ..layers.parts import Builder, activate, layer_norm, linear
from .encoder_config import EncoderConfig

# Finite in every float type: the lowest number of float16, and a norm that float16 does not round to 0.
_LOWEST = -65504.0
_LEAST_NORM = 1e-7


def first_token(build: Builder, hidden: ir.Value, path: str) -> ir.Value:
    """[B, E]: the first token of each sequence."""
    with build.net.scope(path):
        first: ir.Value = build.net.op("Gather", hidden, torch.tensor(0), axis=1)
    return first


def pooler(build: Builder, hidden: ir.Value, path: str) -> ir.Value:
    """tanh(dense(first token)), [B, E]."""
    return activate(build, linear(build, first_token(build, hidden, path), path), "tanh", path)


def masked_language_model(
    build: Builder, config: EncoderConfig, hidden: ir.Value, names: Mapping[str, str], activation: str, word: str
) -> ir.Value:
    """logits [B, S, V]: dense, activation, norm, and the word embedding as decoder.

    `names` has "dense", "norm", "bias"; `word` is the weight name of the decoder.
    """
    x = linear(build, hidden, names["dense"])
    x = activate(build, x, activation, names["dense"])
    x = layer_norm(build, x, names["norm"], config.epsilon)
    path = names["bias"].rpartition(".")[0]
    with build.net.scope(path):
        logits: ir.Value = build.net.linear(x, build.weight(word), build.weight(names["bias"]))
    return logits


def classifier(build: Builder, x: ir.Value, names: Mapping[str, str], activation: str) -> ir.Value:
    """logits: an optional dense layer with its activation, then `out`."""
    if "dense" in names:
        x = activate(build, linear(build, x, names["dense"]), activation, names["dense"])
    return linear(build, x, names["out"])


def span(build: Builder, hidden: ir.Value, names: Mapping[str, str]) -> tuple[ir.Value, ir.Value]:
    """start_logits and end_logits, [B, S] each."""
    both = linear(build, hidden, names["out"])
    with build.net.scope(names["out"].rpartition(".")[0] or names["out"]):
        parts = [build.net.op("Gather", both, torch.tensor(i), axis=2) for i in (0, 1)]
    return parts[0], parts[1]


def sentence_embedding(
    build: Builder, hidden: ir.Value, mask: ir.Value, modes: Sequence[str], normalize: bool
) -> ir.Value:
    """One vector a sequence, [B, E] (several modes are joined), over real tokens only.

    modes: "mean", "cls", "max", in the order in which their results are joined.
    """
    net = build.net
    with net.scope("pooling"):
        seen = net.op("Unsqueeze", net.op("Cast", mask, to=int(ir.DataType.BOOL)), torch.tensor([2]))
        parts = []
        for mode in modes:
            if mode == "cls":
                parts.append(net.op("Gather", hidden, torch.tensor(0), axis=1))
            elif mode == "max":
                filled = net.op("Where", seen, hidden, _LOWEST)
                parts.append(net.op("ReduceMax", filled, torch.tensor([1]), keepdims=0))
            else:
                real = net.op("Cast", seen, to=int(ir.DataType.FLOAT))
                total = net.op("ReduceSum", net.op("Mul", hidden, real), torch.tensor([1]), keepdims=0)
                count = net.op("Max", net.op("ReduceSum", real, torch.tensor([1]), keepdims=0), 1.0)
                parts.append(net.op("Div", total, count))
        pooled: ir.Value = parts[0] if len(parts) == 1 else net.op("Concat", *parts, axis=-1)
        if normalize:
            squares = net.op("ReduceSum", net.op("Mul", pooled, pooled), torch.tensor([-1]), keepdims=1)
            pooled = net.op("Div", pooled, net.op("Max", net.op("Sqrt", squares), _LEAST_NORM))
    return pooled
