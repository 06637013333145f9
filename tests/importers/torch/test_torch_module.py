"""Modules through the torch door: what comes in computes what the module computes, and the module stays as it was."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from attention_modules import LengthFirstAttention, SelfAttention
from torch import nn

import qontext as qx
from qontext.dtypes import by_name, relative_rms
from qontext.errors import ArgumentError, UnsupportedModelError
from qontext.graph.model import Model
from qontext.importers.torch_examples import open_axes
from qontext.importers.torch_module import import_module

TOLERANCE = by_name("float32").tolerance


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


def check(module: nn.Module, model: Model, *runs: dict[str, torch.Tensor]) -> None:
    engine = qx.build(model, tune=False)
    for inputs in runs:
        with torch.no_grad():
            right = copy.deepcopy(module).eval()(**inputs)
        found = next(iter(engine.run(inputs).values()))
        assert relative_rms(found, right) <= TOLERANCE


def test_one_head_with_filled_masks() -> None:
    module = seeded(lambda: SelfAttention(24))
    mask = torch.tril(torch.ones(2, 5, 5, dtype=torch.int64))
    model = import_module(module, {"x": random(2, 5, 24), "mask": mask})
    assert [list(v.shape) for v in model.graph.inputs] == [["B", "S", 24], ["B", "S", "S"]]
    holes = (random(3, 7, 7, seed=1) > 0).long()
    holes[0, 2] = 0  # a row without a key is uniform, since -1e3 is no infinity
    check(
        module,
        model,
        {"x": random(3, 7, 24), "mask": holes},
        {"x": random(1, 1, 24), "mask": torch.ones(1, 1, 1, dtype=torch.int64)},
    )


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_the_layer_of_the_notebook_ends_as_three_steps(dtype: torch.dtype) -> None:
    """No step of its own for a mask that is compared with zero, whatever type it has."""
    module = seeded(lambda: SelfAttention(24))
    model = import_module(module, {"x": random(2, 5, 24), "mask": torch.ones(2, 5, 5).to(dtype)})
    engine = qx.build(model, tune=False)
    steps = engine.compiled.programs["encode"].steps
    assert [step.op for step in steps] == ["Linear", "QKVToContext", "Linear"]
    assert all(steps[i].inputs[2] >= 0 for i in (0, 2)), "the biases are inside"
    holes = random(3, 7, 7, seed=1) > 0
    holes[0, 2] = False
    inputs = {"x": random(3, 7, 24), "mask": holes.to(dtype) * (1 if dtype == torch.bool else 5)}
    with torch.no_grad():
        assert relative_rms(engine.run(inputs)["output"], module(**inputs)) <= TOLERANCE


def test_length_first_with_an_additive_mask() -> None:
    module = seeded(lambda: LengthFirstAttention(24, 3))
    model = import_module(module, (random(5, 2, 24), torch.zeros(2, 1, 1, 5)))
    assert [list(v.shape) for v in model.graph.inputs] == [["S", "B", 24], ["B", 1, 1, "S"]]
    mask = torch.zeros(3, 1, 1, 7)
    mask[1, ..., 4:] = -10000.0
    check(module, model, {"hidden_states": random(7, 3, 24), "attention_mask": mask})


def test_the_module_stays_as_it_was() -> None:
    module = seeded(lambda: LengthFirstAttention(24, 3, keep=True))
    module.train()
    module.query.eval()
    module(random(4, 2, 24), torch.zeros(2, 1, 1, 4))
    kept, weights = dict(module.kept), {k: v.clone() for k, v in module.state_dict().items()}
    attributes = {name: set(vars(m)) for name, m in module.named_modules()}
    model = import_module(module, (random(5, 2, 24), torch.zeros(2, 1, 1, 5)))
    assert [m.training for m in (module, module.query, module.key, module.dropout)] == [True, False, True, True]
    assert module.kept.keys() == kept.keys()
    assert all(module.kept[k] is kept[k] for k in kept)
    assert attributes == {name: set(vars(m)) for name, m in module.named_modules()}
    assert all(torch.equal(v, weights[k]) for k, v in module.state_dict().items())
    before = model.graph.initializers["query.bias"].const_value.numpy().copy()
    with torch.no_grad():
        module.query.bias.add_(1.0)
    assert np.array_equal(model.graph.initializers["query.bias"].const_value.numpy(), before)


class Outputs(nn.Module):
    """Returns what it is told to."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.linear(x)
        if self.kind == "dict":
            return {"scores": y, "sums": y.sum(-1), "parts": (y * 2, y * 3)}
        if self.kind == "tuple":
            return y, y * 2
        return (x, y, y) if self.kind == "repeated" else y


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("tensor", ["output"]),
        ("tuple", ["output_0", "output_1"]),
        ("dict", ["scores", "sums", "parts_0", "parts_1"]),
        ("repeated", ["output_0", "output_1", "output_2"]),
    ],
)
def test_names_of_outputs(kind: str, names: list[str]) -> None:
    module = seeded(lambda: Outputs(kind))
    model = import_module(module, (random(2, 3, 4),))
    assert [v.name for v in model.graph.outputs] == names
    x = random(3, 5, 4)
    found = list(qx.build(model, tune=False).run({"x": x}).values())
    right = torch.utils._pytree.tree_leaves(module(x))
    assert all(relative_rms(a, b) <= TOLERANCE for a, b in zip(found, right, strict=True))


