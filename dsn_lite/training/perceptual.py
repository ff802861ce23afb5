"""A differentiable relative of wide-band PESQ, for training: how far apart two signals are in loudness.

The steps are those of ITU-T P.862 (2001) with the wide-band extension P.862.2 (2007): equal levels, power in critical
bands, compensation of a constant colouring and of slow gain changes, Zwicker's loudness, disturbance with a dead zone, an
asymmetric disturbance that counts added sound more than what is missing, and means that stress the worst stretches. What
the standard tabulates is computed here from published formulas (bands: Traunmueller 1990; threshold: Terhardt 1979), and
there is no time alignment, as training pairs have no delay. Martin-Donas et al. (2018) were the first to train by such a
distance. It correlates with PESQ and does not equal it: figures in this project are always from the reference
implementation (``dsn_lite.evaluation.metrics``).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dsn_lite.audio.spectral import BINS, SAMPLE_RATE, power, stft

LISTENING_LEVEL = 79.0
"""dB SPL at which speech is heard, P.862."""
BAND = 0.5
"""Width of a critical band's slice in Bark."""
ZWICKER = 0.23
"""Exponent of Zwicker's loudness."""
DEAD_ZONE = 0.25
"""Differences below this share of the softer loudness are not heard."""


def bark(hertz: np.ndarray) -> np.ndarray:
    """Critical-band rate in Bark (Traunmueller 1990, equation 5)."""
    return 26.81 * hertz / (1960 + hertz) - 0.53


def threshold(hertz: np.ndarray) -> np.ndarray:
    """Hearing threshold in dB SPL (Terhardt 1979, equation 1).

    >>> threshold(np.array([100.0, 3300.0])).round().tolist()
    [23.0, -5.0]
    """
    khz = hertz / 1000
    return 3.64 * khz**-0.8 - 6.5 * np.exp(-0.6 * (khz - 3.3) ** 2) + 1e-3 * khz**4


class Ear(NamedTuple):
    """What is fixed about hearing, for Q bands."""

    bands: Tensor
    """Which bin belongs to which band, [F, Q]."""
    quiet: Tensor
    """Power that is just heard, [Q]."""
    exponent: Tensor
    """Of the loudness, [Q]."""
    speech: Tensor
    """Bins between 325 and 3250 Hz, by which levels are made equal, [F]."""


@lru_cache(maxsize=1)
def ear() -> Ear:
    """The tables of an ear at 16 kHz.

    >>> ear().bands.shape
    torch.Size([257, 41])
    """
    hertz = np.arange(BINS) * SAMPLE_RATE / 2 / (BINS - 1)
    heard = hertz >= 100  # the wide-band input filter of P.862.2 passes what lies above
    index = ((bark(hertz) - bark(np.array(100.0))) / BAND).astype(int)
    # Numbered anew, as low bands may be without a bin of their own; number 0 is what is not heard.
    _, index = np.unique(np.where(heard, index, -1), return_inverse=True)
    bands = np.eye(index.max() + 1)[index][:, 1:]
    centre = bands.T @ hertz / bands.sum(0)
    steeper = np.where(bark(centre) < 4, np.minimum(6 / (bark(centre) + 2), 2) ** 0.15, 1)  # P.862: low bands
    speech = (hertz >= 325) & (hertz <= 3250)
    tables = (bands, 10 ** (threshold(centre) / 10), ZWICKER * steeper, speech)
    return Ear(*(torch.tensor(table, dtype=torch.float32) for table in tables))


def band_powers(wave: Tensor) -> Tensor:
    """Power [B, T, Q] of waves [B, samples] in Q = 41 bands; 1 is 0 dB SPL, and between 325 and 3250 Hz it sums to 79 dB.

    >>> band_powers(torch.randn(2, 4096)).shape
    torch.Size([2, 17, 41])
    """
    bands, speech = ear().bands.to(wave), ear().speech.to(wave)
    spectrum = power(stft(wave))
    level = (spectrum * speech).sum(-1).mean(-1)[..., None, None]
    return (spectrum @ bands) * (10 ** (LISTENING_LEVEL / 10) / level.clamp_min(1e-8))


