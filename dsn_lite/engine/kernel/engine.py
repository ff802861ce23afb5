"""The engine that runs a stream through the compiled kernel."""

from __future__ import annotations

import numpy as np

from dsn_lite.engine.kernel import frame
from dsn_lite.engine.kernel.pack import pack
from dsn_lite.network.model import Network


class KernelEngine:
    """Runs frames through the compiled kernel; see `dsn_lite.engine.engines.Engine`.

    The weights are copied: train the network further and make a new engine. `shift` is added to each margin of the policy.

    >>> from dsn_lite.network.config import Config
    >>> engine = KernelEngine(Network(Config.preset("tiny")).eval())
    >>> enhanced, gates = engine.run(np.ones((3, 257), np.complex64), None)
    >>> enhanced.shape, gates.shape
    ((3, 257), (3, 8))
    """

    name = "kernel"

    def __init__(self, network: Network, shift: float = 0.0):
        packed = pack(network)
        self.shift = np.float32(shift)
        self.gate_count, self._decides = len(network.gate_names), network.policy is not None
        self._start, self._weights, self._numbers = packed.memory, _aligned(packed.weights), packed.numbers
        self.memory = _aligned(self._start)

    def reset(self) -> None:
        """Forget everything."""
        self.memory[:] = self._start

    @property
    def rest(self) -> float:
        """The running mean of what was heard: what a signal goes on with when it has ended."""
        return float(self.memory[frame.MEAN])

    def run(self, spectrum: np.ndarray, gates: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """See `dsn_lite.engine.engines.Engine`."""
        given = np.array(spectrum, np.complex64, order="C").view(np.float32)
        out, used = self._run(frame.run_spectra, given, gates)
        return out.view(np.complex64), used

    def run_samples(self, samples: np.ndarray, gates: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The same with the transforms inside: float32 samples [T, HOP] to finished samples [T, HOP], late by a hop."""
        # Numba would compile anew for what is read-only or strided.
        return self._run(frame.run_hops, samples if samples.flags.carray else samples.copy(), gates)

    def _run(self, function, given: np.ndarray, gates: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        decides = gates is None and self._decides
        out = np.empty_like(given)
        if gates is None or not self.gate_count:
            used = np.empty((len(given), self.gate_count), np.uint8)
            if not decides:
                used.fill(1)
        elif gates.dtype == np.uint8 and gates.flags.carray:  # as it is: whatever is not zero is open
            used = gates
        else:
            used = (np.asarray(gates) != 0).astype(np.uint8)
        function(given, used, out, decides, self.shift, self._weights, self.memory, self._numbers)
        return out, used


def _aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins on a cache line, so that no vector of it lies across two."""
    block = np.empty(len(array) + 16, np.float32)
    first = -block.ctypes.data % 64 // 4
    block = block[first : first + len(array)]
    block[:] = array
    return block
