"""From logits to the next tokens."""

from collections.abc import Callable

import torch

Choose = Callable[[torch.Tensor], list[int]]
"""Next tokens of the rows of logits [rows, V]."""


def greedy(logits: torch.Tensor) -> list[int]:
    """The most likely token of each row; the first of equals."""
    chosen: list[int] = logits.argmax(-1).tolist()
    return chosen
