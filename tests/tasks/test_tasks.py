"""Pipelines: what comes out, in which order, equal to transformers, and what is refused."""

import numpy as np
import pytest
import torch
import transformers as tf

import qontext as qx
from qontext.errors import ArgumentError, InputError, TokenizerError, UnsupportedModelError
from qontext.tasks.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def fill(folder):
    path, model = folder("ForMaskedLM")
    return qx.pipeline("fill-mask", path), model


def test_fill_mask_gives_what_the_model_says(fill, vocabulary):
    run, model = fill
    text = "the capital of [MASK] is paris."
    rows = run(text, top=5)
    ids = torch.tensor([run.tokenizer.encode([text])[0].ids])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, ids[0].tolist().index(run.tokenizer.mask_id)]
    want = logits.softmax(-1).topk(5)
    assert [r["token"] for r in rows] == [vocabulary[i] for i in want.indices]
    assert [r["probability"] for r in rows] == pytest.approx(want.values.tolist(), rel=1e-4)
    assert rows[0]["text"] == text.replace("[MASK]", rows[0]["token"]).replace(" ##", "")


def test_fill_mask_takes_lists_and_any_case(fill):
    run, _ = fill
    one = run("the [mask] is big")
    several = run(["the [mask] is big", "a [MASK] city in france, old and new", "[Mask]"], top=10)
    assert len(several) == 3
    assert [r["token"] for r in several[0]] == [r["token"] for r in one]
    assert one[0]["probability"] == pytest.approx(several[0][0]["probability"], rel=1e-4)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("no mask here", InputError, "text 0 has 0 masks, expected one"),
        ("[MASK] and [MASK]", InputError, "2 masks"),
        ("[MASK]" + " a" * 60, InputError, "text 0 has 63 tokens, the model takes at most 48"),
        (7, Exception, "not iterable|expected str"),
    ],
)
def test_fill_mask_refuses(fill, text, error, words):
    with pytest.raises(error, match=words):
        fill[0](text)


def test_fill_mask_survives_strange_text(fill):
    run, _ = fill
    for text in ("\ud800 [MASK]", "\x00[MASK]\x00", "[MASK] " + "x" * 100_000, "\U0001f600[MASK]"):
        rows = run(text, truncate=True)
        assert len(rows) == 10
        assert np.isfinite([r["probability"] for r in rows]).all()


def test_embed_equals_sentence_transformers_rules(minilm):
    run = qx.pipeline("embed", minilm)
    texts = [
        f"Sentence {i} about {w}." for i, w in enumerate(["rivers", "the old town of Prague", "a", "x " * 90, ""] * 3)
    ]
    got = run(texts)
    tokenizer = tf.AutoTokenizer.from_pretrained(minilm)
    model = tf.BertModel.from_pretrained(minilm).eval()
    with torch.no_grad():
        given = tokenizer(texts, padding=True, truncation=True, max_length=run.limit, return_tensors="pt")
        hidden = model(**given).last_hidden_state
        real = given["attention_mask"][..., None]
        want = torch.nn.functional.normalize((hidden * real).sum(1) / real.sum(1), dim=-1).numpy()
    assert got.dtype == np.float32 and got.shape == (15, 384)
    cosine = (got * want).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(want, axis=1)
    assert cosine.min() > 0.99999
    assert np.allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)


def test_embed_single_and_none(minilm):
    run = qx.pipeline("embed", minilm)
    assert run("hello").shape == (1, 384)
    assert run([]).shape == (0, 384)
    counted = []
    run(["a", "b", "c"], progress=counted.append)
    assert sum(counted) == 3


def test_classify_equals_the_model(folder):
    path, model = folder("ForSequenceClassification", id2label={0: "bad", 1: "fair", 2: "good"})
    run = qx.pipeline("classify", path)
    texts = ["paris is big", "the river is old and the city is new, a country in the", "berlin"]
    rows = run(texts)
    for text, row in zip(texts, rows, strict=True):
        with torch.no_grad():
            want = model(input_ids=torch.tensor([run.tokenizer.encode([text])[0].ids])).logits[0].softmax(-1)
        assert row["label"] == ["bad", "fair", "good"][int(want.argmax())]
        assert row["score"] == pytest.approx(float(want.max()), rel=1e-4)
    ranked = run("paris", top=3)
    assert len(ranked) == 3 and sum(r["score"] for r in ranked) == pytest.approx(1)


def test_token_classify_labels_words(folder):
    path, _ = folder("ForTokenClassification", id2label={0: "O", 1: "PLACE"})
    run = qx.pipeline("classify", path)
    rows = run("the citys of Paris, old.")
    assert [r["word"] for r in rows] == ["the", "citys", "of", "Paris", ",", "old", "."]
    assert all("the citys of Paris, old."[r["begin"] : r["end"]] == r["word"] for r in rows)
    assert {r["label"] for r in rows} <= {"O", "PLACE"}


