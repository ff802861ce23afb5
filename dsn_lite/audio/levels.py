"""The mean of channels, levels, and mixing at a ratio."""

from __future__ import annotations

import numpy as np

from dsn_lite.audio.checks import as_mono, as_rate, as_samples
from dsn_lite.errors import InputError


def to_mono(wave: np.ndarray) -> np.ndarray:
    """The mean of the channels: [C, samples] or [samples] -> [samples]."""
    wave = as_samples(wave)
    return wave if wave.ndim == 1 else wave.mean(axis=0, dtype=wave.dtype)


def rms_dbfs(wave: np.ndarray) -> float:
    """Root mean square level in dB relative to full scale (a constant 1.0 is 0 dB); silence is -inf.

    >>> rms_dbfs(np.full(8, 0.1))
    -20.0
    """
    wave = as_samples(wave, np.float64)
    return _power_db(float(np.mean(np.square(wave)))) if wave.size else -np.inf


def _power_db(power: float) -> float:
    return float(np.round(10 * np.log10(power), 9)) if power > 0 else -np.inf


def active_level(wave: np.ndarray, sample_rate: int = 16000) -> float:
    """Level of speech while somebody speaks, in dB relative to full scale.

    The mean power of the 20 ms frames that lie at most 40 dB below the loudest one, so that pauses do not count.

    Parameters
    ----------
    wave : float array [samples]
    sample_rate : int
        In Hz.

    Examples
    --------
    >>> speech = np.concatenate([np.full(16000, 0.1), np.zeros(16000)])
    >>> active_level(speech), round(rms_dbfs(speech), 2)
    (-20.0, -23.01)
    """
    frame = max(1, round(0.02 * as_rate(sample_rate)))
    wave = as_samples(wave, np.float64)
    if wave.size < frame:
        return rms_dbfs(wave)
    power = np.square(wave[: wave.size // frame * frame]).reshape(-1, frame).mean(axis=1)
    return _power_db(float(power[power >= power.max() * 1e-4].mean()))


def mix_at_snr(speech: np.ndarray, noise: np.ndarray, snr_db: float, sample_rate: int = 16000) -> np.ndarray:
    """Add noise to speech at a given signal-to-noise ratio; the speech stays as loud as it is.

    Parameters
    ----------
    speech : float array [samples]
        Its :func:`active_level` counts.
    noise : float array [any length]
        Repeated or cut to the length of the speech; its mean level over that length counts.
    snr_db : float
        In dB.
    sample_rate : int
        In Hz.

    Returns
    -------
    float32 array [samples]
        May go beyond full scale: it is not limited, so that `noisy - speech` is the noise that was added.

    Examples
    --------
    >>> speech, noise = np.sin(np.arange(16000) / 8), np.cos(np.arange(8000) * 2)
    >>> noisy = mix_at_snr(speech, noise, 6.0)
    >>> round(active_level(speech) - rms_dbfs(noisy - speech), 3)
    6.0
    """
    speech, noise = as_mono(speech), as_mono(noise)
    noise = np.resize(noise, speech.shape)
    speech_db, noise_db = active_level(speech, sample_rate), rms_dbfs(noise)
    for name, level in (("speech", speech_db), ("noise", noise_db)):
        if level == -np.inf:
            raise InputError(f"the {name} is silent, so there is no signal-to-noise ratio; take another clip")
    return speech + noise * np.float32(10 ** ((speech_db - noise_db - snr_db) / 20))
