"""What a stream runs of the slimmable DEMUCS: segments of 2048 samples, each at a width.

The router listens to a segment before it is enhanced, so what comes out is the offline result late by 128 ms.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dsn_lite.audio.spectral import HOP
from dsn_lite.errors import InputError
from dsn_lite.slimmable.choice import decide, from_thermometer, thermometer

SEGMENT_FRAMES = 8
"""Frames of 256 samples in a segment: the router decides once in 128 ms."""
SEGMENT = SEGMENT_FRAMES * HOP
"""Samples of a segment, 2048."""
TARGETS = (0.1, 0.75)
"""Range of the target utilisations that a router is trained for."""
_FORGET = math.exp(-HOP / 16_000 / 2.0)  # the level is a mean of the power with a time constant of two seconds
_QUIET = 1e-7  # power, -70 dB: what is softer is not lifted to the level of the rest


class SegmentRunner:
    """Runs segments of one channel through a network of widths; a :class:`~dsn_lite.engine.stream.Runner`.

    Parameters
    ----------
    model : SlimDemucs in evaluation mode
    budget : 0..1 or None
        Mean width wanted of the router; None is the one it aims at by itself. Within 0.1 to 0.75 it is the router's input;
        0 is the narrowest and 1 the widest alone.
    policy : "learned", "open" (the widest), "closed" (the narrowest), a width, or gates [T, K] for the frames to come
        Gates are those of the thermometer: nested, and the same on all frames of a segment.
    """

    hop, delay, rest = SEGMENT, 0, 0.0

    def __init__(self, model, budget: float | None, policy: str | float | np.ndarray):
        if budget is not None and not 0 <= budget <= 1:
            raise InputError(f"budget is {budget}; it must lie between 0 (narrowest) and 1 (widest)")
        self.model, self.gate_count = model, len(model.gate_names)
        low, high = TARGETS
        self.target = min(max(model.config.target if budget is None else budget, low), high)
        self._given: list[int] | None = None
        self._fixed: float | None = None
        """The one width of all segments."""
        if isinstance(policy, str):
            if policy not in ("learned", "open", "closed"):
                raise InputError(f"policy is {policy!r}; choose learned, open or closed, or give a width or gates [T, K]")
            if policy == "learned" and budget in (0, 1):
                policy = "open" if budget else "closed"
            self._fixed = {"open": model.widths[-1], "closed": model.widths[0]}.get(policy)
        elif np.ndim(policy) == 0:
            self._fixed = float(policy)
            if self._fixed not in model.widths:
                raise InputError(f"width {self._fixed:g}: {model.name} has {', '.join(f'{w:g}' for w in model.widths)}")
        else:
            self._given = self._indices(np.asarray(policy) != 0)
        self.reset()

    def _indices(self, gates: np.ndarray) -> list[int]:
        """Widths (indices) of the segments of given gates [T, K]."""
        if gates.ndim != 2 or gates.shape[1] != self.gate_count:
            raise InputError(f"gates have the shape {gates.shape}; needed is [frames, {self.gate_count}]")
        chosen = from_thermometer(torch.from_numpy(gates).float())
        if not np.array_equal(thermometer(chosen).numpy() != 0, gates):
            raise InputError("gates are not nested; a wider width needs all the gates below it open")
        index = chosen.argmax(-1).numpy()
        first = index[::SEGMENT_FRAMES]
        # The last frame of a spectrogram lies behind the signal and may stand alone.
        if not np.array_equal(np.repeat(first, SEGMENT_FRAMES)[: len(index)], index):
            raise InputError(f"gates change within a segment of {SEGMENT_FRAMES} frames; a width lasts for a whole one")
        return first.tolist()

    def reset(self) -> None:
        """Forget everything."""
        self._segments = 0
        self._state = self.model.initial_state(1)
        self._level = self.model.norm.gain.new_zeros(1, 2)  # of the type of the weights
        self._router = self.model.router.initial_state(1)

    @torch.inference_mode()
    def process(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`~dsn_lite.engine.stream.Runner`."""
        wave = torch.from_numpy(np.ascontiguousarray(samples))[None].to(self._level)
        levelled, level, self._level = level_out(wave, self._level)
        segments = math.ceil(len(samples) / SEGMENT)
        chosen = self._choose(levelled, segments)
        noise, self._state = self.model.run_segments(levelled, chosen, self._state)
        self._segments += segments
        one_hot = torch.eye(len(self.model.widths))[torch.tensor(chosen)]
        gates = thermometer(one_hot).numpy().astype(np.uint8).repeat(SEGMENT_FRAMES, axis=0)[: len(samples) // HOP]
        return ((levelled - noise) * level)[0].numpy().astype(np.float32), gates

    def _choose(self, levelled: Tensor, segments: int) -> list[int]:
        """Widths (indices) of the next segments."""
        if self._fixed is not None:
            return [self.model.widths.index(self._fixed)] * segments
        if self._given is not None:
            given = self._given[self._segments : self._segments + segments]
            if len(given) < segments:
                raise InputError(f"gates for {len(self._given)} segments were given, the signal has more")
            return given
        logits, self._router = self.model.router(levelled, torch.tensor([self.target]).to(levelled), self._router)
        return decide(logits)[0].argmax(-1).tolist()


def level_out(wave: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Divide a wave by its level so far.

    The level of a frame of 256 samples is the root of the mean power up to its end, older frames counting less.

    Of a wave [B, samples], whole frames, and a state [B, 2], zero at the start: the levelled wave [B, samples], its level
    [B, samples] and the new state.

    >>> levelled, level, _ = level_out(torch.full((1, 512), 0.5), torch.zeros(1, 2))
    >>> levelled[0, -1].round(decimals=3), level[0, -1].round(decimals=3)
    (tensor(1.), tensor(0.5000))
    """
    powers = wave.unflatten(-1, (-1, HOP)).square().mean(-1)
    pairs = torch.stack([powers, torch.ones_like(powers)])  # [2, B, T]
    frames = torch.arange(powers.shape[-1], device=wave.device)
    age = frames[None] - frames[:, None]  # [earlier, later]
    weights = torch.where(age >= 0, _FORGET ** age.clamp_min(0), 0.0).to(wave.dtype)
    carried = state.T[..., None] * (_FORGET ** (frames + 1)).to(wave.dtype)
    sums = pairs @ weights + carried
    level = (sums[0] / sums[1] + _QUIET).sqrt().repeat_interleave(HOP, -1)
    return wave / level, level, sums[..., -1].T
