"""Turns the ONNX model into an engine with the ONNX importer, and runs it.

python onnx2trt.py                        # bert/model.onnx -> bert/model.qx, checked against bert/case_data.npz
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from bert_folder import BERT_PATH, TEXT, encode, logger_of, print_top, run_command, tokenizer_of
from trt_helper import InferHelper

import qontext as qx

# The homework's profile: lengths from 6 to 256, best at 64. Here any batch and length up to the limits runs.
MAX_LENGTH = 256
MAX_BATCH = 64


def onnx2trt(onnxFile: str, plan_name: str, verbose: bool = False) -> qx.Engine:
    """Imports an ONNX file, builds an engine and writes it."""
    model = qx.import_model(onnxFile, task="fill-mask")
    engine = qx.build(model, max_tokens=MAX_BATCH * MAX_LENGTH, log=print if verbose else lambda line: None)
    engine.save(plan_name)
    return engine


def trt_infer(plan_name: str, bert_path: str = BERT_PATH, text: str = TEXT) -> np.ndarray:
    """Loads an engine, prints the ten most likely words of a text, and returns the logits `[1, S, V]`."""
    infer_helper = InferHelper(plan_name, logger_of(verbose=False))
    tokenizer = tokenizer_of(bert_path)
    encoding, (input_ids, token_type_ids, _) = encode(tokenizer, text)
    (logits,) = infer_helper.infer([input_ids, np.ones_like(input_ids), token_type_ids])
    print_top(tokenizer, text, encoding, logits)
    return logits


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="ONNX model to engine", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("-x", "--onnx", default="bert/model.onnx", help="the ONNX model that model2onnx.py wrote")
    parser.add_argument("-o", "--output", default="bert/model.qx", help="the engine file to write")
    parser.add_argument("-m", "--model", default=BERT_PATH, help="folder with the tokenizer, or demo-bert")
    parser.add_argument("--text", default=TEXT, help="a sentence with one [MASK]")
    parser.add_argument("--verbose", action="store_true", help="print every fusion")
    options = parser.parse_args(argv)
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    onnx2trt(options.onnx, options.output, options.verbose)
    trt_infer(options.output, options.model, options.text)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
