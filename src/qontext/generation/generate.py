"""Prompts in, results out in the same form: text for text, ids for ids, one for one, a list for a list."""

from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import InputError
from .beam import Beams
from .loop import Generator, Settings
from .sampler import Choose, Sampling
from .text import Text


def generate(
    generator: Generator, text: Text, prompts: Any, settings: Settings, sampling: Sampling, beams: Beams, stream: bool
) -> Any:
    """Continues prompts; see `Engine.generate`.

    Raises InputError for prompts and settings that cannot be used or exclude each other.
    """
    single = isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], int))
    listed = [prompts] if single else list(prompts)
    ids = [text.ids(p) for p in listed]
    as_text = [isinstance(p, str) for p in listed]
    if beams.count != 1:
        if stream or sampling != Sampling(seed=sampling.seed):
            what = "stream is True" if stream else f"temperature is {sampling.temperature}"
            raise InputError(f"generate: beams is {beams.count} and {what}; a search is over when its last step is")
        results = [found[0].tokens for found in generator.search(ids, settings, beams)]
        cut = [r[:-1] if r[-1] in settings.ends else r for r in results]
        done: list[Any] = [text.text(r) if t else list(r) for r, t in zip(cut, as_text, strict=True)]
        return done[0] if single else done
    parts = _pieces(generator, ids, settings, sampling.chooser(), text, as_text)
    if stream:
        return parts
    found: list[Any] = ["" if t else [] for t in as_text]
    for row, piece in parts:
        found[row] += piece if isinstance(piece, str) else [piece]
    return found[0] if single else found


def _pieces(
    generator: Generator,
    prompts: list[list[int]],
    settings: Settings,
    choose: Choose,
    text: Text,
    as_text: Sequence[bool],
) -> Iterator[tuple[int, Any]]:
    """What each step adds to each prompt: a token, or the text that has become certain."""
    given: list[list[int]] = [[] for _ in prompts]
    shown = [""] * len(prompts)
    for step in generator.steps(prompts, settings, choose):
        for row, token in zip(step.rows, step.tokens, strict=True):
            if token in settings.ends:
                continue
            given[row].append(token)
            if not as_text[row]:
                yield row, token
                continue
            whole = text.text(given[row])
            # A character of several bytes is shown when its last token has come.
            if not whole.endswith("\N{REPLACEMENT CHARACTER}") and whole.startswith(shown[row]):
                piece, shown[row] = whole[len(shown[row]) :], whole
                if piece:
                    yield row, piece
    for row, tokens in enumerate(given):
        rest = text.text(tokens)[len(shown[row]) :] if as_text[row] and tokens else ""
        if rest:
            yield row, rest
