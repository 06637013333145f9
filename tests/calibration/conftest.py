"""The small encoder of the engine tests, and batches of it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))


@pytest.fixture
def model():
    from networks import encoder

    return encoder()


@pytest.fixture
def batches():
    from networks import batch

    return [batch(4, 17), batch(3, 9)]
