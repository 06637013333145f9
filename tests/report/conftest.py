"""Engines that the tests of reports share."""

import sys
from pathlib import Path

import pytest

import qontext as qx

sys.path.insert(0, str(Path(__file__).parents[1] / "fusion"))  # the exported modules of its tests

from report_models import bert


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return bert(tmp_path_factory.mktemp("river"))


@pytest.fixture(scope="session")
def model(folder):
    return qx.import_model(folder)


@pytest.fixture(scope="session")
def engine(model):
    return qx.build(model, tune=False)
