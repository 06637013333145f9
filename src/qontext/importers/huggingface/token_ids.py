"""Ids in a tokenizer.json: of its special tokens, and the highest one."""

from collections.abc import Mapping
from typing import Any

from ...errors import TokenizerError

USUAL = {
    "pad": ("[PAD]", "<pad>"),
    "mask": ("[MASK]", "<mask>"),
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
    "unk": ("[UNK]", "<unk>"),
}


def ids_of(value: Mapping[str, Any]) -> dict[str, int]:
    """Every piece and its id, added tokens with them.

    Raises TokenizerError for ids that are no whole numbers, and added tokens that have another id among the pieces.
    """
    pieces = value["model"]["vocab"]
    found = dict(pieces) if isinstance(pieces, dict) else {row[0]: i for i, row in enumerate(pieces)}
    added = value.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(t, dict) and isinstance(t.get("content"), str) for t in added):
        raise TokenizerError("tokenizer.json: added_tokens must be a list of objects with content and id")
    said = {t["content"]: t.get("id") for t in added}
    wrong = [repr(n)[:40] for n, i in (found | said).items() if not isinstance(i, int) or isinstance(i, bool) or i < 0]
    if wrong:
        raise TokenizerError(f"tokenizer.json: ids of {', '.join(wrong[:10])} are no whole numbers of at least 0")
    other = [f"{n!r} {found[n]} and {i}"[:60] for n, i in said.items() if found.get(n, i) != i]
    if other:
        raise TokenizerError(f"tokenizer.json gives added tokens two ids: {', '.join(other[:10])}")
    return found | said


def special_ids(ids: Mapping[str, int], names: Mapping[str, str]) -> dict[str, int]:
    """ "mask" -> id and so on, for the special tokens that the tokenizer has.

    `names` has those that the folder names, by the same keys; usual spellings stand in for the rest.
    """
    found = {}
    for kind, usual in USUAL.items():
        spellings = (names[kind],) if kind in names else usual
        known = [ids[s] for s in spellings if s in ids]
        if known:
            found[kind] = known[0]
    return found


def check_rows(ids: Mapping[str, int], rows: int) -> None:
    """Raises TokenizerError when an id has no row in the embedding."""
    # A token whose id lies behind a gap is given the first free id, so that the count bounds ids as well.
    highest = max(max(ids.values(), default=-1), len(ids) - 1)
    if highest >= rows:
        raise TokenizerError(
            f"tokenizer.json has pieces up to id {highest}, the model has embeddings for {rows} (ids 0 to {rows - 1}); "
            "tokenizer and model do not belong together"
        )
