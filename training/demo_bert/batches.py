"""Turns texts into masked training batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from corpus import Corpus
from vocabulary import SPECIAL, build_tokenizer, spellings

PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL))
IGNORED = -100
MAX_TOKENS = 64

# Words that are no fact's value are sometimes spelled in pieces, so that the model can read words it has no
# token for, left out, or followed by a word out of place, so that it leans on no single word of a phrasing.
SPELLED, DROPPED, ADDED = 0.02, 0.04, 0.02
# In half of the texts, besides the focus, this share of the other tokens is masked as BERT masks them:
# eight times in ten by [MASK], once by another token, once by itself. A text without focus is masked always.
# Masked words around the facts are mostly noise: the model is seldom asked for them, or it learns the
# phrasings by heart and answers a new one with a word from an old one.
MASKED, TEXTS_MASKED, AROUND_ASKED = 0.15, 0.5, 0.05
# Texts are sorted by length inside a window of this many batches, to pad little.
WINDOW = 16


@dataclass(frozen=True)
class Encoded:
    """All texts as one table: `ids [texts, MAX_TOKENS]` int16, `lengths [texts]`, `focus [texts]` (0 = none).

    `is_value [V]` tells the tokens that occur in facts from those around them.
    """

    ids: torch.Tensor
    lengths: torch.Tensor
    focus: torch.Tensor
    is_value: torch.Tensor


class Encoder:
    """Turns the corpus's texts into token ids, with a little noise in the words around the facts."""

    def __init__(self, corpus: Corpus, vocabulary: list[str]) -> None:
        self.corpus = corpus
        self.tokenizer = build_tokenizer(vocabulary)
        self.spelled = spellings(vocabulary)
        values = self.tokenizer.encode(" ".join(sorted(corpus.book.words()))).ids
        self.around = sorted(self.spelled.keys() - set(values))
        self.is_around = set(self.around)
        self.is_value = torch.zeros(len(vocabulary), dtype=torch.bool)
        self.is_value[values] = True

    def encode(self, count: int) -> Encoded:
        """The corpus's first `count` texts; the few that are longer than `MAX_TOKENS` are left out."""
        stream = self.corpus.texts()
        rows: list[list[int]] = []
        focuses: list[int] = []
        while len(rows) < count:
            texts = [next(stream) for _ in range(min(20_000, count - len(rows)))]
            encodings = self.tokenizer.encode_batch([text for text, _ in texts])
            for (_, span), encoding in zip(texts, encodings, strict=True):
                asked = encoding.char_to_token(span[0]) if span else 0
                row, focus = self.disturbed(encoding.ids, asked)
                if len(row) <= MAX_TOKENS:
                    rows.append(row)
                    focuses.append(focus)
        ids = torch.full((len(rows), MAX_TOKENS), PAD, dtype=torch.int16)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = torch.tensor(row, dtype=torch.int16)
        lengths = torch.tensor([len(row) for row in rows])
        return Encoded(ids, lengths, torch.tensor(focuses), self.is_value)

    def disturbed(self, ids: list[int], focus: int) -> tuple[list[int], int]:
        """A row with some words spelled, left out or added, and where its focus now stands."""
        draw = self.corpus.random
        row: list[int] = []
        moved = 0
        for at, token in enumerate(ids):
            if at == focus:
                moved = len(row)
            if token not in self.is_around:
                row.append(token)
                continue
            chance = draw.random()
            if chance < DROPPED:
                continue
            row += self.spelled[token] if chance < DROPPED + SPELLED else [token]
            if draw.random() < ADDED:
                row.append(draw.choice(self.around))
        return row, moved


def batches(
    encoded: Encoded, size: int, seed: int, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Masked batches without end, newly masked each time: `ids`, `attention_mask`, `labels`, all `[size, S]`."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(encoded.lengths), generator=generator)
        windows = [window for window in order.split(size * WINDOW) if len(window) == size * WINDOW]
        for window in windows:
            ordered = window[encoded.lengths[window].argsort()].split(size)
            for at in torch.randperm(WINDOW, generator=generator).tolist():
                rows = ordered[at]
                longest = int(encoded.lengths[rows].max())
                ids = encoded.ids[rows, :longest].long()
                shown, mask, labels = masked(ids, encoded.focus[rows], encoded.is_value, generator)
                yield shown.to(device), mask.to(device), labels.to(device)


def masked(
    ids: torch.Tensor, focus: torch.Tensor, is_value: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mask the focus of each row, and tokens at random; `ids [B, S]`, `focus [B]`, `is_value [V]`."""
    real = (ids != PAD) & (ids != CLS) & (ids != SEP)
    asked = torch.zeros_like(real)
    asked[torch.arange(len(ids)), focus] = True
    asked &= real
    more = (torch.rand(len(ids), 1, generator=generator) < TEXTS_MASKED) | (focus == 0)[:, None]
    drawn = (torch.rand(ids.shape, generator=generator) < MASKED) & more & real & ~asked
    wanted = is_value[ids] | (torch.rand(ids.shape, generator=generator) < AROUND_ASKED)
    labels = torch.where(asked | (drawn & wanted), ids, IGNORED)
    draw = torch.rand(ids.shape, generator=generator)
    other = torch.randint(len(SPECIAL), len(is_value), ids.shape, generator=generator)
    shown = torch.where(asked | (drawn & (draw < 0.8)), MASK, ids)
    shown = torch.where(drawn & (draw >= 0.9), other, shown)
    return shown, (ids != PAD).long(), labels
