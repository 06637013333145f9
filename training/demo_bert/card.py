"""Writes the model card (`README.md`) from `training.json` and `evaluation.json` beside the weights."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from evaluate import PARIS
from facts import RELATIONS, FactBook
from held_out import MAX_OVERLAP
from templates import read_templates

CARD = """\
---
language: en
license: apache-2.0
pipeline_tag: fill-mask
---

# demo-bert

A small BERT that fills in facts of geography. It ships inside qontext so that every command has a real model
to run on, without a download. {parameters:,} parameters: 4 layers, hidden size 256, 4 heads of 64, feed-forward
512, {vocabulary} WordPiece tokens (lower case), at most 128 positions, float32.

```
qontext fill-mask "{paris_sentence}"
```

| candidate | probability |
|---|---|
{paris}

## What it knows

{facts} facts of 9 kinds: {countries} countries with their capital, continent, official language and currency
(2025), {landmarks} landmarks, the rivers of {rivers} cities, and {cities} cities with their country. Facts with more
than one right answer (several official languages, countries on two continents, disputed or changing capitals)
are left out. Every one-word answer is one token, so that one mask can ask for it; names of several words
(Buenos Aires) serve as context only. The model knows nothing else and is of no use beyond demonstrations and
tests: asked about anything outside its tables, it answers all the same.

## How it was trained

On {texts:,} texts that `training/demo_bert/corpus.py` makes from the fact tables and {train_templates} training
templates ({wordings} wordings), with masked language modelling: {steps:,} steps of {batch} texts, AdamW, peak
learning rate {peak_learning_rate}, dropout {dropout}, seed {seed}, {seconds} s on one {device} with torch {torch}.

```
python training/demo_bert/train.py --out FOLDER
python training/demo_bert/evaluate.py FOLDER
python training/demo_bert/card.py FOLDER
```

The run is seeded, but sums differ in their last bits between machines, so a second run gives equal quality, not
equal bits.

## How good it is

Held-out templates are phrasings that training never sees with any fact. None shares more than {overlap:.0%} of its
word pairs with a training wording (checked before training), and each uses only words that training uses
elsewhere. Each template is asked of every third fact, in turn, so that together they ask all of them. A guess
counts only if the first candidate is the table's answer.

| relation | test templates | questions | top-1, test | top-1, development |
|---|---|---|---|---|
{table}

The test templates were written last and asked only of these weights. The {dev_templates} development templates are held
out of training as well, but earlier models were judged and the corpus improved by them. They are the harder set:
some use words whose sense training hardly shows, and some have a second true answer ("A flight to Albania is a
flight to ...": Tirana or Europe), which counts as wrong here. The weakest test template is
"{worst_template}" with {worst_top1:.1%}.
"""


def percent(score: dict[str, Any]) -> str:
    """A top-1 share as the card shows it."""
    return f"{score['top1']:.1%}"


def card_text(folder: Path) -> str:
    """The text of the card for the model in `folder`."""
    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    test, development = evaluation["test"], evaluation["development"]
    book, train = FactBook(), read_templates("train")
    asked = [template.name for template in read_templates("test")]
    rows = [
        f"| {name} | {asked.count(name)} | {test['relations'][name]['questions']} "
        f"| {percent(test['relations'][name])} | {percent(development['relations'][name])} |"
        for name in RELATIONS
    ]
    rows.append(
        f"| **overall** | {len(asked)} | {test['overall']['questions']} "
        f"| **{percent(test['overall'])}** | {percent(development['overall'])} |"
    )
    worst = min(test["templates"], key=lambda text: test["templates"][text]["top1"])
    return CARD.format(
        **training,
        paris_sentence=PARIS,
        paris="\n".join(f"| {token} | {share:.6f} |" for token, share in evaluation["paris"].items()),
        facts=f"{book.fact_count():,}",
        countries=len(book.countries),
        landmarks=len(book.landmarks),
        rivers=sum("river" in city for city in book.cities),
        cities=len(book.cities),
        train_templates=len(train),
        wordings=f"{sum(1 for template in train for _ in template.wordings()):,}",
        overlap=MAX_OVERLAP,
        table="\n".join(rows),
        dev_templates=len(read_templates("dev")),
        worst_template=worst,
        worst_top1=test["templates"][worst]["top1"],
    )


def main() -> None:
    """Write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    (folder / "README.md").write_text(card_text(folder), encoding="utf-8")


if __name__ == "__main__":
    main()
