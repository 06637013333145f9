"""Makes the training scripts importable and loads the shipped model once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = str(ROOT / "training" / "demo_bert")
if SCRIPTS not in sys.path:
    sys.path.append(SCRIPTS)

if TYPE_CHECKING:
    from evaluate import FillMask


@pytest.fixture(scope="session")
def folder() -> Path:
    """The model folder that ships in the package."""
    return ROOT / "src" / "qontext" / "demo_model"


@pytest.fixture(scope="session")
def fill_mask(folder: Path) -> FillMask:
    """The shipped model behind transformers."""
    pytest.importorskip("transformers")
    from evaluate import FillMask

    return FillMask(folder)
