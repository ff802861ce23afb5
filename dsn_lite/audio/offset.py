"""A blocker of constant offsets: what a recording is shifted by must not reach a network."""

from __future__ import annotations

import math

import numpy as np

from dsn_lite.audio.spectral import HOP, SAMPLE_RATE

CUTOFF = 2.0
"""Frequency in Hz below which an offset counts as constant."""
DECAY = math.exp(-2 * math.pi * CUTOFF / SAMPLE_RATE)
"""How much of the running mean the next sample keeps."""
_POWERS = DECAY ** np.arange(1, HOP + 1)


def block_offset(hops: np.ndarray, mean: float | None = None) -> tuple[np.ndarray, float]:
    """Hops of samples [T, 256] less their running mean, float32, and the mean after the last of them.

    A causal high-pass of one pole. `mean` is what an earlier call returned; None starts anew, from the mean of the first
    hop, so that a constant is gone from the first sample on.

    >>> blocked, mean = block_offset(np.full((4, 256), 0.1, np.float32))
    >>> float(np.abs(blocked).max()) < 1e-8, round(mean, 6)
    (True, 0.1)
    """
    wide = hops.astype(np.float64)
    if mean is None:
        mean = float(wide[0].mean())
    # Mean after sample n of a hop: DECAY^(n + 1) times that before the hop, plus what the hop brings.
    means = np.cumsum(wide / _POWERS, axis=1) * (1 - DECAY) * _POWERS
    for row in means:
        row += mean * _POWERS
        mean = row[-1]
    return (wide - means).astype(np.float32), float(mean)


def blocked_hops(samples: np.ndarray, count: int) -> np.ndarray:
    """A whole signal [n] as `count` hops [count, 256] without its offset, float32.

    Where it ends within a hop it goes on with the running mean before that hop, as a stream does that is flushed: zeros
    would be a step of the size of the offset.

    >>> hops = blocked_hops(np.full(300, 0.1, np.float32), 3)
    >>> hops.shape, float(np.abs(hops).max()) < 1e-7
    ((3, 256), True)
    """
    whole = len(samples) // HOP
    blocked, mean = np.zeros((0, HOP), np.float32), None
    if whole:
        blocked, mean = block_offset(samples[: whole * HOP].reshape(-1, HOP))
    rest = np.full((count - whole) * HOP, mean or 0.0, np.float32)
    rest[: len(samples) - whole * HOP] = samples[whole * HOP :]
    return np.concatenate([blocked, block_offset(rest.reshape(-1, HOP), mean)[0]])
