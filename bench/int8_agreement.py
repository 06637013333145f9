"""How often engines of the demo BERT in int8 and fp8 fill a mask with the same word as float32; writes JSON.

Usage: python bench/int8_agreement.py [--output FILE] [--every N]

Asks the held-out questions of `training/demo_bert` (phrasings that training never saw, over all facts), every N-th of
them with `--every N`. Calibration sees 128 of the development questions. On a machine without a GPU, fp8 is computed by
the references of the operators.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from fp8_somewhere import fp8_somewhere

import qontext as qx
from qontext.benchmark.machine import machine
from qontext.errors import QontextError
from qontext.importers import import_model
from qontext.quant.recipe import int8_share
from qontext.tasks.samples import text_batches

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "training" / "demo_bert"))

from facts import FactBook  # noqa: E402
from held_out import questions  # noqa: E402
from templates import read_templates  # noqa: E402

BOTH = ("linear", "attention")
PRESETS: dict[str, dict[str, Any]] = {
    "int8": {},
    "int8 smoothed": {"samples": True},
    "int8 static": {"samples": True, "quantisation": qx.QuantOptions("tensor")},
    "int8 with attention": {"quantisation": qx.QuantOptions(quantise=BOTH)},
    "int8 static with attention": {"samples": True, "quantisation": qx.QuantOptions("tensor", quantise=BOTH)},
    **{
        f"int{bits} weights, groups of {group}" if bits == 4 else "int8 weights": {
            "quantisation": qx.QuantOptions("none", weight_bits=bits, group=group)
        }
        for bits, group in ((8, 128), (4, 128), (4, 64), (4, 32))
    },
    "fp8": {"precision": "fp8", "device": "cuda"},
    "fp8 calibrated": {"precision": "fp8", "device": "cuda", "samples": True},
}


def asked(table: str, every: int) -> list[tuple[str, str]]:
    """(sentence with one mask, right word) of a table of templates."""
    found = [(sentence, answer) for _, sentence, answer in questions(FactBook(), read_templates(table))]
    return found[::every]


def filled(engine: qx.Engine, model: Any, sentences: list[str], mask_id: int) -> torch.Tensor:
    """The likeliest token at the mask of each sentence."""
    best = []
    for batch in text_batches(sentences, model, 64):
        logits = torch.as_tensor(engine.run(batch)["logits"]).cpu()
        best.append(logits[batch["input_ids"] == mask_id].argmax(-1))
    return torch.cat(best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="bench/results/int8-agreement.json")
    parser.add_argument("--every", type=int, default=1, help="ask every n-th question")
    options = parser.parse_args()
    model = import_model("demo-bert")
    pairs = asked("test", options.every)
    sentences = [sentence for sentence, _ in pairs]
    vocabulary = json.loads(model.tokenizer)["model"]["vocab"]
    right = torch.tensor([vocabulary[answer] for _, answer in pairs])
    mask = vocabulary["[MASK]"]
    samples = list(text_batches([sentence for sentence, _ in asked("dev", 40)][:128], model))
    want = filled(qx.build(model, tune=False), model, sentences, mask)
    record: dict[str, Any] = {
        "what": "fill-mask agreement in int8 and fp8",
        "machine": machine(),
        "questions": len(pairs),
        "right_in_float32": float((want == right).float().mean()),
        "rows": [],
    }
    for name, preset in PRESETS.items():
        settings = {"precision": "int8", **preset}
        if settings.pop("samples", False):
            settings["calibration"] = samples
        try:
            with fp8_somewhere() as by:
                engine = qx.build(model, tune=False, **settings)
                got = filled(engine, model, sentences, mask)
        except QontextError as error:
            record["rows"].append({"preset": name, "failed": str(error).splitlines()[0]})
            continue
        row = {
            "preset": name,
            "same_as_float32": float((got == want).float().mean()),
            "right": float((got == right).float().mean()),
            "share": int8_share(engine.compiled.quantised),
        } | ({"fp8_by": by} if settings["precision"] == "fp8" else {})
        record["rows"].append(row)
        print(f"{name:28s} same {row['same_as_float32']:.2%}  right {row['right']:.2%}", flush=True)
    target = Path(options.output)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(target)


if __name__ == "__main__":
    main()
