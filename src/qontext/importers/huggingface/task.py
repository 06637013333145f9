"""Which task a folder is for: asked for, or found in config.json's architectures."""

from collections.abc import Iterable, Mapping
from typing import Any

from ...errors import ArgumentError, ModelFormatError, UnsupportedModelError
from .catalogue import TASKS
from .family import Family, Head


def choose_task(raw: Mapping[str, Any], family: Family, task: str | None, sentences: bool) -> str:
    """The task of a model.

    Args:
        raw: config.json.
        task: what the caller asked for, None to find it.
        sentences: the folder has the files of sentence-transformers, which drop the head of a language model.
    Raises:
        ArgumentError: a task that does not exist.
        ModelFormatError: architectures of a wrong type.
        UnsupportedModelError: a family without the head, or (unless a task is asked for) an architecture whose head we
            do not have.
    """
    if task is not None and task not in TASKS:
        raise ArgumentError(f"import_model: unknown task {task!r}; allowed: {', '.join(TASKS)}")
    names = raw.get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise ModelFormatError(f"config.json: architectures is {str(names)[:80]!r}, expected a list of names")
    found = {n: task_of(n, family) for n in names}
    tasks = {t for t in found.values() if t is not None}
    if task is None:
        return _found(found, tasks, family, sentences)
    if task == "classify" and tasks == {"token-classify"}:
        return "token-classify"
    if task not in ("embed", "encode") and task not in family.heads:
        raise UnsupportedModelError(f"{family.model_types[0]} has no head for {task}; it has {', '.join(family.heads)}")
    return task


def task_of(architecture: str, family: Family) -> str | None:
    """The task of one architecture; None when it is none of the family's."""
    known = {begin + end: task for begin in family.classes for end, task in family.tasks.items()}
    return known.get(architecture)


def has_architecture(raw: Mapping[str, Any]) -> bool:
    """Whether config.json names an architecture."""
    return bool(raw.get("architectures"))


def task_by_weights(names: Iterable[str], family: Family) -> str:
    """The task of the one head whose weights are there; "encode" when there is none.

    For folders whose config.json names no architecture. A head whose weights are all part of another head that is
    there does not count: a classifier on the pooler also has all that one on each token needs.

    Raises:
        UnsupportedModelError: several heads.
    """
    there = set(names)
    found: dict[str, set[str]] = {}
    for task, head in family.heads.items():
        modules = _modules(head, family)
        if all(m in there or f"{m}.weight" in there for m in modules):
            found[task] = modules
    tasks = [t for t, own in found.items() if not any(own < other for other in found.values())]
    if len(tasks) > 1:
        raise UnsupportedModelError(
            f"config.json names no architecture, and the weights have heads for {', '.join(tasks)}. Pass the task, one "
            "of them, or task='encode' for the encoder alone"
        )
    return tasks[0] if tasks else "encode"


def _modules(head: Head, family: Family) -> set[str]:
    """The modules that a checkpoint with this head has beside the encoder."""
    pooler = {family.prefix + family.pooler} if head.kind == "pooled" and family.pooler is not None else set()
    return set(head.names.values()) | pooler


def _found(found: Mapping[str, str | None], tasks: set[str], family: Family, sentences: bool) -> str:
    unknown = [n[:80] for n, t in found.items() if t is None]
    if unknown:
        known = ", ".join(family.classes[0] + end for end in family.tasks)
        raise UnsupportedModelError(
            f"config.json's architecture {', '.join(unknown)} has no head here; known are {known}. Pass "
            "task='encode' to take the encoder alone, or export the model to ONNX"
        )
    if len(tasks) > 1:
        raise UnsupportedModelError(
            f"config.json has architectures for several tasks: {', '.join(found)}. Pass the task, one of "
            f"{', '.join(sorted(tasks))}"
        )
    task = next(iter(tasks), "encode")
    return "embed" if sentences and task in ("encode", "fill-mask") else task
