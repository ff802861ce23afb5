"""How multiply-accumulates are counted.

The rule, stated once: every product of a weight or activation with an activation in a convolution, a matrix product or a
recurrence is one MAC, zero padding included (that is how they run). Not counted: biases, activation functions, softmax,
norms (they are folded), residual sums, the mask product, the STFT and its inverse, the fixed pooling of the policy's input.
A layer's dynamic MACs count on a frame only where its gate is open. 62.5 frames a second turn MACs a frame into MMAC/s.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from torch import nn

from dsn_lite.audio.spectral import FRAMES_PER_SECOND


@dataclass(frozen=True)
class LayerMacs:
    """MACs of one layer on one frame."""

    name: str
    static: int
    dynamic: int
    gate: str | None
    """Name of the gate that opens the dynamic part; None where there is none, or it always runs."""
    parameters: int


@dataclass(frozen=True)
class Count:
    """MACs of a network, layer by layer.

    >>> from dsn_lite.network.config import Config
    >>> from dsn_lite.network.model import Network
    >>> counted = count(Network(Config.preset("base")))
    >>> counted.closed < 0.2 * counted.open
    True
    """

    layers: tuple[LayerMacs, ...]
    gates: tuple[str, ...]

    @property
    def open(self) -> float:
        """MMAC/s with every gate open, policy included."""
        return _mmacs(sum(layer.static + layer.dynamic for layer in self.layers))

    @property
    def closed(self) -> float:
        """MMAC/s with every gate closed, policy included; of a network without gates what it always costs."""
        return _mmacs(sum(layer.static + (0 if layer.gate else layer.dynamic) for layer in self.layers))

    @property
    def policy(self) -> float:
        """MMAC/s of the policy."""
        return _mmacs(sum(layer.static for layer in self.layers if layer.name == "policy"))

    @property
    def parameters(self) -> int:
        """Trained parameters."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def gate_macs(self) -> np.ndarray:
        """Dynamic MACs a frame behind each gate, [K] in the order of the gating vector."""
        return np.array([sum(layer.dynamic for layer in self.layers if layer.gate == name) for name in self.gates], float)

    def of_frames(self, gates: np.ndarray) -> np.ndarray:
        """MMAC/s [..., T] of frames with these gates [..., T, K].

        >>> from dsn_lite.network.config import Config
        >>> from dsn_lite.network.model import Network
        >>> counted = count(Network(Config.preset("tiny")))
        >>> bool(np.allclose(counted.of_frames(np.ones((5, 8))), counted.open))
        True
        """
        return self.closed + np.asarray(gates) @ self.gate_macs * FRAMES_PER_SECOND / 1e6

    def activation(self, gates: np.ndarray) -> float:
        """MACs of the open dynamic parts / MACs of all, mean over frames with these gates [..., T, K]; 1 without gates."""
        macs = self.gate_macs
        return float((np.asarray(gates) @ macs).mean() / macs.sum()) if len(macs) else 1.0

    def to_json(self) -> dict:
        """`open`, `closed`, `policy` in MMAC/s, `parameters`, and `layers` with the same by layer."""
        rows = []
        for layer in self.layers:
            closed = layer.static + (0 if layer.gate else layer.dynamic)
            rows.append({**asdict(layer), "open": _mmacs(layer.static + layer.dynamic), "closed": _mmacs(closed)})
        return {
            "open": self.open, "closed": self.closed, "policy": self.policy, "parameters": self.parameters,
            "frames_per_second": FRAMES_PER_SECOND, "rule": " ".join(__doc__.split("\n\n")[1].split()), "layers": rows,
        }  # fmt: skip

    def table(self) -> str:
        """The same as lines of text."""
        lines = [f"{'layer':<22}{'parameters':>11}{'MAC/frame':>11}{'dynamic':>10}  {'MMAC/s open':>11}{'closed':>9}"]
        for layer, row in zip(self.layers, self.to_json()["layers"], strict=True):
            lines.append(
                f"{layer.name:<22}{layer.parameters:>11,}{layer.static + layer.dynamic:>11,}{layer.dynamic:>10,}"
                f"  {row['open']:>11.2f}{row['closed']:>9.2f}"
            )
        dynamic = sum(layer.dynamic for layer in self.layers)
        macs = dynamic + sum(layer.static for layer in self.layers)
        lines.append(
            f"{'total':<22}{self.parameters:>11,}{macs:>11,}{dynamic:>10,}  {self.open:>11.2f}{self.closed:>9.2f}"
        )
        lines.append(
            f"a closed frame costs {self.closed / self.open:.1%} of an open one; the policy {self.policy / self.open:.1%}"
        )
        return "\n".join(lines)


def count(network: nn.Module) -> Count:
    """Count a network by going over its table of layers; a relative counts itself, by the same rule."""
    if hasattr(network, "count"):
        return network.count()
    rows = []
    for layer in network.layers:
        static, dynamic = layer.block.macs(layer.bands)
        gate = None if layer.gate is None else network.gate_names[layer.gate]
        rows.append(LayerMacs(layer.name, static, dynamic, gate, _parameters(layer.block)))
    if network.policy is not None:
        rows.append(LayerMacs("policy", network.policy.macs(), 0, None, _parameters(network.policy)))
    return Count(tuple(rows), tuple(network.gate_names))


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _mmacs(macs: float) -> float:
    return macs * FRAMES_PER_SECOND / 1e6
