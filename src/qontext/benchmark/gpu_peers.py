"""Peers on a GPU: each takes a Hugging Face encoder and a batch on the device and gives a call without arguments.

A peer that cannot take part raises; whoever measures reports it.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..dtypes import by_name

Call = Callable[[], torch.Tensor]


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


PEERS: Mapping[str, Callable[[Any, torch.Tensor, torch.Tensor | None], Call]] = {
    "torch eager": eager,
    "torch in a graph": in_a_graph,
    "torch.compile": compiled,
}


def lowered(model: Any, precision: str) -> Any:
    """A copy of the model on the GPU in a lower precision."""
    return copy.deepcopy(model).to(by_name(precision).torch).cuda().eval()
