"""Fuzzes all targets for a time and exits with 1 when something was found.

Usage: python -m tests.fuzz [--seconds 3600] [--seed 0] [--target onnx ...] [--keep FOLDER] [--case N]

Cases run in a process of their own, which is watched: a crash or a hang is a finding like any other, and the next case
runs in a fresh process. `--target onnx --seed 3 --case 17` runs that one case here, with its traceback.
"""

import argparse
import json
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

from .cases import run_case
from .targets import TARGETS

_LONGEST_CASE = 60.0


def work(target: str, seed: int, first: int) -> None:
    """The watched process: says which case it begins and how it ended, one JSON object a line, until it is ended."""
    number = first
    while True:
        print(json.dumps({"begins": number}), flush=True)
        outcome = run_case(target, seed, number)
        print(json.dumps({"ends": number, "problem": outcome.problem[:500], "refused": outcome.refused}), flush=True)
        number += 1


class Watched:
    """One target: its process, its counts, its findings."""

    def __init__(self, target: str, seed: int):
        self.target, self.seed = target, seed
        self.done = self.refused = 0
        self.findings: list[tuple[int, str]] = []

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        first = self.done
        while time.monotonic() < end:
            first = self._run_process(first, end)

    def _run_process(self, first: int, end: float) -> int:
        """Runs cases from `first` on until one kills or hangs the process, or the time is over. Returns the next."""
        command = [sys.executable, "-m", "tests.fuzz", "--work", self.target, str(self.seed), str(first)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        lines: queue.Queue[str] = queue.Queue()
        readers = [threading.Thread(target=_forward, args=(process.stdout, lines), daemon=True)]
        said: list[str] = []
        readers.append(threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True))
        for reader in readers:
            reader.start()
        number = first
        try:
            while True:
                left = end - time.monotonic()
                try:
                    line = lines.get(timeout=_LONGEST_CASE if left > 0 else 0.01)
                except queue.Empty:
                    if left > 0:
                        self.findings.append((number, f"hangs: no answer in {_LONGEST_CASE:.0f} s"))
                    return number + 1
                if not line:
                    process.wait()
                    last = (said[-1].strip() if said else "")[:300]
                    self.findings.append((number, f"the process ended with {process.returncode}: {last}"))
                    return number + 1
                message = json.loads(line)
                number = message.get("begins", number)
                if "ends" in message:
                    self.done += 1
                    self.refused += message["refused"]
                    if message["problem"]:
                        self.findings.append((number, message["problem"]))
                    if left <= 0:
                        return number + 1
        finally:
            process.kill()
            process.wait()


def _forward(stream: object, lines: "queue.Queue[str]") -> None:
    for line in stream:  # type: ignore[attr-defined]
        lines.put(line)
    lines.put("")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--keep", type=Path, help="folder for the files of the findings")
    parser.add_argument("--case", type=int, help="run this one case in this process")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work[0], int(given.work[1]), int(given.work[2]))
    if given.case is not None:
        outcome = run_case(given.target[0], given.seed, given.case)
        print(outcome.problem or ("refused" if outcome.refused else "taken"))
        return bool(outcome.problem)
    found = 0
    for target in given.target:
        watched = Watched(target, given.seed)
        watched.run(given.seconds / len(given.target))
        print(
            f"{target}: {watched.done} cases, {watched.refused} refused, {len(watched.findings)} findings", flush=True
        )
        for number, problem in watched.findings:
            print(f"  --target {target} --seed {given.seed} --case {number}: {problem}")
            if given.keep is not None:
                given.keep.mkdir(parents=True, exist_ok=True)
                (given.keep / f"{target}-{given.seed}-{number}.txt").write_text(problem)
        found += len(watched.findings)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
