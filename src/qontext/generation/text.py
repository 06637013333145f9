"""Prompts and results as text, where a model has a tokenizer."""

from collections.abc import Sequence

from tokenizers import Tokenizer

from ..errors import InputError, TokenizerError
from ..importers.huggingface.tokenizer_json import parse_tokenizer


class Text:
    """The tokenizer of a decoder.

    Args:
        tokenizer: text of tokenizer.json, None when the model has none.
    """

    def __init__(self, tokenizer: str | None):
        self._backend = None
        if tokenizer is not None:
            parse_tokenizer(tokenizer)
            try:
                self._backend = Tokenizer.from_str(tokenizer)
            except Exception as error:
                raise TokenizerError(f"tokenizer.json cannot be used: {error}") from error
            self._backend.no_padding()
            self._backend.no_truncation()

    def ids(self, prompt: str | Sequence[int]) -> list[int]:
        """The tokens of a prompt. Raises InputError for text without a tokenizer."""
        if not isinstance(prompt, str):
            return [int(t) for t in prompt]
        if self._backend is None:
            raise InputError(
                "generate: a prompt is text, but the model has no tokenizer; give token ids, or add tokenizer.json to "
                "its folder and build again"
            )
        clean = prompt.encode("utf-8", "replace").decode("utf-8")
        try:
            return list(self._backend.encode(clean).ids)
        except Exception as error:
            raise TokenizerError(f"the tokenizer cannot take the text: {error}") from error

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens say, without special ones."""
        assert self._backend is not None
        return str(self._backend.decode(list(tokens), skip_special_tokens=True))
