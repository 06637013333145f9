"""FlashInfer's ragged attention as a peer on a GPU. It compiles its kernels at the first call: a minute or more."""

from collections.abc import Callable

import torch

WORKSPACE = 256 << 20  # bytes


def ragged_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bounds: torch.Tensor, causal: bool, backend: str = "auto"
) -> Callable[[], torch.Tensor]:
    """A call that computes softmax(Q K^T / sqrt(D)) V of packed sequences, planned beforehand as its users do.

    Args:
        q, k, v: `[T, N, D]`, fp16 or bf16, on the GPU.
        bounds: `[B+1]` int32 on the GPU, where each sequence begins.
        backend: "fa2", "fa3", or "auto" for what FlashInfer thinks best.
    """
    from flashinfer import BatchPrefillWithRaggedKVCacheWrapper

    space = torch.empty(WORKSPACE, dtype=torch.uint8, device=q.device)
    wrapper = BatchPrefillWithRaggedKVCacheWrapper(space, "NHD", backend=backend)
    heads, size = q.shape[1:]
    wrapper.plan(bounds, bounds, heads, k.shape[1], size, causal=causal, q_data_type=q.dtype)

    def run() -> torch.Tensor:
        out: torch.Tensor = wrapper.run(q, k, v)
        return out

    return run
