"""Where a report was made, for a bug report; and texts without anything that tells about the user."""

import getpass
import re
import tempfile
from pathlib import Path
from typing import Any

from ..benchmark.machine import machine
from ..ops.gpu_facts import gpu_facts
from ..version import __version__

# Module paths begin with "/" too ("/encoder/layer.0/MatMul"), so only folders that systems have count as paths.
_PATH = re.compile(
    r"(?:[A-Za-z]:\\|/(?:home|root|Users|tmp|var|mnt|opt|srv|usr|etc|data|work|workspace|private|media)/)[^\s'\",;:)\]]*"
)


def environment() -> dict[str, Any]:
    """Versions, processor, GPUs and date."""
    facts = machine()
    found = gpu_facts()
    gpus = [f"{g.name} ({g.memory / 1e9:.0f} GB, sm_{g.capability[0]}{g.capability[1]})" for g in found.gpus]
    driver = {"driver": str(found.driver), "cuda": str(found.cuda)} if gpus else {}
    return {"qontext": __version__, **facts, "gpus": gpus, **driver}


def scrubbed(value: Any) -> Any:
    """The same data with absolute paths cut down to their last part, and without the user's name."""
    if isinstance(value, str):
        return _scrub(value)
    if isinstance(value, dict):
        return {scrubbed(k): scrubbed(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [scrubbed(v) for v in value]
    return value


def _scrub(text: str) -> str:
    if "/" not in text and "\\" not in text:
        return text
    for folder in (str(Path.home()), str(Path.cwd()), tempfile.gettempdir()):
        if len(folder) > 1 and folder in text:
            text = re.sub(rf"{re.escape(folder)}[^\s'\",;:)\]]*", lambda m: _last(m.group()), text)
    text = _PATH.sub(lambda m: _last(m.group()), text)
    return text.replace(f"/{_user()}/", "/") if _user() else text


def _last(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or "path"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
