"""Enhance a signal as it arrives, in chunks of any length.

A stream keeps what the network remembers plus one window of input and one hop of output; its memory does not grow. What it
returns is the offline result, late by at most one window: 512 samples, 32 ms.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from dsn_lite.audio.checks import as_mono, as_output
from dsn_lite.audio.spectral import HOP
from dsn_lite.engine.engines import Engine, Transforms, make_engine
from dsn_lite.errors import InputError
from dsn_lite.network.enhance import given_gates
from dsn_lite.network.model import Network

BLOCK_SAMPLES = 320_000
"""Samples computed at once when a long chunk is fed (20 s): bounds the memory."""

_NO_SAMPLES = np.zeros(0, np.float32)


def checked_chunk(chunk: np.ndarray) -> np.ndarray:
    """The samples [n] that a stream is fed, float32.

    >>> checked_chunk(np.array([0, -32768], np.int16))
    array([ 0., -1.], dtype=float32)
    """
    is_usual = type(chunk) is np.ndarray and chunk.dtype == np.float32 and chunk.ndim == 1
    # The sum of squares is the cheaper test, and says no more often than it should.
    return chunk if is_usual and math.isfinite(chunk.dot(chunk)) else as_mono(chunk)


def check_budget(network, budget: float | None) -> None:
    """Refuse a budget for a network that has nothing to spend it on."""
    if budget is not None and not len(network.gate_names):
        raise InputError(f"{network.name}: has no gates, so that it always costs the same; leave the budget out")


class Runner(Protocol):
    """What a stream runs: takes samples of whole hops, returns those that are finished, and remembers the rest."""

    hop: int
    """Samples that are taken at once; the last call of a stream may end with fewer, in whole frames of 256."""
    delay: int
    """By how many samples what comes out is late."""
    rest: float
    """What a signal goes on with when it has ended."""

    def process(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Finished samples, float32 [m], and gates used, uint8 [T, K], of the next samples [n], float32."""
        ...

    def reset(self) -> None:
        """Forget everything."""
        ...


