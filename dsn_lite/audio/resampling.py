"""Change the sampling rate: soxr, which is imported only where that happens."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsn_lite.audio.checks import as_rate, as_samples


class Resampler:
    """A stream that changes its sampling rate: soxr, high quality, without delay once flushed.

    Fed block by block it gives the same samples as :func:`resample` at once. Rates are in Hz; equal ones pass the samples
    through.
    """

    def __init__(self, from_rate: Any, to_rate: Any, channels: int):
        self._stream = None
        from_rate, to_rate = as_rate(from_rate), as_rate(to_rate)
        if from_rate != to_rate:
            import soxr

            self._stream = soxr.ResampleStream(from_rate, to_rate, channels, dtype="float32", quality="HQ")

    def feed(self, wave: np.ndarray, *, last: bool = False) -> np.ndarray:
        """Take float32 [C, n], give what is ready, float32 [C, m]; `last` brings out the rest."""
        if self._stream is None:
            return wave
        return self._stream.resample_chunk(np.ascontiguousarray(wave.T, dtype=np.float32), last=last).T


def resample(wave: Any, from_rate: Any, to_rate: Any) -> np.ndarray:
    """Change the sampling rate.

    Parameters
    ----------
    wave : float array [..., samples]
    from_rate, to_rate : int
        In Hz.

    Returns
    -------
    float32 array [..., ceil(samples * to_rate / from_rate)]
        There and back, followed by :func:`fit`, keeps the length.

    Examples
    --------
    >>> resample(np.zeros((2, 44100), dtype="float32"), 44100, 16000).shape
    (2, 16000)
    """
    wave, from_rate, to_rate = as_samples(wave), as_rate(from_rate), as_rate(to_rate)
    if from_rate == to_rate or not wave.size:
        return wave
    flat = wave.reshape(-1, wave.shape[-1])
    out = Resampler(from_rate, to_rate, len(flat)).feed(flat, last=True)
    out = fit(out, resampled_length(wave.shape[-1], from_rate, to_rate))
    return out.reshape(*wave.shape[:-1], out.shape[-1])


def resampled_length(samples: int, from_rate: Any, to_rate: Any) -> int:
    """Samples after resampling, rounded up.

    >>> resampled_length(1, 44100, 16000)
    1
    """
    return -(-int(samples) * as_rate(to_rate) // as_rate(from_rate))


def fit(wave: np.ndarray, samples: int) -> np.ndarray:
    """Cut the end off, or append zeros, so that the last axis has `samples`.

    >>> fit(np.array([1.0, 2.0]), 3), fit(np.array([1.0, 2.0]), 1)
    (array([1., 2., 0.]), array([1.]))
    """
    lacking = samples - wave.shape[-1]
    if lacking <= 0:
        return wave[..., :samples]
    return np.concatenate([wave, np.zeros((*wave.shape[:-1], lacking), dtype=wave.dtype)], axis=-1)
