"""What a strided convolution comes to on rows of phases: one matrix down, one for each of its shifts up."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dsn_lite.network.folded import Arrays, FoldedLayer


class Taps(NamedTuple):
    """One matrix of a convolution."""

    first: int
    """Phase of the input that its first tap reads for output phase `shift`."""
    weight: np.ndarray
    """[taps, inputs, outputs]"""
    shift: int = 0


def taps_of(row: FoldedLayer, arrays: Arrays) -> list[Taps]:
    """The matrices that a convolution comes to."""
    weight, stride = arrays["weight"].transpose(2, 1, 0), row.stride  # [taps, inputs, outputs]
    kernel, half = len(weight), len(weight) // 2
    if row.kind == "down":
        return [Taps(-half, weight)]
    parts = []
    for shift in range(stride):  # output band stride * i + shift hears band i + q through tap shift + half - stride * q
        heard = [q for q in range(-kernel, kernel + 1) if 0 <= shift + half - stride * q < kernel]
        parts.append(Taps(heard[0] if heard else 0, weight[[shift + half - stride * q for q in heard]], shift))
    if row.kind == "up":
        return parts
    # The mask has but two outputs: one product for all shifts keeps more sums in flight than one for each.
    first, last = min(part.first for part in parts), max(part.first + len(part.weight) for part in parts)
    union = np.zeros((last - first, weight.shape[1], 2 * stride), np.float32)
    for part in parts:
        start, column = part.first - first, 2 * part.shift
        union[start : start + len(part.weight), :, column : column + 2] = part.weight
    return [Taps(first, union)]


def edges_of(row: FoldedLayer) -> tuple[int, int]:
    """Phases below 0 and above P - 1 that a convolution reads."""
    taps, step = taps_of(row, row.static), row.stride if row.kind == "down" else 1
    # The last output phase reads from step * (outputs - 1) on; the input has step * outputs phases.
    return max(0, *(-part.first for part in taps)), max(0, *(part.first + len(part.weight) - step for part in taps))
