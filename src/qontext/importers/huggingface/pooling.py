"""How a sentence encoder makes one vector of many: read from the sentence-transformers files."""

from dataclasses import dataclass
from pathlib import Path

from ...errors import ModelFormatError, UnsupportedModelError
from .files import optional_json

_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
}
_OTHERS = ("pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens", "pooling_mode_lasttoken")


@dataclass(frozen=True)
class Pooling:
    """modes: joined in this order; normalize: to length 1; max_length: tokens, None for the model's own limit."""

    modes: tuple[str, ...] = ("mean",)
    normalize: bool = False
    max_length: int | None = None


def read_pooling(folder: Path) -> Pooling | None:
    """The pooling of a folder; None when it is no sentence-transformers folder.

    Raises:
        UnsupportedModelError: a pooling or a module that qontext does not have.
    """
    modules = folder / "modules.json"
    configured = folder / "1_Pooling" / "config.json"
    if not modules.is_file() and not configured.is_file():
        return None
    kinds = _module_kinds(modules) if modules.is_file() else ["Transformer", "Pooling"]
    unknown = [k for k in kinds if k not in ("Transformer", "Pooling", "Normalize")]
    if unknown:
        raise UnsupportedModelError(
            f"modules.json has {', '.join(unknown)}; qontext knows Transformer, Pooling and Normalize. Import with "
            "task='encode' and apply the rest yourself"
        )
    settings = optional_json(configured)
    other = [k for k in _OTHERS if settings.get(k)]
    if other:
        raise UnsupportedModelError(f"1_Pooling/config.json asks for {', '.join(other)}; known are {', '.join(_MODES)}")
    modes = tuple(mode for key, mode in _MODES.items() if settings.get(key)) or ("mean",)
    if isinstance(settings.get("pooling_mode"), str):
        modes = tuple(m for m in settings["pooling_mode"].split("+") if m in _MODES.values()) or modes
    length = optional_json(folder / "sentence_bert_config.json").get("max_seq_length")
    return Pooling(modes, "Normalize" in kinds, length if isinstance(length, int) and length > 0 else None)


def _module_kinds(path: Path) -> list[str]:
    import json

    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFormatError(f"modules.json is no valid JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(r, dict) and isinstance(r.get("type"), str) for r in rows):
        raise ModelFormatError("modules.json must be a list of objects with a type")
    return [r["type"].rpartition(".")[2] for r in rows]
