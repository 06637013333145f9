"""How a sentence encoder makes one vector of many: read from the sentence-transformers files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ModelFormatError, UnsupportedModelError
from .files import optional_json
from .sentence import encoder_folder, is_sentence_folder, modules_of

# In the order in which results are joined where each mode has a switch of its own.
_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_KNOWN = ("cls", "max", "mean")
_CHAINS = (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
_SETTINGS = [f"sentence_{n}_config.json" for n in ("bert", "roberta", "distilbert", "albert", "xlm-roberta")]


@dataclass(frozen=True)
class Pooling:
    """modes: joined in this order; normalize: to length 1; max_length: tokens, None for the model's own limit;
    lower_case: the text is lower-cased before the tokenizer sees it."""

    modes: tuple[str, ...] = ("mean",)
    normalize: bool = False
    max_length: int | None = None
    lower_case: bool = False


def read_pooling(folder: Path) -> Pooling:
    """The pooling of a folder; the mean for one that is no sentence-transformers folder.

    Raises:
        UnsupportedModelError: a pooling or a module that qontext does not have.
        ModelFormatError: settings that are missing or of the wrong type.
    """
    if not is_sentence_folder(folder):
        return Pooling()
    modules = modules_of(folder)
    kinds = [kind for kind, _ in modules]
    if kinds not in _CHAINS:
        raise UnsupportedModelError(
            f"modules.json has {', '.join(kinds)[:200] or 'nothing'}; qontext knows Transformer, Pooling and, after "
            "them, Normalize. Import with task='encode' and apply the rest yourself"
        )
    place = folder / modules[1][1] / "config.json"
    if not place.is_file():
        raise ModelFormatError(f"{modules[1][1]}/config.json, the settings of the pooling, is missing")
    modes = _modes(optional_json(place))
    unknown = [m for m in modes if m not in _KNOWN]
    if unknown:
        raise UnsupportedModelError(
            f"{modules[1][1]}/config.json asks for {', '.join(unknown)}; known are {', '.join(_KNOWN)}. Import with "
            "task='encode' and pool yourself"
        )
    inner = encoder_folder(folder)
    settings = next((optional_json(inner / n) for n in _SETTINGS if (inner / n).is_file()), {})
    lower = settings.get("do_lower_case", False)
    if not isinstance(lower, bool):
        raise ModelFormatError(
            f"the settings of the Transformer: do_lower_case is {str(lower)[:60]!r}, not true or false"
        )
    return Pooling(modes, "Normalize" in kinds, _limit(settings, inner), lower)


def _modes(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """pooling_mode (a name or a list of names), or the older switches."""
    given = settings.get("pooling_mode")
    if given is None:
        return tuple(mode for key, mode in _SWITCHES.items() if settings.get(key)) or ("mean",)
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise ModelFormatError(f"pooling_mode is {str(given)[:80]!r}, expected a name or a list of names")
    return tuple(n[:80] for n in names)


def _limit(settings: Mapping[str, Any], inner: Path) -> int | None:
    """Longest sequence in tokens: max_seq_length, or else what the tokenizer says."""
    length = settings.get("max_seq_length")
    if length is None:
        length = optional_json(inner / "tokenizer_config.json").get("model_max_length")
        return length if isinstance(length, int) and length > 0 else None
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        raise ModelFormatError(f"max_seq_length is {str(length)[:60]!r}, expected a whole number of at least 1")
    return length
