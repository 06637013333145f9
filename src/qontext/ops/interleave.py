"""The two orders of a fused Q, K, V projection, and how to tell them apart.

A projection of N heads of size D has 3*N*D output features. Two orders are in use:

- "three N D": all of Q, then all of K, then all of V (three linear layers put one after the other);
- "N three D": head by head, each with its query, key and value (TensorRT's plugins).

Both have the same shape, so an operator that is told the wrong order computes nonsense without an error.
"""

from typing import TypeVar

import numpy as np
import torch

from ..errors import ArgumentError, ShapeError

Array = TypeVar("Array", torch.Tensor, np.ndarray)
THREE_N_D, N_THREE_D = "three N D", "N three D"


def interleave_qkv(fused: Array, num_heads: int, axis: int = 0) -> Array:
    """Reorders the features of a fused weight or bias from "three N D" to "N three D".

    Args:
        fused: torch weight `[3*N*D, K]` (axis 0), ONNX weight `[K, 3*N*D]` (axis 1) or bias `[3*N*D]` (axis 0), a
            torch tensor or numpy array of any dtype.
        num_heads: N.
        axis: the axis that holds the features.
    Returns:
        A contiguous copy of the same shape; `deinterleave_qkv` takes it back exactly.
    Raises:
        ShapeError: the axis is missing or its size is no multiple of 3 * num_heads.
    """
    return _swap(fused, axis, (3, num_heads))


def deinterleave_qkv(fused: Array, num_heads: int, axis: int = 0) -> Array:
    """Reorders the features of a fused weight or bias from "N three D" to "three N D".

    The inverse of `interleave_qkv`, with the same arguments, result and errors.
    """
    return _swap(fused, axis, (num_heads, 3))


def qkv_order(
    fused: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    num_heads: int,
    axis: int = 0,
) -> str | None:
    """The order of `fused`, known from the separate weights (or biases) that it was made of.

    Args:
        fused: `[3*N*D, K]`, `[K, 3*N*D]` or `[3*N*D]`.
        query, key, value: the same without the factor 3.
    Returns:
        "three N D", "N three D", or None when it is neither. One head: both are the same, "three N D" is said.
    Raises:
        ShapeError: the shapes do not belong together.
    """
    plain = torch.cat((query, key, value), dim=axis)
    if plain.shape != fused.shape:
        raise ShapeError(
            f"qkv_order: query, key and value of shape {list(query.shape)}, {list(key.shape)}, {list(value.shape)} "
            f"make {list(plain.shape)} along axis {axis}, but fused is {list(fused.shape)}"
        )
    if torch.equal(fused, plain):
        return THREE_N_D
    return N_THREE_D if torch.equal(fused, interleave_qkv(plain, num_heads, axis)) else None


def diagnose_qkv_order(
    fused: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    num_heads: int,
    layout: str,
    axis: int = 0,
) -> str | None:
    """Says whether a fused weight (or bias) fits the `layout` given to QKVToContext.

    Args:
        fused, query, key, value, num_heads, axis: as in `qkv_order`.
        layout: the operator's attribute, for example "S B (N three D) 1 1".
    Returns:
        None when it fits, else one sentence that names the order found and what to do.
    Raises:
        ArgumentError: the layout holds neither order.
        ShapeError: the shapes do not belong together.
    """
    wanted = next((order for order in (THREE_N_D, N_THREE_D) if order in layout), None)
    if wanted is None:
        raise ArgumentError(f"diagnose_qkv_order: layout {layout!r} holds neither {THREE_N_D!r} nor {N_THREE_D!r}")
    found = qkv_order(fused, query, key, value, num_heads, axis)
    if found == wanted or (found is not None and num_heads == 1):
        return None
    if found is None:
        return (
            f"the fused weight is neither {THREE_N_D!r} nor {N_THREE_D!r} of the given query, key and value with "
            f"{num_heads} heads; check num_heads, axis and that scale was not folded into one of them"
        )
    cure = "interleave_qkv" if wanted == N_THREE_D else "deinterleave_qkv"
    return (
        f"layout {layout!r} expects the order {wanted!r}, but the fused weight is {found!r}; "
        f"pass it through {cure}(weight, num_heads={num_heads}, axis={axis}), and its bias too"
    )


def _swap(fused: Array, axis: int, order: tuple[int, int]) -> Array:
    shape: tuple[int, ...] = tuple(fused.shape)
    heads = order[0] * order[1] // 3
    if heads < 1 or not -len(shape) <= axis < len(shape) or shape[axis] % (3 * heads):
        raise ShapeError(
            f"a fused Q, K, V tensor of shape {list(shape)} has no axis {axis} whose size is a multiple of "
            f"3 * num_heads = {3 * heads}; torch weights are [3*E, K] (axis 0), ONNX weights [K, 3*E] (axis 1)"
        )
    axis %= len(shape)
    parts = shape[:axis] + order + (shape[axis] // (3 * heads),) + shape[axis + 1 :]
    if isinstance(fused, torch.Tensor):
        return fused.reshape(parts).swapaxes(axis, axis + 1).reshape(shape).clone()
    return fused.reshape(parts).swapaxes(axis, axis + 1).reshape(shape).copy()
