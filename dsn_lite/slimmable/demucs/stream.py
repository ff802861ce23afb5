"""Enhance a signal by the slimmable DEMUCS as it arrives: :class:`dsn_lite.engine.stream.Stream` for widths.

A stream keeps the state of network, level and router, and less than a segment of input; its memory does not grow. What it
returns is the offline result, late by the segment that the router listens to first: 2048 samples, 128 ms.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch

from dsn_lite.audio.spectral import HOP
from dsn_lite.engine.stream import checked_chunk
from dsn_lite.errors import InputError
from dsn_lite.slimmable.choice import decide, from_thermometer, thermometer
from dsn_lite.slimmable.demucs.network import SEGMENT, SEGMENT_FRAMES, TARGETS, SlimDemucs, level_out

BLOCK_SEGMENTS = 156
"""Segments computed at once when a long chunk is fed (20 s): bounds the memory."""

_NO_SAMPLES = np.zeros(0, np.float32)


class DemucsStream:
    """Enhances one channel at 16 kHz, chunk by chunk.

    Parameters
    ----------
    model : SlimDemucs in evaluation mode
    budget : 0..1 or None
        Mean width wanted of the router; None is the one it aims at by itself. Within 0.1 to 0.75 it is the router's input;
        0 is the narrowest and 1 the widest alone.
    policy : "learned", "open" (the widest), "closed" (the narrowest), a width, or gates [T, K] for the frames to come
        Gates are those of the thermometer: nested, and the same on all frames of a segment.

    Examples
    --------
    >>> from dsn_lite.slimmable.demucs.network import DemucsConfig
    >>> stream = DemucsStream(SlimDemucs(DemucsConfig()).eval())
    >>> [len(stream.feed(np.zeros(n, dtype=np.float32))) for n in (100, 2000, 4000)], len(stream.flush())
    ([0, 2048, 2048], 2004)
    """

    def __init__(self, model: SlimDemucs, *, budget: float | None = None, policy: str | float | np.ndarray = "learned"):
        if budget is not None and not 0 <= budget <= 1:
            raise InputError(f"budget is {budget}; it must lie between 0 (narrowest) and 1 (widest)")
        if isinstance(policy, str) and policy == "learned" and budget in (0, 1):
            policy = "open" if budget else "closed"
        self.model, self.gate_count = model, len(model.gate_names)
        self.policy = policy
        low, high = TARGETS
        self.target = min(max(model.config.target if budget is None else budget, low), high)
        self._given: list[int] | None = None
        self._fixed: int | None = None
        if isinstance(policy, str):
            if policy not in ("learned", "open", "closed"):
                raise InputError(
                    f"policy is {policy!r}; choose learned, open or closed, or give a width or gates [T, K]"
                )
            if policy != "learned":
                self._fixed = len(model.widths) - 1 if policy == "open" else 0
        elif np.ndim(policy) == 0:
            if float(policy) not in model.widths:
                raise InputError(f"width {float(policy):g}: {model.name} has {', '.join(f'{w:g}' for w in model.widths)}")
            self._fixed = model.widths.index(float(policy))
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
        """Start anew, as if nothing had been fed."""
        self.samples_in = self.samples_out = self.segments = 0
        self.gates = np.zeros((0, self.gate_count), np.uint8)
        self._input = _NO_SAMPLES
        self._state = self.model.initial_state(1)
        self._level = torch.zeros(1, 2)
        self._router = self.model.router.initial_state(1)

    def copy(self) -> DemucsStream:
        """An independent stream in the same state; the weights are shared."""
        return copy.copy(self)  # states are replaced and never written to

    def feed(self, chunk: np.ndarray) -> np.ndarray:
        """Take float samples [n] at 16 kHz, n of any size; return the samples that are now finished, float32 [m].

        Raises
        ------
        InputError
            When the chunk is not one channel, or holds NaN or infinite samples; the stream is then unchanged.
        """
        chunk = checked_chunk(chunk)
        self.samples_in += len(chunk)
        samples = np.concatenate((self._input, chunk))
        whole = len(samples) // SEGMENT * SEGMENT
        self._input = samples[whole:].copy()  # the caller may write to the chunk
        return self._advance(samples[:whole])

    def flush(self) -> np.ndarray:
        """Return the samples still inside, so that as many have come out as went in; then reset."""
        left = len(self._input)
        tail = self._advance(np.pad(self._input, (0, -left % HOP)))[:left]
        gates = self.gates
        self.reset()
        self.gates = gates
        return tail

    def take_gates(self) -> np.ndarray:
        """Gates [T, K], uint8, of the frames computed by the last `feed` or `flush`."""
        return self.gates

    def _advance(self, samples: np.ndarray) -> np.ndarray:
        """Enhance whole frames; only the last call of a stream may end within a segment."""
        parts, used = [_NO_SAMPLES], [np.zeros((0, self.gate_count), np.uint8)]
        for first in range(0, len(samples), BLOCK_SEGMENTS * SEGMENT):
            wave, gates = self._block(samples[first : first + BLOCK_SEGMENTS * SEGMENT])
            parts.append(wave)
            used.append(gates)
        result, self.gates = np.concatenate(parts), np.concatenate(used)
        self.samples_out += len(result)
        return result

    @torch.inference_mode()
    def _block(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        levelled, level, self._level = level_out(torch.from_numpy(samples)[None], self._level)
        segments = math.ceil(len(samples) / SEGMENT)
        chosen = self._choose(levelled, segments)
        noise, self._state = self.model.run_segments(levelled, chosen, self._state)
        self.segments += segments
        one_hot = torch.eye(len(self.model.widths))[torch.tensor(chosen)]
        gates = thermometer(one_hot).numpy().astype(np.uint8).repeat(SEGMENT_FRAMES, axis=0)[: len(samples) // HOP]
        return ((levelled - noise) * level)[0].numpy(), gates

    def _choose(self, levelled: torch.Tensor, segments: int) -> list[int]:
        """Widths (indices) of the next segments."""
        if self._fixed is not None:
            return [self._fixed] * segments
        if self._given is not None:
            given = self._given[self.segments : self.segments + segments]
            if len(given) < segments:
                raise InputError(f"gates for {len(self._given)} segments were given, the signal has more")
            return given
        logits, self._router = self.model.router(levelled, torch.tensor([self.target]), self._router)
        return decide(logits)[0].argmax(-1).tolist()
