"""What a tokenizer.json may hold, checked before the library sees it.

The bounds keep tokenising linear in the length of a text: words of WordPiece are short, patterns cannot backtrack,
replacements hardly grow the text, and there are few steps.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from ...errors import TokenizerError, all_problems

MAX_WORD = 100
MAX_PIECE = 256
MAX_STEPS = 64
MAX_GROWTH = 16
MAX_PATTERN = 256
_STEPS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
# Of GPT-2 and CLIP; each alternative runs on to its end, or gives back one character.
KNOWN_PATTERNS = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
)
# One character or class; and an alternative whose only open-ended repeat is its last atom, so that it never backtracks.
_CLASS = r"\[\^?(?:\\.|\\[pP]\{\w{1,20}\}|[^\\\[\]])+\]"
_ATOM = rf"(?:\\[sSdDwWnrt]|\\[pP]\{{\^?\w{{1,20}}\}}|\\[^\w\s]|{_CLASS}|[^\\^$|?*+()\[\]{{}}])"
_BRANCH = rf"\^?(?:{_ATOM}\?)?(?:{_ATOM})*(?:{_ATOM}(?:[*+?]|\{{\d{{1,2}}(?:,(?:\d{{1,2}})?)?\}}))?"
_PATTERN = re.compile(rf"{_BRANCH}(?:\|{_BRANCH})*")


def parse_tokenizer(text: str) -> dict[str, Any]:
    """The object in a tokenizer.json, within its bounds.

    Raises:
        TokenizerError: no JSON object, or one that breaks a bound; all problems in one message.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"tokenizer.json is no valid JSON: {error}") from error
    if not isinstance(value, dict) or not isinstance(value.get("model"), dict):
        raise TokenizerError("tokenizer.json is no object with a model")
    problems = _model_problems(value["model"])
    for part in _STEPS:
        problems += [f"{part}: {p}" for p in _step_problems(value.get(part))]
    if problems:
        raise TokenizerError(all_problems("tokenizer.json is not accepted", problems))
    return value


def lower_cased(text: str) -> str:
    """The tokenizer with a step before all others that lower-cases the text."""
    value = parse_tokenizer(text)
    steps = [{"type": "Lowercase"}, *([value["normalizer"]] if value.get("normalizer") else [])]
    return json.dumps({**value, "normalizer": {"type": "Sequence", "normalizers": steps}}, ensure_ascii=False)


def _model_problems(model: dict[str, Any]) -> list[str]:
    problems = []
    longest = model.get("max_input_chars_per_word", MAX_WORD)
    if not isinstance(longest, int) or isinstance(longest, bool) or not 1 <= longest <= MAX_WORD:
        problems.append(f"model: max_input_chars_per_word is {str(longest)[:60]!r}, allowed are 1 to {MAX_WORD}")
    prefix = model.get("continuing_subword_prefix") or ""
    if not isinstance(prefix, str) or len(prefix) > 16:
        problems.append(f"model: continuing_subword_prefix is {str(prefix)[:60]!r}, allowed are up to 16 characters")
    if model.get("dropout"):
        problems.append(
            f"model: dropout is {str(model['dropout'])[:60]!r}, so a text would be cut differently each time; it is "
            "meant for training, set it to null"
        )
    pieces = model.get("vocab")
    if not isinstance(pieces, (dict, list)):
        problems.append(f"model: vocab is a {type(pieces).__name__}, expected an object or a list")
    if isinstance(pieces, list):  # Unigram tries every piece at every place
        names = [p[0] if isinstance(p, list) and len(p) == 2 else None for p in pieces]
        if not all(isinstance(n, str) and len(n) <= MAX_PIECE for n in names):
            problems.append(f"model: vocab has rows that are not [piece of up to {MAX_PIECE} characters, score]")
    return problems


def _step_problems(part: Any) -> list[str]:
    problems, growth, steps, pieces = [], 1.0, 0, 0
    for node in _objects(part):
        steps += "type" in node
        pattern = node.get("pattern")
        expression = pattern.get("Regex") if isinstance(pattern, dict) else None
        if expression is not None and not is_linear(expression):
            problems.append(
                f"the pattern {str(expression)[:80]!r} could take very long; a pattern may hold characters and "
                f"classes, alternatives, and a repeat at the end of each, in up to {MAX_PATTERN} characters"
            )
        if node.get("type") == "Replace":
            growth *= max(1.0, _growth(pattern, node.get("content")))
        if node.get("type") == "Prepend" and len(str(node.get("prepend"))) > MAX_GROWTH:
            problems.append(f"Prepend adds {len(str(node.get('prepend')))} characters, allowed are {MAX_GROWTH}")
        for template in (node.get("single"), node.get("pair")):
            if isinstance(template, list):
                pieces += len(template)
                problems += _template_problems(template)
    if growth > MAX_GROWTH:
        problems.append(f"Replace makes a text up to {growth:.0f} times as long, allowed are {MAX_GROWTH} times")
    if max(steps, pieces) > MAX_STEPS:
        problems.append(f"it has {steps} steps and {pieces} pieces of templates, allowed are {MAX_STEPS}")
    return problems


def is_linear(expression: Any) -> bool:
    """Whether a pattern is matched in a time that grows with the text alone."""
    if not isinstance(expression, str) or len(expression) > MAX_PATTERN:
        return False
    return expression in KNOWN_PATTERNS or _PATTERN.fullmatch(expression) is not None


def _growth(pattern: Any, content: Any) -> float:
    plain = pattern.get("String") if isinstance(pattern, dict) else None
    if plain == "":
        return float("inf")
    return len(str(content)) / len(plain) if isinstance(plain, str) else len(str(content)) + 1


def _template_problems(template: list[Any]) -> list[str]:
    inner = [row["Sequence"] for row in template if isinstance(row, dict) and isinstance(row.get("Sequence"), dict)]
    texts = [str(s.get("id")) for s in inner]
    return [f"a template repeats the text {t}" for t in sorted(set(texts)) if texts.count(t) > 1]


def _objects(part: Any) -> Iterator[dict[str, Any]]:
    """All objects within a value, in the order in which they stand."""
    waiting = [part]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(reversed(list(value.values())))
        elif isinstance(value, list):
            waiting.extend(reversed(value))
