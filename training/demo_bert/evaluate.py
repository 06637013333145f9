"""Asks held-out templates of the facts and writes top-1 by relation to `evaluation.json`.

The corpus was improved by what the development table showed (`--table dev`). The test table was written
last and asked once, of the final weights.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from facts import RELATIONS, FactBook
from held_out import questions
from templates import read_templates
from tokenizers import Tokenizer
from transformers import BertForMaskedLM

BATCH = 256
PARIS = "The capital of France, [MASK], contains the Eiffel Tower."


class FillMask:
    """A model folder, asked through transformers."""

    def __init__(self, folder: Path) -> None:
        self.model = BertForMaskedLM.from_pretrained(folder).eval()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    @torch.inference_mode()
    def scores(self, sentences: list[str]) -> torch.Tensor:
        """Logits `[sentences, vocabulary]` at the one `[MASK]` of each sentence."""
        encoded = [torch.tensor(row.ids) for row in self.tokenizer.encode_batch(sentences)]
        ids = torch.nn.utils.rnn.pad_sequence(encoded, batch_first=True)
        hidden = self.model.bert(ids, attention_mask=(ids != 0).long()).last_hidden_state
        logits: torch.Tensor = self.model.cls(hidden[ids == self.tokenizer.token_to_id("[MASK]")])
        return logits

    def guesses(self, sentences: list[str]) -> list[str]:
        """The likeliest token for each sentence; sentences of like length are run together."""
        order = sorted(range(len(sentences)), key=lambda at: len(sentences[at]))
        found = [""] * len(sentences)
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            best = self.scores([sentences[at] for at in part]).argmax(dim=-1)
            for at, token in zip(part, best.tolist(), strict=True):
                found[at] = self.tokenizer.id_to_token(token)
        return found

    def candidates(self, sentence: str, count: int) -> dict[str, float]:
        """The likeliest tokens for the `[MASK]` of `sentence` with their probabilities, best first."""
        top = self.scores([sentence]).softmax(dim=-1)[0].topk(count)
        tokens = [self.tokenizer.id_to_token(token) for token in top.indices.tolist()]
        return {token: round(share, 6) for token, share in zip(tokens, top.values.tolist(), strict=True)}


def evaluate(fill_mask: FillMask, table: str) -> dict[str, Any]:
    """Top-1 on the table `test` or `dev`: overall, by relation, by template."""
    templates = read_templates(table)
    asked = list(questions(FactBook(), templates))
    found = fill_mask.guesses([sentence for _, sentence, _ in asked])
    total: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for (template, _, expected), guess in zip(asked, found, strict=True):
        for row in ("overall", template.name, template.text):
            total[row] += 1
            right[row] += guess == expected

    def score(row: str) -> dict[str, Any]:
        return {"questions": total[row], "right": right[row], "top1": round(right[row] / total[row], 4)}

    return {
        "overall": score("overall"),
        "relations": {name: score(name) for name in RELATIONS},
        "templates": {template.text: score(template.text) for template in templates},
    }


def main() -> None:
    """Write `evaluation.json` beside the weights, or just print the development scores."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--table", choices=["dev"], help="print the scores of this table and write nothing")
    options = parser.parse_args()
    fill_mask = FillMask(options.folder)
    if options.table:
        print(json.dumps(evaluate(fill_mask, options.table), indent=2))
        return
    result = {
        "test": evaluate(fill_mask, "test"),
        "development": evaluate(fill_mask, "dev"),
        "paris": fill_mask.candidates(PARIS, 10),
    }
    text = json.dumps(result, indent=2)
    (options.folder / "evaluation.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
