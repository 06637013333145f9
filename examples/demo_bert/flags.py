"""The flags of demo/BERT's builders, and what qontext does about each: acts, says why it has no effect, or refuses."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from qontext.errors import ArgumentError, all_problems

_LAYOUT = "layouts with 32 channels together belong to other kernels; -i builds an INT8 engine without them"
# Flags with nothing left to do, each with the reason that is printed.
NOTES = {
    "strict": "-t: an engine always computes in the precision it was told",
    "workspace_size": "-w: memory is laid out once, as much as the plan needs; there is no workspace to limit",
    "force_fc2_gemm": "-g: kernels of every linear layer are timed against each other; there is nothing to force",
    "force_int8_skipln": "-iln: norms read floats in an INT8 engine; what they write becomes bytes in the layer behind",
    "use_v3_plugins": "--use-v3-plugins: qontext has one set of operators",
    "use_deprecated_plugins": "--use-deprecated-plugins: qontext has one set of operators",
}
# Flags that ask for what is not there, each with the reason of the error.
REFUSALS = {
    "ckpt": "-m: TensorFlow checkpoints are not read; convert to safetensors (transformers: from_pretrained(folder, "
    "from_tf=True), then save_pretrained) and give the folder as -c",
    "pickle": "-pkl: pickles can run code and are never opened; save the weights as safetensors and give them as -pt",
    "interleaved": f"-il: {_LAYOUT}",
    "megatron": f"--megatron: {_LAYOUT}",
    "sparse": "-sp: 2:4 sparse weights need kernels for them, and there are none yet; build without -sp",
    "distributive_independence": "--distributive_independence: a row computed in another batch may differ in its last "
    "bits, so this cannot be promised",
}


# Flags that mean something in an INT8 engine only.
OF_INT8 = {
    "force_int8_skipln": "-iln",
    "force_int8_multihead": "-imh",
    "squad_json": "-j",
    "calib_num": "-n",
    "calib_path": "-p",
}


def parser(packed: bool) -> argparse.ArgumentParser:
    """The command line of builder.py, or with `packed` of builder_varseqlen.py."""
    result = argparse.ArgumentParser(
        description=f"Builds a BERT engine {'without padding' if packed else 'on padded batches'} (flags of demo/BERT)"
    )
    add = result.add_argument
    source = result.add_mutually_exclusive_group()
    source.add_argument("-x", "--onnx", help="ONNX model; -c is then only looked at for a tokenizer")
    source.add_argument(
        "-pt",
        "--pytorch",
        help="state dict as .safetensors, or a folder with model.safetensors. Pickles (.bin, .pt, .pth, .ckpt) can run "
        "code and are never opened",
    )
    source.add_argument("-m", "--ckpt", help="refused: TensorFlow checkpoint")
    whole = "folder with config.json and a tokenizer, and without -x and -pt model.safetensors; or demo-bert"
    add("-c", "--config-dir", help=whole)
    add("-o", "--output", default="bert.qx", help="engine file to write (%(default)s)")
    if packed:
        add("-b", "--max-batch-size", dest="batch_size", type=int, default=1, help="largest batch (%(default)s)")
        add("-s", "--max-sequence-length", dest="sequence_length", type=int, default=128, help="longest sequence")
        source.add_argument("-pkl", "--pickle", help="refused: Megatron pickle")
        add("-il", "--interleaved", action="store_true", help="refused: INT8 layout")
        add("--megatron", action="store_true", help="refused: INT8 with interleaved layers")
    else:
        limit = "repeatable; any up to the largest runs"
        add("-b", "--batch-size", action="append", type=int, help=f"batch, {limit} (1)")
        add("-s", "--sequence-length", action="append", type=int, help=f"length, {limit} (128)")
    precision = result.add_mutually_exclusive_group()
    precision.add_argument(
        "-f", "--fp16", action="store_true", help="float16. On a CPU this is slow: --bf16 is the fast one there"
    )
    precision.add_argument("--bf16", action="store_true", help="bfloat16, fast on CPUs with AMX or AVX-512-BF16")
    precision.add_argument(
        "-i", "--int8", action="store_true", help="linear layers multiply bytes; -j and -p: static scales"
    )
    add("-t", "--strict", action="store_true", help="no effect: precision is always kept")
    add("-w", "--workspace-size", type=int, help="no effect: memory is planned")
    add("-j", "--squad-json", help="with -i: SQuAD file whose questions and contexts calibrate")
    add("-v", "--vocab-file", help="vocab.txt, for a model without tokenizer")
    add("-n", "--calib-num", type=int, help="with -j: number of texts (100)")
    add("-p", "--calib-path", help="with -i: calibration cache, read when it is there, else written")
    add("-g", "--force-fc2-gemm", action="store_true", help="no effect: kernels are timed")
    add("-iln", "--force-int8-skipln", action="store_true", help="no effect with -i: norms read floats")
    add("-imh", "--force-int8-multihead", action="store_true", help="with -i: attention multiplies bytes too")
    add("-sp", "--sparse", action="store_true", help="refused: no kernels for 2:4 sparse weights")
    add("-tcf", "--timing-cache-file", help="kernel timings (JSON): read when it is there, written after the build")
    add("--distributive_independence", action="store_true", help="refused: cannot be promised")
    plugins = result.add_mutually_exclusive_group()
    plugins.add_argument("--use-v3-plugins", action="store_true", help="no effect")
    plugins.add_argument("--use-deprecated-plugins", action="store_true", help="no effect")
    add("--verbose", action="store_true", help="print every fusion")
    return result


def check(options: argparse.Namespace) -> Iterator[str]:
    """Yields a sentence for each given flag without effect. Raises ArgumentError naming every flag that is refused."""
    given = {name for name, value in vars(options).items() if value not in (None, False)}
    problems = [reason for name, reason in REFUSALS.items() if name in given]
    if not options.int8:
        alone = [flag for name, flag in OF_INT8.items() if name in given]
        problems += [f"{flag}: it belongs to an INT8 engine; give -i too" for flag in alone]
    elif "calib_path" in given and not Path(options.calib_path).exists() and options.squad_json is None:
        problems.append(
            f"-p: there is no calibration cache {options.calib_path} yet; give texts to calibrate with as -j"
        )
    if "calib_num" in given and options.calib_num < 1:
        problems.append(f"-n {options.calib_num}: it must be at least 1")
    if options.onnx is None and options.pytorch is None and options.config_dir is None and not problems:
        problems.append("no model: give -x model.onnx, -pt model.safetensors with -c, or -c with a whole folder")
    if problems:
        raise ArgumentError(all_problems("demo_bert", problems))
    yield from (reason for name, reason in NOTES.items() if name in given)


def precision_of(options: argparse.Namespace) -> str:
    """The precision that -f, --bf16 and -i ask for."""
    return "int8" if options.int8 else "fp16" if options.fp16 else "bf16" if options.bf16 else "fp32"