class FrameRunner:
    """Runs a network frame by frame on an engine: with the policy's gates, all open, all closed, or those given.

    See :class:`Stream` for what it takes.
    """

    hop = delay = HOP

    def __init__(self, model: Network, budget: float | None, policy: str | np.ndarray, engine: str | Engine):
        self.gate_count = len(model.gate_names)
        self._is_constant = isinstance(policy, str)
        self._given = given_gates(policy, 1 if self._is_constant else len(np.atleast_1d(policy)), self.gate_count)
        self.engine = make_engine(engine, model, model.budget_shift(budget)) if isinstance(engine, str) else engine
        self._inside = self.engine if hasattr(self.engine, "run_samples") else Transforms(self.engine)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._inside.reset()
        self._frames = 0

    @property
    def rest(self) -> float:
        """See :class:`Runner`."""
        return getattr(self._inside, "rest", 0.0)

    def process(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Runner`."""
        frames = len(samples) // HOP
        blocks, used = self._inside.run_samples(samples.reshape(frames, HOP), self._next_gates(frames))
        if self._frames == 0:
            blocks = blocks[1:]  # the first frame's first half lies before the signal
        self._frames += frames
        return blocks.reshape(-1), used

    def _next_gates(self, frames: int) -> np.ndarray | None:
        """Gates [frames, K] that are not the policy's; None where the policy decides or nothing can be gated."""
        if self._given is None:
            return None
        if self._is_constant:
            return self._given.copy() if frames == 1 else self._given.repeat(frames, axis=0)
        rows = self._given[self._frames : self._frames + frames]
        if len(rows) < frames:
            raise InputError(f"gates for {len(self._given)} frames were given, the signal has more")
        return rows


class Stream:
    """Enhances one channel at 16 kHz, chunk by chunk.

    Parameters
    ----------
    model : Network or SlimDemucs
        From :func:`dsn_lite.load`.
    budget : 0..1 or None
        Wanted mean activation; None is the trained operating point. See `Network.budget_shift`.
    policy : "learned", "open", "closed", or gates [T, K] of 0 and 1 for the frames to come
        A network of widths takes one width as well.
    engine : "auto", "kernel", "onnx", "torch", or an Engine of this stream's own
        What runs the frames; see :func:`~dsn_lite.engine.engines.make_engine`. Given an Engine, `budget` is
        its maker's business.

    Examples
    --------
    >>> from dsn_lite.network.config import Config
    >>> stream = Stream(Network(Config.preset("tiny")).eval())
    >>> [len(stream.feed(np.zeros(n, dtype=np.float32))) for n in (100, 500, 1000)], len(stream.flush())
    ([0, 256, 1024], 320)
    """

    def __init__(
        self, model, *, budget: float | None = None, policy: str | float | np.ndarray = "learned",
        engine: str | Engine = "auto",
    ):  # fmt: skip
        check_budget(model, budget)
        self.model, self.policy = model, policy
        self.gate_count = len(model.gate_names)
        self.runner: Runner
        if hasattr(model, "runner"):
            if engine != "auto":
                raise InputError(f"{model.name} runs in PyTorch alone; leave the engine out")
            self.runner = model.runner(budget=budget, policy=policy)
        else:
            self.runner = FrameRunner(model, budget, policy, engine)
        self.engine: Engine | None = getattr(self.runner, "engine", None)
        self._hop = self.runner.hop
        self._block = max(BLOCK_SAMPLES // self._hop, 1) * self._hop
        self._no_gates = np.zeros((0, self.gate_count), np.uint8)
        self.reset()

    def reset(self) -> None:
        """Start anew, as if nothing had been fed."""
        self.runner.reset()
        self.samples_in = self.samples_out = self.frames = 0
        self.gates = self._no_gates
        self._input = _NO_SAMPLES  # less than a hop, waiting for the rest of it

    def feed(self, chunk: np.ndarray) -> np.ndarray:
        """Take samples [n] at 16 kHz, floats or int16, n of any size; return those that are now finished, float32 [m].

        A chunk that is refused leaves the stream as it was.
        """
        chunk = checked_chunk(chunk)
        self.samples_in += len(chunk)
        samples = np.concatenate((self._input, chunk)) if len(self._input) else chunk
        left = len(samples) % self._hop
        if left:
            samples, self._input = samples[:-left], samples[-left:].copy()  # the caller may write to the chunk
        else:
            self._input = _NO_SAMPLES
        return self._process(samples)

    def flush(self) -> np.ndarray:
        """Return the samples still inside, so that as many have come out as went in; then reset."""
        missing = self.samples_in - self.samples_out
        padding = -len(self._input) % HOP + self.runner.delay if self.samples_in else 0
        tail = self._process(np.pad(self._input, (0, padding), constant_values=self.runner.rest))[:missing]
        gates = self.gates
        self.reset()
        self.gates = gates
        return tail

    def take_gates(self) -> np.ndarray:
        """Gates [T, K], uint8, of the frames computed by the last `feed` or `flush`."""
        return self.gates

    def _process(self, samples: np.ndarray) -> np.ndarray:
        """Finished samples after whole hops; only the last call may end within one."""
        if 0 < len(samples) <= self._block:  # a microphone's: microseconds count
            result, self.gates = self.runner.process(samples)
        else:
            parts = (samples[first : first + self._block] for first in range(0, len(samples), self._block))
            done = [self.runner.process(part) for part in parts]
            result = np.concatenate([_NO_SAMPLES, *(wave for wave, _ in done)])
            self.gates = np.concatenate([self._no_gates, *(gates for _, gates in done)])
        self.samples_out += len(result)
        self.frames += len(self.gates)
        return result if math.isfinite(result.dot(result)) else as_output(result, self.model.name)
