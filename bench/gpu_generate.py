"""Times generation from end to end on one GPU: a LLaMA of random weights, made on the device.

Usage: PYTHONPATH=src python3 bench/gpu_generate.py [--output FILE] [--layers 32] [--batches 1 8 64] [--tune] [--peers]

The network has the shape of LLaMA 3 8B; a record says how many layers it had. Tokens a second are those of whole steps
(host, graph, choosing the token, one read-back) behind the prompts, which are timed apart. The least time of a step is
that of reading all weights and caches at the speed of a copy. `--tune` times kernels while building (else the first
that can is taken); `--peers` adds transformers with a static cache.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import qontext as qx
from qontext.benchmark.gpu_replay import copy_rate
from qontext.benchmark.machine import machine
from qontext.generation.loop import Settings
from qontext.importers.huggingface import decoder
from qontext.ops.gpu_facts import gpu_facts

SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "rope_theta": 500_000.0,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "eos_token_id": None,
}


def weights_of(config: Mapping[str, Any], place: str) -> dict[str, torch.Tensor]:
    """Random weights by their names in a checkpoint, float32 on the device."""
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    keys = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    sizes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    generator = torch.Generator(place).manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=place) * 0.02

    made = {"model.embed_tokens.weight": random(vocabulary, hidden), "lm_head.weight": random(vocabulary, hidden)}
    made["model.norm.weight"] = torch.ones(hidden, device=place)
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}"
        made |= {f"{at}.{name}.weight": random(*shape) for name, shape in sizes.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            made[f"{at}.{norm}.weight"] = torch.ones(hidden, device=place)
    return made


def engine_of(config: Mapping[str, Any], place: str, tune: bool) -> qx.Engine:
    """The engine in bf16, its weights made on the device in place of a file's."""
    read = decoder.read_weights
    decoder.read_weights = lambda folder: weights_of(config, place)  # type: ignore[assignment]
    try:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(config))
            return qx.build(qx.import_model(folder), "bf16", device=place, tune=tune)
    finally:
        decoder.read_weights = read


def prompts_of(batch: int, length: int, vocabulary: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    found: list[list[int]] = torch.randint(0, vocabulary, (batch, length), generator=generator).tolist()
    return found


def ours(engine: qx.Engine, batch: int, length: int, new: int) -> dict[str, float]:
    """Seconds of the prompts, and of a step behind them."""
    prompts = prompts_of(batch, length, int(engine.config["vocabulary"]))
    settings = Settings(new, tokens_per_page=64, prefill_tokens=8192)
    times: list[float] = []
    for _round in range(2):  # kernels are compiled and graphs captured in the first round
        times = [time.perf_counter()]
        for _ in engine.generator.steps(prompts, settings):
            times.append(time.perf_counter())
    steps = new - 1
    return {"prompts_s": times[-1 - steps] - times[0], "step_s": (times[-1] - times[-1 - steps]) / steps}


def transformers_of(config: Mapping[str, Any]) -> Any:
    import transformers

    kinds = {k: v for k, v in config.items() if k not in ("architectures", "model_type")}
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            return transformers.LlamaForCausalLM(transformers.LlamaConfig(**kinds)).eval()
    finally:
        torch.set_default_dtype(before)


def peer(model: Any, batch: int, length: int, new: int, vocabulary: int) -> dict[str, float]:
    """transformers' generate with a static cache, launched step by step: seconds of a step."""
    ids = torch.tensor(prompts_of(batch, length, vocabulary), device="cuda")

    def timed(count: int) -> float:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count, do_sample=False,
            cache_implementation="static", disable_compile=True, pad_token_id=0,
        )  # fmt: skip
        torch.cuda.synchronize()
        return time.perf_counter() - begin

    timed(2)
    few, many = timed(1), timed(new)
    return {"prompts_s": few, "step_s": (many - few) / (new - 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--new", type=int, default=48)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    config = {**SHAPE, "num_hidden_layers": options.layers}
    rate = copy_rate() * 1e6
    record: dict[str, Any] = {
        "what": f"generation with a LLaMA of {options.layers} layers in the shape of LLaMA 3 8B, random weights, bf16",
        "machine": {**machine(), "gpu": asdict(gpu_facts())},
        "copy_tb_per_s": rate / 1e12,
        "tuned": options.tune,
        "rows": [],
    }
    begin = time.perf_counter()
    engine = engine_of(config, "cuda", options.tune)
    record["build_s"] = time.perf_counter() - begin
    print(f"built in {record['build_s']:.1f} s", flush=True)
    weights = sum(t.numel() * t.element_size() for t in engine.compiled.programs["decode"].constants.values())
    weights -= 2 * config["vocab_size"] * config["hidden_size"]  # of the word embedding a step reads some rows

    def write(name: str, batch: int, found: Mapping[str, float], least: float) -> None:
        row = {"batch": batch, "prompt": options.prompt, "kernel": name, **found}
        row |= {"tokens_per_s": batch / found["step_s"], "least_step_s": least, "of_least": least / found["step_s"]}
        record["rows"].append(row)
        print(
            f"B {batch:3d} {name:24s} prompts {found['prompts_s'] * 1e3:.1f} ms, step {found['step_s'] * 1e3:7.3f} ms, "
            f"{row['tokens_per_s']:7.0f} tokens/s, {row['of_least']:.0%} of the bandwidth",
            flush=True,
        )
        if options.output:
            options.output.write_text(json.dumps(record, indent=1) + "\n")

    least = {}
    for batch in options.batches:
        found = ours(engine, batch, options.prompt, options.new)
        caches = engine.generator.caches
        assert caches is not None
        held = batch * (options.prompt + options.new // 2) * caches.bytes_per_token
        least[batch] = (weights + held) / rate
        write("qontext", batch, found, least[batch])
    record["graphs"] = engine.graphs
    if options.peers:
        del engine, caches
        torch.cuda.empty_cache()
        model = transformers_of(config)
        for batch in options.batches:
            found = peer(model, batch, options.prompt, options.new, int(config["vocab_size"]))
            write("transformers, static cache", batch, found, least[batch])


if __name__ == "__main__":
    main()
