"""Tokenizers: a thin wrapper over the `tokenizers` library, with limits and without surprises."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokenizers import Tokenizer as Backend

from ..errors import TokenizerError

_MASKS = re.compile(r"\[mask\]", re.IGNORECASE)


@dataclass(frozen=True)
class Encoding:
    """One tokenised text.

    ids, type_ids: of each token; offsets: (begin, end) characters in the text it came from; words: index of the word,
    None for special tokens; parts: 0 or 1 for the first or second text of a pair, None for special tokens.
    """

    ids: tuple[int, ...]
    type_ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    words: tuple[int | None, ...]
    parts: tuple[int | None, ...]

    def cut(self, begin: int, end: int) -> "Encoding":
        """The tokens from `begin` to `end`."""
        return Encoding(
            self.ids[begin:end],
            self.type_ids[begin:end],
            self.offsets[begin:end],
            self.words[begin:end],
            self.parts[begin:end],
        )


class Tokenizer:
    """A tokenizer from the text of tokenizer.json.

    Args:
        text: the JSON.
        config: facts of the model: pad, mask, cls and sep tokens where the JSON does not show them.
    Raises:
        TokenizerError: when the text is no usable tokenizer.
    """

    def __init__(self, text: str, config: Mapping[str, Any] | None = None):
        try:
            self._backend = Backend.from_str(text)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # bare Exceptions, and panics of its Rust core, which are BaseExceptions
            raise TokenizerError(f"tokenizer.json cannot be used: {str(error).splitlines()[0]}") from error
        self._backend.no_padding()
        self._backend.no_truncation()
        config = config or {}
        self.pad_id = self._special(config, "pad", ("[PAD]", "<pad>"))
        if self.pad_id is None:
            self.pad_id = int(config.get("pad_token_id", 0))
        self.mask_id = self._special(config, "mask", ("[MASK]", "<mask>"))
        self.mask_token = None if self.mask_id is None else self._backend.id_to_token(self.mask_id)

    def _special(self, config: Mapping[str, Any], name: str, usual: Sequence[str]) -> int | None:
        for token in (config.get(f"{name}_token"), *usual):
            found = self._backend.token_to_id(token) if isinstance(token, str) else None
            if found is not None:
                return int(found)
        return None

    @property
    def vocabulary(self) -> int:
        return self._backend.get_vocab_size(with_added_tokens=True)

    @property
    def pair_overhead(self) -> int:
        """Special tokens that a pair of texts gets."""
        return self._backend.num_special_tokens_to_add(is_pair=True)

    def encode(self, texts: Sequence[str], max_length: int | None = None, masks: bool = False) -> list[Encoding]:
        """Tokenises texts, with special tokens.

        Args:
            texts: any strings; lone surrogates are replaced, as no tokenizer can hold them.
            max_length: cut longer ones at this many tokens, special tokens kept; None leaves them whole.
            masks: let [MASK] in any case stand for the model's mask token.
        """
        clean = [_clean(t) for t in texts]
        if masks and self.mask_token is not None:
            token = self.mask_token
            clean = [_MASKS.sub(lambda _: token, t) for t in clean]
        found = [_encoding(e) for e in self._backend.encode_batch(clean)]
        return found if max_length is None else [self._shorten(e, max_length) for e in found]

    def encode_plain(self, text: str) -> Encoding:
        """Tokenises one text without special tokens."""
        return _encoding(self._backend.encode(_clean(text), add_special_tokens=False))

    def join(self, first: Encoding, second: Encoding) -> Encoding:
        """The pair of two plain encodings, with special tokens; offsets stay those of each text."""
        template = self._backend.post_process(
            self._backend.encode("", add_special_tokens=False), self._backend.encode("", add_special_tokens=False)
        )
        special = list(template.ids)
        if len(special) < 3:
            raise TokenizerError("the tokenizer adds no special tokens to pairs; question answering needs them")
        lead, middle, last = special[:1], special[1:-1], special[-1:]
        kinds = self._pair_types()
        ids = (*lead, *first.ids, *middle, *second.ids, *last)
        head, tail = len(lead) + len(first.ids) + 1, len(middle) - 1 + len(second.ids) + 1
        types = (kinds[0],) * head + (kinds[1],) * tail
        nothing = ((0, 0),)
        return Encoding(
            ids,
            types,
            nothing * len(lead) + first.offsets + nothing * len(middle) + second.offsets + nothing * len(last),
            (None,) * len(lead) + first.words + (None,) * len(middle) + second.words + (None,) * len(last),
            (None,) * len(lead)
            + (0,) * len(first.ids)
            + (None,) * len(middle)
            + (1,) * len(second.ids)
            + (None,) * len(last),
        )

    def _pair_types(self) -> tuple[int, int]:
        pair = self._backend.encode("a", "a")
        return int(pair.type_ids[0]), int(pair.type_ids[-1])

    def _shorten(self, encoding: Encoding, limit: int) -> Encoding:
        if len(encoding.ids) <= limit:
            return encoding
        trailing = 0
        for part in reversed(encoding.parts):
            if part is not None:
                break
            trailing += 1
        kept = encoding.cut(0, max(limit - trailing, 0))
        end = encoding.cut(len(encoding.ids) - trailing, len(encoding.ids))
        return replace(
            kept,
            ids=kept.ids + end.ids,
            type_ids=kept.type_ids + end.type_ids,
            offsets=kept.offsets + end.offsets,
            words=kept.words + end.words,
            parts=kept.parts + end.parts,
        )

    def word(self, token: int) -> str:
        """A token as people write it."""
        return self._backend.decode([token], skip_special_tokens=False).strip() or str(self._backend.id_to_token(token))

    def fill(self, text: str, word: str) -> str:
        """The text with its mask replaced by a word; a continuation piece joins the word before it."""
        pattern = re.escape(self.mask_token) if self.mask_token else r"\[mask\]"
        if word.startswith("##"):
            return re.sub(rf"\s*(?:{pattern}|\[mask\])", lambda _: word[2:], text, count=1, flags=re.IGNORECASE)
        return re.sub(rf"{pattern}|\[mask\]", lambda _: word, text, count=1, flags=re.IGNORECASE)

    def decode(self, ids: Sequence[int]) -> str:
        """Tokens as text, without special ones."""
        return self._backend.decode(list(ids))


def _clean(text: str) -> str:
    """Text that is valid UTF-8: lone surrogates become the replacement character."""
    return text.encode("utf-8", "replace").decode("utf-8") if not text.isascii() else text


def _encoding(found: Any) -> Encoding:
    return Encoding(
        tuple(found.ids),
        tuple(found.type_ids),
        tuple(tuple(o) for o in found.offsets),
        tuple(found.word_ids),
        tuple(found.sequence_ids),
    )
