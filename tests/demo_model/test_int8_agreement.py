"""The demo model in int8 fills masks with the words of float32: 98 % at least, on phrasings that training never saw."""

from __future__ import annotations

import json

import pytest
import torch
from facts import FactBook
from held_out import questions
from templates import read_templates

import qontext as qx
from qontext.tasks.samples import text_batches

EVERY = 36  # bench/int8_agreement.py asks all


@pytest.mark.slow
def test_int8_with_attention_and_int4_weights_agree_with_float32() -> None:
    model = qx.import_model("demo-bert")
    asked = list(questions(FactBook(), read_templates("test")))[::EVERY]
    batches = list(text_batches([sentence for _, sentence, _ in asked], model, 64))
    mask = json.loads(model.tokenizer or "")["model"]["vocab"]["[MASK]"]

    def words(engine: qx.Engine) -> torch.Tensor:
        found = [torch.as_tensor(engine.run(b)["logits"])[b["input_ids"] == mask].argmax(-1) for b in batches]
        return torch.cat(found)

    want = words(qx.build(model, tune=False))
    for options in (
        qx.QuantOptions(quantise=("linear", "attention")),
        qx.QuantOptions("none", weight_bits=4, group=64),
    ):
        same = words(qx.build(model, "int8", tune=False, quantisation=options)) == want
        assert len(same) > 100
        assert float(same.float().mean()) >= 0.98, options
