"""Enhance a whole signal of any rate and any number of channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dsn_lite.audio.checks import as_channels, as_rate
from dsn_lite.audio.resampling import fit, resample
from dsn_lite.audio.spectral import FRAMES_PER_SECOND, SAMPLE_RATE
from dsn_lite.engine.stream import Stream
from dsn_lite.errors import InputError
from dsn_lite.macs import count, frame_macs
from dsn_lite.model import Network


@dataclass(frozen=True)
class Result:
    """What came out, and what was spent on it."""

    wave: np.ndarray | Tensor
    """Enhanced signal: kind, shape and rate of the input."""
    gates: np.ndarray
    """Gates used, uint8 [T, K], or [channels, T, K]; T frames of 16 ms."""
    frame_mmacs: np.ndarray
    """Rate of computing in each frame, in MMAC/s, [T] or [channels, T]."""
    activation: float
    """MACs of the open dynamic parts / MACs of all dynamic parts; 1 for a static network."""
    mmacs_per_second: float
    """Mean of `frame_mmacs`; of one channel."""


def checked(wave: np.ndarray | Tensor, sample_rate: int) -> np.ndarray:
    """The signal as float32 [channels, samples]; InputError where it, or its rate, is none.

    Examples
    --------
    >>> checked(np.zeros(5), 16_000).shape
    (1, 5)
    """
    as_rate(sample_rate)
    channels = as_channels(wave)
    if not channels.size:
        raise InputError("the signal has no samples")
    return channels


def enhance(
    network: Network,
    wave: np.ndarray | Tensor,
    sample_rate: int,
    *,
    budget: float | None = None,
    policy: str | np.ndarray = "learned",
) -> Result:
    """Enhance a signal; see :meth:`dsn_lite.model.Network.enhance`."""
    channels = checked(wave, sample_rate)
    waves, gates = [], []
    for channel in channels:
        stream = Stream(network, budget=budget, policy=policy)
        low = resample(channel, sample_rate, SAMPLE_RATE)
        parts, used = [], []
        for end in (False, True):
            parts.append(stream.flush() if end else stream.feed(low))
            used.append(stream.take_gates())
        waves.append(fit(resample(np.concatenate(parts), SAMPLE_RATE, sample_rate), len(channel)))
        gates.append(np.concatenate(used))
    counted = count(network)
    spent = frame_macs(counted, np.stack(gates)) * FRAMES_PER_SECOND / 1e6
    span = counted.open - counted.closed
    output = np.stack(waves).reshape(np.shape(wave))
    return Result(
        wave=torch.from_numpy(output) if isinstance(wave, Tensor) else output,
        gates=np.stack(gates) if output.ndim == 2 else gates[0],
        frame_mmacs=spent if output.ndim == 2 else spent[0],
        activation=max(0.0, float((spent.mean() - counted.closed) / span)) if span else 1.0,
        mmacs_per_second=float(spent.mean()),
    )
