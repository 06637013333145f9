"""What an imported graph was trained for, as far as the names and shapes of its outputs tell."""

import onnx_ir as ir

from ..errors import ArgumentError
from ..graph.dims import Shape, from_onnx
from ..graph.model import InputRule

TASKS = ("fill-mask", "embed", "classify", "token-classify", "answer", "encode")


def check_task(task: str | None) -> None:
    """Raises ArgumentError for a task that qontext does not know."""
    if task is not None and task not in TASKS:
        raise ArgumentError(f"task is {task!r}; allowed are {', '.join(TASKS)}")


def task_of(graph: ir.Graph, rules: dict[str, InputRule]) -> str | None:
    """The task, None when the outputs do not tell."""
    outputs = {str(v.name): from_onnx(v.shape) for v in graph.outputs}
    if {"start_logits", "end_logits"} <= outputs.keys():
        return "answer"
    if "sentence_embedding" in outputs:
        return "embed"
    if "logits" in outputs:
        return _of_logits(outputs["logits"], rules)
    return "encode" if "last_hidden_state" in outputs else None


def _of_logits(shape: Shape | None, rules: dict[str, InputRule]) -> str | None:
    """Logits `[B, S, V]` over the vocabulary, `[B, S, C]` over labels of tokens, `[B, C]` over labels of texts."""
    if shape is None or len(shape) not in (2, 3):
        return None
    if len(shape) == 2:
        return "classify"
    vocabularies = [r.limit for name, r in rules.items() if name == r.like and r.limit is not None]
    if shape[2] in vocabularies:
        return "fill-mask"
    return "token-classify" if vocabularies else None
