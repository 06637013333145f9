"""Runs the BERT model in PyTorch, keeps its inputs and outputs as a test case, and exports it to ONNX.

python model2onnx.py                      # the demo model; writes bert/model.onnx, bert/model_fused.onnx and
                                          # bert/case_data.npz
python model2onnx.py -m path/to/bert-base-uncased -o bert-base-uncased
"""

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from bert_folder import BERT_PATH, TEXT, encode, folder_of, print_top, run_command, tokenizer_of

import qontext as qx
from qontext.tasks.tokenizer import Tokenizer

OPSET = 14
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def load_model(bert_path: str) -> torch.nn.Module:
    """The PyTorch model in a folder. Raises ArgumentError where transformers is not installed."""
    try:
        from transformers import BertForMaskedLM
    except ImportError as error:
        raise qx.errors.ArgumentError(
            f"model2onnx runs the model in PyTorch and needs transformers (pip install 'qontext[dev]'): {error}"
        ) from error
    return BertForMaskedLM.from_pretrained(folder_of(bert_path)).eval()


def model_test(model: torch.nn.Module, tokenizer: Tokenizer, text: str, case_data_path: str = "case_data.npz") -> None:
    """Prints the ten most likely words, and writes inputs and logits to `case_data_path`."""
    encoding, (input_ids, token_type_ids, position_ids) = encode(tokenizer, text)
    with torch.no_grad():
        logits = model(
            input_ids=torch.from_numpy(input_ids).long(),
            token_type_ids=torch.from_numpy(token_type_ids).long(),
            position_ids=torch.from_numpy(position_ids).long(),
        ).logits.numpy()
    print_top(tokenizer, text, encoding, logits)
    np.savez(
        case_data_path,
        input_ids=input_ids,
        token_type_ids=token_type_ids,
        position_ids=position_ids,
        logit=logits,
    )


def model2onnx(model: torch.nn.Module, tokenizer: Tokenizer, text: str, export_model_path: str) -> None:
    """Exports the model at opset 14, batch and length free."""
    _, (input_ids, token_type_ids, _) = encode(tokenizer, text)
    ids = torch.from_numpy(input_ids).long()
    examples = (ids, torch.ones_like(ids), torch.from_numpy(token_type_ids).long())
    free = {0: "batch_size", 1: "max_seq_len"}
    with warnings.catch_warnings():
        # The tracing exporter warns that it is the old one, and about every Python branch that it freezes.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            examples,
            export_model_path,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=["logit"],
            dynamic_axes=dict.fromkeys((*INPUTS, "logit"), free),
        )


def model_simplify(in_path: str, out_path: str) -> None:
    """Writes the model as qontext fuses it: ONNX again, with a function body for each fused operator."""
    engine = qx.build(qx.import_model(in_path), tune=False)
    engine.save_onnx(out_path)
    before = len(engine.compiled.ledger.sources)
    assert engine.compiled.fused is not None
    print(f"{in_path}: {before} nodes -> {out_path}: {engine.compiled.fused.num_nodes()} nodes")


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Runs BERT in PyTorch, keeps a test case, exports it to ONNX",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("-m", "--model", default=BERT_PATH, help="Hugging Face folder, or demo-bert")
    parser.add_argument("-o", "--output", default="bert", help="folder to write to")
    parser.add_argument("--text", default=TEXT, help="a sentence with one [MASK]")
    options = parser.parse_args(argv)
    tokenizer, model = tokenizer_of(options.model), load_model(options.model)
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    model_test(model, tokenizer, options.text, str(folder / "case_data.npz"))
    model2onnx(model, tokenizer, options.text, str(folder / "model.onnx"))
    model_simplify(str(folder / "model.onnx"), str(folder / "model_fused.onnx"))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
