"""The exception tree. Everything a user can get wrong raises a subclass of `QontextError`.

Each class carries a stable code (`QX...`): scripts and tests look at the class or the code, never at the text.
A message says what was asked, what was found, what is allowed and what to do.
"""

from collections.abc import Iterable


class QontextError(Exception):
    """Base of all errors that qontext raises for bad input, bad files and unusable devices."""

    code = "QX000"

    def __init__(self, message: str):
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"


class ArgumentError(QontextError):
    """A call of the public interface got an argument it cannot use (wrong value, name, combination)."""

    code = "QX100"


class ShapeError(ArgumentError):
    """A tensor has another rank or another size than the operator or the engine expects."""

    code = "QX101"


class DTypeError(ArgumentError):
    """A tensor has another data type than the operator or the engine expects."""

    code = "QX102"


class InputError(ArgumentError):
    """The inputs of a run are unusable: missing, unknown, out of range, too long."""

    code = "QX103"


class DeviceError(QontextError):
    """The device that was asked for is missing or cannot run this."""

    code = "QX110"


class ModelFormatError(QontextError):
    """A model file is damaged, hostile or not of the format that its name promises."""

    code = "QX200"


class UnsupportedModelError(QontextError):
    """A model is well formed but of a family, task or configuration that qontext does not know."""

    code = "QX201"


class WeightsError(ModelFormatError):
    """Weights are missing, left over, misshaped or not finite; the message lists all of them."""

    code = "QX202"


class TokenizerError(ModelFormatError):
    """A tokenizer file is missing, damaged or does not fit the model."""

    code = "QX203"


class GraphError(QontextError):
    """A graph breaks a rule: a cycle, an undefined value, an unknown operator, contradicting shapes."""

    code = "QX300"


class UnsupportedOperatorError(GraphError):
    """A graph uses an operator, or an attribute of one, that qontext cannot run."""

    code = "QX301"


class EngineFileError(QontextError):
    """An engine file is truncated, damaged, foreign, or made by another version."""

    code = "QX400"


class PluginError(QontextError):
    """A plugin is missing, has another version, or its declaration is unusable."""

    code = "QX500"


class CalibrationError(QontextError):
    """Calibration data or a calibration cache cannot be used: empty, not finite, of another model or method."""

    code = "QX610"


class AccuracyError(QontextError):
    """A quantised engine gives nothing that can be used: zeros, NaN, or an error over the stated budget."""

    code = "QX611"


class NoFusion(Exception):
    """A fusion rule does not apply; `reason` is one sentence with the value that failed, `at` the node where,
    `depth` how many of the conditions of the rule held before."""

    def __init__(self, reason: str, at: object = None, depth: int = 0):
        super().__init__(reason)
        self.reason = reason
        self.at = at
        self.depth = depth


def all_problems(what: str, problems: Iterable[str], limit: int = 40) -> str:
    """Joins problems of one kind into one message, the first `limit` of them spelled out."""
    found = list(problems)
    lines = [f"{what}: {len(found)} problem{'s' if len(found) != 1 else ''}"]
    lines += [f"  - {p}" for p in found[:limit]]
    if len(found) > limit:
        lines.append(f"  - and {len(found) - limit} more")
    return "\n".join(lines)
