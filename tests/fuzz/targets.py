"""What is fuzzed: each target makes one hostile case from a generator and lets qontext at it.

A case is fine when it is taken, or refused with an error of qontext's own.
"""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

import qontext as qx
from qontext import dtypes
from qontext.builder.container import Container, write_container
from qontext.tasks.tokenizer import Tokenizer

from . import seeds
from .mutate import mutate_bytes, mutate_json, mutate_onnx

_TEXTS = ["the river ab, abc.", "", "ä\ud800\0 \U0001f600", "a" * 200, "[MASK] ab"]
# (case, run): what was made, to be written down where something is wrong with it, and the call that reads it.
Made = tuple[bytes, Callable[[], object]]
Target = Callable[[Random, Path], Made]


def _inputs(engine: qx.Engine, random: Random) -> dict[str, torch.Tensor]:
    """Inputs as the engine declares them, open axes small."""
    sizes: dict[str, int] = {}
    given = {}
    for value in engine.compiled.programs["encode"].graph.inputs:
        declared = value.shape or ()
        shape = [d if isinstance(d, int) else sizes.setdefault(str(d), random.randint(1, 4)) for d in declared]
        if value.name is not None and value.dtype is not None and np.prod(shape, dtype=float) <= 1e5:
            given[value.name] = torch.ones(shape).to(dtypes.from_onnx(value.dtype).torch)
    return given


def onnx_file(random: Random, folder: Path) -> Made:
    """ONNX files: import, build, run."""
    data = mutate_onnx(random.choice(seeds.onnx_models()), random)
    source: Any = data
    if random.random() < 0.3:
        source = folder / "m.onnx"
        source.write_bytes(data)

    def run() -> None:
        engine = qx.build(qx.import_model(source), tune=False)
        engine.run(_inputs(engine, random))

    return data, run


def safetensors_file(random: Random, folder: Path) -> Made:
    """The weights of a folder."""
    seeds.write_folder(folder)
    whole = seeds.weights()
    header = 8 + int.from_bytes(whole[:8], "little")
    kind = random.randrange(3)
    if kind == 0:
        data = mutate_bytes(whole, random)
    elif kind == 1:  # the header, its length told truly
        text = mutate_json(whole[8:header].decode(), random).encode("utf-8", "replace")
        data = len(text).to_bytes(8, "little") + text + whole[header:]
    else:
        data = mutate_bytes(whole[:header], random) + whole[header:]
    (folder / "model.safetensors").write_bytes(data)
    return data, lambda: qx.import_model(folder)


def config_file(random: Random, folder: Path) -> Made:
    """The configuration of a folder."""
    seeds.write_folder(folder)
    data = mutate_json((folder / "config.json").read_text(), random).encode("utf-8", "replace")
    (folder / "config.json").write_bytes(data)
    return data, lambda: qx.import_model(folder)


def tokenizer_file(random: Random, folder: Path) -> Made:
    """Tokenizers: read, encode, decode."""
    text = mutate_json(random.choice(seeds.tokenizers()), random)

    def run() -> None:
        tokenizer = Tokenizer(text)
        for encoding in tokenizer.encode(_TEXTS, max_length=16, masks=True):
            tokenizer.decode(encoding.ids)

    return text.encode("utf-8", "replace"), run


@functools.cache
def _engine() -> tuple[qx.Engine, bytes, dict[str, bytes], dict[str, torch.Tensor]]:
    """An engine, its file, and the texts and tensors of that file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds.write_folder(folder)
        engine = qx.build(qx.import_model(folder), tune=False)
        engine.save(folder / "e.qx")
        box = Container(folder / "e.qx")
        tensors = {name: tensor.clone() for name, tensor in box.tensors.items()}
        return engine, (folder / "e.qx").read_bytes(), box.texts, tensors


def engine_file(random: Random, folder: Path) -> Made:
    """Engine files with changed bytes, and whole ones whose JSON sections say something else."""
    _, whole, texts, tensors = _engine()
    path = folder / "e.qx"
    if random.random() < 0.5:
        path.write_bytes(mutate_bytes(whole, random))
    else:
        name = random.choice([n for n in texts if n.endswith(".json") and n != "hashes.json"])
        changed = mutate_json(texts[name].decode(), random).encode("utf-8", "replace")
        write_container(path, {n: t for n, t in {**texts, name: changed}.items() if n != "hashes.json"}, tensors)
    return path.read_bytes(), lambda: qx.load(path)


def run_inputs(random: Random, folder: Path) -> Made:
    """Names, shapes, types and values of the inputs of a run."""
    engine = _engine()[0]
    given: dict[Any, Any] = {}
    names = engine.input_names
    batch, length = random.randint(0, 3), random.choice((0, 1, 2, 5, 12, 13, 40))
    for name in names:
        if random.random() < 0.8:
            given[name] = _tensor([batch, length], random)
    if random.random() < 0.1:
        given[random.choice(("", "other", 3, None))] = _tensor([1, 1], random)
    return repr(given).encode("utf-8", "replace"), lambda: engine.run(given)


def _tensor(usual: list[int], random: Random) -> Any:
    shape = list(usual)
    if random.random() < 0.3:
        shape = random.choice(([], [0], [usual[1]], [*usual, 1], [usual[0] + 1, usual[1]], [usual[1], usual[0]]))
    low, high = random.choice(((0, 20), (0, 2), (-3, 30), (0, 1), (-(2**31), 2**31 - 1)))
    values = np.array([random.randint(low, high) for _ in range(int(np.prod(shape)))]).reshape(shape)
    kind = random.randrange(10)
    if kind == 0:
        return values.astype(random.choice((np.int32, np.float32, np.uint8, np.bool_, np.complex64, object, "U3")))
    if kind == 1:
        return values.tolist()
    if kind == 2:
        return random.choice(
            (None, "text", 3, b"x", torch.tensor(1.5), torch.zeros(2, 3).T, torch.zeros(2, 3).to("meta"))
        )
    tensor = torch.from_numpy(values)
    return tensor.T.contiguous().T if kind == 3 else values[::-1] if kind == 4 and values.ndim else tensor


TARGETS: dict[str, Target] = {
    "onnx": onnx_file,
    "safetensors": safetensors_file,
    "config": config_file,
    "tokenizer": tokenizer_file,
    "engine": engine_file,
    "inputs": run_inputs,
}
