"""Biases of positions: ALiBi slopes, tables of relative positions, T5's buckets."""

import math

import torch

Tensor = torch.Tensor


def buckets(distance: Tensor, count: int, max_distance: int, both_ways: bool) -> Tensor:
    """T5's bucket of each relative position (key minus query).

    Near distances have a bucket each, far ones share them logarithmically up to `max_distance`. With `both_ways` half
    of the buckets are for keys after the query; without, these share the bucket of distance 0.
    """
    first = torch.zeros_like(distance)
    if both_ways:
        count //= 2
        first = (distance > 0).long() * count
        far = distance.abs()
    else:
        far = (-distance).clamp_min(0)
    exact = count // 2
    # In float32, as all implementations do it: a float64 would put distances on a border into another bucket.
    log = torch.log(far.clamp_min(1).float() / exact) / math.log(max_distance / exact) * (count - exact)
    large = (exact + log.long()).clamp_max(count - 1)
    return first + torch.where(far < exact, far, large)


def relative(table: Tensor, queries: Tensor, keys: Tensor, max_distance: int, both_ways: bool) -> Tensor:
    """Bias [N, S, L] of query and key positions.

    Args:
        table: [N, longest, longest] by positions when `max_distance` is 0, else [N, buckets].
    """
    if max_distance == 0:
        return table[:, queries[:, None], keys[None, :]]
    distance = keys[None, :] - queries[:, None]
    return table[:, buckets(distance, table.shape[1], max_distance, both_ways)]


def added_bias(
    slopes: Tensor | None, table: Tensor | None, queries: Tensor, keys: Tensor, max_distance: int, both_ways: bool
) -> Tensor | None:
    """Everything that positions add to the logits of one sequence, [N, S or 1, L]; None when that is nothing."""
    parts = []
    if slopes is not None:
        parts.append(slopes.reshape(-1, 1, 1) * keys.to(slopes.dtype))
    if table is not None:
        parts.append(relative(table, queries, keys, max_distance, both_ways))
    return None if not parts else parts[0] if len(parts) == 1 else parts[0] + parts[1]