def test_examples_of_one_sequence_of_one_token_stay_open() -> None:
    module = seeded(lambda: nn.Sequential(nn.Embedding(11, 8), nn.LayerNorm(8)))
    model = import_module(module, torch.tensor([[3]]))
    assert [list(v.shape) for v in model.graph.inputs] == [["B", "S"]]
    assert model.inputs["input"].limit == 11
    check(module, model, {"input": torch.arange(10).view(2, 5)})


def test_examples_with_equal_sizes_stay_apart() -> None:
    module = seeded(lambda: nn.Linear(4, 2))
    model = import_module(module, random(4, 4, 4))
    check(module, model, {"input": random(2, 7, 4)})


def test_axes_of_other_inputs() -> None:
    ids = torch.ones(2, 5, dtype=torch.int64)
    bias, lengths, table = torch.ones(1, 2, 5, 5), torch.ones(2), torch.ones(5, 5)
    examples = {"ids": ids, "bias": bias, "lengths": lengths, "table": table, "flag": True}
    assert open_axes(examples, None) == {
        "ids": {0: "B", 1: "S"},
        "bias": {2: "S", 3: "S"},  # two heads are no batch
        "lengths": {0: "B"},
        "table": {0: "S", 1: "S"},
    }


def test_dynamic_shapes_overrule() -> None:
    module = seeded(lambda: nn.Linear(4, 2))
    model = import_module(module, (random(3, 5, 4),), dynamic_shapes={"input": {1: "length"}})
    assert list(model.graph.inputs[0].shape) == [3, "length", 4]
    named = import_module(module, (random(3, 5, 4),), dynamic_shapes=({0: torch.export.Dim("rows")},))
    assert list(named.graph.inputs[0].shape) == ["rows", 5, 4]
    fixed = import_module(module, (random(3, 5, 4),), dynamic_shapes={"input": None})
    with pytest.raises(qx.errors.ShapeError, match="expected 5"):
        qx.build(fixed, tune=False).run({"input": random(3, 6, 4)})


def test_origins_are_module_paths() -> None:
    module = seeded(lambda: nn.Sequential(SelfAttention(8).out_proj, nn.ModuleDict({"norm": nn.LayerNorm(8)})["norm"]))
    origins = {source.origin for source in import_module(module, random(2, 3, 8)).ledger.sources.values()}
    assert {"0", "1"} <= origins


def test_through_the_public_name_and_quietly(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    module = seeded(lambda: nn.Linear(4, 2))
    model = qx.import_model(module, example_inputs={"input": random(2, 3, 4)}, task="encode")
    assert (model.source, model.name, model.task) == ("torch", "Linear", "encode")
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


class Unlike(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("the module itself is unhappy")


class FixedLength(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, 5, 4) + torch.ones(5, 4)


@pytest.mark.parametrize(
    ("module", "sentence"),
    [(Branching(), "data-dependent"), (Unlike(), "the module itself is unhappy"), (FixedLength(), "FixedLength")],
)
def test_what_cannot_be_exported(module: nn.Module, sentence: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnsupportedModelError, match=r"cannot follow|not for every size") as error:
        import_module(module, random(2, 5, 4))
    assert sentence in str(error.value)
    assert "\x1b" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_arguments_that_do_not_fit() -> None:
    module = nn.Linear(4, 2)
    x = random(2, 3, 4)
    for examples, sentence in (
        ({"y": x}, "do not fit Linear.forward"),
        ((x, x), "do not fit Linear.forward"),
        ({"input": [1, 2]}, "'input' is a list"),
        ("text", "example_inputs is a str"),
        ({"input": 3}, "hold no tensor"),
        (torch.zeros(0, 3, 4), "has 0 on axis 0"),
    ):
        with pytest.raises(ArgumentError, match=sentence):
            import_module(module, examples)
    with pytest.raises(ArgumentError, match=r"a torch\.nn\.Module was asked for"):
        import_module(lambda x: x, x)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="no tensor 'x'"):
        import_module(module, x, dynamic_shapes={"x": {0: "B"}})
    with pytest.raises(ArgumentError, match="no axis 3"):
        import_module(module, x, dynamic_shapes={"input": {3: "B"}})
    with pytest.raises(ArgumentError, match="has 3 on axis 1"):
        import_module(SelfAttention(4), (x, torch.ones(2, 5, 5)), dynamic_shapes={"mask": {1: "S"}})
    with pytest.raises(ArgumentError, match="allowed are fill-mask"):
        import_module(module, x, task="dream")
