"""The model that the flags -x, -pt, -c and -v name."""

import argparse
import tempfile
from pathlib import Path

import qontext as qx
from qontext.errors import ArgumentError
from qontext.importers.huggingface.door import find_folder
from qontext.importers.huggingface.files import read_tokenizer
from qontext.importers.huggingface.wordpiece import tokenizer_from_vocabulary

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_BESIDE_WEIGHTS = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")


def import_source(options: argparse.Namespace) -> qx.Model:
    """Imports the model and gives it a tokenizer where the files have one.

    Raises QontextError saying what is wrong with the files.
    """
    if options.onnx is not None:
        model = qx.import_model(options.onnx)
        if model.tokenizer is None and options.config_dir is not None:
            model.tokenizer = read_tokenizer(find_folder(options.config_dir))
    elif options.pytorch is not None:
        model = _state_dict(Path(options.pytorch), options.config_dir)
    else:
        model = qx.import_model(options.config_dir)
    if options.vocab_file is not None:
        model.tokenizer = vocabulary(options.vocab_file)
    return model


def vocabulary(path: str) -> str:
    """The tokenizer of a vocab.txt. Raises TokenizerError."""
    if not Path(path).is_file():
        raise qx.errors.TokenizerError(f"there is no vocabulary file {path}")
    return tokenizer_from_vocabulary(Path(path), {})


def _state_dict(weights: Path, config_dir: str | None) -> qx.Model:
    """The model of a state dict in safetensors and a configuration, which need not lie in one folder."""
    if weights.is_dir():
        return qx.import_model(weights)
    if weights.suffix in _PICKLES:
        raise ArgumentError(
            f"-pt {weights.name}: pickles can run code and are never opened; save the state dict as safetensors "
            "(safetensors.torch.save_file, or model.save_pretrained) and give that file"
        )
    if not weights.is_file():
        raise ArgumentError(f"-pt {weights}: there is no such file")
    if config_dir is None:
        raise ArgumentError(f"-pt {weights.name}: give the folder of its config.json as -c")
    folder = find_folder(config_dir)
    with tempfile.TemporaryDirectory() as scratch:
        together = Path(scratch) / folder.resolve().name
        together.mkdir()
        for name in _BESIDE_WEIGHTS:
            if (folder / name).is_file():
                (together / name).symlink_to((folder / name).resolve())
        (together / "model.safetensors").symlink_to(weights.resolve())
        return qx.import_model(together)
