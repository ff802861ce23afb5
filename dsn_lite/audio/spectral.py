"""Short-time Fourier transform, its exact inverse, and power compression.

Frame ``t`` covers the samples ``[(t - 1) * HOP, (t + 1) * HOP)``: the signal is preceded by one hop of zeros, so that a
frame never needs a sample that lies after its own end. A stream that gets ``HOP`` new samples can compute one frame and
finish the ``HOP`` samples that lie one hop back; the algorithmic latency is one window, 512 samples or 32 ms.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SAMPLE_RATE = 16_000
"""Samples per second inside the network."""
WINDOW = 512
"""Window length in samples (32 ms)."""
HOP = 256
"""Hop in samples (16 ms): 62.5 frames per second."""
BINS = WINDOW // 2 + 1
"""Frequency bins of one frame, F = 257."""
COMPRESSION = 0.3
"""Exponent c of the power compression."""

FRAMES_PER_SECOND = SAMPLE_RATE / HOP


def window(length: int = WINDOW, **options) -> Tensor:
    """Square-root Hann window [length]; its square overlap-adds to one at half a window's hop.

    >>> w = window()
    >>> bool(torch.allclose(w[:256] ** 2 + w[256:] ** 2, torch.ones(256)))
    True
    """
    return torch.hann_window(length, periodic=True, **options).sqrt()


def frame_count(samples: int, hop: int = HOP) -> int:
    """Frames T of a signal of `samples` samples.

    >>> frame_count(16_000)
    64
    """
    return math.ceil(samples / hop) + 1


def stft(wave: Tensor, length: int = WINDOW) -> Tensor:
    """Spectrum of a real signal.

    Parameters
    ----------
    wave : Tensor [..., samples]
    length : window length in samples; the hop is half of it.

    Returns
    -------
    Tensor, complex [..., T, F] with ``T = ceil(samples / hop) + 1`` and ``F = length // 2 + 1``

    Examples
    --------
    >>> stft(torch.zeros(2, 16_000)).shape
    torch.Size([2, 64, 257])
    """
    hop = length // 2
    blocks = math.ceil(wave.shape[-1] / hop)
    padded = torch.nn.functional.pad(wave, (hop, (blocks + 1) * hop - wave.shape[-1]))
    frames = padded.unfold(-1, length, hop)
    return torch.fft.rfft(frames * window(length, dtype=wave.dtype, device=wave.device))


def istft(spectrum: Tensor, samples: int) -> Tensor:
    """Signal [..., samples] of a spectrum [..., T, F]: the exact inverse of :func:`stft`.

    >>> wave = torch.randn(3, 1000)
    >>> bool((istft(stft(wave), 1000) - wave).abs().max() < 1e-6)
    True
    """
    length = 2 * (spectrum.shape[-1] - 1)
    hop = length // 2
    frames = torch.fft.irfft(spectrum, n=length)
    frames = frames * window(length, dtype=frames.dtype, device=frames.device)
    # The block of samples b is the second half of frame b plus the first half of frame b + 1.
    blocks = frames[..., :-1, hop:] + frames[..., 1:, :hop]
    return blocks.flatten(-2)[..., :samples]


def compress(spectrum: Tensor, exponent: float = COMPRESSION, floor: float = 1e-12) -> Tensor:
    """Power-compressed spectrum ``|X|^c exp(j angle(X))``, of the shape of `spectrum` (complex).

    `floor` is added to the power, so that value and gradient stay finite at zero.

    >>> compress(torch.tensor([0j, 8 + 0j]), exponent=1 / 3).real
    tensor([0., 2.])
    """
    return spectrum * power(spectrum).add(floor).pow((exponent - 1) / 2)


def decompress(spectrum: Tensor, exponent: float = COMPRESSION) -> Tensor:
    """Inverse of :func:`compress`: ``|Y|^(1/c) exp(j angle(Y))``.

    >>> x = torch.tensor([3 + 4j, 0j])
    >>> bool(torch.allclose(decompress(compress(x)), x, atol=1e-5))
    True
    """
    return spectrum * power(spectrum).pow((1 / exponent - 1) / 2)


def power(spectrum: Tensor) -> Tensor:
    """Squared magnitude of a complex tensor; unlike ``abs()`` it has a gradient at zero."""
    return spectrum.real.square() + spectrum.imag.square()
