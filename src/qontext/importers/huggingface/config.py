"""From config.json to our configuration, every problem in one message."""

from collections.abc import Mapping
from typing import Any

from ...errors import ModelFormatError, UnsupportedModelError, all_problems
from ...models.encoder_config import RELATIVE_BUCKETS, EncoderConfig
from .catalogue import BY_TYPE
from .family import Family

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
_DEFAULTS = {"epsilon": 1e-12, "types": 2, "activation": "gelu", "relative_buckets": RELATIVE_BUCKETS}
_LEAST = {"types": 0, "relative_buckets": RELATIVE_BUCKETS}
_LIMITS = {
    "vocabulary": 4_000_000,
    "hidden": 65_536,
    "layers": 1_000,
    "heads": 1_024,
    "inner": 1_000_000,
    "positions": 1_000_000,
    "types": 10_000,
    "embedding": 65_536,
    "relative_buckets": 4_096,
}
_MAX_LABELS = 1_000_000
_PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")


def family_of(raw: Mapping[str, Any]) -> Family:
    """The family of a config.json. Raises UnsupportedModelError for one we do not know."""
    kind = raw.get("model_type")
    code = "config.json names code of its own (auto_map), which is never run. " if raw.get("auto_map") else ""
    if not isinstance(kind, str) or kind not in BY_TYPE:
        raise UnsupportedModelError(
            f"{code}config.json has model_type {str(kind)[:80]!r}; known are {', '.join(BY_TYPE)}. "
            "Export the model to ONNX, or pass it as a torch module"
        )
    if code:
        raise UnsupportedModelError(
            f"{code}If the network is a plain {kind}, remove auto_map from config.json and import again; otherwise "
            "export the model to ONNX, or pass it as a torch module"
        )
    return BY_TYPE[kind]


def encoder_config(raw: Mapping[str, Any], family: Family) -> EncoderConfig:
    """Our configuration.

    Raises:
        ModelFormatError: values that are missing, of the wrong type, negative or absurd.
        UnsupportedModelError: settings that are sound but not supported.
    """
    problems: list[str] = []
    values: dict[str, Any] = dict(family.fixed)
    for name, key in family.keys.items():
        value = raw.get(key, family.defaults.get(name, _DEFAULTS.get(name)))
        if name == "activation":
            if not isinstance(value, str) or value not in ACTIVATIONS:
                problems.append(f"{key} is {str(value)[:60]!r}; known are {', '.join(ACTIVATIONS)}")
            else:
                values[name] = ACTIVATIONS[value]
        elif name == "epsilon":
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 1:
                problems.append(f"{key} is {value!r}, expected a number between 0 and 1")
            else:
                values[name] = float(value)
        else:
            least = _LEAST.get(name, 1)
            if not isinstance(value, int) or isinstance(value, bool):
                problems.append(f"{key} is {str(value)[:60]!r}, expected a whole number")
            elif not least <= value <= _LIMITS[name]:
                problems.append(f"{key} is {value}, allowed are {least} to {_LIMITS[name]}")
            else:
                values[name] = value
    hidden, heads = values.get("hidden"), values.get("heads")
    if hidden and heads and hidden % heads:
        problems.append(f"{family.keys['hidden']} {hidden} is no multiple of {family.keys['heads']} {heads}")
    tied = raw.get("tie_word_embeddings", True)
    if not isinstance(tied, bool):
        problems.append(f"tie_word_embeddings is {str(tied)[:60]!r}, expected true or false")
    problems += _padding_problems(raw, family, values) + label_problems(raw)
    if problems:
        raise ModelFormatError(all_problems("config.json", problems))
    unsupported = []
    if raw.get("quantization_config") is not None:
        unsupported.append("its weights are quantised (quantization_config); dequantise them first, and save as float")
    if raw.get("position_embedding_type", "absolute") != "absolute":
        kind = str(raw["position_embedding_type"])[:60]
        unsupported.append(f"position_embedding_type {kind!r}; only 'absolute' is supported")
    if raw.get("is_decoder") or raw.get("add_cross_attention"):
        unsupported.append("it is set up as a decoder (is_decoder or add_cross_attention)")
    if unsupported:
        raise UnsupportedModelError(all_problems("config.json asks for what qontext does not have", unsupported))
    if family.roberta_positions:
        values.setdefault("padding_idx", padding_token(raw, family))
    if "{g}" in family.names["query"]:
        values.update(_groups(raw, values["layers"]))
    values["labels"], values["tied"] = label_count(raw), tied
    return EncoderConfig(**values)


def padding_token(raw: Mapping[str, Any], family: Family) -> Any:
    """pad_token_id, or the family's own where config.json does not have the key."""
    return raw.get("pad_token_id", family.pad)


def _padding_problems(raw: Mapping[str, Any], family: Family, values: Mapping[str, Any]) -> list[str]:
    """What is wrong with pad_token_id. It may be null where positions do not count from it."""
    counts = family.roberta_positions and "padding_idx" not in family.fixed
    padding = padding_token(raw, family)
    if padding is None and not counts:
        return []
    if not isinstance(padding, int) or isinstance(padding, bool):
        return [f"pad_token_id is {str(padding)[:60]!r}, expected a whole number"]
    rows = values.get("vocabulary", _LIMITS["vocabulary"])
    if not 0 <= padding < rows:
        return [f"pad_token_id is {padding}, allowed are 0 to {rows - 1}"]
    first = values.get("padding_idx", padding) + 1
    if family.roberta_positions and first >= values.get("positions", first + 1):
        key = family.keys["positions"]
        return [f"{key} is {values['positions']}, and positions begin at {first}, after pad_token_id; none is left"]
    return []


def _groups(raw: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """ALBERT: which group each layer belongs to; with inner layers the network has more of them."""
    groups, inner = raw.get("num_hidden_groups", 1), raw.get("inner_group_num", 1)
    if not isinstance(groups, int) or not isinstance(inner, int) or not 1 <= groups <= layers or not 1 <= inner <= 100:
        raise ModelFormatError(f"config.json: num_hidden_groups {groups!r} and inner_group_num {inner!r} make no sense")
    return {"groups": tuple(int(i / (layers / groups)) for i in range(layers)), "layers": layers * inner}


def label_problems(raw: Mapping[str, Any]) -> list[str]:
    """What is wrong with id2label, num_labels and problem_type."""
    problems = []
    labels, count, kind = raw.get("id2label"), raw.get("num_labels"), raw.get("problem_type")
    if labels is not None and not isinstance(labels, dict):
        problems.append(f"id2label is a {type(labels).__name__}, expected an object of numbers and names")
    elif labels:
        if set(labels) != {str(i) for i in range(len(labels))}:
            problems.append(f"id2label has keys {', '.join(map(repr, labels))[:80]}, expected 0 to {len(labels) - 1}")
        if not all(isinstance(v, (str, int)) for v in labels.values()):
            problems.append("id2label has names that are no text")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= _MAX_LABELS):
        problems.append(f"num_labels is {str(count)[:60]!r}, expected a whole number from 1 to {_MAX_LABELS}")
    if kind is not None and kind not in _PROBLEMS:
        problems.append(f"problem_type is {str(kind)[:60]!r}; known are {', '.join(_PROBLEMS)}")
    return problems


def label_count(raw: Mapping[str, Any]) -> int:
    """How many labels a classifier has."""
    return len(raw.get("id2label") or {}) or int(raw.get("num_labels") or 2)
