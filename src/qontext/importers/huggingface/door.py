"""The Hugging Face door: folder or hub id in, Model out."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ...graph.model import InputRule, Model
from ...layers.parts import Builder
from ...models import heads
from ...models.encoder import encoder, encoder_inputs
from ...models.encoder_config import EncoderConfig
from ...ops.network import Network
from . import weights as checked
from .config import encoder_config, family_of
from .decoder import import_decoder
from .decoder_family import decoder_family_of
from .facts import facts_for_tasks
from .family import Family, Head
from .files import read_json, read_tokenizer, read_weights
from .hub import find_folder, model_name
from .pooling import Pooling, read_pooling
from .prompts import Prompts, read_prompts
from .sentence import encoder_folder, is_sentence_folder
from .task import choose_task, has_architecture, task_by_weights, task_of
from .tokenizer_json import lower_cased


def import_folder(
    source: str | Path, task: str | None = None, revision: str | None = None, check_weights: str = "warn"
) -> Model:
    """Imports a Hugging Face folder.

    Args:
        source: a folder with config.json and safetensors (or that of a sentence-transformers model), a hub id, or
            "demo-bert" for the model in the package.
        task: "fill-mask", "classify", "token-classify", "answer", "embed", "generate" or "encode"; found from the
            files when left out.
        revision: of a hub model.
        check_weights: "warn" about NaN and Inf, "strict" refuses them, "off" does not look.
    Raises:
        ModelFormatError, WeightsError, UnsupportedModelError, TokenizerError: saying what is wrong with the files.
        ArgumentError: an unknown task or a path that does not exist.
    """
    whole = find_folder(source, revision)
    folder, name = encoder_folder(whole), model_name(source, whole)
    raw = read_json(folder / "config.json")
    decoder = decoder_family_of(raw)
    if decoder is not None:
        return import_decoder(folder, name, raw, decoder, task, check_weights)
    family = family_of(raw)
    named = task is not None or has_architecture(raw)
    task = choose_task(raw, family, task, is_sentence_folder(whole))
    tensors = checked.modern_names(read_weights(folder))
    if not named and task == "encode":
        task = task_by_weights(tensors, family)
    pooling = read_pooling(whole) if task == "embed" else None
    prompts = read_prompts(whole) if task == "embed" else Prompts()
    config = encoder_config(raw, family)
    head = family.heads.get(task)
    paths = _paths(family, config)
    out = 2 if task == "answer" else config.labels
    needed = checked.encoder_shapes(config, paths)
    if head is not None:
        needed |= checked.head_shapes(config, head, out)
    tensors = checked.with_prefix(tensors, family.prefix, needed)
    pooled = family.pooler is not None and f"{family.prefix}{family.pooler}.weight" in tensors
    if family.pooler is not None and (pooled or (head is not None and head.kind == "pooled")):
        path = family.prefix + family.pooler
        if (head is not None and head.kind == "pooled") or task == "encode":
            needed |= {f"{path}.weight": (config.hidden, config.hidden), f"{path}.bias": (config.hidden,)}
    if head is not None and head.kind == "mlm":
        _untie(tensors, head, paths["word"], needed, config)
    used = checked.check_weights(tensors, needed, family, _spare(family, raw, tensors), check_weights)
    build = Builder(Network(name), used)
    _draw(build, config, family, head, task, paths, pooling)
    tokenizer = read_tokenizer(folder)
    if tokenizer is not None and pooling is not None and pooling.lower_case:
        tokenizer = lower_cased(tokenizer)
    return Model(
        name=name,
        graph=build.net.graph,
        ledger=build.net.ledger(),
        inputs=_rules(config),
        task=task,
        config=facts_for_tasks(folder, raw, family, config, task, pooling, tokenizer, prompts),
        tokenizer=tokenizer,
        source="huggingface",
        attention_mask="attention_mask",
    )


def _paths(family: Family, config: EncoderConfig) -> dict[str, str]:
    paths = {part: family.prefix + path for part, path in family.names.items()}
    if "projection" in paths and config.embedding_size == config.hidden and "{g}" not in family.names["query"]:
        del paths["projection"]  # ELECTRA projects only where the sizes differ; ALBERT always does
    return paths


def _untie(tensors: dict[str, Any], head: Head, word: str, needed: checked.Shapes, config: EncoderConfig) -> None:
    """The decoder of a masked language model is the word embedding, unless the checkpoint says otherwise."""
    import torch

    for path in head.tied:
        own = tensors.pop(f"{path}.weight", None)
        bias = tensors.pop(f"{path}.bias", None)
        if bias is not None:
            tensors[head.names["bias"]] = bias  # the decoder's own bias is the one that counts where both are saved
        base = tensors.get(f"{word}.weight")
        if own is not None and base is not None and (own.shape != base.shape or not torch.equal(own, base)):
            tensors[f"{path}.weight"] = own
        if f"{path}.weight" in tensors or (own is None and not config.tied):
            needed[f"{path}.weight"] = (config.vocabulary, config.embedding_size)


def _spare(family: Family, raw: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Modules of heads that this task does not use: the family's, and those of an architecture that we do not know."""
    spare = [name for head in family.heads.values() for name in (*head.names.values(), *head.tied)]
    if family.pooler is not None:
        spare.append(family.prefix + family.pooler)
    if any(task_of(a, family) is None for a in raw.get("architectures") or []):
        spare += [n for n in names if not n.startswith(family.prefix)]
    return spare


def _rules(config: EncoderConfig) -> dict[str, InputRule]:
    rules = {
        "input_ids": InputRule(limit=config.vocabulary),
        "attention_mask": InputRule("ones"),
        "position_ids": InputRule("arange", limit=config.positions),
    }
    if config.padding_idx is not None:
        rules["position_ids"] = InputRule(
            "positions_after_padding", limit=config.positions, padding_idx=config.padding_idx
        )
    if config.types:
        rules["token_type_ids"] = InputRule("zeros", limit=config.types)
    return rules


def _draw(
    build: Builder,
    config: EncoderConfig,
    family: Family,
    head: Head | None,
    task: str,
    paths: Mapping[str, str],
    pooling: Pooling | None,
) -> None:
    net = build.net
    inputs = encoder_inputs(build, config)
    hidden = encoder(build, config, paths, inputs)
    if head is None:
        if task == "embed":
            assert pooling is not None
            pooled = heads.sentence_embedding(build, hidden, inputs["attention_mask"], pooling.modes, pooling.normalize)
            net.output(pooled, "sentence_embedding")
            return
        net.output(hidden, "last_hidden_state")
        if family.pooler is not None and f"{family.prefix}{family.pooler}.weight" in build.weights:
            net.output(heads.pooler(build, hidden, family.prefix + family.pooler), "pooler_output")
        return
    activation = config.activation if head.activation == "hidden" else head.activation
    if head.kind == "mlm":
        own = next((f"{p}.weight" for p in head.tied if f"{p}.weight" in build.weights), f"{paths['word']}.weight")
        net.output(heads.masked_language_model(build, config, hidden, head.names, activation, own), "logits")
    elif head.kind == "span":
        begin, end = heads.span(build, hidden, head.names)
        net.output(begin, "start_logits")
        net.output(end, "end_logits")
    else:
        x: ir.Value = hidden
        if head.kind == "pooled":
            assert family.pooler is not None
            x = heads.pooler(build, hidden, family.prefix + family.pooler)
        elif head.kind == "first":
            x = heads.first_token(build, hidden, next(iter(head.names.values())).rpartition(".")[0] or "classifier")
        net.output(heads.classifier(build, x, head.names, activation), "logits")
