"""Fourier transforms of one frame as small matrix products, 512 = 16 x 2 x 16, and what lies before and behind them."""

from __future__ import annotations

import numpy as np

from dsn_lite.audio.offset import DECAY
from dsn_lite.audio.spectral import HOP, WINDOW
from dsn_lite.engine.kernel.products import product
from dsn_lite.network.compiled import f32, jit

_STEP = 1 - DECAY
_STEP_1, _STEP_2, _STEP_3 = _STEP * DECAY, _STEP * DECAY**2, _STEP * DECAY**3
ROOM = 512 + 3 * 576 + HOP
"""Values of room for a frame: samples, three matrices [18, 32], a hop without its offset."""
_DECAY_2, _DECAY_3, _DECAY_4 = DECAY**2, DECAY**3, DECAY**4


@jit
def block_offset(samples, state, out):
    """Samples [HOP] less their running mean; see :mod:`dsn_lite.audio.offset`.

    state [3]: the mean in two parts, which add up to more digits than one has, and whether it has begun.
    """
    mean = np.float64(state[0]) + np.float64(state[1])
    if state[2] == 0:
        state[2] = 1
        for i in range(len(samples)):
            mean += np.float64(samples[i])
        mean /= len(samples)
    for i in range(0, len(samples), 4):  # in fours, so that a mean waits for the one four samples before
        a, b, c, d = (
            np.float64(samples[i]), np.float64(samples[i + 1]), np.float64(samples[i + 2]), np.float64(samples[i + 3])
        )  # fmt: skip
        out[i] = a - (DECAY * mean + _STEP * a)
        out[i + 1] = b - (_DECAY_2 * mean + (_STEP_1 * a + _STEP * b))
        out[i + 2] = c - (_DECAY_3 * mean + (_STEP_2 * a + _STEP_1 * b + _STEP * c))
        mean = _DECAY_4 * mean + (_STEP_3 * a + _STEP_2 * b + (_STEP_1 * c + _STEP * d))
        out[i + 3] = d - mean
    state[0] = f32(mean)
    state[1] = f32(mean - np.float64(state[0]))


@jit
def _turn(real, imaginary, cosine, sine):
    """Turn complex numbers back by an angle, in place; with real and imaginary parts exchanged, forth."""
    re, im, c, s = real.reshape(-1), imaginary.reshape(-1), cosine.reshape(-1), sine.reshape(-1)
    for i in range(len(re)):
        re[i], im[i] = re[i] * c[i] + im[i] * s[i], im[i] * c[i] - re[i] * s[i]


@jit
def to_spectrum(grid, first, twiddle, second, rows, halves, turned, order, signs, real, imaginary):
    """Bins 0 to 255 of the samples in grid [16, 32], laid into real and imaginary parts [256..] by `order`.

    rows, halves and turned [18, 32] are room: nine real and nine imaginary parts (the others are their conjugates); then
    sums and differences of halves, 16 real and 16 imaginary parts in a row; then even and odd bins likewise.
    """
    product(first, grid, rows)
    _turn(rows[:9], rows[9:], twiddle[:9], twiddle[9:])
    half = rows.shape[1] // 2
    for row in range(len(rows)):
        low, high, k, part = rows[row, :half], rows[row, half:], row % 9, row // 9 * half
        sums, differences = halves[k, part : part + half], halves[9 + k, part : part + half]
        for n in range(len(low)):
            sums[n], differences[n] = low[n] + high[n], low[n] - high[n]
    product(halves[:9].T, second[:32], turned[:9])
    product(halves[9:].T, second[32:], turned[9:])
    flat, places, sources, sign = turned.reshape(-1), order[0], order[1], signs[0]
    for i in range(HOP):
        real[places[i]] = flat[sources[i]]
        imaginary[places[i]] = sign[i] * flat[sources[i] + half]


@jit
def to_samples(real, imaginary, second, twiddle, first, turned, halves, rows, order, signs, grid):
    """Samples, left in grid: the inverse of :func:`to_spectrum`; bin 256 is zero."""
    flat, places, targets, keeps, sign = turned.reshape(-1), order[2], order[3], signs[1], signs[2]
    half = rows.shape[1] // 2
    for i in range(len(places)):
        flat[targets[i]] = keeps[i] * real[places[i]]
        flat[targets[i] + half] = sign[i] * imaginary[places[i]]
    product(turned[:9].T, second[:32], halves[:9])
    product(turned[9:].T, second[32:], halves[9:])
    for row in range(len(rows)):
        low, high, k, part = rows[row, :half], rows[row, half:], row % 9, row // 9 * half
        even, odd = halves[k, part : part + half], halves[9 + k, part : part + half]
        for n in range(len(low)):
            low[n], high[n] = even[n] + odd[n], even[n] - odd[n]
    _turn(rows[9:], rows[:9], twiddle[:9], twiddle[9:])
    product(first, rows, grid)


def matrices() -> list[np.ndarray]:
    """First and second matrix forward, second and first backward, the angles between, the window."""
    k, n, m = np.arange(9), np.arange(32), np.arange(16)
    inner = 2 * np.pi * np.outer(k, m) / 16  # 16 points: bin k, sample m
    # Half of 32 points: even bins from the sums of the halves, odd ones from their differences.
    outer = [2 * np.pi * np.outer(m, bins) / 32 for bins in (2 * m, 2 * m + 1)]
    forward = [np.block([[np.cos(x), -np.sin(x)], [np.sin(x), np.cos(x)]]) for x in outer]
    twiddle = 2 * np.pi * np.outer(k, n) / WINDOW
    # Bins 1 to 7 stand for 9 to 15 as well.
    twice = np.where((k == 0) | (k == 8), 1, 2) / WINDOW
    return [
        np.concatenate([np.cos(inner), -np.sin(inner)]).T,
        np.concatenate(forward),
        np.concatenate([matrix.T for matrix in forward]),
        np.concatenate([twice[:, None] * np.cos(inner), -twice[:, None] * np.sin(inner)]),
        np.concatenate([np.cos(twiddle), np.sin(twiddle)]),
        np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).reshape(2, HOP),
    ]


def orders(stride: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the bins lie: ``order`` [4, 288] and ``signs`` [3, 288] of :func:`to_spectrum` and :func:`to_samples`.

    Bin b of a spectrum lies in row b % stride and column b // stride of rows of `width` columns. Bin 16 n + k, k up to 8,
    of the transforms' own order lies in row k, or 9 + k where n is odd, and column n // 2; bins above 256 are conjugates.
    """
    bins = np.arange(HOP)
    places = bins % stride * width + bins // stride

    def own(k, n):
        return (k + n % 2 * 9) * 32 + n // 2

    is_mirrored = bins % 16 > 8
    known = np.where(is_mirrored, WINDOW - bins, bins)
    order, signs = np.zeros((4, 288), np.int64), np.zeros((3, 288), np.float32)
    order[0, :HOP], order[1, :HOP] = places, own(known % 16, known // 16)
    signs[0, :HOP] = np.where(is_mirrored, -1, 1)
    k, n = np.divmod(np.arange(288), 32)
    bins = 16 * n + k
    known = np.where(bins > HOP, WINDOW - bins, bins)
    order[2], order[3] = places[known % HOP], own(k, n)
    signs[1] = known < HOP
    signs[2] = np.where(known % HOP == 0, 0, np.where(bins > HOP, -1, 1))
    return order, signs
