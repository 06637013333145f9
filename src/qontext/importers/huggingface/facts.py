"""What tasks need to know beside the graph."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...models.encoder_config import EncoderConfig
from .config import padding_token
from .family import Family
from .files import optional_json
from .pooling import Pooling
from .prompts import Prompts
from .token_ids import USUAL, check_rows, ids_of, special_ids
from .tokenizer_json import parse_tokenizer


def facts_for_tasks(
    folder: Path,
    raw: Mapping[str, Any],
    family: Family,
    config: EncoderConfig,
    task: str,
    pooling: Pooling | None,
    tokenizer: str | None,
    prompts: Prompts,
) -> dict[str, Any]:
    """Labels, limits, special tokens and their ids; JSON-able.

    Raises TokenizerError when the tokenizer breaks a bound, or has ids that the model has no embeddings for.
    """
    longest = config.max_length
    if pooling is not None and pooling.max_length:
        longest = min(longest, pooling.max_length)
    facts: dict[str, Any] = {
        "max_length": longest,
        "vocabulary": config.vocabulary,
        "hidden_size": config.hidden,
        "pad_token_id": padding_token(raw, family) or 0,
        "model_type": raw.get("model_type"),
    }
    if task in ("classify", "token-classify"):
        labels = raw.get("id2label")
        if isinstance(labels, dict):
            facts["labels"] = {str(k): str(v) for k, v in labels.items()}
        facts["problem_type"] = raw.get("problem_type")
    if pooling is not None:
        facts["pooling"], facts["normalize"] = list(pooling.modes), pooling.normalize
        facts["prompts"], facts["default_prompt"] = dict(prompts.texts), prompts.default
        facts["prompts_pooled"] = prompts.pooled
    return facts | special_tokens(folder, tokenizer, config.vocabulary)


def special_tokens(folder: Path, tokenizer: str | None, vocabulary: int) -> dict[str, Any]:
    """The special tokens that the folder names, and their ids in the tokenizer (the text of its JSON).

    Raises TokenizerError as `facts_for_tasks` does.
    """
    settings = {**optional_json(folder / "special_tokens_map.json"), **optional_json(folder / "tokenizer_config.json")}
    facts: dict[str, Any] = {}
    names = {}
    for name in USUAL:
        token = settings.get(f"{name}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            facts[f"{name}_token"] = names[name] = token
    if tokenizer is not None:
        ids = ids_of(parse_tokenizer(tokenizer))
        check_rows(ids, vocabulary)
        facts |= {f"{name}_token_id": found for name, found in special_ids(ids, names).items()}
    return facts
