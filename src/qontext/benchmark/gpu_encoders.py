"""BERT encoders on one GPU, against peers in the same process, outputs checked against float32 first.

Rules: random weights and ids; every rival's result is compared with Hugging Face in float32 (TF32 off) before it is
timed, and one that is off is reported and not timed; latency of single calls, each waited for, in rotated rounds.
Three ways into our engine are timed: with inputs and outputs on the device, from and to the host, and the replay of
its graph alone, which is what a peer in a CUDA graph does too.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..dtypes import by_name, relative_rms
from ..engine import Engine, build, load
from ..importers import import_model
from ..ops.gpu_facts import gpu_facts
from ..runtime.gpu_executor import GpuExecutor
from .encoders import flops, random_encoder
from .gpu_peers import Peer, peers_of
from .gpu_timing import time_in_turns
from .machine import machine

_CHUNK = 16  # sequences of one float32 run of the reference


@dataclass(frozen=True)
class Case:
    """A model size and a batch: `length` tokens a sequence, or lengths uniform from `shortest` on."""

    size: str
    batch: int
    length: int
    shortest: int | None = None

    @property
    def name(self) -> str:
        lengths = f"S{self.length}" if self.shortest is None else f"ragged {self.shortest}..{self.length}"
        return f"{self.size} b{self.batch} {lengths}"

    def make(self, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Ids `[B, S]` and mask `[B, S]` (None for equal lengths), int64 on the host."""
        generator = torch.Generator().manual_seed(self.batch * 1000 + self.length)
        ids = torch.randint(5, vocabulary, (self.batch, self.length), generator=generator)
        if self.shortest is None:
            return ids, None
        lengths = torch.randint(self.shortest, self.length + 1, (self.batch,), generator=generator)
        lengths[0] = self.length
        mask = (torch.arange(self.length) < lengths[:, None]).long()
        return ids * mask, mask


CASES = (
    Case("base", 1, 128),
    Case("base", 32, 128),
    Case("base", 128, 128),
    Case("large", 1, 128),
    Case("large", 128, 128),
    Case("large", 1, 384),
    Case("large", 32, 384),
    Case("large", 256, 290, shortest=64),
)


