"""The WordPiece vocabulary: whole words of the corpus, and short pieces to spell any other word with."""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from facts import normalise
from templates import SLOT
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = 200
MAX_LENGTH = 128


def build_vocabulary(texts: Iterable[str]) -> list[str]:
    """Special tokens, signs, letters, the commonest pieces, then every word of `texts`, in a fixed order."""
    split = pre_tokenizers.BertPreTokenizer()
    text = " ".join(sorted(SLOT.sub(" ", text) for text in texts))
    words = {word for word, _ in split.pre_tokenize_str(normalise(text))}
    signs = [*string.punctuation, *string.digits]
    letters = [*string.ascii_lowercase]
    inner = [f"##{sign}" for sign in [*letters, *string.digits]]
    known = dict.fromkeys([*SPECIAL, *signs, *letters, *inner, *common_pieces(words), *sorted(words)])
    return [*known]


def common_pieces(words: set[str]) -> list[str]:
    """The word parts of two to four letters that save the most letters, `##` before those inside a word."""
    saved: Counter[str] = Counter()
    for word in words:
        for size in range(2, 5):
            for start in range(len(word) - size + 1):
                mark = "##" if start else ""
                saved[mark + word[start : start + size]] += size - 1
    ranked = sorted(saved, key=lambda piece: (-saved[piece], piece))
    return sorted(ranked[:PIECES])


def build_tokenizer(vocabulary: list[str]) -> Tokenizer:
    """A lower-casing BERT tokenizer over `vocabulary`; a text becomes `[CLS] text [SEP]`."""
    ids = {token: at for at, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def spellings(vocabulary: list[str]) -> dict[int, list[int]]:
    """How each word longer than any piece is written with pieces alone, by token id."""
    longest = max(len(token.removeprefix("##")) for token in vocabulary if token.startswith("##"))
    words = {at: token for at, token in enumerate(vocabulary) if token.isalpha() and len(token) > longest}
    pieces = {token: at for at, token in enumerate(vocabulary) if at not in words}
    speller = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    return {at: speller.encode(word).ids for at, word in words.items()}


def save_tokenizer(vocabulary: list[str], folder: Path) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and `vocab.txt`."""
    build_tokenizer(vocabulary).save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf-8")
    config = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": MAX_LENGTH,
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
