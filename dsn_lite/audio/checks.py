"""The one check of samples and rates: what numpy users pass is taken, or the line says what is wanted."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsn_lite.errors import InputError

_LARGEST = (1 << 31) - 1  # what a sound file can state


def as_rate(value: Any) -> int:
    """A sampling rate in Hz: a whole number of any type.

    >>> as_rate(np.int32(44100)), as_rate(16e3)
    (44100, 16000)
    """
    number = np.asarray(value)
    is_number = number.ndim == 0 and number.dtype.kind in "iuf"
    if not is_number or not 1 <= number <= _LARGEST or number != np.floor(number):
        raise InputError(f"the sample rate is {value!r}; give a whole number of Hz, such as 16000")
    return int(number)


def as_samples(wave: Any, dtype: type = np.float32) -> np.ndarray:
    """Samples as floats, full scale 1.0, in the shape they have; an array, a list or a tensor.

    Floats are taken as they are. Integers of 16 and 32 bits are what sound files and cards hold, and become part of full
    scale, as in soundfile. Of other integers nobody can tell what they mean; they are refused, and so are NaN and infinity.

    >>> as_samples(np.array([-32768, 16384], np.int16))
    array([-1. ,  0.5], dtype=float32)
    """
    if hasattr(wave, "detach"):  # a tensor; numpy has no bfloat16
        wave = wave.detach().cpu()
        wave = (wave.float() if wave.is_floating_point() and wave.element_size() < 4 else wave).numpy()
    samples = np.asarray(wave)
    if samples.dtype.kind == "i" and samples.dtype.itemsize in (2, 4):
        samples = samples / np.asarray(1 << (8 * samples.dtype.itemsize - 1), dtype)
    elif samples.dtype.kind != "f" and samples.size:
        raise InputError(
            f"samples of type {samples.dtype}; give floats within -1..1, or int16 or int32, which are a part of full scale"
        )
    if samples.ndim == 0:
        raise InputError(f"a signal of shape (), {wave!r}; give [samples] or [channels, samples]")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        samples = samples.astype(dtype, copy=False)
    if not np.isfinite(samples).all():
        raise InputError("the signal holds NaN or infinite samples; leave them out or replace them by zero")
    return samples


def as_channels(wave: Any) -> np.ndarray:
    """A signal [samples] or [C, samples] as float32 [C, samples].

    >>> as_channels(np.zeros(5)).shape
    (1, 5)
    """
    samples = as_samples(wave)
    if samples.ndim not in (1, 2):
        raise InputError(f"a signal of shape {samples.shape}; give [samples] or [channels, samples]")
    if samples.ndim == 2 and samples.shape[0] > max(64, samples.shape[1]):
        raise InputError(f"a signal of shape {samples.shape}; give [channels, samples], this looks transposed")
    return np.atleast_2d(samples)


def as_mono(wave: Any) -> np.ndarray:
    """One channel [samples] as float32.

    >>> as_mono([0.0, 1.0]).dtype
    dtype('float32')
    """
    samples = as_samples(wave)
    if samples.ndim != 1:
        raise InputError(f"samples of shape {samples.shape}; one channel [samples] is wanted, do one after the other")
    return samples


def as_output(wave: np.ndarray, name: str) -> np.ndarray:
    """What a network called `name` made, unless it is no sound."""
    if not np.isfinite(wave).all():
        raise InputError(f"{name}: what this network makes is NaN or infinite, no sound; train or download it again")
    return wave
