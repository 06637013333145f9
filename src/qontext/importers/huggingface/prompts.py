"""Prompts of sentence encoders: words that stand before each text, as the model was trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import ModelFormatError
from .files import optional_json
from .sentence import is_sentence_folder, modules_of

_FILE = "config_sentence_transformers.json"
_MOST_PROMPTS, _LONGEST = 1000, 10_000


@dataclass(frozen=True)
class Prompts:
    """texts: name -> words; default: name of the one that is used unless another is asked for; pooled: the tokens of a
    prompt count in the pooling."""

    texts: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None
    pooled: bool = True


def read_prompts(folder: Path) -> Prompts:
    """The prompts that a sentence-transformers folder states; none for any other folder.

    Raises:
        ModelFormatError: prompts of a wrong type or size, or a default that is none of them.
    """
    if not is_sentence_folder(folder):
        return Prompts()
    settings = optional_json(folder / _FILE)
    texts = settings.get("prompts") or {}
    if not isinstance(texts, dict) or not all(isinstance(t, str) and len(t) <= _LONGEST for t in texts.values()):
        raise ModelFormatError(f"{_FILE}: prompts is no object of names and texts of up to {_LONGEST} characters")
    if len(texts) > _MOST_PROMPTS:
        raise ModelFormatError(f"{_FILE} has {len(texts)} prompts, at most {_MOST_PROMPTS} are allowed")
    default = settings.get("default_prompt_name")
    if default is not None and default not in texts:
        known = ", ".join(n[:40] for n in list(texts)[:20]) or "none"
        raise ModelFormatError(
            f"{_FILE}: default_prompt_name is {str(default)[:60]!r}, which is none of the prompts ({known})"
        )
    places = [place for kind, place in modules_of(folder) if kind == "Pooling"]
    counted = optional_json(folder / places[0] / "config.json").get("include_prompt", True) if places else True
    if not isinstance(counted, bool):
        raise ModelFormatError(
            f"the settings of the pooling: include_prompt is {str(counted)[:60]!r}, not true or false"
        )
    return Prompts(texts, default, counted)
