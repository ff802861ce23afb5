"""Enhance a signal as it arrives, in chunks of any length.

A stream keeps what the network remembers plus one window of input and one hop of output; its memory does not grow. What it
returns is the offline result, late by at most one window: 512 samples, 32 ms.
"""

from __future__ import annotations

import copy
import math
import warnings
from typing import Protocol

import numpy as np

from dsn_lite.audio.spectral import HOP, WINDOW
from dsn_lite.errors import InputError
from dsn_lite.model import Network

ENGINES = ("auto", "kernel", "onnx", "torch")

BLOCK_FRAMES = 1250
"""Frames computed at once when a long chunk is fed (20 s): bounds the memory."""

_NO_SAMPLES = np.zeros(0, np.float32)
_WINDOW = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)


class Engine(Protocol):
    """Runs the frames of one stream through a network and remembers its state.

    An engine that has the Fourier transforms inside offers ``run_samples(samples, gates)`` as well: float32 samples
    [T, HOP] to finished samples [T, HOP], late by a hop, and gates. Others are given it by :class:`Transforms`.
    """

    name: str

    def run(self, spectrum: np.ndarray, gates: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Enhanced spectrum, complex64 [T, F], and gates used, uint8 [T, K].

        `spectrum` is complex64 [T, F]; `gates` is uint8 [T, K], or None to let the policy decide.
        """
        ...

    def reset(self) -> None:
        """Forget everything."""
        ...

    def copy(self) -> Engine:
        """An engine in the same state that goes its own way."""
        ...


class TorchEngine:
    """The PyTorch network itself: exact by definition, and always there.

    Parameters
    ----------
    network : Network in evaluation mode
    shift : added to each open logit; see `Network.budget_shift`.
    """

    name = "torch"

    def __init__(self, network: Network, shift: float = 0.0):
        self.network, self.shift = network, shift
        self.reset()

    def copy(self) -> TorchEngine:
        """See :class:`Engine`; a state is replaced from frame to frame and never written to."""
        return copy.copy(self)

    def reset(self) -> None:
        """Forget everything."""
        self.state = self.network.initial_state(1)

    def run(self, spectrum: np.ndarray, gates: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Engine`."""
        import torch

        with torch.inference_mode():
            given = None if gates is None else torch.from_numpy(gates).float()[None]
            output = self.network(torch.from_numpy(spectrum)[None], given, self.state, shift=self.shift)
        self.state = output.state
        return output.spectrum[0].numpy(), output.gates[0].numpy().astype(np.uint8)


class Transforms:
    """Gives an engine that runs spectra the Fourier transforms: hops of samples in, finished hops out.

    Parameters
    ----------
    engine : Engine
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.engine.reset()
        self._past = self._overlap = np.zeros(HOP, np.float32)  # replaced and never written to

    def copy(self) -> Transforms:
        """See :class:`Engine`."""
        twin = copy.copy(self)
        twin.engine = self.engine.copy()
        return twin

    def run_samples(self, samples: np.ndarray, gates: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Engine`."""
        hops = np.concatenate((self._past[None], samples))
        windows = np.lib.stride_tricks.sliding_window_view(hops.reshape(-1), WINDOW)[::HOP]
        spectrum = np.fft.rfft(windows * _WINDOW).astype(np.complex64)
        enhanced, used = self.engine.run(spectrum, gates)
        synthesis = np.fft.irfft(enhanced, n=WINDOW).astype(np.float32) * _WINDOW
        blocks = synthesis[:, :HOP].copy()
        blocks[0] += self._overlap
        blocks[1:] += synthesis[:-1, HOP:]
        self._past, self._overlap = hops[-1].copy(), synthesis[-1, HOP:].copy()
        return blocks, used


def make_engine(name: str, network: Network, shift: float = 0.0) -> Engine:
    """An engine by name.

    Parameters
    ----------
    name : "auto", "kernel", "onnx" or "torch"
        "kernel" is the compiled one, the fastest wherever it was measured, frame by frame and on whole files; "auto" takes
        it where Numba is installed and "torch" elsewhere.
    network, shift : as for :class:`TorchEngine`

    Examples
    --------
    >>> from dsn_lite.config import Config
    >>> make_engine("torch", Network(Config.preset("tiny")).eval()).name
    'torch'
    """
    if name not in ENGINES:
        raise InputError(f"engine is {name!r}; choose one of {', '.join(ENGINES)}, or give an Engine")
    if name == "onnx":
        from dsn_lite.export import OnnxEngine

        return OnnxEngine(network, shift)
    if name in ("auto", "kernel"):
        try:
            from dsn_lite.kernel import KernelEngine
        except ImportError as error:
            if name == "kernel":
                warnings.warn(
                    f"no compiled kernel ({error}); PyTorch runs instead, slower: pip install numba", stacklevel=2
                )
        else:
            return KernelEngine(network, shift)
    return TorchEngine(network, shift)


def checked_chunk(chunk: np.ndarray) -> np.ndarray:
    """The samples [n] that a stream is fed, float32.

    Raises
    ------
    InputError
        When they are not one channel, or hold NaN or infinite samples.

    Examples
    --------
    >>> checked_chunk([0, 1]).dtype
    dtype('float32')
    """
    chunk = np.asarray(chunk, dtype=np.float32)
    if chunk.ndim != 1:
        raise InputError(f"a chunk of shape {chunk.shape}; a stream takes one channel [samples], make one for each")
    # The sum of squares is the cheaper test, and says no more often than it should.
    if not math.isfinite(chunk.dot(chunk)) and not np.isfinite(chunk).all():
        raise InputError("the chunk holds NaN or infinite samples; leave them out or replace them by zero")
    return chunk


def open_stream(network, *, budget: float | None = None, policy: str | float | np.ndarray = "learned"):
    """The stream of a network: its own kind, where it has one, or a :class:`Stream`.

    Examples
    --------
    >>> from dsn_lite.slimmable.demucs.network import DemucsConfig, SlimDemucs
    >>> type(open_stream(SlimDemucs(DemucsConfig()))).__name__
    'DemucsStream'
    """
    make = getattr(network, "stream", None)
    return Stream(network, budget=budget, policy=policy) if make is None else make(budget=budget, policy=policy)


class Stream:
    """Enhances one channel at 16 kHz, chunk by chunk.

    Parameters
    ----------
    model : Network
        From :func:`dsn_lite.load`.
    budget : 0..1 or None
        Wanted mean activation; None is the trained operating point. See `Network.budget_shift`.
    policy : "learned", "open", "closed", or gates [T, K] of 0 and 1 for the frames to come
    engine : "auto", "kernel", "onnx", "torch", or an Engine of this stream's own
        What runs the frames; see :func:`make_engine`. Given an Engine, `budget` is its maker's business.

    Examples
    --------
    >>> from dsn_lite.config import Config
    >>> stream = Stream(Network(Config.preset("tiny")).eval())
    >>> [len(stream.feed(np.zeros(n, dtype=np.float32))) for n in (100, 500, 1000)], len(stream.flush())
    ([0, 256, 1024], 320)
    """

    def __init__(
        self,
        model: Network,
        *,
        budget: float | None = None,
        policy: str | np.ndarray = "learned",
        engine: str | Engine = "auto",
    ):
        self.model = model
        self.gate_count = len(model.gate_names)
        if isinstance(policy, str):
            if policy not in ("learned", "open", "closed"):
                raise InputError(f"policy is {policy!r}; choose learned, open or closed, or give gates [T, K]")
            self._given = None
        else:
            self._given = (np.asarray(policy) != 0).astype(np.uint8)
            if self._given.ndim != 2 or self._given.shape[1] != self.gate_count:
                raise InputError(f"gates have the shape {self._given.shape}; needed is [frames, {self.gate_count}]")
        self.policy = policy
        self.engine = make_engine(engine, model, model.budget_shift(budget)) if isinstance(engine, str) else engine
        self._runner = self.engine if hasattr(self.engine, "run_samples") else Transforms(self.engine)
        self._no_gates = np.zeros((0, self.gate_count), np.uint8)
        self._one_row = np.full((1, self.gate_count), self.policy == "open" if isinstance(policy, str) else 0, np.uint8)
        self.reset()

    def reset(self) -> None:
        """Start anew, as if nothing had been fed."""
        self._runner.reset()
        self.samples_in = self.samples_out = self.frames = 0
        self.gates = self._no_gates
        self._input = _NO_SAMPLES  # less than a hop, waiting for the rest of it

    def copy(self) -> Stream:
        """An independent stream in the same state; the weights are shared."""
        twin = copy.copy(self)
        twin._runner = self._runner.copy()
        twin.engine = twin._runner.engine if isinstance(twin._runner, Transforms) else twin._runner
        return twin

    def feed(self, chunk: np.ndarray) -> np.ndarray:
        """Take float samples [n] at 16 kHz, n of any size; return the samples that are now finished, float32 [m].

        Raises
        ------
        InputError
            When the chunk is not one channel, or holds NaN or infinite samples; the stream is then unchanged.
        """
        chunk = checked_chunk(chunk)
        self.samples_in += len(chunk)
        return self._advance(chunk)

    def flush(self) -> np.ndarray:
        """Return the samples still inside, so that as many have come out as went in; then reset."""
        missing = -self.samples_in % HOP + HOP if self.samples_in else 0
        total = self.samples_in
        tail = self._advance(np.zeros(missing, np.float32))
        tail = tail[: len(tail) - (self.samples_out - total)] if self.samples_out > total else tail
        gates = self.gates
        self.reset()
        self.gates = gates
        return tail

    def take_gates(self) -> np.ndarray:
        """Gates [T, K], uint8, of the frames computed by the last `feed` or `flush`."""
        return self.gates

    def _advance(self, chunk: np.ndarray) -> np.ndarray:
        samples = np.concatenate((self._input, chunk)) if len(self._input) else chunk
        ready, left = divmod(len(samples), HOP)
        if left:
            self._input = samples[ready * HOP :].copy()  # the caller may write to the chunk
            samples = samples[: ready * HOP]
        else:
            self._input = _NO_SAMPLES
        hops = samples.reshape(ready, HOP)
        if not ready:
            result, self.gates = _NO_SAMPLES, self._no_gates
        elif ready <= BLOCK_FRAMES:
            result, self.gates = self._frames(hops)
        else:
            parts = [self._frames(hops[first : first + BLOCK_FRAMES]) for first in range(0, ready, BLOCK_FRAMES)]
            result, self.gates = map(np.concatenate, zip(*parts, strict=True))
        self.samples_out += len(result)
        return result

    def _frames(self, hops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Finished samples and gates of the frames that end with `hops` [T, HOP]."""
        blocks, used = self._runner.run_samples(hops, self._next_gates(len(hops)))
        is_first = self.frames == 0
        self.frames += len(hops)
        # The first frame's first half lies before the signal.
        return (blocks[1:] if is_first else blocks).reshape(-1), used

    def _next_gates(self, frames: int) -> np.ndarray | None:
        """Gates [frames, K] that are not the policy's; None where the policy decides or nothing can be gated."""
        if not self.gate_count:
            return None
        if self._given is not None:
            rows = self._given[self.frames : self.frames + frames]
            if len(rows) < frames:
                raise InputError(f"gates for {len(self._given)} frames were given, the signal has more")
            return rows
        if self.policy == "learned":
            return None
        if frames == 1:
            return self._one_row.copy()  # the caller gets to see it
        return np.full((frames, self.gate_count), self.policy == "open", np.uint8)