def test_answer_finds_the_best_span_over_windows(folder):
    path, model = folder("ForQuestionAnswering")
    run = qx.pipeline("answer", path)
    question = "what is the capital?"
    context = " ".join(
        ["the capital of france is paris.", "berlin lies on the river.", "a big old city in a new country"] * 4
    )
    rows = run(question, context, stride=16, n_best=20)
    assert 0 < len(rows) <= 20
    assert all(context[r["begin"] : r["end"]] == r["text"] for r in rows)
    assert [r["score"] for r in rows] == sorted((r["score"] for r in rows), reverse=True)
    best = _best_span(run, model, question, context, stride=16)
    assert (rows[0]["begin"], rows[0]["end"]) == best


def _best_span(run, model, question, context, stride):
    """The best span by brute force over all windows, straight from the torch model."""
    asked, body = run.tokenizer.encode_plain(question), run.tokenizer.encode_plain(context)
    room = run.limit - len(asked.ids) - 3
    best = (-np.inf, None)
    begin = 0
    while True:
        end = min(begin + room, len(body.ids))
        part = body.ids[begin:end]
        ids = torch.tensor([[2, *asked.ids, 3, *part, 3]])
        types = torch.tensor([[0] * (len(asked.ids) + 2) + [1] * (len(part) + 1)])
        with torch.no_grad():
            found = model(input_ids=ids, token_type_ids=types)
        shift = len(asked.ids) + 2
        for i in range(len(part)):
            for j in range(i, min(i + 30, len(part))):
                score = float(found.start_logits[0, shift + i] + found.end_logits[0, shift + j])
                if score > best[0]:
                    best = (score, (body.offsets[begin + i][0], body.offsets[begin + j][1]))
        if end == len(body.ids):
            return best[1]
        begin += min(stride, room)


def test_answer_refuses_nothing_to_read(folder):
    run = qx.pipeline("answer", folder("ForQuestionAnswering")[0])
    with pytest.raises(InputError, match="must not be empty"):
        run("what?", "  ")
    with pytest.raises(ArgumentError, match="stride"):
        run("what?", "paris", stride=0)


def test_the_wrong_model_for_a_task_is_named(folder, tmp_path):
    path, _ = folder("ForSequenceClassification")
    engine = qx.build(qx.import_model(path), tune=False)
    with pytest.raises(UnsupportedModelError, match="answer needs one of the outputs start_logits"):
        qx.pipeline("answer", engine)
    with pytest.raises(ArgumentError, match="unknown task 'translate'"):
        qx.pipeline("translate", engine)


def test_a_model_without_tokenizer_imports_but_has_no_text_tasks(folder):
    path, _ = folder("ForMaskedLM")
    (path / "vocab.txt").unlink()
    engine = qx.build(qx.import_model(path), tune=False)
    assert engine.run({"input_ids": [[2, 5, 3]]})["logits"].shape[1] == 3
    with pytest.raises(TokenizerError, match=r"put tokenizer\.json beside"):
        qx.pipeline("fill-mask", engine)


def test_an_engine_file_keeps_its_tokenizer(folder, tmp_path):
    path, _ = folder("ForMaskedLM")
    engine = qx.build(qx.import_model(path), tune=False)
    engine.save(tmp_path / "m.qx")
    a = qx.pipeline("fill-mask", engine)("the [MASK] is old")
    b = qx.pipeline("fill-mask", tmp_path / "m.qx")("the [MASK] is old")
    assert a == b


def test_wordpiece_from_vocabulary_equals_hugging_face(minilm, tmp_path):
    (tmp_path / "vocab.txt").write_text((minilm / "vocab.txt").read_text())
    from qontext.importers.huggingface.files import read_tokenizer

    mine = Tokenizer(read_tokenizer(tmp_path), {})
    theirs = tf.BertTokenizer.from_pretrained(minilm)
    texts = [
        "Hello, World! It's 2024 - co-operate.",
        "naïve café ÀÉÎ straße",
        "東京 is 日本の capital",
        "unbelievably-long" + "g" * 120,
        " tabs\tand\nlines\u00a0and\u200bspaces ",
        "a" * 300 + " \U0001f600 (ok) [UNK] [MASK].",
        "",
    ]
    for text, encoding in zip(texts, mine.encode(texts), strict=True):
        assert list(encoding.ids) == theirs(text)["input_ids"], text


def test_truncation_keeps_the_end_mark(folder):
    run = qx.pipeline("embed", folder("Model")[0])
    (encoding,) = run.tokenizer.encode(["a " * 100], max_length=10)
    assert len(encoding.ids) == 10
    assert encoding.ids[0] == 2 and encoding.ids[-1] == 3
