"""What tasks need to know beside the graph."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import TokenizerError
from ...models.encoder_config import EncoderConfig
from .files import optional_json
from .pooling import Pooling

_SPECIAL = ("pad", "mask", "cls", "sep", "unk")


def facts_for_tasks(
    folder: Path,
    raw: Mapping[str, Any],
    config: EncoderConfig,
    task: str,
    pooling: Pooling | None,
    tokenizer: str | None,
) -> dict[str, Any]:
    """Labels, limits, special tokens; JSON-able.

    Raises TokenizerError when the tokenizer has more pieces than the model has embeddings.
    """
    longest = config.max_length
    if task == "embed" and pooling is not None and pooling.max_length:
        longest = min(longest, pooling.max_length)
    facts: dict[str, Any] = {
        "max_length": longest,
        "vocabulary": config.vocabulary,
        "hidden_size": config.hidden,
        "pad_token_id": raw.get("pad_token_id", 0) or 0,
        "model_type": raw.get("model_type"),
    }
    if task in ("classify", "token-classify"):
        labels = raw.get("id2label")
        if isinstance(labels, dict):
            facts["labels"] = {str(k): str(v) for k, v in labels.items()}
        facts["problem_type"] = raw.get("problem_type")
    if task == "embed":
        used = pooling or Pooling()
        facts["pooling"], facts["normalize"] = list(used.modes), used.normalize
    settings = optional_json(folder / "tokenizer_config.json")
    special = {**optional_json(folder / "special_tokens_map.json"), **settings}
    for name in _SPECIAL:
        token = special.get(f"{name}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            facts[f"{name}_token"] = token
    if tokenizer is not None:
        _check_tokenizer(tokenizer, config.vocabulary)
    return facts


def _check_tokenizer(text: str, vocabulary: int) -> None:
    try:
        model = json.loads(text).get("model", {})
    except (ValueError, RecursionError, AttributeError) as error:
        raise TokenizerError(f"tokenizer.json is no valid JSON: {error}") from error
    pieces = model.get("vocab", {}) if isinstance(model, dict) else {}
    if isinstance(pieces, dict):
        highest = max((i for i in pieces.values() if isinstance(i, int)), default=-1)
    else:
        highest = len(pieces) - 1
    if highest >= vocabulary:
        raise TokenizerError(
            f"tokenizer.json has pieces up to id {highest}, the model has embeddings for {vocabulary} (ids 0 to "
            f"{vocabulary - 1}); tokenizer and model do not belong together"
        )
