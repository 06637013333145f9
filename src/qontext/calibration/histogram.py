"""A histogram that grows with what it is shown, so that one pass over the data is enough."""

import torch

BINS = 8192  # over [-reach, reach]


class Histogram:
    """Counts of values, with their least and largest.

    counts: float64 [BINS] over [-reach, reach]; when values lie beyond, the reach doubles and neighbours are joined
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(BINS, dtype=torch.float64)
        self.reach = 0.0
        self.low = 0.0
        self.high = 0.0

    @property
    def total(self) -> float:
        return float(self.counts.sum())

    def add(self, values: torch.Tensor) -> None:
        """Counts the values of a tensor, which must be finite."""
        if not values.numel():
            return
        low, high = (float(v) for v in torch.aminmax(values.float()))
        self.low, self.high = (min(self.low, low), max(self.high, high)) if self.total else (low, high)
        most = max(abs(low), abs(high))
        if self.reach == 0.0:
            self.reach = most or 1e-30
        while self.reach < most:
            self._widen()
        self.counts += torch.histc(values.float(), BINS, -self.reach, self.reach).double().cpu()

    def _widen(self) -> None:
        joined = self.counts.view(-1, 2).sum(1)
        quarter = BINS // 4
        self.counts = torch.zeros_like(self.counts)
        self.counts[quarter : quarter + BINS // 2] = joined
        self.reach *= 2

    @property
    def centres(self) -> torch.Tensor:
        """The middle of every bin."""
        step = 2 * self.reach / BINS
        return (torch.arange(BINS, dtype=torch.float64) + 0.5) * step - self.reach
