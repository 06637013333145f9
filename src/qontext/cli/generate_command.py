"""generate."""

import sys
from typing import Annotated, Any

import typer

from .console import show
from .engines import open_engine, read_texts
from .options import Device, File, Json, Precision, Texts, Verbose

ModelOption = Annotated[str, typer.Option("--model", "-m", help="folder or hub id of a decoder, or a .qx engine")]


def generate(
    model: ModelOption,
    texts: Texts = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", "-n", help="tokens at most for each prompt")] = 64,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="go on behind end-of-sequence tokens")] = False,
    ids: Annotated[bool, typer.Option("--ids", help="prompts are token ids, separated by blanks or commas")] = False,
    cache: Annotated[str, typer.Option("--cache", help="paged or contiguous")] = "paged",
    tokens_per_page: Annotated[int, typer.Option("--tokens-per-page", help="of a paged cache")] = 64,
    kv_cache: Annotated[
        str, typer.Option("--kv-cache", help="int8 or fp8, with scales measured on the prompts; else as the precision")
    ] = "",
    temperature: Annotated[float, typer.Option("--temperature", help="over 0 draws tokens; 0: the most likely")] = 0.0,
    top_k: Annotated[int, typer.Option("--top-k", help="draw from so many of the most likely tokens; 0: all")] = 0,
    top_p: Annotated[float, typer.Option("--top-p", help="draw from the fewest tokens that reach this share")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="of the draws")] = 0,
    beams: Annotated[int, typer.Option("--beams", help="over 1: beam search")] = 1,
    length_penalty: Annotated[float, typer.Option("--length-penalty", help="of beam search; over 0: longer")] = 1.0,
    file: File = None,
    precision: Precision = "fp32",
    device: Device = "cpu",
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Continues each prompt: with the most likely tokens, with drawn ones, or by beam search."""
    from ..errors import ArgumentError

    if cache not in ("paged", "contiguous"):
        raise ArgumentError(f"--cache is {cache!r}, allowed: paged, contiguous")
    if cache == "paged" and tokens_per_page < 1:
        raise ArgumentError(f"--tokens-per-page is {tokens_per_page}, it has to be at least 1")
    given = read_texts(texts, file)
    prompts: list[Any] = [_ids(text) for text in given] if ids else list(given)
    held = _eight_bits(model, kv_cache, prompts)
    engine = open_engine(model, precision, device, verbose, tune=False, task="generate", kv_cache=held)
    page = tokens_per_page if cache == "paged" else 0
    settings = {
        "ignore_eos": ignore_eos, "tokens_per_page": page, "temperature": temperature, "top_k": top_k, "top_p": top_p,
        "seed": seed, "beams": beams, "length_penalty": length_penalty,
    }  # fmt: skip
    if len(prompts) == 1 and not json and not ids and beams == 1:
        sys.stdout.write(given[0])
        for _, piece in engine.generate(prompts, max_new_tokens, stream=True, **settings):
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
        return
    found = engine.generate(prompts, max_new_tokens, **settings)
    rows = [{"prompt": p, "generated": g} for p, g in zip(prompts, found, strict=True)]
    show({"results": rows}, json, lambda: "\n".join(_line(row) for row in rows))


def _eight_bits(model: str, kind: str, prompts: list[Any]) -> Any:
    from ..errors import ArgumentError
    from ..quant.caches import KvCache

    if kind and model.endswith(".qx"):
        raise ArgumentError(f"--kv-cache is {kind!r}, but {model} is an engine; its caches are those it was built with")
    return KvCache(kind, samples=prompts) if kind else None


def _ids(text: str) -> list[int]:
    from ..errors import ArgumentError

    parts = text.replace(",", " ").split()
    if not all(p.isdigit() for p in parts):
        raise ArgumentError(f"--ids: {text[:60]!r} is no list of token ids")
    return [int(p) for p in parts]


def _line(row: dict[str, Any]) -> str:
    if isinstance(row["generated"], str):
        return f"{row['prompt']}{row['generated']}"
    return " ".join(map(str, row["generated"]))


def register(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command("generate")(generate)
