"""Builds BERT layer by layer from the weights of an ONNX file, writes an engine, and tests it.

python model2onnx.py                                       # writes bert/model.onnx and bert/case_data.npz
python builder.py -x bert/model.onnx -o bert/built.qx      # builds, then compares with bert/case_data.npz
python builder.py -x bert/model.onnx -o bert/built.qx --tanh-gelu --verbose      # watch GELU being fused
python builder.py -x bert/model.onnx -o bert/built.qx --layer-norm-plugin        # with the plugin of the homework
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from bert_config import BertConfig, BuilderConfig, get_mha_dtype
from bert_folder import BERT_PATH, TEXT, encode, folder_of, logger_of, print_top, run_command, tokenizer_of
from bert_layers import (
    Weights,
    attention_layer,
    bert_model,
    custom_fc,
    emb_layernorm,
    self_attention_layer,
    self_output_layer,
    set_output_name,
    set_output_range,
    set_tensor_name,
    transformer_layer,
    transformer_output_layer,
)
from calibrator import CALIBRATOR_DATA, BertCalibrator, calibrated
from onnx_weights import load_onnx_weights_and_quant, onnx_to_trt_name
from trt_helper import InferHelper, TrtNetworkHelper

import qontext as qx
from qontext.dtypes import by_name, relative_rms
from qontext.errors import ArgumentError
from qontext.graph.model import InputRule
from qontext.plugins import Op

TEST_ATOL = 1e-4
TANH_ATOL = 1e-2
INT8_ERROR = 0.1  # relative RMS: static scales by percentile, all linear layers

# What the homework's builder.py offers; the parts live in files of their own.
__all__ = [
    "BertConfig",
    "attention_layer",
    "bert_model",
    "build_engine",
    "custom_fc",
    "emb_layernorm",
    "generate_calibration_cache",
    "get_mha_dtype",
    "load_onnx_weights_and_quant",
    "onnx_to_trt_name",
    "self_attention_layer",
    "self_output_layer",
    "set_output_name",
    "set_output_range",
    "set_tensor_name",
    "test_case_data",
    "test_text",
    "transformer_layer",
    "transformer_output_layer",
]


def build_engine(
    workspace_size: int,
    config: BertConfig,
    weights_dict: Weights,
    vocab_file: str | None,
    calibrationCacheFile: str | None,
    calib_num: int,
    verbose: bool = False,
) -> qx.Engine:
    """Draws the network and builds the engine.

    `workspace_size` limits nothing: qontext lays memory out once, as much as the plan needs. `vocab_file`,
    `calibrationCacheFile` and `calib_num` belong to INT8: with a cache file its scales are static, found on the texts
    of calibrator_data.txt or read from the file; without one they are found at run time.
    """
    precision = get_mha_dtype(config)
    model, builder_config = draw(config, weights_dict, verbose)
    static = None
    if config.use_int8 and calibrationCacheFile is not None:
        longest = builder_config.max_length
        calibrator = BertCalibrator(
            CALIBRATOR_DATA, str(config.folder), calibrationCacheFile, 1, longest, calib_num, vocab_file
        )
        static = calibrated(model, calibrator)
    return qx.build(
        model,
        precision,
        max_tokens=builder_config.max_batch * builder_config.max_length,
        max_length=builder_config.max_length,
        plugins=config.plugins,
        calibration=static,
        log=print if verbose else lambda line: None,
    )


def draw(config: BertConfig, weights_dict: Weights, verbose: bool = False) -> tuple[qx.Model, BuilderConfig]:
    """The network as a model, and the limits of its engine."""
    net = qx.Network("bert_from_onnx_weights", plugins=config.plugins)
    network_helper = TrtNetworkHelper(net, config.plugins, logger_of(verbose))
    network_helper.epsilon = config.layer_norm_eps
    builder_config = BuilderConfig()
    longest = config.max_position_embeddings
    lengths = [min(length, longest) for length in (1, 50, 200)]
    embeddings, mask = emb_layernorm(network_helper, config, weights_dict, builder_config, lengths, [1, 16, 64])
    hidden = bert_model(network_helper, config, weights_dict, embeddings, mask)
    logits = transformer_output_layer(network_helper, config, weights_dict, hidden)
    layer = logits.producer()
    assert layer is not None
    set_output_name(layer, "", "logit")
    network_helper.markOutput(logits)
    rules = {
        "input_ids": InputRule(limit=config.vocab_size),
        "token_type_ids": InputRule("zeros", limit=config.type_vocab_size),
        "position_ids": InputRule("arange", limit=longest),
        "attention_mask": InputRule("ones"),
    }
    facts = {"max_length": longest, "vocabulary": config.vocab_size}
    model = qx.Model(
        net.graph.name or "bert", net.graph, net.ledger(), rules, "fill-mask", facts, attention_mask="attention_mask"
    )
    return model, builder_config


def generate_calibration_cache(
    sequence_lengths: list[int],
    workspace_size: int,
    config: BertConfig,
    weights_dict: Weights,
    vocab_file: str | None,
    calibrationCacheFile: str,
    calib_num: int,
) -> None:
    """Runs the calibrator, unless the cache is there: `calib_num` texts, each as long as it is."""
    model, builder_config = draw(config, weights_dict)
    longest = min(builder_config.max_length, *sequence_lengths)
    folder = str(config.folder)
    calibrated(model, BertCalibrator(CALIBRATOR_DATA, folder, calibrationCacheFile, 1, longest, calib_num, vocab_file))


def test_text(  # the homework's name; no test of pytest's
    infer_helper: InferHelper,
    BERT_PATH: str,
    text: str = TEXT,  # noqa: PT028
    vocab_file: str | None = None,  # noqa: PT028
) -> list[str]:
    """Prints and returns the ten most likely words for the mask of a text."""
    tokenizer = tokenizer_of(BERT_PATH, vocab_file)
    encoding, inputs = encode(tokenizer, text)
    (logits,) = infer_helper.infer(inputs)
    return print_top(tokenizer, text, encoding, logits)


def test_case_data(infer_helper: InferHelper, case_data_path: str, atol: float = TEST_ATOL) -> float:  # noqa: PT028
    """Compares the engine with the logits that PyTorch gave.

    Returns:
        The largest difference.
    Raises:
        AssertionError: a difference over `atol` in an fp32 engine, over the tolerance of its type in another one.
    """
    with np.load(case_data_path, allow_pickle=False) as data:
        inputs = [data[name] for name in ("input_ids", "token_type_ids", "position_ids")]
        expected = data["logit"]
    (logits,) = infer_helper.infer(inputs)
    assert logits.shape == expected.shape, f"logit is {logits.shape}, PyTorch gave {expected.shape}"
    worst = float(np.abs(logits - expected).max())
    precision = infer_helper.engine.precision
    if precision == "fp32":
        assert worst <= atol, f"the logits differ by up to {worst:.2e}, allowed {atol:.0e}"
    else:
        error = relative_rms(torch.from_numpy(logits), torch.from_numpy(expected))
        allowed = INT8_ERROR if precision == "int8" else by_name(precision).tolerance
        assert error <= allowed, f"relative error {error:.2e}, allowed {allowed:.0e}"
    print(f"case data: logit {list(logits.shape)} equals PyTorch's, largest difference {worst:.2e}")
    return worst


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line of the homework, and three options beside it."""
    parser = argparse.ArgumentParser(
        description="BERT from ONNX weights, layer by layer", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("-x", "--onnx", required=True, help="ONNX model that holds the weights")
    parser.add_argument("-o", "--output", required=True, help="engine file to write")
    parser.add_argument("-c", "--config-dir", default=BERT_PATH, help="folder with config.json and tokenizer.json")
    parser.add_argument("-f", "--fp16", action="store_true", help="build for float16 (slow on most CPUs)")
    parser.add_argument("-i", "--int8", action="store_true", help="linear layers in int8")
    parser.add_argument("-t", "--strict", action="store_true", help="keep the precision asked for, as always here")
    parser.add_argument("-w", "--workspace-size", type=int, default=1000, help="MiB; without effect, memory is planned")
    parser.add_argument("-v", "--vocab-file", help="vocab.txt to use instead of the tokenizer in the config folder")
    parser.add_argument("-n", "--calib-num", type=int, default=100, help="texts to calibrate INT8 with")
    parser.add_argument(
        "-p",
        "--calib-path",
        help="calibration cache of INT8: read when it is there, else written; none for scales found at run time",
    )
    parser.add_argument(
        "--tanh-gelu", action="store_true", help="GELU of nine elementwise layers, whatever the model has"
    )
    parser.add_argument("--layer-norm-plugin", action="store_true", help="LayerNorm from examples/layer_norm_plugin")
    parser.add_argument("--verbose", action="store_true", help="print every layer and every fusion")
    return parser.parse_args(argv)


def layer_norm_plugin() -> list[Op]:
    """The operator in the file of the neighbouring example."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "layer_norm_plugin"))
    from layer_norm_plugin import LAYER_NORM

    return [LAYER_NORM]


def main(argv: list[str] | None = None) -> int:
    """Builds, saves, loads, tests."""
    options = parse(argv)
    config_path = folder_of(options.config_dir) / "config.json"
    config = BertConfig(str(config_path), options.fp16, options.int8, options.strict)
    exact = config.hidden_act
    if options.tanh_gelu:
        config.hidden_act = "gelu_new"
    if options.layer_norm_plugin:
        config.plugins = layer_norm_plugin()
    if options.calib_path is not None and not options.int8:
        raise ArgumentError(f"-p {options.calib_path} is a calibration of INT8; build with -i")
    weights_dict = load_onnx_weights_and_quant(options.onnx, config)
    engine = build_engine(
        options.workspace_size,
        config,
        weights_dict,
        options.vocab_file,
        options.calib_path,
        options.calib_num,
        options.verbose,
    )
    engine.save(options.output)
    print(f"{options.output}: {len(engine.compiled.programs['encode'].steps)} steps, {engine.precision}")
    infer_helper = InferHelper(options.output, logger_of(options.verbose), config.plugins)
    case_data = Path(options.onnx).parent / "case_data.npz"
    if case_data.is_file():
        test_case_data(infer_helper, str(case_data), TEST_ATOL if exact == config.hidden_act else TANH_ATOL)
    else:
        print(f"not compared with PyTorch: {case_data} is missing (model2onnx.py writes it)")
    test_text(infer_helper, options.config_dir, vocab_file=options.vocab_file)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
