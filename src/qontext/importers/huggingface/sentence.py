"""The files of sentence-transformers: which modules a folder has, and in which sub-folders they lie."""

import json
from pathlib import Path

from ...errors import ModelFormatError

_MODULES = "modules.json"
_MAX_BYTES = 1 << 20


def is_sentence_folder(folder: Path) -> bool:
    """Whether sentence-transformers wrote the folder."""
    return (folder / _MODULES).is_file() or (folder / "1_Pooling" / "config.json").is_file()


def modules_of(folder: Path) -> list[tuple[str, str]]:
    """(kind, sub-folder) of each module in order, "" for the folder itself.

    Raises:
        ModelFormatError: a modules.json that is damaged or leads out of the folder.
    """
    path = folder / _MODULES
    if not path.is_file():
        return [("Transformer", ""), ("Pooling", "1_Pooling")] if is_sentence_folder(folder) else []
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ModelFormatError(f"{_MODULES} has {path.stat().st_size} bytes, at most {_MAX_BYTES} are allowed")
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFormatError(f"{_MODULES} is no valid JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(r, dict) and isinstance(r.get("type"), str) for r in rows):
        raise ModelFormatError(f"{_MODULES} must be a list of objects with a type")
    found = [(r["type"].rpartition(".")[2], r.get("path", "")) for r in rows]
    for kind, place in found:
        if not isinstance(place, str) or Path(place).is_absolute() or ".." in Path(place).parts or "\0" in place:
            raise ModelFormatError(f"{_MODULES}: the path of {kind} is {str(place)[:80]!r}, expected a sub-folder")
        if not (folder / place).resolve().is_relative_to(folder.resolve()):
            raise ModelFormatError(f"{_MODULES}: the path of {kind}, {place[:80]!r}, is a link out of the folder")
    return found


def encoder_folder(folder: Path) -> Path:
    """The folder with config.json, weights and tokenizer: the one given, or the sub-folder of its first Transformer.

    Raises:
        ModelFormatError: there is no config.json.
    """
    places = [place for kind, place in modules_of(folder) if kind == "Transformer"]
    inner = folder / places[0] if places else folder
    for place in (inner, folder):
        if (place / "config.json").is_file():
            return place
    raise ModelFormatError(f"{folder.resolve().name} has no config.json; a Hugging Face folder needs one")
