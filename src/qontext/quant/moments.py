"""What a linear layer reads, as far as the rounding of its weight has to know it."""

from collections.abc import Sequence

import torch

from ..errors import CalibrationError

_APART = 8  # of so many rows one is held back to judge by
_MOST_APART = 256


class Moments:
    """Sums of the products x_i x_j of the columns of what a layer reads, and some rows held back to judge by.

    sums: float32 [K, K], None before a row came; rows: how many are in it.
    """

    def __init__(self) -> None:
        self.sums: torch.Tensor | None = None
        self.rows = 0
        self._apart: list[torch.Tensor] = []

    def add(self, x: torch.Tensor, name: str = "") -> None:
        """Counts the rows of x [..., K]. Raises CalibrationError, with the layer's `name`, for a NaN or an infinity."""
        flat = x.reshape(-1, x.shape[-1])
        if not bool(torch.isfinite(flat).all()):
            raise CalibrationError(
                f"layer {name!r} reads NaN or infinity on the samples; the float model fails on them"
            )
        wide = flat.float()
        if self.sums is None:
            self.sums = wide.new_zeros(wide.shape[1], wide.shape[1])
        here = torch.arange(len(wide), device=wide.device) % _APART == _APART - 1
        if self.apart_rows < _MOST_APART:
            self._apart.append(wide[here])
            wide = wide[~here]
        self.sums.addmm_(wide.T, wide)
        self.rows += len(wide)

    @property
    def apart_rows(self) -> int:
        """How many rows are held back."""
        return sum(len(rows) for rows in self._apart)

    @property
    def apart(self) -> torch.Tensor:
        """float32 [R, K]: the rows held back. At least one row was added before."""
        return torch.cat(self._apart)

    def divided(self, factors: torch.Tensor) -> "Moments":
        """Of x / factors, factors [K]."""
        assert self.sums is not None
        by = factors.to(self.sums)
        made = Moments()
        made.sums, made.rows = self.sums / by / by[:, None], self.rows
        made._apart = [rows / by for rows in self._apart]
        return made

    @staticmethod
    def together(parts: Sequence["Moments"]) -> "Moments":
        """Of all the rows that several layers of one weight read."""
        if len(parts) == 1:
            return parts[0]
        made = Moments()
        for part in parts:
            if part.sums is not None:
                made.sums = part.sums.clone() if made.sums is None else made.sums + part.sums
                made.rows += part.rows
                made._apart += part._apart
        return made
