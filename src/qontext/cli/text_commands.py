"""fill-mask, embed, classify, answer."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .console import counting, show
from .engines import open_pipeline, read_texts
from .options import DEMO, Device, File, Json, Model, Precision, Texts, Verbose


def fill_mask(
    texts: Texts = None,
    model: Model = DEMO,
    top: Annotated[int, typer.Option("--top", "-k", help="candidates for each text")] = 10,
    file: File = None,
    precision: Precision = "fp32",
    device: Device = "cpu",
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Fills the [MASK] of each text with the most likely words."""
    given = read_texts(texts, file)
    found = open_pipeline("fill-mask", model, precision, device, verbose)(given, top=top)
    data: Any = {"candidates": found[0]} if len(given) == 1 else {"candidates": found}

    def text() -> str:
        blocks = []
        for source, rows in zip(given, found, strict=True):
            head = [source] if len(given) > 1 else []
            blocks.append("\n".join(head + [f"{r['probability']:9.4%}  {r['token']:<16} {r['text']}" for r in rows]))
        return "\n\n".join(blocks)

    show(data, json, text)


def embed(
    texts: Texts = None,
    model: Model = DEMO,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="write a .npy array [n, E]")] = None,
    file: File = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="name of a prompt of the model; '' for none (default: the model's)")
    ] = None,
    precision: Precision = "fp32",
    device: Device = "cpu",
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Turns each text into a sentence embedding."""
    import numpy as np

    given = read_texts(texts, file)
    run = open_pipeline("embed", model, precision, device, verbose)
    with counting("embedding", len(given)) as advance:
        vectors = run(given, progress=advance, prompt=prompt)
    if output is not None:
        np.save(output, vectors)
        show({"output": output.name, "shape": list(vectors.shape)}, json, lambda: f"{output}: {list(vectors.shape)}")
        return
    rows = [{"text": t, "embedding": v.tolist()} for t, v in zip(given, vectors, strict=True)]
    show({"embeddings": rows}, json, lambda: "\n".join(_vector_line(r) for r in rows))


def _vector_line(row: dict[str, Any]) -> str:
    vector = row["embedding"]
    shown = ", ".join(f"{x:.4f}" for x in vector[:6])
    return f"{row['text']}\n  [{shown}{', ...' if len(vector) > 6 else ''}]  ({len(vector)} numbers)"


def classify(
    texts: Texts = None,
    model: Model = DEMO,
    file: File = None,
    precision: Precision = "fp32",
    device: Device = "cpu",
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Gives each text its label; models of tokens give a label for each word."""
    given = read_texts(texts, file)
    found = open_pipeline("classify", model, precision, device, verbose)(given)
    show({"results": found}, json, lambda: "\n".join(f"{_labels(r)}  {t}" for t, r in zip(given, found, strict=True)))


def _labels(result: Any) -> str:
    rows = result if isinstance(result, list) else [result]
    return " ".join(f"{r.get('word', '')}{'=' if 'word' in r else ''}{r['label']} ({r['score']:.3f})" for r in rows)


def answer(
    question: Annotated[str, typer.Argument(help="the question")],
    context: Annotated[str | None, typer.Argument(help="the text that holds the answer")] = None,
    model: Model = DEMO,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="read the text from a file")] = None,
    stride: Annotated[int, typer.Option(help="tokens between windows of a long text")] = 128,
    n_best: Annotated[int, typer.Option(help="candidates kept")] = 20,
    top: Annotated[int, typer.Option("--top", "-k", help="answers shown")] = 1,
    precision: Precision = "fp32",
    device: Device = "cpu",
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Finds the answer to a question in a text of any length."""
    text = context if context is not None else "\n".join(read_texts(None, file))
    rows = open_pipeline("answer", model, precision, device, verbose)(question, text, stride=stride, n_best=n_best)
    rows = rows[:top]
    show(
        {"answers": rows},
        json,
        lambda: "\n".join(f"{r['score']:8.4f}  {r['text']}  [{r['begin']}:{r['end']}]" for r in rows),
    )


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command("fill-mask")(fill_mask)
    app.command("embed")(embed)
    app.command("classify")(classify)
    app.command("answer")(answer)
