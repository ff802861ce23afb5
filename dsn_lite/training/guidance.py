"""Metric guidance: how much of the network an utterance should use, from the DNSMOS OVRL of its noisy input.

The worse the input sounds, the more of the network it gets: the target activation is a falling, clipped line of OVRL. The
line is moved up or down until the mean target over the training mixtures is the wanted one, so that a guided network and
one with a single target for all spend the same on average (Zhao, Yang and Madhu, arXiv 2510.11395).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsn_lite.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Target activation as a line of OVRL: ``clip(offset - slope * ovrl, lowest, highest)``.

    >>> line = Guidance.fit(np.array([1.2, 1.5, 2.5, 3.0]), mean=0.5, slope=0.4)
    >>> targets = line.target(np.array([1.2, 1.5, 2.5, 3.0]))
    >>> round(float(targets.mean()), 3), bool((np.diff(targets) < 0).all())
    (0.5, True)
    """

    offset: float
    slope: float
    lowest: float
    highest: float

    @classmethod
    def fit(
        cls, ovrl: np.ndarray, *, mean: float, slope: float = 0.45, lowest: float = 0.1, highest: float = 0.9
    ) -> Guidance:
        """The line of this slope (activation per OVRL point) whose mean target over the labels `ovrl` [N] is `mean`."""
        if not lowest < mean < highest:
            raise InputError(f"the mean target {mean} must lie between the lowest, {lowest}, and the highest, {highest}")
        if len(ovrl) == 0:
            raise InputError("no OVRL labels; make them with `dsn-lite label MANIFEST`")
        if not np.isfinite(ovrl).all():
            raise InputError("some OVRL labels are not numbers; make them again with `dsn-lite label MANIFEST`")
        if slope <= 0:
            raise InputError(f"the slope is {slope}; it must be above 0, so that worse input gets more of the network")
        low, high = -10.0, 10.0 + slope * 5
        for _ in range(60):  # the mean grows with the offset: bisect
            middle = (low + high) / 2
            if np.clip(middle - slope * ovrl, lowest, highest).mean() < mean:
                low = middle
            else:
                high = middle
        return cls(offset=(low + high) / 2, slope=slope, lowest=lowest, highest=highest)

    def target(self, ovrl: np.ndarray) -> np.ndarray:
        """Target activations, of the shape of `ovrl`."""
        return np.clip(self.offset - self.slope * np.asarray(ovrl), self.lowest, self.highest)
