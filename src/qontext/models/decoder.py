"""The GPT-like decoder: one network, drawn as four programs over the same weights.

encode:  input_ids [B, S] (right-padded) -> logits [B, S, V], without a cache
prefill: input_ids [T], parts of prompts one after the other -> logits [rows, V] of their last tokens
decode:  input_ids [rows], one new token a sequence -> logits [rows, V]
beams:   as decode; rows are the beams of each prompt, and `cache_indirection` [prompts, beams, positions] says of which
         beam each position is read

The last three read and update a cache a layer, `cache.{i}` [pages, 2, Nkv, page, D], through `block_table` [rows, M]. A
contiguous cache is one with a page a sequence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch

from ..layers.parts import Builder, activate, add, embedding, layer_norm, linear, rms_norm
from .decoder_config import DecoderConfig

Paths = Mapping[str, str]


@dataclass
class Caches:
    """The values that attention reads beside the tokens: of a step with caches, or of one without."""

    query_lengths: ir.Value
    past_lengths: ir.Value | None = None
    block_table: ir.Value | None = None
    states: tuple[ir.Value, ...] = ()
    indirection: ir.Value | None = None
    one_token: bool = False


def cache_name(layer: int) -> str:
    return f"cache.{layer}"


def state_names(config: DecoderConfig) -> dict[str, str]:
    """Inputs that hold a cache -> the outputs that they are after a step."""
    return {cache_name(i): f"{cache_name(i)}.present" for i in range(config.layers)}


def encode(build: Builder, config: DecoderConfig, paths: Paths) -> None:
    """Draws the program without a cache: logits of every position, zeros at padding."""
    net = build.net
    ids = net.input("input_ids", "int64", ("B", "S"))
    mask = net.input("attention_mask", "int64", ("B", "S"))
    positions = net.input("position_ids", "int64", ("B", "S")) if config.learned else None
    with net.scope("lengths"):
        lengths = net.op("ReduceSum", mask, torch.tensor([1]), keepdims=0)
        lengths = net.op("Cast", lengths, to=int(ir.DataType.INT32))
    hidden, _ = _layers(build, config, paths, ids, positions, Caches(lengths))
    logits = _head(build, config, hidden, paths)
    with net.scope("padding"):
        real = net.op("Unsqueeze", net.op("Cast", mask, to=int(ir.DataType.BOOL)), torch.tensor([2]))
        net.output(net.op("Where", real, logits, 0.0), "logits")


def step_programs(config: DecoderConfig) -> tuple[str, ...]:
    """The programs over caches. Beams go through caches that keep all tokens, so a window has none of its own."""
    return ("prefill", "decode") if config.window else ("prefill", "decode", "beams")


def step(build: Builder, config: DecoderConfig, paths: Paths, program: str) -> None:
    """Draws a program over caches, one of `step_programs`."""
    net = build.net
    one_token = program != "prefill"
    tokens = "rows" if one_token else "T"
    ids = net.input("input_ids", "int64", (tokens,))
    positions = net.input("position_ids", "int64", (tokens,)) if config.learned else None
    lengths = net.input("query_lengths", "int32", ("rows",))
    past = net.input("past_lengths", "int32", ("rows",))
    table = net.input("block_table", "int32", ("rows", "table"))
    shape = ("pages", 2, config.kv_heads, "page", config.head_size)
    states = tuple(net.input(cache_name(i), "float32", shape) for i in range(config.layers))
    beams = net.input("cache_indirection", "int32", ("prompts", "beams", "positions")) if program == "beams" else None
    caches = Caches(lengths, past, table, states, beams, one_token)
    hidden, presents = _layers(build, config, paths, ids, positions, caches)
    if not one_token:
        with net.scope("last_tokens"):
            ends = net.op("CumSum", lengths, torch.tensor(0))
            last = net.op("Sub", ends, torch.tensor(1, dtype=torch.int32))
            hidden = net.op("Gather", hidden, last, axis=0)
    net.output(_head(build, config, hidden, paths), "logits")
    for present, name in zip(presents, state_names(config).values(), strict=True):
        net.output(present, name)


def _layers(
    build: Builder, config: DecoderConfig, paths: Paths, ids: ir.Value, positions: ir.Value | None, caches: Caches
) -> tuple[ir.Value, list[ir.Value]]:
    """The last hidden state after its norm, and the caches after the step."""
    x = embedding(build, ids, paths["word"])
    if positions is not None:
        x = add(build, x, embedding(build, positions, paths["position"]), paths["word"].rpartition(".")[0])
    presents = []
    for layer in range(config.layers):
        here = {part: path.replace("{i}", str(layer)) for part, path in paths.items()}
        y, present = _attention(build, config, _norm(build, config, x, here["attention_norm"]), here, layer, caches)
        if present is not None:
            presents.append(present)
        x = add(build, y, x, here["attention_norm"])
        y = _feed_forward(build, config, _norm(build, config, x, here["output_norm"]), here)
        x = add(build, y, x, here["output_norm"])
    return _norm(build, config, x, paths["last_norm"]), presents


def _norm(build: Builder, config: DecoderConfig, x: ir.Value, path: str) -> ir.Value:
    norm = rms_norm if config.norm == "rms" else layer_norm
    return norm(build, x, path, config.epsilon)


def _attention(
    build: Builder, config: DecoderConfig, x: ir.Value, here: Paths, layer: int, caches: Caches
) -> tuple[ir.Value, ir.Value | None]:
    qkv = linear(build, x, here["qkv"])
    attributes: dict[str, Any] = {
        "num_heads": config.heads,
        "num_kv_heads": config.kv_heads,
        "head_size": config.head_size,
        "q_scaling": config.q_scaling[layer] if config.q_scaling else 1.0,
        "window": config.window,
        **config.rotary,
    }
    present = None
    with build.net.scope(here["qkv"].rpartition(".")[0]):
        if caches.states:
            context, present = build.net.gpt_attention(
                qkv,
                past=caches.states[layer],
                past_lengths=caches.past_lengths,
                query_lengths=caches.query_lengths,
                block_table=caches.block_table,
                cache_indirection=caches.indirection,
                tokens_each=1 if caches.one_token else 0,
                outputs=("context", "present"),
                **attributes,
            )
        else:
            context = build.net.gpt_attention(qkv, query_lengths=caches.query_lengths, **attributes)
    return linear(build, context, here["attention_output"]), present


def _feed_forward(build: Builder, config: DecoderConfig, x: ir.Value, here: Paths) -> ir.Value:
    if not config.gated:
        return linear(build, activate(build, linear(build, x, here["up"]), config.activation, here["up"]), here["down"])
    gate = activate(build, linear(build, x, here["gate"]), config.activation, here["gate"])
    up = linear(build, x, here["up"])
    with build.net.scope(here["up"].rpartition(".")[0]):
        both = build.net.op("Mul", gate, up)
    return linear(build, both, here["down"])


def _head(build: Builder, config: DecoderConfig, hidden: ir.Value, paths: Paths) -> ir.Value:
    """Logits: a product with the head, which is the word embedding where they are tied."""
    with build.net.scope(paths["head"]):
        logits: ir.Value = build.net.linear(hidden, build.weight(f"{paths['word' if config.tied else 'head']}.weight"))
    return logits
