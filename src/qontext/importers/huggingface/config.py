"""From config.json to our configuration, every problem in one message."""

from collections.abc import Mapping
from typing import Any

from ...errors import ModelFormatError, UnsupportedModelError, all_problems
from ...models.encoder_config import EncoderConfig
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
_DEFAULTS = {"epsilon": 1e-12, "types": 2, "activation": "gelu", "relative_buckets": 32}
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


def family_of(raw: Mapping[str, Any]) -> Family:
    """The family of a config.json. Raises UnsupportedModelError for one we do not know."""
    kind = raw.get("model_type")
    if kind not in BY_TYPE:
        code = " The code that auto_map names is never run." if "auto_map" in raw else ""
        raise UnsupportedModelError(
            f"config.json has model_type {str(kind)[:80]!r}; known are {', '.join(BY_TYPE)}.{code} "
            "Export the model to ONNX, or pass it as a torch module"
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
        value = raw.get(key, _DEFAULTS.get(name))
        if name == "activation":
            if value not in ACTIVATIONS:
                problems.append(f"{key} is {str(value)[:60]!r}; known are {', '.join(ACTIVATIONS)}")
            else:
                values[name] = ACTIVATIONS[value]
        elif name == "epsilon":
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 1:
                problems.append(f"{key} is {value!r}, expected a number between 0 and 1")
            else:
                values[name] = float(value)
        else:
            least = 0 if name == "types" else 1
            if not isinstance(value, int) or isinstance(value, bool):
                problems.append(f"{key} is {str(value)[:60]!r}, expected a whole number")
            elif not least <= value <= _LIMITS[name]:
                problems.append(f"{key} is {value}, allowed are {least} to {_LIMITS[name]}")
            else:
                values[name] = value
    hidden, heads = values.get("hidden"), values.get("heads")
    if hidden and heads and hidden % heads:
        problems.append(f"{family.keys['hidden']} {hidden} is no multiple of {family.keys['heads']} {heads}")
    if problems:
        raise ModelFormatError(all_problems("config.json", problems))
    unsupported = []
    if raw.get("position_embedding_type", "absolute") != "absolute":
        unsupported.append(f"position_embedding_type {raw['position_embedding_type']!r}; only 'absolute' is supported")
    if raw.get("is_decoder") or raw.get("add_cross_attention"):
        unsupported.append("it is set up as a decoder (is_decoder or add_cross_attention)")
    if unsupported:
        raise UnsupportedModelError(all_problems("config.json asks for what qontext does not have", unsupported))
    if family.roberta_positions:
        padding = raw.get("pad_token_id")
        values["padding_idx"] = padding if isinstance(padding, int) and padding >= 0 else 1
    if "{g}" in family.names["query"]:
        values.update(_groups(raw, values["layers"]))
    values["labels"] = label_count(raw)
    return EncoderConfig(**values)


def _groups(raw: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """ALBERT: which group each layer belongs to; with inner layers the network has more of them."""
    groups, inner = raw.get("num_hidden_groups", 1), raw.get("inner_group_num", 1)
    if not isinstance(groups, int) or not isinstance(inner, int) or not 1 <= groups <= layers or not 1 <= inner <= 100:
        raise ModelFormatError(f"config.json: num_hidden_groups {groups!r} and inner_group_num {inner!r} make no sense")
    return {"groups": tuple(int(i / (layers / groups)) for i in range(layers)), "layers": layers * inner}


def label_count(raw: Mapping[str, Any]) -> int:
    """How many labels a classifier has."""
    labels = raw.get("id2label")
    if isinstance(labels, dict) and labels:
        return len(labels)
    count = raw.get("num_labels", 2)
    return count if isinstance(count, int) and count > 0 else 2