def reference(model: Any, ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The last hidden state in float32, on the device, in chunks."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(ids), _CHUNK):
            rows = slice(start, start + _CHUNK)
            part = None if mask is None else mask[rows].cuda()
            parts.append(model(input_ids=ids[rows].cuda(), attention_mask=part).last_hidden_state)
    return torch.cat(parts)


def ours(engine: Engine, ids: torch.Tensor, mask: torch.Tensor | None) -> dict[str, Callable[[], torch.Tensor]]:
    """The ways into our engine, by name."""
    host = {"input_ids": ids} if mask is None else {"input_ids": ids, "attention_mask": mask}
    device = {name: tensor.cuda() for name, tensor in host.items()}
    return {
        "qontext": lambda: engine.run(device)["last_hidden_state"],
        "qontext from the host": lambda: engine.run(host, output_device="cuda")["last_hidden_state"],
        "qontext from and to the host": lambda: engine.run(host)["last_hidden_state"],
    }


def replay_of(engine: Engine) -> Callable[[], object] | None:
    """The replay of the graph that the last run used; None when it used none."""
    executor = engine._executors["encode"]
    assert isinstance(executor, GpuExecutor)
    captured = executor.last
    return None if captured is None else captured.replay


def run_benchmark(
    cases: Sequence[Case] = CASES,
    precision: str = "fp16",
    peers: Sequence[str] = ("torch eager", "torch in a graph", "onnxruntime"),
    compiled_for: Sequence[str] = (),
    runs: int = 300,
    rounds: int = 3,
    seconds: float = 2.0,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measures and returns everything as one JSON-able record; see the module's text for the rules.

    Args:
        peers: names of `peers_of`.
        compiled_for: names of the cases that torch.compile takes part in: it takes a minute for each.
        runs, rounds, seconds: as for `time_in_turns`.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    result: dict[str, Any] = {
        "what": "encoders on a GPU",
        "precision": precision,
        "machine": {**machine(), "gpu": asdict(gpu_facts())},
        "builds": {},
        "rows": [],
        "problems": [],
    }
    for size in dict.fromkeys(case.size for case in cases):
        model = random_encoder(size).cuda()
        engine = built(model, size, precision, result, say)
        with tempfile.TemporaryDirectory() as folder:
            every = peers_of(model, precision, Path(folder))
            for case in (c for c in cases if c.size == size):
                names = [*peers, *(["torch.compile"] if case.name in compiled_for else [])]
                _measure(case, model, engine, {n: every[n] for n in names}, (runs, rounds, seconds), result, say)
                torch.cuda.empty_cache()
        del model, engine, every
    return result


def first_line(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def built(model: Any, size: str, precision: str, result: dict[str, Any], say: Callable[[str], None]) -> Engine:
    """An engine of the model; how long that took, twice, and a load from a file go into `result["builds"]`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save_pretrained(folder)
        imported = import_model(folder, task="encode")
        start = time.perf_counter()
        build(imported, precision, "cuda")
        first = time.perf_counter() - start
        start = time.perf_counter()
        engine = build(imported, precision, "cuda")
        again = time.perf_counter() - start
        engine.save(folder / "engine.qx")
        start = time.perf_counter()
        load(folder / "engine.qx")
        torch.cuda.synchronize()
        loaded = time.perf_counter() - start
    steps = [{"op": s.op, "kernel": s.kernels} for s in engine.compiled.programs["encode"].steps]
    result["builds"][size] = {"first_s": first, "again_s": again, "load_s": loaded, "steps": steps}
    say(f"{size}: first build {first:.1f} s, again {again:.2f} s, load {loaded:.2f} s, {len(steps)} steps")
    return engine


def _measure(
    case: Case,
    model: Any,
    engine: Engine,
    peers: Mapping[str, Peer],
    effort: tuple[int, int, float],
    result: dict[str, Any],
    say: Callable[[str], None],
) -> None:
    """Checks every rival, then times those that are right."""
    ids, mask = case.make(model.config.vocab_size)
    want = reference(model, ids, mask)
    real = torch.ones_like(ids).bool() if mask is None else mask.bool()
    there = real.to(want.device)
    limit = 3 * by_name(result["precision"]).tolerance
    calls: dict[str, Callable[[], object]] = dict(ours(engine, ids, mask))
    on_device = (ids.cuda(), None if mask is None else mask.cuda())
    errors: dict[str, float] = {}
    for name, peer in peers.items():
        try:
            calls[name] = peer(*on_device)
        except Exception as error:  # a peer may raise anything; the others are still measured
            result["problems"].append(f"{name}, {case.name}: {first_line(error)}")
    for name, call in list(calls.items()):
        try:
            out = call()
            assert isinstance(out, torch.Tensor)
            errors[name] = relative_rms(out.to(want.device)[there], want[there])
        except Exception as error:  # a peer may raise anything; the others are still measured
            errors[name] = float("inf")
            result["problems"].append(f"{name}, {case.name}: {first_line(error)}")
        if not errors[name] <= limit:
            result["problems"].append(f"{name}, {case.name}: error {errors[name]:.1e}, allowed {limit:.0e}")
            del calls[name]
    del want
    engine.run({"input_ids": ids} if mask is None else {"input_ids": ids, "attention_mask": mask})
    replay = replay_of(engine)
    if replay is not None and "qontext" in calls:
        calls["qontext graph alone"] = replay
    timed = time_in_turns(calls, effort[0], effort[1], seconds=effort[2])
    row = {
        "case": case.name,
        "sequences": case.batch,
        "tokens": int(real.sum()),
        "flops": sum(flops(model.config, 1, int(n)) for n in real.sum(1)),
        "rivals": {
            n: {**asdict(t), "error": errors.get(n), "per_s": case.batch / t.mean * 1e3} for n, t in timed.items()
        },
    }
    row["ratios"] = ratios(row["rivals"])
    result["rows"].append(row)
    shown = ", ".join(f"{n} {t.median:.3f}" for n, t in sorted(timed.items(), key=lambda x: x[1].median))
    say(f"{case.name} (ms): {shown}; {row['ratios']}")


def ratios(rivals: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The best peer's median over ours: of whole calls, and of graph replays against each other."""
    peers = [r["median"] for n, r in rivals.items() if not n.startswith("qontext")]
    found = {}
    for name in ("qontext", "qontext graph alone"):
        if peers and name in rivals:
            found[name] = round(min(peers) / rivals[name]["median"], 3)
    return found
