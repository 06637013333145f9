"""Engines that the tests of reports share."""

import sys
from pathlib import Path

import pytest

import qontext as qx

sys.path.insert(0, str(Path(__file__).parents[1] / "fusion"))  # the exported modules of its tests

from report_models import bert, chain


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return bert(tmp_path_factory.mktemp("river"))


@pytest.fixture(scope="session")
def model(folder):
    return qx.import_model(folder)


@pytest.fixture(scope="session")
def engine(model):
    return qx.build(model, tune=False)


@pytest.fixture(scope="session")
def large_page():
    """The page of a model of ten thousand nodes that no rule fuses and whose layers are all unlike."""
    return qx.explain(qx.build(chain(10_000, 48), tune=False, packing=False), measure=False).html()
