"""Tokenizers: a thin wrapper over the `tokenizers` library, with limits and without surprises."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from tokenizers import Tokenizer as Backend

from ..errors import TokenizerError
from ..importers.huggingface.tokenizer_json import parse_tokenizer

_MASKS = re.compile(r"\[mask\]", re.IGNORECASE)


@dataclass(frozen=True)
class Tokens:
    """What a model reads of one tokenised text: the id and the type of each token; no types where all of them are 0."""

    ids: Sequence[int]
    type_ids: Sequence[int]


@dataclass(frozen=True)
class Encoding(Tokens):
    """One tokenised text and where its tokens come from.

    offsets: (begin, end) characters in the text; words: index of the word, None for special tokens; parts: 0 or 1 for
    the first or second text of a pair, None for special tokens.
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
        parse_tokenizer(text)
        with _refusing("tokenizer.json cannot be used"):
            self._backend = Backend.from_str(text)
        self._backend.no_padding()
        self._backend.no_truncation()
        config = config or {}
        self.pad_id = self._special(config, "pad", ("[PAD]", "<pad>"))
        if self.pad_id is None:
            pad = config.get("pad_token_id", 0)
            if not isinstance(pad, int) or pad < 0:
                raise TokenizerError(f"pad_token_id is {str(pad)[:60]!r}, expected a whole number of at least 0")
            self.pad_id = pad
        self.mask_id = self._special(config, "mask", ("[MASK]", "<mask>"))
        self.mask_token = None if self.mask_id is None else self._backend.id_to_token(self.mask_id)
        self._has_types = self._types_of_single_texts()

    def _special(self, config: Mapping[str, Any], name: str, usual: Sequence[str]) -> int | None:
        for token in (config.get(f"{name}_token"), *usual):
            found = self._backend.token_to_id(token) if isinstance(token, str) else None
            if found is not None:
                return int(found)
        return None

    def _types_of_single_texts(self) -> bool:
        """Whether a text that is no pair may have types other than 0: they are those of a template."""
        try:
            with _refusing("the tokenizer cannot take the text"):
                return any(self._backend.encode("a").type_ids)
        except TokenizerError:
            return True  # one without a piece for unknown words

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
        Raises:
            TokenizerError: the tokenizer fails at the text, as one without a piece for unknown words does.
        """
        clean = [_clean(t) for t in texts]
        if masks and self.mask_token is not None:
            token = self.mask_token
            clean = [_MASKS.sub(lambda _: token, t) for t in clean]
        with _refusing("the tokenizer cannot take the text"):
            found = [_encoding(e) for e in self._backend.encode_batch(clean)]
        return found if max_length is None else [self._shorten(e, max_length) for e in found]

    def tokens(self, texts: Sequence[str], max_length: int | None = None) -> list[Tokens]:
        """The same without what only people need (offsets, words), several times faster for many short texts."""
        return self.read(texts, self.search(texts), max_length)

    def search(self, texts: Sequence[str]) -> list[Any]:
        """The part of `tokens` that runs beside other threads of Python: what the library found in each text."""
        with _refusing("the tokenizer cannot take the text"):
            found: list[Any] = self._backend.encode_batch_fast([_clean(t) for t in texts])
            return found

    def read(self, texts: Sequence[str], found: Sequence[Any], max_length: int | None = None) -> list[Tokens]:
        """The tokens of texts from what `search` found in them."""
        read = [Tokens(e.ids, e.type_ids if self._has_types else ()) for e in found]
        if max_length is None:
            return read
        long = [i for i, tokens in enumerate(read) if len(tokens.ids) > max_length]
        for i, short in zip(long, self.encode([texts[i] for i in long], max_length), strict=True):
            read[i] = short
        return read

    def encode_plain(self, text: str) -> Encoding:
        """Tokenises one text without special tokens."""
        with _refusing("the tokenizer cannot take the text"):
            return _encoding(self._backend.encode(_clean(text), add_special_tokens=False))

    def join(self, first: Encoding, second: Encoding) -> Encoding:
        """The pair of two plain encodings, with special tokens; offsets stay those of each text."""
        with _refusing("the tokenizer cannot make pairs"):
            empty = self._backend.encode("", add_special_tokens=False)
            special = list(self._backend.post_process(empty, empty).ids)
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
        with _refusing("the tokenizer cannot make pairs"):
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
        with _refusing("the tokenizer cannot write the token"):
            word = self._backend.decode([token], skip_special_tokens=False).strip()
            return word or str(self._backend.id_to_token(token))

    def fill(self, text: str, word: str) -> str:
        """The text with its mask replaced by a word; a continuation piece joins the word before it."""
        pattern = re.escape(self.mask_token) if self.mask_token else r"\[mask\]"
        if word.startswith("##"):
            return re.sub(rf"\s*(?:{pattern}|\[mask\])", lambda _: word[2:], text, count=1, flags=re.IGNORECASE)
        return re.sub(rf"{pattern}|\[mask\]", lambda _: word, text, count=1, flags=re.IGNORECASE)

    def decode(self, ids: Sequence[int]) -> str:
        """Tokens as text, without special ones."""
        with _refusing("the tokenizer cannot write the tokens"):
            return self._backend.decode(list(ids))


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turns what the library raises into a TokenizerError: bare Exceptions, and panics of its Rust core, which are
    BaseExceptions."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise TokenizerError(f"{what}: {line[:300]}") from error


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
