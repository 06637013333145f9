"""Caches of keys and values in eight bits: int8 or fp8 (e4m3), with one scale or one for each head.

A cache holds sat8(x / step), and is read as q * step. A step is what one unit of the cache stands for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx_ir as ir
import torch

from ..errors import ArgumentError, all_problems
from ..graph.model import Model
from ..graph.tensors import to_onnx

LARGEST = {"int8": 127.0, "fp8": 448.0}  # what the largest magnitude that was measured becomes
_TYPES = {"int8": ir.DataType.INT8, "fp8": ir.DataType.FLOAT8E4M3FN}
_PAST, _TO_CACHE, _FROM_CACHE, _PRESENT = 1, 7, 8, 1  # places in GptAttention's inputs and outputs


@dataclass(frozen=True)
class KvCache:
    """How caches hold keys and values in eight bits.

    dtype:   "int8" or "fp8"
    samples: prompts, text or token ids; what they put into the caches is measured
    steps:   instead of samples: of each layer float32 [1], [Nkv], or [2, Nkv] for keys and values apart
    by_head: measured steps are one a key head, for keys and values apart; False takes one number a layer

    Without samples and steps fp8 takes steps of 1, which hold magnitudes up to 448; int8 needs one of both.
    """

    dtype: str
    samples: Sequence[Any] = ()
    steps: Sequence[torch.Tensor] = field(default=())
    by_head: bool = True

    def check(self, layers: int, kv_heads: int) -> None:
        """Raises ArgumentError for what cannot be used with a model of so many layers and key heads."""
        problems = []
        if self.dtype not in LARGEST:
            problems.append(f"kv_cache is {self.dtype!r}, allowed: {', '.join(LARGEST)}")
        if len(self.samples) and len(self.steps):
            problems.append("kv_cache has samples and steps; steps are measured on samples, or given")
        if self.dtype == "int8" and not len(self.samples) and not len(self.steps):
            problems.append(
                "kv_cache is 'int8' without samples and steps; give KvCache('int8', samples=prompts), whose keys and "
                "values are measured, or the steps of each layer"
            )
        if len(self.steps) not in (0, layers):
            problems.append(f"kv_cache has {len(self.steps)} steps, the model has {layers} layers")
        for i, step in enumerate(self.steps):
            if not isinstance(step, torch.Tensor) or tuple(step.shape) not in ((1,), (kv_heads,), (2, kv_heads)):
                shape = tuple(step.shape) if isinstance(step, torch.Tensor) else type(step).__name__
                problems.append(
                    f"kv_cache: the step of layer {i} is {shape}, allowed: [1], [{kv_heads}], [2, {kv_heads}]"
                )
            elif not bool(((step > 0) & (step < torch.inf)).all()):
                problems.append(f"kv_cache: the step of layer {i} holds numbers that are not larger than 0")
        if problems:
            raise ArgumentError(all_problems("build", problems))


def steps_of(most: torch.Tensor, how: KvCache) -> torch.Tensor:
    """Steps from the largest magnitudes [2, Nkv] of a layer's keys and values: [2, Nkv], or [1]."""
    reach = most if how.by_head else most.max().reshape(1)
    # A head that was all zeros keeps the step of the largest one: it has said nothing about what will come.
    reach = torch.where(reach > 0, reach, most.max() if float(most.max()) > 0 else torch.tensor(1.0))
    return (reach / LARGEST[how.dtype]).float()


def in_eight_bits(
    model: Model,
    how: KvCache | str,
    largest: Callable[[Sequence[Any]], Mapping[str, torch.Tensor]],
    log: Callable[[str], None],
) -> Model:
    """The decoder with caches of eight bits, whose steps are given, measured, or 1.

    Args:
        how: a string stands for its dtype.
        largest: says the largest magnitudes [2, Nkv] that prompts put into each cache of floats.
    Raises ArgumentError for a model without caches, or settings that do not fit it.
    """
    if not model.states:
        raise ArgumentError(f"build: kv_cache is given, but {model.name} is no decoder; it has no caches")
    wanted = KvCache(how) if isinstance(how, str) else how
    names = list(model.states)
    wanted.check(len(names), kv_heads_of(model))
    if len(wanted.samples):
        most = largest(wanted.samples)
        steps = {name: steps_of(most[name], wanted) for name in names}
        log(f"kv_cache: {wanted.dtype}, steps measured on {len(wanted.samples)} prompts")
    else:
        steps = dict(zip(names, list(wanted.steps) or [torch.ones(1)] * len(names), strict=True))
        log(f"kv_cache: {wanted.dtype}, steps {'given' if len(wanted.steps) else 'of 1'}")
    return with_eight_bits(model, wanted.dtype, steps)


def kv_heads_of(model: Model) -> int:
    """Key heads of a decoder's caches."""
    graph = next(iter(model.programs.values()))
    past = next(v for v in graph.inputs if v.name in model.states)
    assert past.shape is not None
    heads = past.shape[2]
    assert isinstance(heads, int)
    return heads


def with_eight_bits(model: Model, dtype: str, steps: Mapping[str, torch.Tensor]) -> Model:
    """The decoder with caches of eight bits; the model itself is left as it was.

    Args:
        steps: of each state, float32 [1], [Nkv] or [2, Nkv].
    """
    programs = {}
    for name, source in model.programs.items():
        graph = source.clone(allow_outer_scope_values=False)
        for node in graph:
            past = node.inputs[_PAST] if node.op_type == "GptAttention" and len(node.inputs) > _PAST else None
            if past is not None and past.name in steps:
                _quantise(graph, node, past, _TYPES[dtype], steps[past.name])
        programs[name] = graph
    return replace(model, programs=programs)


def _quantise(graph: ir.Graph, node: ir.Node, past: ir.Value, kind: ir.DataType, step: torch.Tensor) -> None:
    for value in (past, node.outputs[_PRESENT]):
        value.type = ir.TensorType(kind)  # a type of its own: clones of a graph share theirs
        value.meta.pop("torch", None)
    if len(node.inputs) <= _FROM_CACHE:
        node.resize_inputs(_FROM_CACHE + 1)
    for place, what, numbers in ((_TO_CACHE, "orig_quant", 1 / step), (_FROM_CACHE, "quant_orig", step)):
        scale = ir.Value(name=f"{past.name}.{what}", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(step.shape))
        scale.const_value = to_onnx(numbers.float().contiguous(), scale.name)
        graph.register_initializer(scale)
        node.replace_input_with(place, scale)
