"""Encoders of transformers through the torch door."""

from typing import Any

import pytest
import torch
import transformers as tf

import qontext as qx
from qontext.dtypes import by_name, relative_rms
from qontext.importers.torch_module import import_module

SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
}


def ragged(rows: int, length: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(2, 99, (rows, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    for row in range(1, rows):
        mask[row, length - 2 * row :] = 0
    ids[mask == 0] = 1
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("half", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_bert_for_masked_words(half: bool) -> None:
    torch.manual_seed(0)
    module = tf.BertForMaskedLM(tf.BertConfig(**SIZES)).train()
    if half:
        module = module.to(torch.bfloat16)
    model = import_module(module, ragged(1, 5))
    assert module.training
    assert (model.task, model.attention_mask, model.config) == ("fill-mask", "attention_mask", {"max_length": 64})
    assert model.inputs["input_ids"].limit == 99
    inputs = ragged(3, 11)
    with torch.no_grad():
        right = module.eval()(**inputs).logits
    found = qx.build(model, tune=False).run(inputs)
    assert list(found) == ["logits"]
    assert found["logits"].dtype == right.dtype
    real = inputs["attention_mask"].bool()
    tolerance = by_name("bfloat16" if half else "float32").tolerance
    assert relative_rms(found["logits"][real], right[real]) <= tolerance


def test_names_of_question_answering() -> None:
    torch.manual_seed(0)
    module = tf.RobertaForQuestionAnswering(tf.RobertaConfig(**SIZES, pad_token_id=1)).eval()
    model = import_module(module, ragged(2, 6))
    assert [v.name for v in model.graph.outputs] == ["start_logits", "end_logits"]
    assert model.task == "answer"
    inputs = ragged(2, 9)
    with torch.no_grad():
        right = module(**inputs)
    found = qx.build(model, tune=False).run(inputs)
    real = inputs["attention_mask"].bool()
    for name in found:
        assert relative_rms(found[name][real], right[name][real]) <= by_name("float32").tolerance


def test_labels_of_a_classifier() -> None:
    torch.manual_seed(0)
    labels = {0: "no", 1: "maybe", 2: "yes"}
    config = tf.BertConfig(**SIZES, id2label=labels, label2id={v: k for k, v in labels.items()})
    model = import_module(tf.BertForSequenceClassification(config).eval(), ragged(2, 6))
    assert model.task == "classify"
    assert model.config["labels"] == {"0": "no", "1": "maybe", "2": "yes"}
