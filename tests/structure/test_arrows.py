"""Imports point one way (docs/architecture.md). A package may import those that stand below it in `ALLOWED`."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "src" / "qontext"
BASE = {"errors", "dtypes", "axes", "version"}
GRAPH = BASE | {"graph"}
OPS = GRAPH | {"ops", "native"}
ALLOWED = {
    "errors": set(),
    "axes": set(),
    "version": set(),
    "dtypes": {"errors"},
    "native": BASE,
    "graph": GRAPH,
    "ops": OPS,
    "plugins": OPS,
    "functional": OPS | {"quant", "functional"},
    "generation": OPS | {"builder", "runtime", "importers", "generation"},
    "layers": OPS | {"quant", "functional", "layers"},
    "models": OPS | {"layers", "models"},
    "importers": OPS | {"layers", "models", "importers", "demo_model"},
    "fusion": OPS | {"fusion"},
    "packing": OPS | {"packing"},
    "quant": OPS | {"quant"},
    "builder": OPS | {"fusion", "packing", "quant", "builder"},
    "runtime": OPS | {"builder", "runtime"},
    "calibration": OPS | {"quant", "builder", "runtime", "calibration"},
    "engine": OPS
    | {"fusion", "packing", "quant", "builder", "runtime", "calibration", "importers", "generation", "engine"},
    "tasks": OPS | {"packing", "builder", "runtime", "importers", "engine", "tasks"},
    "report": OPS
    | {"fusion", "packing", "quant", "builder", "runtime", "importers", "generation", "engine", "benchmark", "report"},
    "benchmark": OPS
    | {"quant", "builder", "runtime", "calibration", "importers", "engine", "tasks", "demo_model", "benchmark"},
}
EVERYTHING = {"cli", "__init__"}


def _imports(path: Path) -> set[str]:
    """The qontext packages (first path component) that a file imports, at any depth of its code."""
    here = path.relative_to(ROOT).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                parent = here[: len(here) - node.level]
                target = [*parent, *(node.module.split(".") if node.module else [])]
                if target:
                    found.add(target[0])
                else:
                    found.update(alias.name for alias in node.names)
            elif node.module and node.module.split(".")[0] == "qontext":
                found.add([*node.module.split("."), "__init__"][1])
        elif isinstance(node, ast.Import):
            found.update([*a.name.split("."), "__init__"][1] for a in node.names if a.name.split(".")[0] == "qontext")
    return found


def _files():
    return sorted(p for p in ROOT.rglob("*.py"))


def _package(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


@pytest.mark.parametrize("path", _files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    package = _package(path)
    if package in EVERYTHING:
        return
    assert package in ALLOWED, f"{package} has no place in the order; give it one here and in docs/architecture.md"
    wrong = _imports(path) - ALLOWED[package] - {package}
    assert not wrong, (
        f"{path.relative_to(ROOT)} imports {sorted(wrong)}; {package} may import {sorted(ALLOWED[package])}"
    )


def test_files_stay_small():
    long = {str(p.relative_to(ROOT)): n for p in _files() if (n := len(p.read_text().splitlines())) > 500}
    assert not long, f"files over 500 lines: {long}"


BANNED = ("pickle", "marshal", "shelve", "dill", "cloudpickle")


@pytest.mark.parametrize("path", _files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_executes_data(path):
    """Row 62 of the hardening list: no pickle, eval, exec, yaml.load or torch.load anywhere in the package."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not [a.name for a in node.names if a.name.split(".")[0] in BANNED]
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.module.split(".")[0] not in BANNED
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in ("eval", "exec", "torch.load", "yaml.load"), f"{path}: {name}"
            if name in ("np.load", "numpy.load"):
                assert "allow_pickle=False" in ast.unparse(node), f"{path}: np.load may unpickle"
