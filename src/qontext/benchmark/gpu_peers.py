"""Peers on a GPU: each takes a Hugging Face encoder and a batch on the device and gives a call without arguments.

A peer that cannot take part raises; whoever measures reports it.
"""

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..dtypes import by_name
from ..errors import DeviceError
from .gpu_onnxruntime import OnnxRuntimePeer

Call = Callable[[], torch.Tensor]
Peer = Callable[[torch.Tensor, torch.Tensor | None], Call]


def eager(model: Any, ids: torch.Tensor, mask: torch.Tensor | None) -> Call:
    """transformers as they come, with scaled-dot-product attention."""

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return model(input_ids=ids, attention_mask=mask).last_hidden_state

    return run


def in_a_graph(model: Any, ids: torch.Tensor, mask: torch.Tensor | None) -> Call:
    """The same captured in a CUDA graph for this one shape."""
    # With a mask the SDPA path asks whether it is all ones, which waits for the device; a 4-D mask is taken as it is.
    wide = None if mask is None else mask[:, None, None, :].bool()
    run = eager(model, ids, wide)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()

    def replay() -> torch.Tensor:
        graph.replay()
        return result

    return replay


def compiled(model: Any, ids: torch.Tensor, mask: torch.Tensor | None) -> Call:
    """torch.compile with mode max-autotune (which uses CUDA graphs), compiled for this one shape: takes minutes."""
    torch._dynamo.reset()
    return eager(torch.compile(model, mode="max-autotune", dynamic=False), ids, mask)


def peers_of(model: Any, precision: str, folder: Path) -> dict[str, Peer]:
    """The peers by name; each takes ids and mask `[B, S]` (mask None: all ones) on the device.

    Args:
        model: a Hugging Face encoder in float32 on the GPU.
        folder: where peers may write; it has to live as long as they do.
    """
    half = copy.deepcopy(model).to(by_name(precision).torch).eval()

    @functools.cache
    def exported() -> OnnxRuntimePeer:
        if precision != "fp16":
            raise DeviceError(f"ONNX Runtime's optimiser writes fp16, not {precision}")
        return OnnxRuntimePeer(model, folder)

    return {
        "torch eager": lambda ids, mask: eager(half, ids, mask),
        "torch in a graph": lambda ids, mask: in_a_graph(half, ids, mask),
        "torch.compile": lambda ids, mask: compiled(half, ids, mask),
        "onnxruntime": lambda ids, mask: exported()(ids, mask),
    }
