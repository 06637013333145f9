"""Static scales of an INT8 engine from the texts of a SQuAD file, kept in a cache."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

import qontext as qx
from qontext.calibration import Calibration
from qontext.graph.model import Model
from qontext.tasks.samples import text_batches
from qontext.tasks.squad import read_questions

USUAL_COUNT = 100


def quantisation(options: argparse.Namespace) -> qx.QuantOptions:
    """What multiplies bytes: linear layers, and with -imh attention too."""
    return qx.QuantOptions(quantise=("linear", "attention") if options.force_int8_multihead else ("linear",))


def calibrated(options: argparse.Namespace, model: Model) -> Calibration | None:
    """The scales that -j or -p ask for; None where neither is given, and scales are found at run time."""
    if options.squad_json is None and options.calib_path is None:
        return None

    def samples() -> Iterator[Mapping[str, Any]]:
        texts = dict.fromkeys(f"{q.question} {q.context}" for q in read_questions(options.squad_json))
        yield from text_batches(list(texts)[: options.calib_num or USUAL_COUNT], model)

    found = qx.calibrate(model, samples, cache=options.calib_path, count=options.calib_num or USUAL_COUNT)
    print(f"scales from {found.source}")
    return found
