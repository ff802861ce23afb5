"""Enhance a whole signal of any rate and any number of channels, in plain PyTorch.

What a reader sees here is what the engines for sound that arrives (``dsn_lite.engine``) are tested against.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dsn_lite.audio.checks import as_channels, as_output, as_rate
from dsn_lite.audio.offset import blocked_hops
from dsn_lite.audio.resampling import fit, resample
from dsn_lite.audio.spectral import SAMPLE_RATE, frame_count, istft, stft
from dsn_lite.errors import InputError
from dsn_lite.network.macs import Count, count

BLOCK_FRAMES = 1250
"""Frames computed at once (20 s): bounds the memory."""


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

    @classmethod
    def of(cls, wave: np.ndarray | Tensor, waves: Sequence, gates: Sequence, counted: Count) -> Result:
        """The result for a signal whose channels became `waves` [samples] under `gates` [T, K]."""
        output, used = np.stack(waves).reshape(np.shape(wave)), np.stack(gates)
        spent = counted.of_frames(used)
        return cls(
            wave=torch.from_numpy(output) if isinstance(wave, Tensor) else output,
            gates=used if output.ndim == 2 else used[0],
            frame_mmacs=spent if output.ndim == 2 else spent[0],
            activation=counted.activation(used),
            mmacs_per_second=float(spent.mean()),
        )


class Enhancer(nn.Module):
    """What a network of frames and gates does with a whole signal."""

    name: str
    card: dict
    gate_names: list[str]

    def enhance(
        self, wave: np.ndarray | Tensor, sample_rate: int, *, budget: float | None = None,
        policy: str | np.ndarray = "learned",
    ) -> Result:  # fmt: skip
        """Enhance a signal of any rate.

        Parameters
        ----------
        wave : array or tensor, [samples] or [channels, samples]
            Channels are enhanced one by one.
        sample_rate : in Hz; other rates than 16 kHz are resampled there and back, what lies above 8 kHz is lost.
        budget : wanted mean activation 0..1; None is the trained operating point. See :meth:`budget_shift`.
        policy : "learned", "open", "closed", or gates [T, K] of 0 and 1

        Examples
        --------
        >>> from dsn_lite.network.config import Config
        >>> from dsn_lite.network.model import Network
        >>> result = Network(Config.preset("tiny")).eval().enhance(np.zeros(8000, np.float32), 16_000)
        >>> result.wave.shape, result.gates.shape
        ((8000,), (33, 8))
        """
        shift, rate, channels = self.budget_shift(budget), as_rate(sample_rate), as_channels(wave)
        if not channels.size:
            raise InputError("the signal has no samples")
        waves, gates = zip(*(self._channel(one, rate, shift, policy) for one in channels), strict=True)
        return Result.of(wave, waves, gates, count(self))

    def budget_shift(self, budget: float | None) -> float:
        """What to add to the policy's margins for a wanted mean activation `budget` in 0..1; None is the trained one.

        0 closes and 1 opens everything. In between the shift comes from the calibration in the model's card: the
        activation measured on the validation mixtures at each of several shifts. A single clip will differ from it.
        Without a calibration the shift is ``log(budget / (1 - budget))``.
        """
        if budget is None:
            return 0.0
        if not self.gate_names:
            raise InputError(f"{self.name}: has no gates, so that it always costs the same; leave the budget out")
        if not 0 <= budget <= 1:
            raise InputError(f"budget is {budget}; it must lie between 0 (closed) and 1 (open)")
        if budget in (0, 1):
            return math.inf if budget else -math.inf
        table = self.card.get("calibration")
        if not table:
            return math.log(budget / (1 - budget))
        return float(np.interp(budget, [row["activation"] for row in table], [row["shift"] for row in table]))

    @torch.inference_mode()
    def margins(self, wave: np.ndarray) -> np.ndarray:
        """Margins [T, K] of the policy for a signal [samples] at 16 kHz; nothing is refined.

        >>> from dsn_lite.network.config import Config
        >>> from dsn_lite.network.model import Network
        >>> Network(Config.preset("tiny")).eval().margins(np.zeros(8000, np.float32)).shape
        (33, 8)
        """
        spectrum, state, found = _heard(np.asarray(wave, np.float32)), None, []
        for part in spectrum.split(BLOCK_FRAMES, 1):
            output = self(part, torch.zeros_like, state)
            state = output.state
            found.append(output.margins[0].numpy())
        return np.concatenate(found)

    @torch.inference_mode()
    def _channel(
        self, wave: np.ndarray, sample_rate: int, shift: float, policy: str | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """One enhanced channel [samples] and its gates [T, K]."""
        low = resample(wave, sample_rate, SAMPLE_RATE)
        frames = frame_count(len(low))
        given = given_gates(policy, frames, len(self.gate_names))
        spectrum, state, spectra, used = _heard(low), None, [], []
        for first in range(0, frames, BLOCK_FRAMES):
            span = slice(first, first + BLOCK_FRAMES)
            gates = None if given is None else torch.from_numpy(given[None, span]).float()
            output = self(spectrum[:, span], gates, state, shift=shift)
            state = output.state
            spectra.append(output.spectrum[0])
            used.append(output.gates[0].numpy().astype(np.uint8))
        enhanced = as_output(istft(torch.cat(spectra), len(low)).numpy(), self.name)
        return fit(resample(enhanced, SAMPLE_RATE, sample_rate), len(wave)), np.concatenate(used)


def _heard(wave: np.ndarray) -> Tensor:
    """Spectrum [1, T, 257] of a signal [samples] at 16 kHz without its offset."""
    frames = frame_count(len(wave))
    return stft(torch.from_numpy(blocked_hops(wave, frames).reshape(-1)))[None, :frames]


def given_gates(policy: str | np.ndarray, frames: int, count: int) -> np.ndarray | None:
    """Gates [frames, count] that are not the policy's, uint8; None where it decides or there is nothing to decide."""
    if isinstance(policy, str):
        if policy not in ("learned", "open", "closed"):
            raise InputError(f"policy is {policy!r}; choose learned, open or closed, or give gates [T, K]")
        return None if policy == "learned" or not count else np.full((frames, count), policy == "open", np.uint8)
    gates = (np.asarray(policy) != 0).astype(np.uint8)
    if gates.ndim != 2 or gates.shape[1] != count:
        raise InputError(f"gates have the shape {gates.shape}; needed is [frames, {count}]")
    if len(gates) < frames:
        raise InputError(f"gates for {len(gates)} frames were given, the signal has more")
    return gates[:frames] if count else None
