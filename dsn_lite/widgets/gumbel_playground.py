"""Gumbel playground: draw a gate again and again, and see what the logits, the noise and the temperature do to it.

Everything is computed in the browser by `gumbel_playground.js`; no kernel is needed. The noise comes from a small
generator that exists on both sides, so that the picture for print shows the very draws of the page.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import traitlets

from dsn_lite.errors import InputError
from dsn_lite.widgets.shared import Widget

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIFFERENCE = (-4.0, 4.0)
"""Range of the logit difference, open minus closed."""
TEMPERATURES = (
    0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9,
    1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0,
)  # fmt: skip
"""Where the slider stops; the first and the last are the ends of the range."""
LIMIT = 2000
"""Draws after which the playground has seen enough."""
BINS = 20
"""Of the histogram of the soft values."""


def gumbel_draws(seed: int, draws: int) -> np.ndarray:
    """Standard Gumbel noise [draws, 2] (closed, open): the same numbers as on the page.

    The generator is "mulberry32", whose 32-bit arithmetic both languages do exactly.

    >>> gumbel_draws(1, 3).shape, bool((gumbel_draws(1, 3)[:2] == gumbel_draws(1, 2)).all())
    ((3, 2), True)
    """
    mask, state = 0xFFFFFFFF, seed & 0xFFFFFFFF
    uniform = np.empty(2 * draws)
    for i in range(2 * draws):
        state = (state + 0x6D2B79F5) & mask
        mixed = ((state ^ state >> 15) * (state | 1)) & mask
        mixed ^= (mixed + ((mixed ^ mixed >> 7) * (mixed | 61))) & mask
        uniform[i] = ((mixed ^ mixed >> 14) + 0.5) / 2**32  # never 0, never 1
    return -np.log(-np.log(uniform)).reshape(draws, 2)


def soft_gate(noise: np.ndarray, difference: float, temperature: float) -> np.ndarray:
    """Soft values [N] of gates whose logits differ by `difference`, for noise [N, 2].

    >>> soft_gate(np.zeros((1, 2)), difference=0.0, temperature=1.0).tolist()
    [0.5]
    """
    return _sigmoid((difference + noise[:, 1] - noise[:, 0]) / temperature)


def expected_histogram(difference: float, temperature: float, bins: int = BINS) -> np.ndarray:
    """Probability [bins] that a soft value falls into each of `bins` equal parts of 0..1.

    The difference of two Gumbel variables is logistic, so a soft value lies below x with probability
    ``sigmoid(temperature * logit(x) - difference)``.

    >>> expected_histogram(0.0, 1.0, bins=4).tolist()  # uniform
    [0.25, 0.25, 0.25, 0.25]
    """
    inner = np.arange(1, bins) / bins
    below = _sigmoid(temperature * np.log(inner / (1 - inner)) - difference)
    return np.diff(below, prepend=0.0, append=1.0)


class GumbelPlayground(Widget):
    """A gate to draw by hand: samples, their soft values against the hard decision, and the gradient.

    Parameters
    ----------
    difference : open minus closed logit, -4 to 4.
    temperature : of the softmax, 0.1 to 5.
    noise : whether Gumbel noise is added, as in training, or not, as in evaluation.
    seed : of the noise; the same seed, the same draws.
    draws : how many are there at the beginning, 0 to 2000.

    Examples
    --------
    >>> GumbelPlayground(difference=1.5, temperature=0.5)
    GumbelPlayground(difference=1.5, temperature=0.5)
    """

    _esm = Path(__file__).parent / "gumbel_playground.js"
    _css = Path(__file__).parent / "gumbel_playground.css"
    difference = traitlets.Float().tag(sync=True)
    temperature = traitlets.Float().tag(sync=True)
    noise = traitlets.Bool().tag(sync=True)
    seed = traitlets.Int().tag(sync=True)
    draws = traitlets.Int().tag(sync=True)
    ranges = traitlets.Dict().tag(sync=True)
    """The constants of this module that the page needs."""

    def __init__(
        self, difference: float = 1.0, temperature: float = 1.0, *, noise: bool = True, seed: int = 1, draws: int = 100
    ):
        _check("difference", difference, *DIFFERENCE)
        _check("temperature", temperature, TEMPERATURES[0], TEMPERATURES[-1])
        _check("draws", draws, 0, LIMIT)
        _check("seed", seed, 0, 2**32 - 1)
        ranges = {"difference": list(DIFFERENCE), "temperatures": list(TEMPERATURES), "draws": LIMIT, "bins": BINS}
        super().__init__(
            difference=difference, temperature=temperature, noise=noise, seed=seed, draws=draws, ranges=ranges
        )

    def figure(self) -> Figure:
        """The soft values and the gradient, for print."""
        from matplotlib.figure import Figure

        noise = gumbel_draws(self.seed, self.draws) * self.noise
        soft = soft_gate(noise, self.difference, self.temperature)
        edges, middle = np.linspace(0, 1, BINS + 1), (np.arange(BINS) + 0.5) / BINS
        figure = Figure(figsize=(9, 3), layout="constrained")
        left, right = figure.subplots(1, 2)
        shares = np.histogram(soft, edges)[0] / max(1, len(soft))
        left.bar(middle, shares, 0.9 / BINS, color=np.where(middle > 0.5, "#12508a", "#9aa7b8"))
        if self.noise:
            left.stairs(expected_histogram(self.difference, self.temperature), edges, color="#b54708")
        left.axvline(0.5, ls="--", color="grey")
        left.set(xlabel="soft value", ylabel="share of the draws", title=f"open in {np.sum(soft > 0.5)} of {len(soft)}")
        noisy = np.linspace(-8, 8, 401)
        curve = _sigmoid(noisy / self.temperature)
        right.plot(noisy, curve, color="#12508a", label="soft gate")
        right.plot(noisy, noisy > 0, color="grey", label="hard gate")
        right.plot(noisy, curve * (1 - curve) / self.temperature, color="#b54708", label="gradient")
        right.set(xlabel="noisy logit difference", title=f"temperature {self.temperature:g}")
        right.legend(frameon=False)
        return figure

    def __repr__(self) -> str:
        return f"GumbelPlayground(difference={self.difference:g}, temperature={self.temperature:g})"


def _sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(x)))  # without overflow


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(f"{name} is {value}; it must lie between {low:g} and {high:g}")
