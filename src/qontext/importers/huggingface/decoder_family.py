"""What a family of decoders is: how to read its config.json, and where its weights lie."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ...errors import UnsupportedModelError
from ...models.decoder_config import DecoderConfig

Tensors = dict[str, torch.Tensor]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class DecoderFamily:
    """One family of decoders.

    model_types: values of config.json's model_type
    classes:     names in config.json's architectures that have the head
    prefix:      of the weights when the head is there
    names:       our part -> Hugging Face name without prefix; "{i}" is the layer
    head:        name of the head
    read:        config.json -> our configuration and sentences about what is wrong or not supported
    shapes:      configuration -> names (as in the files) and shapes of a layer's weights
    arrange:     puts the weights of a checkpoint under the names and in the order of our network
    ignored:     beginnings of weight names that are known and not needed
    """

    model_types: tuple[str, ...]
    classes: tuple[str, ...]
    prefix: str
    names: Mapping[str, str]
    head: str
    read: Callable[[Mapping[str, Any]], tuple[DecoderConfig | None, list[str]]]
    shapes: Callable[[DecoderConfig, str, Mapping[str, torch.Tensor]], Shapes]
    arrange: Callable[[DecoderConfig, str, Tensors], Tensors]
    ignored: tuple[str, ...] = ()


def decoder_family_of(raw: Mapping[str, Any]) -> DecoderFamily | None:
    """The family of a config.json, None when it is no decoder that we know.

    Raises UnsupportedModelError for one with code of its own.
    """
    from .gpt2 import GPT2
    from .llama import LLAMA

    kind = raw.get("model_type")
    family = next((f for f in (GPT2, LLAMA) if kind in f.model_types), None)
    if family is not None and raw.get("auto_map"):
        raise UnsupportedModelError(
            f"config.json names code of its own (auto_map), which is never run. If the network is a plain {kind}, "
            "remove auto_map from config.json and import again"
        )
    return family


class Reader:
    """Reads values of config.json and collects sentences about those that are wrong."""

    def __init__(self, raw: Mapping[str, Any]):
        self.raw = raw
        self.problems: list[str] = []

    def whole(self, key: str, default: int | None = None, least: int = 1, most: int = 10_000_000) -> int:
        """A whole number; `default` where the key is missing or null."""
        value = self.raw.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool):
            self.problems.append(f"{key} is {str(value)[:60]!r}, expected a whole number")
            return least
        if not least <= value <= most:
            self.problems.append(f"{key} is {value}, allowed are {least} to {most}")
            return least
        return value

    def number(self, key: str, default: float, low: float = 0.0, raw: Mapping[str, Any] | None = None) -> float:
        """A number above `low`."""
        source = self.raw if raw is None else raw
        value = source.get(key)
        value = default if value is None else value
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > low or value != value:
            self.problems.append(f"{key} is {str(value)[:60]!r}, expected a number above {low:g}")
            return default
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.raw.get(key, default)
        if not isinstance(value, bool):
            self.problems.append(f"{key} is {str(value)[:60]!r}, expected true or false")
            return default
        return value
