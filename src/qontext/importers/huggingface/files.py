"""Reading a model folder: JSON with limits, weights in one file or in shards, tokenizers."""

import json
from pathlib import Path
from typing import Any

import torch

from ...errors import ModelFormatError, all_problems
from ..safetensors_file import read_safetensors
from .hub import is_snapshot

MAX_JSON_BYTES = 16 << 20
MAX_TOKENIZER_BYTES = 64 << 20
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "pytorch_model.pt", "tf_model.h5")


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """A JSON object. Raises ModelFormatError for anything else, or a file over `limit` bytes."""
    try:
        size = path.stat().st_size
        if size > limit:
            raise ModelFormatError(f"{path.name} has {size} bytes, at most {limit} are allowed")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelFormatError(f"{path.name} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{path.name} is no valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelFormatError(f"{path.name} holds a {type(value).__name__}, expected an object")
    return value


def optional_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty when there is no such file."""
    return read_json(path) if path.is_file() else {}


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a folder: model.safetensors, or the shards that the index names.

    Raises:
        ModelFormatError: no weights, pickles only, shards that are missing or lie outside the folder.
    """
    single = folder / "model.safetensors"
    if single.is_file():
        return read_safetensors(single)
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        pickles = [n for n in _PICKLES if (folder / n).exists()]
        if pickles:
            raise ModelFormatError(
                f"{folder.name} has {', '.join(pickles)}, but no model.safetensors. Pickles can run code and are never "
                "opened; convert once: model.save_pretrained(folder, safe_serialization=True)"
            )
        raise ModelFormatError(f"{folder.name} has no model.safetensors (and no model.safetensors.index.json)")
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
        raise ModelFormatError(f"{index.name} has no weight_map of names to file names")
    shards = sorted(set(places.values()))
    problems = [p for p in (shard_problem(folder, s) for s in shards) if p]
    if problems:
        raise ModelFormatError(all_problems(index.name, problems))
    tensors: dict[str, torch.Tensor] = {}
    for shard in shards:
        found = read_safetensors(folder / shard)
        problems += [f"{n!r} is not in {shard}" for n, s in places.items() if s == shard and n not in found]
        problems += [f"{n!r} stands in {shard} and in another shard" for n in found if n in tensors]
        tensors.update(found)
    if problems:
        raise ModelFormatError(all_problems(index.name, problems))
    return tensors


def shard_problem(folder: Path, name: str) -> str | None:
    """Why a file that an index names is not used; None when it is fine."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return f"{name!r} leads out of the folder; shards must lie in it"
    path, home = folder / name, folder.resolve()
    resolved = path.resolve()
    blob = is_snapshot(home) and resolved.is_relative_to(home.parent.parent / "blobs")
    if not resolved.is_relative_to(home) and not blob:
        return f"{name!r} is a link out of the folder; shards must lie in it"
    if not path.is_file():
        return f"{name!r} is missing"
    return None


def read_tokenizer(folder: Path) -> str | None:
    """The text of tokenizer.json, or one made from vocab.txt; None when the folder has neither."""
    path = folder / "tokenizer.json"
    if path.is_file():
        size = path.stat().st_size
        if size > MAX_TOKENIZER_BYTES:
            raise ModelFormatError(f"tokenizer.json has {size} bytes, at most {MAX_TOKENIZER_BYTES} are allowed")
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelFormatError(f"tokenizer.json cannot be read: {error}") from error
    vocabulary = folder / "vocab.txt"
    if vocabulary.is_file():
        from .wordpiece import tokenizer_from_vocabulary

        kind = optional_json(folder / "config.json").get("model_type", "bert")
        return tokenizer_from_vocabulary(vocabulary, optional_json(folder / "tokenizer_config.json"), str(kind))
    return None
