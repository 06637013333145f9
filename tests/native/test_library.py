"""Loading, instruction sets, threads."""

import os
import subprocess
import sys

import pytest
import torch

from qontext import native
from qontext.errors import ArgumentError, DeviceError
from qontext.native import library, openmp


def run_python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )


def test_status_says_what_runs(library: None) -> None:
    state = native.status()
    assert state.isa in state.usable
    assert "generic" in state.usable
    assert state.isa in str(state)


def test_shares_the_pool_of_torch(library: None) -> None:
    found = openmp.find()
    if found is None:
        pytest.skip("torch has loaded no OpenMP runtime here")
    assert native.status().threads == found.path


def test_cap_of_the_environment(library: None) -> None:
    done = run_python("from qontext import native; print(native.isa())", QONTEXT_CPU_ISA="generic")
    assert done.stdout.strip() == "generic", done.stderr


def test_unknown_cap_is_an_error(library: None) -> None:
    done = run_python("from qontext import native; native.status()", QONTEXT_CPU_ISA="sse9")
    assert done.returncode != 0
    assert "ArgumentError" in done.stderr
    assert "sse9" in done.stderr


def test_import_does_not_load_anything() -> None:
    done = run_python("import qontext.native, sys; print('torch' in sys.modules)", QONTEXT_CPU_ISA="sse9")
    assert done.returncode == 0, done.stderr


def test_unknown_isa_is_an_error(library: None) -> None:
    with pytest.raises(ArgumentError, match="sse9"):
        native.set_isa("sse9")


def test_absent_library_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    (folder / "NOT_BUILT.txt").write_text("no C++ compiler was found\n")
    monkeypatch.setattr(library, "_FILE", folder / "libqontext.so")
    monkeypatch.setattr(library, "_NOTE", folder / "NOT_BUILT.txt")
    library._load.cache_clear()
    try:
        assert not native.available()
        assert native.status().reason == "not built: no C++ compiler was found"
        x = torch.zeros(2, 8)
        with pytest.raises(DeviceError, match="no C\\+\\+ compiler"):
            native.skip_layer_norm(x, None, None, None, out=x)
    finally:
        library._load.cache_clear()


@pytest.mark.parametrize("openmp_there", [True, False])
def test_any_number_of_threads_gives_the_same(library: None, openmp_there: bool) -> None:
    code = f"""
import torch
from qontext import native
from qontext.native import openmp
if not {openmp_there}:
    openmp.find = lambda: None
torch.manual_seed(0)
x = torch.randn(513, 129)
q = torch.randn(3, 130, 4, 32)
sums = []
for threads in (1, 2, 5):
    torch.set_num_threads(threads)
    a = native.skip_layer_norm(x, x, None, None, out=torch.empty_like(x))
    b = native.attention(q, q, q, out=torch.empty_like(q))
    sums.append((a, b))
print(native.status().threads)
print(all(torch.equal(a, sums[0][0]) and torch.allclose(b, sums[0][1], atol=1e-6) for a, b in sums))
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    where, same = done.stdout.split("\n")[:2]
    assert same == "True"
    assert openmp_there or where == "own pool"


@pytest.mark.parametrize(("late_ms", "few"), [(0, False), (20, True)])
def test_a_pool_that_is_late_is_left_alone(library: None, late_ms: int, few: bool) -> None:
    """A stand-in for OpenMP runs both shares at once and then comes back late, as on a busy machine."""
    code = f"""
import ctypes, time
import torch
from qontext import native
from qontext.native import openmp
entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
thread, regions = 0, 0
def run(body, context, threads, flags):
    global thread, regions
    regions += 1
    for thread in range(2):
        body(context)
    time.sleep({late_ms} / 1e3)
kept = [
    ctypes.CFUNCTYPE(None, entry, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)(run),
    ctypes.CFUNCTYPE(ctypes.c_int)(lambda: thread),
    ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 2),
    ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0),
]
addresses = tuple(ctypes.cast(f, ctypes.c_void_p).value for f in kept)
openmp.find = lambda: openmp.OpenMP("stand-in", addresses)
torch.set_num_threads(2)
x = torch.randn(128, 1024)
for _ in range(400):
    out = native.bias_act(x, "relu", out=torch.full_like(x, float("nan")))
    assert torch.equal(out, torch.relu(x))
print(native.status().threads, regions)
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    name, regions = done.stdout.split()
    assert name == "stand-in"
    # Late: there are few regions between pauses of 2, 4, 8, ... ms. On time: the pool is used throughout, but for the
    # pause after a call that another process happened to delay.
    assert 1 <= int(regions) <= 100 if few else int(regions) >= 20
