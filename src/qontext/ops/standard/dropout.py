"""Dropout as inference sees it: nothing is dropped."""

import torch

from ...errors import UnsupportedOperatorError
from .declare import Attributes, Context, Inputs, Result
from .operands import needed, optional


def dropout(inputs: Inputs, attributes: Attributes, context: Context) -> Result:
    """x itself and a mask of ones; training with a ratio other than 0 is refused."""
    x = needed("Dropout", inputs, 0)
    ratio, training = optional(inputs, 1), optional(inputs, 2)
    if training is not None:
        if training.is_meta or (ratio is not None and ratio.is_meta):
            raise NotImplementedError("Dropout: its training mode is not known while shapes are inferred")
        amount = 0.5 if ratio is None else ratio.item()
        if training.item() and amount != 0:
            raise UnsupportedOperatorError(
                f"Dropout: training_mode is true with ratio {amount}; allowed is inference; export the model in "
                "evaluation mode"
            )
    mask = torch.ones_like(x, dtype=torch.bool) if context.wants(1) else None
    return context.results(x, mask)
