"""Row 10 of the hardening list, and 31: tokenizers that would take for ever, grow a text without bound, or panic."""

import json
import time

import pytest
import torch
import transformers as tf

import qontext as qx
from qontext.errors import TokenizerError
from qontext.importers.huggingface.tokenizer_json import KNOWN_PATTERNS, is_linear
from qontext.tasks.tokenizer import Tokenizer

WORDPIECE = {
    "type": "WordPiece",
    "unk_token": "[UNK]",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100,
    "vocab": {"[UNK]": 0, "a": 1, "##a": 2, "b": 3, "##b": 4},
}


def text_of(**parts):
    return json.dumps({"version": "1.0", "added_tokens": [], "model": WORDPIECE, **parts})


def split(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def replace(content, **pattern):
    return {"type": "Replace", "pattern": pattern, "content": content}


def sequence(*steps):
    return {"type": "Sequence", "normalizers": list(steps)}


TEMPLATE = {"Sequence": {"id": "A", "type_id": 0}}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"pre_tokenizer": split("(a+)+$")}, r"pre_tokenizer: the pattern '\(a\+\)\+\$' could take very long"),
        ({"pre_tokenizer": split(["a"])}, "could take very long"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split("a*a*b")]}}, "could take very long"),
        ({"normalizer": replace("", Regex="a?a?a?aaa")}, "normalizer: the pattern"),
        ({"decoder": replace("", Regex="(a|a)*")}, "decoder: the pattern"),
        ({"normalizer": replace("b" * 17, String="a")}, "up to 17 times as long, allowed are 16"),
        ({"normalizer": sequence(*[replace("aa", String="a")] * 5)}, "up to 32 times as long"),
        ({"normalizer": replace("b" * 16, Regex="a")}, "up to 17 times"),
        ({"normalizer": replace("b", String="")}, "up to inf times"),
        ({"normalizer": {"type": "Prepend", "prepend": "b" * 17}}, "Prepend adds 17 characters"),
        ({"normalizer": sequence(*[{"type": "NFC"}] * 64)}, "65 steps"),
        ({"post_processor": {"type": "TemplateProcessing", "single": [TEMPLATE] * 2}}, "a template repeats the text A"),
        ({"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {}}] * 65}}, "65 pieces"),
        (
            {"model": {**WORDPIECE, "max_input_chars_per_word": 101}},
            "max_input_chars_per_word is '101', allowed are 1 to 100",
        ),
        ({"model": {**WORDPIECE, "max_input_chars_per_word": 2**40}}, "max_input_chars_per_word"),
        ({"model": {**WORDPIECE, "continuing_subword_prefix": "#" * 17}}, "continuing_subword_prefix"),
        ({"model": {**WORDPIECE, "vocab": 7}}, "vocab is a int"),
        ({"model": {"type": "Unigram", "vocab": [["a" * 257, 0.0]]}}, "up to 256 characters"),
        ({"model": None}, "no object with a model"),
    ],
)
def test_what_breaks_a_bound_is_refused_at_once(parts, words):
    start = time.process_time()
    with pytest.raises(TokenizerError, match=words):
        Tokenizer(text_of(**parts))
    assert time.process_time() - start < 1


def test_all_broken_bounds_come_at_once():
    with pytest.raises(TokenizerError, match=r"(?s)2 problems.*normalizer.*pre_tokenizer"):
        Tokenizer(text_of(normalizer=replace("b" * 20, String="a"), pre_tokenizer=split("(a)+")))


@pytest.mark.parametrize(
    "pattern", [" {2,}", r"\s+", r"\p{N}", r" ?\p{L}+| ?\p{N}+", "[0-9]+", r"[^\s\p{L}]+", "a{3}", ".", *KNOWN_PATTERNS]
)
def test_patterns_of_real_tokenizers_are_accepted_and_linear(pattern):
    assert is_linear(pattern)
    tokenizer = Tokenizer(text_of(pre_tokenizer=split(pattern)))
    assert seconds(tokenizer, "a 1" * 60_000) < 5


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "a+b",
        "a*a*",
        "a?a?a",
        "(a|a)*",
        "a+$",
        r"(a)\1",
        "a{1000}",
        "a{2}{3}",
        "x" * 257,
        "(?=a)",
        "a+?",
        "a++",
        "(",
    ],
)
def test_patterns_that_may_backtrack_are_refused(pattern):
    assert not is_linear(pattern)


