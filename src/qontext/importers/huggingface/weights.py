"""Checking a checkpoint against what the network needs: missing, left over and misshaped weights, all at once."""

import re
import warnings
from collections.abc import Iterable, Mapping

import torch

from ...errors import ArgumentError, UnsupportedModelError, WeightsError, all_problems
from ...models.encoder import layer_path
from ...models.encoder_config import EncoderConfig
from .decoder_family import DecoderFamily
from .family import LAYER, Family, Head

Shapes = dict[str, tuple[int, ...]]
CHECKS = ("warn", "strict", "off")
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def encoder_shapes(config: EncoderConfig, paths: Mapping[str, str]) -> Shapes:
    """Names and shapes of all encoder weights. `paths` are module paths with prefix."""
    hidden, inner, small = config.hidden, config.inner, config.embedding_size
    shapes: Shapes = {
        f"{paths['word']}.weight": (config.vocabulary, small),
        f"{paths['position']}.weight": (config.positions, small),
        **_norm(paths["embedding_norm"], small),
    }
    if config.types:
        shapes[f"{paths['type']}.weight"] = (config.types, small)
    if "projection" in paths:
        shapes.update(_linear(paths["projection"], hidden, small))
    if config.relative_buckets:
        shapes[f"{paths['relative']}.weight"] = (config.relative_buckets, config.heads)
    sizes = {"up": (inner, hidden), "down": (hidden, inner)}
    for layer in range(config.layers):
        for part in LAYER:
            path = layer_path(paths[part], config, layer)
            if part.endswith("norm"):
                shapes.update(_norm(path, hidden))
            else:
                shapes.update(_linear(path, *sizes.get(part, (hidden, hidden))))
    return shapes


def head_shapes(config: EncoderConfig, head: Head, out: int) -> Shapes:
    """Names and shapes of a head's weights; `out` rows of its last layer."""
    small, names = config.embedding_size, head.names
    shapes: Shapes = {}
    if head.kind == "mlm":
        shapes.update(_linear(names["dense"], small, config.hidden))
        shapes.update(_norm(names["norm"], small))
        shapes[names["bias"]] = (config.vocabulary,)
        return shapes
    if "dense" in names:
        shapes.update(_linear(names["dense"], config.hidden, config.hidden))
    shapes.update(_linear(names["out"], out, config.hidden))
    return shapes


def _linear(path: str, rows: int, columns: int) -> Shapes:
    return {f"{path}.weight": (rows, columns), f"{path}.bias": (rows,)}


def _norm(path: str, size: int) -> Shapes:
    return {f"{path}.weight": (size,), f"{path}.bias": (size,)}


def modern_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Checkpoints of the first years call LayerNorm's weight and bias gamma and beta."""
    return {re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", n)): t for n, t in tensors.items()}


def with_prefix(tensors: Mapping[str, torch.Tensor], prefix: str, needed: Iterable[str]) -> dict[str, torch.Tensor]:
    """Adds the family's prefix to encoder weights of a checkpoint that was saved without it."""
    if any(n.startswith(prefix) for n in tensors):
        return dict(tensors)
    wanted = set(needed)
    return {prefix + n if prefix + n in wanted or n not in wanted else n: t for n, t in tensors.items()}


def _within(name: str, modules: set[str]) -> bool:
    """Whether a weight is one of these modules' own, or a part of theirs: "classifier.weight" is of "classifier"."""
    parts = name.split(".")
    return any(".".join(parts[: i + 1]) in modules for i in range(len(parts)))


def check_weights(
    tensors: Mapping[str, torch.Tensor],
    needed: Shapes,
    family: Family | DecoderFamily,
    spare: Iterable[str],
    finite: str,
) -> dict[str, torch.Tensor]:
    """The needed weights, halves widened to float32.

    Args:
        tensors: the checkpoint.
        needed: names and shapes.
        spare: modules (whole names between dots) that may be there without being used.
        finite: what to do about NaN and Inf: "warn", "strict" (refuse) or "off" (do not look).
    Raises:
        WeightsError: listing every missing, left-over, misshaped and (strict) not finite weight.
        UnsupportedModelError: weights of eight bits, which mean nothing without their scales.
    """
    if finite not in CHECKS:
        raise ArgumentError(f"check_weights is {finite!r}, allowed: {', '.join(CHECKS)}")
    problems = []
    ignored = {*spare, *(family.prefix + i for i in family.ignored), *family.ignored}
    narrow = [f"{n} is {t.dtype}" for n, t in tensors.items() if t.is_floating_point() and t.dtype not in _FLOATS]
    if narrow:
        raise UnsupportedModelError(
            all_problems("weights are quantised; dequantise them first, and save as float", narrow)
        )
    for name, shape in needed.items():
        found = tensors.get(name)
        if found is None:
            problems.append(f"missing: {name} {list(shape)}")
        elif tuple(found.shape) != shape:
            turned = " (it is transposed)" if tuple(found.shape[::-1]) == shape else ""
            problems.append(f"misshaped: {name} is {list(found.shape)}, expected {list(shape)}{turned}")
        elif not found.is_floating_point():
            problems.append(f"wrong type: {name} is {found.dtype}, expected a float type")
    problems += [
        f"left over: {n} {list(t.shape)}" for n, t in tensors.items() if n not in needed and not _within(n, ignored)
    ]
    if problems:
        raise WeightsError(all_problems("the weights do not fit the configuration", problems))
    result = {n: tensors[n].float() if tensors[n].dtype != torch.float32 else tensors[n] for n in needed}
    if finite != "off":
        bad = [n for n, t in result.items() if not bool(torch.isfinite(t.sum())) and not bool(torch.isfinite(t).all())]
        if bad and finite == "strict":
            raise WeightsError(all_problems("weights hold NaN or Inf", bad))
        if bad:
            warnings.warn(f"weights hold NaN or Inf: {', '.join(bad)}", stacklevel=2)
    return result
