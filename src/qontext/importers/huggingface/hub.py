"""Where a model lies: in a folder, in the package, or on the hub."""

import re
from pathlib import Path

from ...errors import ArgumentError
from .sentence import encoder_folder

DEMO = "demo-bert"
_HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
_HUB_FILES = ["*.json", "*.safetensors", "*.txt"]
_SNAPSHOT = re.compile(r"[0-9a-f]{40}")


def find_folder(source: str | Path, revision: str | None = None) -> Path:
    """The local folder of a source, downloaded first when it is a hub id.

    Only text of the form 'name' or 'owner/name' is tried as a hub id: './name', absolute paths and Path objects mean
    local folders.

    Raises:
        ArgumentError: no such folder, and no hub id or no such model there.
        ModelFormatError: a folder without config.json.
    """
    if str(source) == DEMO:
        return Path(__file__).parents[2] / "demo_model"
    path = Path(source)
    if path.is_dir():
        encoder_folder(path)
        return path
    if path.exists() or not isinstance(source, str) or not _HUB_ID.fullmatch(source):
        raise ArgumentError(f"{str(source)!r} is no folder, and no hub id such as 'name' or 'owner/name'")
    return _download(source, revision)


def model_name(source: str | Path, folder: Path) -> str:
    """What people call the model: the hub id, or the name of the folder."""
    if str(source) == DEMO:
        return DEMO
    if not Path(source).is_dir():
        return str(source)
    resolved = folder.resolve()
    repository = resolved.parent.parent.name
    if is_snapshot(resolved) and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/", 1)
    return resolved.name


def is_snapshot(folder: Path) -> bool:
    """Whether a (resolved) folder is a snapshot in the hub's cache, whose files are links to blobs."""
    return folder.parent.name == "snapshots" and _SNAPSHOT.fullmatch(folder.name) is not None


def _download(name: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise ArgumentError(f"{name!r} is no local folder, and huggingface_hub is not installed: {error}") from error
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ArgumentError(
            f"{name!r} is no local folder, and could not be downloaded as a hub model: {line} Check the name and the "
            "connection, or give a path"
        ) from error
    encoder_folder(folder)
    return folder