def seconds(tokenizer, text):
    start = time.process_time()
    tokenizer.encode([text])
    return time.process_time() - start


@pytest.mark.parametrize("text", ["a", "ab", "\u6771", "x"])
def test_a_megabyte_without_spaces_takes_linear_time(text, folder_with_vocabulary):
    tokenizer = Tokenizer(folder_with_vocabulary.tokenizer, folder_with_vocabulary.config)
    size = 1_000_000 // len(text.encode())
    text = (text * size)[:size]
    tokenizer.encode([text[: size // 8]])
    eighth = min(seconds(tokenizer, text[: size // 8]) for _ in range(3))
    whole = seconds(tokenizer, text)
    # Quadratic time would be 64 times as long.
    assert whole < 24 * eighth + 0.05
    assert whole < 10


@pytest.fixture(scope="module")
def folder_with_vocabulary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    save(folder)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a", "\u6771"]))
    return qx.import_model(folder)


def save(folder):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    torch.manual_seed(0)
    tf.BertModel(tf.BertConfig(vocab_size=40, max_position_embeddings=20, **sizes)).save_pretrained(folder)


def test_panics_and_bare_exceptions_become_tokenizer_errors():
    with pytest.raises(TokenizerError, match=r"tokenizer\.json cannot be used: range end index"):
        Tokenizer(text_of(model={"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b", "b a"]}))
    tokenizer = Tokenizer(text_of(model={**WORDPIECE, "vocab": {"a": 1}}))
    for call in (lambda: tokenizer.encode(["zz"]), lambda: tokenizer.encode_plain("zz")):
        with pytest.raises(TokenizerError, match=r"cannot take the text: .*Missing \[UNK\]"):
            call()


class _Panic(BaseException):
    """As panics of the Rust core are: no Exception."""


@pytest.mark.parametrize("raised", [_Panic("Onig: Regex search error"), _Panic(), KeyboardInterrupt()])
def test_only_interrupts_pass(raised):
    class Failing:
        def __getattr__(self, name):
            def call(*_, **__):
                raise raised

            return call

    tokenizer = Tokenizer(text_of())
    tokenizer._backend = Failing()
    expected = KeyboardInterrupt if isinstance(raised, KeyboardInterrupt) else TokenizerError
    for call in (
        lambda: tokenizer.encode(["a"]),
        lambda: tokenizer.encode_plain("a"),
        lambda: tokenizer.join(None, None),
        lambda: tokenizer.word(1),
        lambda: tokenizer.decode([1]),
    ):
        with pytest.raises(expected):
            call()


def added(identity, content="<x>"):
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": identity, "content": content, "special": True, **flags}


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([added(500)], "up to id 500, the model has embeddings for 40"),
        ([added(5, f"<{i}>") for i in range(36)], "up to id 40"),
        ([added(-1)], "no whole numbers"),
        ([added("5")], "no whole numbers"),
        ([added(3, "a")], r"two ids: 'a' 1 and 3"),
        ([7], "list of objects"),
        ({"a": 1}, "list of objects"),
    ],
)
def test_ids_without_embeddings_are_refused(tokens, words, tmp_path):
    save(tmp_path)
    (tmp_path / "tokenizer.json").write_text(text_of(added_tokens=tokens))
    with pytest.raises(TokenizerError, match=words):
        qx.import_model(tmp_path)
    (tmp_path / "tokenizer.json").write_text(text_of(added_tokens=[added(5)]))
    assert qx.import_model(tmp_path).task == "encode"


@pytest.mark.parametrize("dropout", [0.1, 1, "x"])
def test_a_tokenizer_that_cuts_at_random_is_refused(dropout):
    text = json.dumps({"model": {"type": "BPE", "dropout": dropout, "vocab": {"a": 0}, "merges": []}})
    with pytest.raises(TokenizerError, match=r"dropout is .*cut differently each time.*set it to null"):
        Tokenizer(text)


@pytest.mark.parametrize("dropout", [None, 0, 0.0])
def test_no_dropout_is_accepted(dropout):
    text = json.dumps({"model": {"type": "BPE", "dropout": dropout, "vocab": {"a": 0}, "merges": []}})
    assert Tokenizer(text).vocabulary == 1
