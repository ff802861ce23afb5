"""What runs the frames of a stream: PyTorch, the compiled kernel, or ONNX Runtime, by name."""

from __future__ import annotations

import warnings
from typing import Protocol

import numpy as np

from dsn_lite.audio.offset import block_offset
from dsn_lite.audio.spectral import HOP, WINDOW
from dsn_lite.errors import InputError
from dsn_lite.network.model import Network

ENGINES = ("auto", "kernel", "onnx", "torch")

_WINDOW = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)


class Engine(Protocol):
    """Runs the frames of one stream through a network and remembers its state.

    An engine that has the Fourier transforms inside offers ``run_samples(samples, gates)`` as well: float32 samples
    [T, HOP] to finished samples [T, HOP], late by a hop, and gates; and ``rest``, see there. Others are given both by
    :class:`Transforms`.
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


class TorchEngine:
    """The PyTorch network itself, in evaluation mode: exact by definition, and always there.

    `shift` is added to each margin of its policy; see `Network.budget_shift`.
    """

    name = "torch"

    def __init__(self, network: Network, shift: float = 0.0):
        self.network, self.shift = network, shift
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.state = None

    def run(self, spectrum: np.ndarray, gates: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Engine`."""
        import torch

        with torch.inference_mode():
            dtype = next(self.network.parameters()).dtype  # float64 where that was PyTorch's default
            given = None if gates is None else torch.from_numpy(gates)[None].to(dtype)
            heard = torch.from_numpy(spectrum)[None].to(dtype.to_complex())
            output = self.network(heard, given, self.state, shift=self.shift)
        self.state = output.state
        return output.spectrum[0].numpy().astype(np.complex64), output.gates[0].numpy().astype(np.uint8)


class Transforms:
    """Gives an engine that runs spectra the Fourier transforms: hops of samples in, finished hops out."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.engine.reset()
        self._past = self._overlap = np.zeros(HOP, np.float32)  # replaced and never written to
        self._mean: float | None = None

    @property
    def rest(self) -> float:
        """What a signal goes on with when it has ended: zero, or its running mean."""
        return self._mean or 0.0

    def run_samples(self, samples: np.ndarray, gates: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Engine`."""
        samples, self._mean = block_offset(samples, self._mean)
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
    >>> from dsn_lite.network.config import Config
    >>> make_engine("torch", Network(Config.preset("tiny")).eval()).name
    'torch'
    """
    if name not in ENGINES:
        raise InputError(f"engine is {name!r}; choose one of {', '.join(ENGINES)}, or give an Engine")
    if name == "onnx":
        from dsn_lite.engine.onnx import OnnxEngine

        return OnnxEngine(network, shift)
    if name in ("auto", "kernel"):
        try:
            from dsn_lite.engine.kernel.engine import KernelEngine
        except ImportError as error:
            if name == "kernel":
                warnings.warn(
                    f"no compiled kernel ({error}); PyTorch runs instead, slower: pip install numba", stacklevel=2
                )
        else:
            return KernelEngine(network, shift)
    return TorchEngine(network, shift)