def loudness(powers: Tensor) -> Tensor:
    """Zwicker's loudness [B, T, Q] in sone per Bark of the powers [B, T, Q]; zero below the threshold."""
    quiet, exponent = ear().quiet.to(powers), ear().exponent.to(powers)
    ratio = (0.5 + 0.5 * powers / quiet).clamp_min(1)
    return 0.1866 * (quiet / 0.5) ** exponent * (ratio**exponent - 1)


def perceptual_distance(enhanced: Tensor, clean: Tensor) -> Tensor:
    """Disturbance [B] of enhanced [B, samples] against clean [B, samples], on the scale of PESQ before its last curve.

    0 means that no difference is heard, 1 is about one point of the raw score ``4.5 - 0.1 d_sym - 0.0309 d_asym`` of
    P.862. At least 0.4 s of signal. Several answers at once, [..., B, samples], share what is computed of the clean one.

    >>> clean = torch.randn(2, 16000) * torch.linspace(0, 0.1, 16000)
    >>> noise = 0.01 * torch.randn(2, 16000)
    >>> near, far = (perceptual_distance(clean + size * noise, clean) for size in (1, 4))
    >>> near.shape, bool((near < far).all()), perceptual_distance(0.5 * clean, clean).round(decimals=3).tolist()
    (torch.Size([2]), True, [0.0, 0.0])
    """
    enhanced, clean = band_powers(enhanced), band_powers(clean)
    quiet = ear().quiet.to(clean)

    # A constant colouring is forgiven up to 20 dB: the reference takes it on. Frames without speech do not count.
    active = (_audible(clean, 100 * quiet) > 1e7).to(clean)
    means = [(spectrum * active[..., None]).mean(-2) for spectrum in (enhanced, clean)]
    clean = clean * ((means[0] + 1000) / (means[1] + 1000)).clamp(0.01, 100)[..., None, :]

    # So is a slow change of gain, up to 35 dB down and 7 dB up.
    gain = (_audible(clean, quiet) + 5e3) / (_audible(enhanced, quiet) + 5e3)
    gain = torch.cat([gain[..., :1], 0.8 * gain[..., 1:] + 0.2 * gain[..., :-1]], -1).clamp(3e-4, 5)
    enhanced = enhanced * gain[..., None]

    loud = [loudness(spectrum) for spectrum in (enhanced, clean)]
    difference = loud[0] - loud[1]
    heard = (difference.abs() - DEAD_ZONE * torch.minimum(*loud)).clamp_min(0)
    added = ((enhanced + 50) / (clean + 50)).pow(1.2)
    added = (added * (added >= 3)).clamp(max=12)

    weight = ((_audible(clean, quiet) + 1e5) / 1e7).pow(0.04)
    total = len(quiet) * BAND
    symmetric = total * ((BAND * heard).square().sum(-1) / total).add(1e-12).sqrt() / weight
    asymmetric = (BAND * heard * added).sum(-1) / weight
    return 0.1 * _worst(symmetric.clamp(max=45)) + 0.0309 * _worst(asymmetric.clamp(max=45))


def _audible(powers: Tensor, quiet: Tensor) -> Tensor:
    """Total power [B, T] of the bands that lie above a threshold [Q]."""
    return (powers * (powers > quiet)).sum(-1)


def _worst(disturbance: Tensor) -> Tensor:
    """Mean [B] over time of a disturbance [B, T]: sixth power inside 0.3 s, square over the stretches."""
    stretches = disturbance.unfold(-1, 20, 10).add(1e-6)
    return stretches.pow(6).mean(-1).pow(1 / 3).mean(-1).sqrt()
