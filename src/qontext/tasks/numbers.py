"""Small numerics of tasks, in float64."""

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Independent probabilities."""
    return 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))


def best(values: np.ndarray, count: int) -> list[int]:
    """Indices of the `count` largest values, best first, equal ones in order."""
    count = min(count, len(values))
    if count <= 0:
        return []
    found = np.argpartition(-values, count - 1)[:count]
    return [int(i) for i in found[np.lexsort((found, -values[found]))]]
