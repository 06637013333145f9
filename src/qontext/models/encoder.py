"""The BERT-class encoder, drawn unfused in normal form: embeddings, layers, pooler."""

import math
from collections.abc import Mapping

import onnx_ir as ir
import torch

from ..layers.parts import Builder, activate, add, embedding, layer_norm, linear, self_attention
from .encoder_config import RELATIVE_BUCKETS, EncoderConfig

Paths = Mapping[str, str]


def encoder_inputs(build: Builder, config: EncoderConfig) -> dict[str, ir.Value]:
    """The graph's inputs, int64 [B, S] each."""
    names = ["input_ids", "attention_mask"]
    names += ["token_type_ids"] if config.types else []
    names += ["position_ids"]
    return {n: build.net.input(n, "int64", ("B", "S")) for n in names}


def embeddings(build: Builder, config: EncoderConfig, paths: Paths, inputs: Mapping[str, ir.Value]) -> ir.Value:
    """Word + position + type embeddings and their norm, projected to the hidden size where they differ."""
    place = paths["word"].rpartition(".")[0]
    x = embedding(build, inputs["input_ids"], paths["word"])
    if config.types:
        x = add(build, x, embedding(build, inputs["token_type_ids"], paths["type"]), place)
    x = add(build, x, embedding(build, inputs["position_ids"], paths["position"]), place)
    x = layer_norm(build, x, paths["embedding_norm"], config.epsilon)
    if "projection" in paths:
        x = linear(build, x, paths["projection"])
    return x


def encoder(build: Builder, config: EncoderConfig, paths: Paths, inputs: Mapping[str, ir.Value]) -> ir.Value:
    """The last hidden state [B, S, E]. `paths` maps our parts to module paths, "{i}" standing for the layer."""
    x = embeddings(build, config, paths, inputs)
    with build.net.scope(paths["query"].split(".{")[0].partition(".layer")[0] or "encoder"):
        mask = build.net.op("Cast", inputs["attention_mask"], to=int(ir.DataType.BOOL))
        mask = build.net.op("Unsqueeze", mask, torch.tensor([1, 2]))
    bias = None
    if config.relative_buckets:
        table = build.weights[f"{paths['relative']}.weight"]
        bias = build.net.parameter(f"{paths['relative']}.table", relative_bias(table, config.max_length))
    for layer in range(config.layers):
        here = {part: layer_path(path, config, layer) for part, path in paths.items()}
        y = self_attention(build, x, mask, here, config.heads, bias)
        x = layer_norm(build, add(build, y, x, here["attention_norm"]), here["attention_norm"], config.epsilon)
        y = linear(build, x, here["up"])
        y = linear(build, activate(build, y, config.activation, here["up"]), here["down"])
        x = layer_norm(build, add(build, y, x, here["output_norm"]), here["output_norm"], config.epsilon)
    return x


def layer_path(path: str, config: EncoderConfig, layer: int) -> str:
    """The module path of a part in a layer; ALBERT's layers live in groups."""
    if config.groups:
        inner = config.layers // len(config.groups) if len(config.groups) < config.layers else 1
        return path.replace("{g}", str(config.groups[layer // inner])).replace("{j}", str(layer % inner))
    return path.replace("{i}", str(layer))


def relative_bias(
    table: torch.Tensor, length: int, buckets: int = RELATIVE_BUCKETS, max_distance: int = 128
) -> torch.Tensor:
    """MPNet's position bias [1, N, P, P] from its table [rows, N], of which it uses the first `buckets` rows.

    Half of the buckets count forward, half backward; near distances have a bucket each, far ones share them
    logarithmically (the rule of T5, Raffel et al. 2020).
    """
    half = buckets // 2
    at = torch.arange(length)
    distance = at[:, None] - at[None, :]  # query minus key
    bucket = (distance < 0).long() * half
    far = distance.abs()
    exact = half // 2
    scaled = torch.log(far.clamp_min(1).float() / exact) / math.log(max_distance / exact) * (half - exact)
    large = (exact + scaled.long()).clamp_max(half - 1)
    bucket = bucket + torch.where(far < exact, far, large)
    return table.float()[bucket].permute(2, 0, 1)[None].contiguous()
