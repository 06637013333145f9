"""Throughput of the embed pipeline on many short texts, and how busy it keeps the device."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import demo_model
from ..errors import ArgumentError
from ..ops.gpu_facts import gpu_facts
from ..tasks import pipeline
from .encoders import random_encoder
from .machine import machine

_CHECKED = 64
_LEAST_COSINE = 0.999


def short_texts(count: int, words: Sequence[str], seed: int = 0) -> list[str]:
    """Texts of 4 to 24 words, drawn evenly."""
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(words), (count, 24))
    lengths = random.integers(4, 25, count)
    return [" ".join(words[i] for i in row[:n]) for row, n in zip(drawn, lengths, strict=True)]


def run_throughput(
    size: str = "base",
    count: int = 100_000,
    precision: str = "fp16",
    device: str = "cuda",
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Embeds `count` texts with an encoder of a real shape and random weights, behind the tokenizer of the demo model.

    Returns a record: texts and tokens a second of the whole call (tokenisation included), seconds of tokenisation
    alone, and on a GPU the share of a second, profiled call in which at least one kernel ran.
    Raises ArgumentError when embeddings differ from those of transformers in float32.
    """
    source = Path(next(iter(demo_model.__path__)))
    words = [w for w in (source / "vocab.txt").read_text().split() if w.isalpha()]
    texts = short_texts(count, words)
    model = random_encoder(size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save_pretrained(folder)
        for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
            (folder / file).write_bytes((source / file).read_bytes())
        embed = pipeline("embed", str(folder), precision, device, tune=True)
    cosine = _least_cosine(model, embed, texts[:_CHECKED])
    if not cosine >= _LEAST_COSINE:
        raise ArgumentError(f"throughput: an embedding has cosine {cosine:.5f} to transformers in float32")
    embed(texts[: count // 10])
    begin = time.perf_counter()
    tokens = sum(len(t.ids) for t in embed.tokenizer.tokens(texts))
    tokenising = time.perf_counter() - begin
    begin = time.perf_counter()
    embed(texts)
    seconds = time.perf_counter() - begin
    record = {
        "what": f"embed pipeline, {size} with random weights, {count} texts of 4 to 24 words",
        "precision": precision,
        "device": device,
        "machine": {**machine(), **({} if device == "cpu" else {"gpu": asdict(gpu_facts())})},
        "least_cosine": cosine,
        "texts": count,
        "tokens": tokens,
        "seconds": seconds,
        "texts_per_s": count / seconds,
        "tokens_per_s": tokens / seconds,
        "tokenising_s": tokenising,
    }
    if device != "cpu":
        record["gpu_busy_share"] = busy_share(lambda: embed(texts))
    shown = "" if device == "cpu" else f", GPU busy {record['gpu_busy_share']:.0%}"
    say(f"{size}: {count / seconds:.0f} texts/s, {tokens / seconds:.0f} tokens/s{shown}, tokenising {tokenising:.2f} s")
    return record


def _least_cosine(model: Any, embed: Any, texts: list[str]) -> float:
    """The least cosine between our embeddings and the means of transformers' hidden states in float32."""
    ours = torch.from_numpy(embed(texts))
    with torch.inference_mode():
        theirs = [
            model(input_ids=torch.tensor([list(t.ids)])).last_hidden_state[0].mean(0)
            for t in embed.tokenizer.tokens(texts)
        ]
    return float(torch.cosine_similarity(ours, torch.stack(theirs), dim=-1).min())


def busy_share(call: Callable[[], object]) -> float:
    """The share of a call's time in which at least one kernel or copy ran on the device."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        call()
        torch.cuda.synchronize()
        whole = time.perf_counter() - begin
    spans = [
        (e.time_range.start, e.time_range.end)
        for e in seen.events()
        if e.device_type == torch.autograd.DeviceType.CUDA and e.time_range.end > e.time_range.start
    ]
    return covered(spans) / (whole * 1e6)


def covered(spans: Sequence[tuple[float, float]]) -> float:
    """The length of the union of intervals."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total
