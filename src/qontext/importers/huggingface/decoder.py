"""From the folder of a decoder to a Model with its programs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import ArgumentError, ModelFormatError, UnsupportedModelError, all_problems
from ...graph.model import InputRule, Model
from ...layers.parts import Builder
from ...models.decoder import encode, state_names, step, step_programs
from ...models.decoder_config import DecoderConfig
from ...ops.network import Network
from . import weights as checked
from .decoder_family import DecoderFamily
from .facts import special_tokens
from .files import optional_json, read_tokenizer, read_weights

TASKS = ("generate", "encode")


def import_decoder(
    folder: Path, name: str, raw: Mapping[str, Any], family: DecoderFamily, task: str | None, check_weights: str
) -> Model:
    """Imports a decoder.

    Raises:
        ArgumentError: a task that decoders do not have.
        ModelFormatError, WeightsError, UnsupportedModelError, TokenizerError: saying what is wrong with the files.
    """
    if task is not None and task not in TASKS:
        raise ArgumentError(f"import_model: task {task!r} is for encoders; {raw['model_type']} has {', '.join(TASKS)}")
    architectures = raw.get("architectures") or []
    unknown = [str(a)[:80] for a in architectures if a not in family.classes]
    if unknown:
        raise UnsupportedModelError(
            f"config.json's architecture {', '.join(unknown)} has no head here; known are {', '.join(family.classes)}"
        )
    if raw.get("quantization_config") is not None:
        raise UnsupportedModelError(
            "config.json: the weights are quantised (quantization_config); dequantise them first, and save as float"
        )
    config, problems = family.read(raw)
    if problems or config is None:
        raise ModelFormatError(all_problems("config.json", problems))
    tensors = read_weights(folder)
    word = family.names["word"]
    prefix = "" if f"{word}.weight" in tensors else family.prefix
    needed = {f"{prefix}{word}.weight": (config.vocabulary, config.hidden)}
    needed |= family.shapes(config, prefix, tensors)
    head = f"{family.head}.weight"
    if not config.tied:
        needed[head] = (config.vocabulary, config.hidden)
    ignored = [prefix + n.replace("{i}", str(i)) for n in family.ignored for i in range(config.layers)]
    used = checked.check_weights(tensors, needed, family, [family.head, *ignored], check_weights)
    arranged = family.arrange(config, prefix, used)
    paths = {part: prefix + path for part, path in family.names.items()} | {"head": family.head}
    tokenizer = read_tokenizer(folder)
    whole = Builder(Network(name), arranged)
    encode(whole, config, paths)
    programs = {}
    for program in step_programs(config):
        build = Builder(Network(f"{name}/{program}"), arranged)
        step(build, config, paths, program)
        programs[program] = build.net.graph
    return Model(
        name=name,
        graph=whole.net.graph,
        ledger=whole.net.ledger(),
        inputs=_rules(config),
        task="generate",
        config=_facts(folder, raw, config, tokenizer),
        tokenizer=tokenizer,
        source="huggingface",
        programs=programs,
        states=state_names(config),
    )


def _rules(config: DecoderConfig) -> dict[str, InputRule]:
    rules = {"input_ids": InputRule(limit=config.vocabulary), "attention_mask": InputRule("ones")}
    if config.learned:
        rules["position_ids"] = InputRule("arange", limit=config.positions)
    return rules


def _facts(folder: Path, raw: Mapping[str, Any], config: DecoderConfig, tokenizer: str | None) -> dict[str, Any]:
    """Limits, special tokens, and where generation ends; JSON-able.

    Raises TokenizerError when the tokenizer breaks a bound, or has ids that the model has no embeddings for.
    """
    generation = optional_json(folder / "generation_config.json")
    ends = generation.get("eos_token_id", raw.get("eos_token_id"))
    ends = [ends] if isinstance(ends, int) else ends or []
    if not isinstance(ends, list) or not all(isinstance(e, int) and not isinstance(e, bool) for e in ends):
        raise ModelFormatError(f"eos_token_id is {str(ends)[:60]!r}, expected a token id or a list of them")
    facts: dict[str, Any] = {
        "max_length": config.positions,
        "vocabulary": config.vocabulary,
        "hidden_size": config.hidden,
        "model_type": raw.get("model_type"),
        "end_token_ids": ends,
    }
    pad = raw.get("pad_token_id")
    facts["pad_token_id"] = pad if isinstance(pad, int) and 0 <= pad < config.vocabulary else 0
    return facts | special_tokens(folder, tokenizer, config.vocabulary)
