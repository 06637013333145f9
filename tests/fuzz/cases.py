"""One case: made from (target, seed, number) alone, run, and judged."""

import resource
import tempfile
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from random import Random

from qontext.errors import QontextError

from .targets import TARGETS

# Beside four times the file: what a first import and the allocator take.
_SPARE_MEMORY = 512 << 20


@dataclass(frozen=True)
class Outcome:
    """problem: "" when the case is fine; refused: qontext raised an error of its own; data: what was read."""

    problem: str
    refused: bool
    data: bytes


def run_case(target: str, seed: int, number: int) -> Outcome:
    """Runs a case; whatever escapes but a QontextError is a problem, and so is memory out of proportion."""
    random = Random(f"{target} {seed} {number}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data, run = TARGETS[target](random, Path(folder))
        refused = False
        try:
            run()
        except QontextError:
            refused = True
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic of a Rust library is no Exception
            where = traceback.extract_tb(error.__traceback__)[-1]
            return Outcome(
                f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}", False, data
            )
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if grown > 4 * len(data) + _SPARE_MEMORY:
        return Outcome(f"{grown >> 20} MiB of memory for {len(data)} bytes", refused, data)
    return Outcome("", refused, data)
