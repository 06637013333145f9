"""Unit test of the LayerNorm plugin: `python test_layer_norm_plugin.py`.

It builds a network of this one operator for x `[B, S, 768]` up to `[16, 256, 768]`, saves the engine, loads it again
and compares a run at `[4, 64, 768]` with NumPy.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from layer_norm_plugin import LAYER_NORM

import qontext as qx
from qontext.ops.declare import call_of
from qontext.ops.device import device_of
from qontext.plugins import Bound, Op, check_operator

WIDTH = 768
LARGEST = (16, 256)
SHAPE = (4, 64, WIDTH)
EPSILON = 1e-12
TOLERANCE = 6e-6
REPEATS = 50


def layerNormCPU(bufferH: list[np.ndarray]) -> np.ndarray:
    """The expected result in float64. `bufferH` holds x `[B, S, E]`, gamma and beta `[1, 1, E]`."""
    x, gamma, beta = (array.astype(np.float64) for array in bufferH)
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    return centred / np.sqrt(variance + EPSILON) * gamma + beta


def getLayerNormPlugin() -> Op:
    """The operator under test, its declaration and kernel checked on its own cases first."""
    for line in check_operator(LAYER_NORM):
        print(f"  {line.kernel:28} {line.case:12} {line.dtype:10} {line.refused or 'equals the reference'}")
    return LAYER_NORM


def check(a: np.ndarray, b: np.ndarray, weak: bool = False) -> bool:
    """Prints the largest error and says whether it is allowed: `weak` allows TOLERANCE, otherwise none at all."""
    error = float(np.abs(a.astype(np.float64) - b).max())
    good = error <= TOLERANCE if weak else bool((a == b).all())
    print(f"check: {good}, largest error {error:.2e}, allowed {TOLERANCE if weak else 0:.0e}")
    return good


def build_engine(plugin: Op) -> qx.Engine:
    """An engine of the one operator; gamma and beta are inputs, as in the homework's test."""
    net = qx.Network("layer_norm", plugins=[plugin])
    x = net.input("x", "float32", ("B", "S", WIDTH))
    gamma, beta = (net.input(name, "float32", (1, 1, WIDTH)) for name in ("gamma", "beta"))
    net.output(plugin(x, gamma, beta, epsilon=EPSILON, name="layer_norm"), "y")
    model = qx.Model("layer_norm", net.graph, net.ledger())
    return qx.build(model, plugins=[plugin], max_tokens=LARGEST[0] * LARGEST[1], max_length=LARGEST[1])


def measure_on_gpu(plugin: Op, dtype: torch.dtype) -> None:
    """Prints time and share of the bandwidth of a copy of the GPU kernel, for the largest input of the homework."""
    x = [torch.randn(*LARGEST, WIDTH, device="cuda").to(dtype) for _ in range(8)]
    gamma, beta = (torch.randn(1, 1, WIDTH, device="cuda").to(dtype) for _ in range(2))
    y = torch.empty_like(x[0])
    kernel = bind_on_gpu(plugin, [x[0], gamma, beta])
    copy = microseconds([lambda t=t: y.copy_(t) for t in x])
    ours = microseconds([lambda t=t: kernel([t, gamma, beta], [y]) for t in x])
    rate = 2 * y.numel() * y.element_size() / ours / 1e6
    print(f"GPU {[*LARGEST, WIDTH]} {dtype}: {ours:.1f} us, {rate:.2f} TB/s, {copy / ours:.0%} of a copy")


def bind_on_gpu(plugin: Op, inputs: list[torch.Tensor]) -> Bound:
    """The plugin's GPU kernel for inputs of these shapes."""
    call = call_of(plugin, inputs, {"epsilon": EPSILON}, [True], device_of("cuda"))
    (kernel,) = (k for k in plugin.kernels if k.device == "cuda")
    return kernel.bind(call)


def microseconds(calls: list[Callable[[], object]]) -> float:
    """Time of one call in a CUDA graph of all of them, which leaves out what launching costs on the host."""
    for call in calls:
        call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(4):
            for call in calls:
                call()
    times = []
    for _ in range(REPEATS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / (4 * len(calls)))
    return float(np.median(times))


def run() -> bool:
    """Builds, saves, loads, runs and compares; returns whether the result is right."""
    plugin = getLayerNormPlugin()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer_norm.qx"
        build_engine(plugin).save(path)
        engine = qx.load(path, plugins=[plugin])
    print(engine)
    random = np.random.default_rng(97)
    bufferH = [random.standard_normal(shape, dtype=np.float32) for shape in (SHAPE, (1, 1, WIDTH), (1, 1, WIDTH))]
    inputs = dict(zip(("x", "gamma", "beta"), bufferH, strict=True))
    good = check(engine.run(inputs)["y"], layerNormCPU(bufferH), weak=True)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        engine.run(inputs)
        times.append(time.perf_counter() - start)
    median = float(np.median(times))
    print(f"{list(SHAPE)}: {median * 1e6:.0f} us, {2 * bufferH[0].nbytes / median / 1e9:.1f} GB/s read and written")
    if torch.cuda.is_available():
        for dtype in (torch.float32, torch.float16):
            measure_on_gpu(plugin, dtype)
    return good


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
