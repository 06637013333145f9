"""The allocator and the page faults."""

import mmap
import platform
import subprocess
import sys

import pytest

from qontext import native


def test_page_faults_rise() -> None:
    before = native.page_faults()
    with mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:  # memory no allocator keeps
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            block.madvise(mmap.MADV_NOHUGEPAGE)
        for at in range(0, 32 << 20, 4096):
            block[at] = 1
    assert native.page_faults() - before > 100


def test_large_blocks_stay(library: None) -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("not glibc")
    code = """
import torch
from qontext import native
assert native.steady_allocator()
def step():
    return torch.full((2048, 8192), 1.0).sum()
for _ in range(20):
    step()
before = native.page_faults()
for _ in range(20):
    step()
print(native.page_faults() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 4 * 16384  # of the 20 x 16384 that mapping anew each time costs


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert native.steady_allocator() is False
