"""What few bits cost on the real MiniLM, by precision and by how weights were rounded: accuracy alone, no times.

Sentence embeddings as in `accuracy.py`, of the same sentences, calibrated on the same others.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..calibration.quantise import QuantOptions
from ..engine import load
from ..quant.recipe import int8_share
from .accuracy import compared, qontext_engine, tokenised, torch_run
from .encoders import random_encoder
from .int8_peers import Sample, last_hidden
from .machine import machine
from .sentences import SAMPLES, evaluation_sentences, sample_sentences

Say = Callable[[str], None]


def schemes() -> dict[str, dict[str, Any]]:
    """Arguments of `build`, and whether samples are given."""
    fp8: dict[str, Any] = {"precision": "fp8", "device": "cuda", "tune": False}
    plain: dict[str, Any] = {"precision": "int8", "tune": False}
    given: dict[str, dict[str, Any]] = {
        "int8": {**plain},
        "int8, static scales": {**plain, "activations": "tensor"},
        "int8 weights": {**plain, "activations": "none"},
        **{
            f"int4 weights, groups of {group}": {**plain, "activations": "none", "weight_bits": 4, "group": group}
            for group in (32, 64, 128)
        },
        "fp8": fp8,
    }
    found: dict[str, dict[str, Any]] = {
        "int8, no samples": dict(plain),
        "fp8, no samples": dict(fp8),
    }
    for name, settings in given.items():
        for how, compensate in (("to the nearest", False), ("compensated", True)):
            build = {k: v for k, v in settings.items() if k in ("precision", "device", "tune")}
            options = {k: v for k, v in settings.items() if k not in build}
            quantisation = QuantOptions(**options, compensate=compensate)
            found[f"{name}, {how}"] = {**build, "samples": True, "quantisation": quantisation}
    return found


def run_minilm(
    fp8_by: str,
    only: tuple[str, ...] = (),
    say: Say = print,
    keep: Callable[[Mapping[str, Any]], None] = lambda record: None,
) -> dict[str, Any]:
    """Measures every scheme whose name begins with one of `only` (all for none) and returns one JSON-able record.

    fp8_by: by what fp8 is computed here, for the record.
    keep: called with the record after every scheme.
    """
    real = random_encoder("minilm")
    batches, samples = tokenised(evaluation_sentences()), tokenised(sample_sentences())
    reference = torch_run(real)
    wanted = {id(ids): reference(ids, mask) for ids, mask in batches}
    result: dict[str, Any] = {
        "what": "accuracy of MiniLM in few bits",
        "machine": machine(),
        "fp8_by": fp8_by,
        "sentences": len(batches),
        "samples": len(samples),
        "rows": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        real.save_pretrained(folder)
        for name, preset in schemes().items():
            if only and not name.startswith(only):
                continue
            run, engine = qontext_engine(Path(folder), padded(samples), preset)
            layers = engine.compiled.quantised
            row = {
                "scheme": name,
                "share": int8_share(layers),
                **asdict(compared(run, lambda ids, mask: wanted[id(ids)], batches)),
                "kept": [layer.name for layer in layers if layer.kept],
                "weights_alone": [_errors(layer) for layer in layers if layer.nearest is not None],
            }
            result["rows"].append(row)
            keep(result)
            say(
                f"{name}: cosine mean {row['mean']:.5f}, least {row['least']:.5f}, nearest the same "
                f"{row['nearest']:.1%}, in 8 bits or fewer {row['share']:.0%}"
            )
    return result


def save_for_elsewhere(folder: Path, scheme: str) -> None:
    """Writes the engine of a scheme, the sentences and what torch makes of them in float32 (held in float16), for
    machines that have no MiniLM. Words that no sentence holds are left out of the model, which changes no result."""
    real = random_encoder("minilm")
    texts = [tokenised(evaluation_sentences()), tokenised(sample_sentences())]
    known = torch.cat([ids[0] for part in texts for ids, _ in part]).unique()
    words = real.embeddings.word_embeddings.weight.data[known]
    real.embeddings.word_embeddings = torch.nn.Embedding.from_pretrained(words)
    real.config.vocab_size, real.config.pad_token_id = len(known), None
    batches, samples = [[(torch.searchsorted(known, ids), mask) for ids, mask in part] for part in texts]
    reference = torch_run(real)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as held:
        real.save_pretrained(held)
        _, engine = qontext_engine(Path(held), padded(samples), schemes()[scheme])
    engine.save(folder / "engine.qx")
    wanted = torch.cat([last_hidden(reference(ids, mask))[0] for ids, mask in batches]).half()
    flat = torch.cat([ids[0] for ids, _ in batches])
    lengths = np.array([ids.shape[1] for ids, _ in batches])
    np.savez(folder / "sentences.npz", ids=flat.numpy(), lengths=lengths, wanted=wanted.numpy(), scheme=scheme)


def run_saved(folder: Path, device: str, fp8_by: str, say: Say = print) -> dict[str, Any]:
    """The record of one engine that `save_for_elsewhere` wrote."""
    with np.load(folder / "sentences.npz", allow_pickle=False) as held:
        lengths = held["lengths"].tolist()
        ids = torch.from_numpy(held["ids"]).split(lengths)
        wanted = torch.from_numpy(held["wanted"]).float().split(lengths)
        scheme = str(held["scheme"])
    engine = load(folder / "engine.qx", device=device)
    batches = [(row[None], torch.ones_like(row[None])) for row in ids]
    by_id = {id(row): want[None] for (row, _), want in zip(batches, wanted, strict=True)}

    def run(ids: torch.Tensor, mask: torch.Tensor) -> Any:
        return torch.as_tensor(engine.run({"input_ids": ids, "attention_mask": mask})["last_hidden_state"]).cpu()

    row = {
        "scheme": scheme,
        "share": int8_share(engine.compiled.quantised),
        **asdict(compared(run, lambda ids, mask: by_id[id(ids)], batches)),
        "kept": [layer.name for layer in engine.compiled.quantised if layer.kept],
        "weights_alone": [_errors(layer) for layer in engine.compiled.quantised if layer.nearest is not None],
        "steps": [f"{step.op}: {step.kernel}" for step in engine.compiled.programs["encode"].steps],
    }
    say(f"{scheme}: cosine mean {row['mean']:.5f}, least {row['least']:.5f}, nearest the same {row['nearest']:.1%}")
    return {
        "what": "accuracy of MiniLM in few bits",
        "machine": machine(),
        "fp8_by": fp8_by,
        "sentences": len(batches),
        "samples": SAMPLES,
        "rows": [row],
    }


def padded(samples: Sequence[Sample], together: int = 16) -> list[Sample]:
    """The same sequences, several a batch, padded at the right."""
    made = []
    for start in range(0, len(samples), together):
        rows = [ids[0] for ids, _ in samples[start : start + together]]
        masks = [torch.ones_like(row) for row in rows]
        made.append(tuple(torch.nn.utils.rnn.pad_sequence(part, batch_first=True) for part in (rows, masks)))
    return [(ids, mask) for ids, mask in made]


def _errors(layer: Any) -> dict[str, Any]:
    return {"layer": layer.name, "to_the_nearest": layer.nearest, "as_rounded": layer.rounded}
