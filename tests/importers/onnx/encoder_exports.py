"""Tiny encoders of every family with random weights, and what torch's two exporters make of them."""

import functools
import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers as tf

VOCABULARY, LONGEST = 99, 64
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": LONGEST,
    "type_vocab_size": 2,
    "pad_token_id": 1,
}


@dataclass(frozen=True)
class Encoder:
    """A module with a head, what its exports are called with, and what it is for."""

    module: type[torch.nn.Module]
    config: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    task: str


_IDS, _IDS_AND_TYPES = ("input_ids", "attention_mask"), ("input_ids", "attention_mask", "token_type_ids")

ENCODERS = {
    "bert": Encoder(tf.BertForMaskedLM, tf.BertConfig(**_SIZES), _IDS_AND_TYPES, ("logits",), "fill-mask"),
    "roberta": Encoder(
        tf.RobertaForSequenceClassification, tf.RobertaConfig(**_SIZES, num_labels=3), _IDS, ("logits",), "classify"
    ),
    "xlm-roberta": Encoder(
        tf.XLMRobertaForTokenClassification,
        tf.XLMRobertaConfig(**_SIZES, num_labels=5),
        _IDS,
        ("logits",),
        "token-classify",
    ),
    "distilbert": Encoder(
        tf.DistilBertForQuestionAnswering,
        tf.DistilBertConfig(
            vocab_size=VOCABULARY, dim=24, n_layers=2, n_heads=3, hidden_dim=40, max_position_embeddings=LONGEST
        ),
        _IDS,
        ("start_logits", "end_logits"),
        "answer",
    ),
    "electra": Encoder(
        tf.ElectraModel,
        tf.ElectraConfig(**_SIZES, embedding_size=16),
        _IDS_AND_TYPES,
        ("last_hidden_state",),
        "encode",
    ),
    "albert": Encoder(
        tf.AlbertForMaskedLM,
        tf.AlbertConfig(**_SIZES, embedding_size=16),
        _IDS_AND_TYPES,
        ("logits",),
        "fill-mask",
    ),
    "mpnet": Encoder(tf.MPNetModel, tf.MPNetConfig(**_SIZES), _IDS, ("last_hidden_state", "pooler_output"), "encode"),
}


@functools.cache
def module_of(family: str) -> torch.nn.Module:
    """The module in evaluation mode, its weights large enough for differences to show."""
    encoder = ENCODERS[family]
    torch.manual_seed(sum(map(ord, family)))
    with quiet():
        module = encoder.module(encoder.config).eval()
    for parameter in module.parameters():
        parameter.data.normal_(0, 0.2)
    return module


def batch(family: str, rows: int = 3, length: int = 11) -> dict[str, torch.Tensor]:
    """Ragged random ids, padded on the right."""
    generator = torch.Generator().manual_seed(rows * 100 + length)
    ids = torch.randint(2, VOCABULARY, (rows, length), generator=generator)
    mask = torch.ones(rows, length, dtype=torch.int64)
    for row in range(1, rows):
        mask[row, length - 2 * row - 1 :] = 0
    ids[mask == 0] = 1
    types = torch.randint(0, 2, (rows, length), generator=generator)
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return {name: given[name] for name in ENCODERS[family].inputs}


def right_outputs(family: str, inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """What the module itself computes."""
    with torch.no_grad():
        result = module_of(family)(**inputs)
    return {name: result[name].numpy() for name in ENCODERS[family].outputs}


@functools.cache
def by_torchscript(family: str, opset: int) -> bytes:
    """An export of the tracing exporter. Before opset 14 it knows no fused attention."""
    encoder, module, inputs = ENCODERS[family], module_of(family), batch(family, 2, 7)
    axes = {name: {0: "batch", 1: "sequence"} for name in encoder.inputs}
    module.set_attn_implementation("eager" if opset < 14 else "sdpa")
    file = io.BytesIO()
    with quiet():
        torch.onnx.export(
            _Positional(module, encoder).eval(),
            tuple(inputs.values()),
            file,
            dynamo=False,
            opset_version=opset,
            input_names=list(encoder.inputs),
            output_names=list(encoder.outputs),
            dynamic_axes=axes,
        )
    return file.getvalue()


@functools.cache
def _exported(family: str) -> torch.export.ExportedProgram:
    module, inputs = module_of(family), batch(family, 2, 7)
    module.set_attn_implementation("sdpa")
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with quiet():
        return torch.export.export(module, (), kwargs=inputs, dynamic_shapes=dict.fromkeys(inputs, free))


@functools.cache
def by_dynamo(family: str, opset: int) -> bytes:
    """An export of the graph-capturing exporter; it makes up names for outputs and sizes."""
    with quiet():
        program = torch.onnx.export(_exported(family), dynamo=True, opset_version=opset, verbose=False)
    return program.model_proto.SerializeToString()


class _Positional(torch.nn.Module):
    """Takes inputs by position and returns the outputs of interest, as the tracing exporter likes it."""

    def __init__(self, inner: torch.nn.Module, encoder: Encoder):
        super().__init__()
        self.inner = inner
        self.encoder = encoder

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        result = self.inner(**dict(zip(self.encoder.inputs, inputs, strict=True)))
        return tuple(result[name] for name in self.encoder.outputs)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps what the exporters print and warn about out of the test's output."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with (
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
    logging.disable(level)
