"""How multiply-accumulates are counted.

The rule, stated once: every product of a weight or activation with an activation in a convolution, a matrix product or a
recurrence is one MAC, zero padding included (that is how they run). Not counted: biases, activation functions, softmax,
normalisation, residual sums, the mask product, the STFT and its inverse, the fixed pooling of the policy's input.
A layer's dynamic MACs count on a frame only where its gate is open. 62.5 frames a second turn MACs a frame into MMAC/s.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from dsn_lite.audio.spectral import BINS, FRAMES_PER_SECOND
from dsn_lite.blocks import DynamicAttention, DynamicConv, DynamicConvTranspose, DynamicFeedForward, DynamicGRU
from dsn_lite.config import Config
from dsn_lite.errors import InputError
from dsn_lite.model import GATES, Network

_WIDTHS = ("head_width", "hidden", "group_width")


@dataclass(frozen=True)
class Layer:
    """MACs of one layer on one frame."""

    name: str
    static: int
    dynamic: int
    gate: str | None
    """Name of the gate that opens the dynamic part; None where there is none."""
    parameters: int


@dataclass(frozen=True)
class Count:
    """MACs of a network, layer by layer.

    Examples
    --------
    >>> count(Config.preset("base")).open > count(Config.preset("base")).closed
    True
    """

    layers: tuple[Layer, ...]

    @property
    def open(self) -> float:
        """MMAC/s with every gate open, policy included."""
        return _mmacs(sum(layer.static + layer.dynamic for layer in self.layers))

    @property
    def closed(self) -> float:
        """MMAC/s with every gate closed, policy included."""
        return _mmacs(sum(layer.static for layer in self.layers))

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
        by_gate = {layer.gate: layer.dynamic for layer in self.layers if layer.gate}
        return np.array([by_gate[name] for name in GATES if name in by_gate], dtype=float)

    def to_json(self) -> dict:
        """`open`, `closed`, `policy` in MMAC/s, `parameters`, and `layers` with the same by layer."""
        rows = []
        for layer in self.layers:
            row = asdict(layer)
            row |= {"open": _mmacs(layer.static + layer.dynamic), "closed": _mmacs(layer.static)}
            rows.append(row)
        return {
            "open": self.open, "closed": self.closed, "policy": self.policy, "parameters": self.parameters,
            "frames_per_second": FRAMES_PER_SECOND, "rule": " ".join(__doc__.split("\n\n")[1].split()), "layers": rows,
        }  # fmt: skip

    def table(self) -> str:
        """The same as lines of text."""
        lines = [f"{'layer':<22}{'parameters':>11}{'MAC/frame':>11}{'dynamic':>10}  {'MMAC/s open':>11}{'closed':>9}"]
        for layer in self.layers:
            lines.append(
                f"{layer.name:<22}{layer.parameters:>11,}{layer.static + layer.dynamic:>11,}{layer.dynamic:>10,}"
                f"  {_mmacs(layer.static + layer.dynamic):>11.2f}{_mmacs(layer.static):>9.2f}"
            )
        macs = sum(layer.static + layer.dynamic for layer in self.layers)
        dynamic = sum(layer.dynamic for layer in self.layers)
        lines.append(
            f"{'total':<22}{self.parameters:>11,}{macs:>11,}{dynamic:>10,}  {self.open:>11.2f}{self.closed:>9.2f}"
        )
        lines.append(
            f"a closed frame costs {self.closed / self.open:.1%} of an open one; the policy {self.policy / self.open:.1%}"
        )
        return "\n".join(lines)


def count(network: Network | Config) -> Count:
    """Count a network, or the network of a configuration.

    Examples
    --------
    >>> round(count(Config.preset("tiny")).policy / count(Config.preset("tiny")).open, 3) < 0.03
    True
    """
    if hasattr(network, "count"):  # a relative counts itself, by the same rule
        return network.count()
    if isinstance(network, Config):
        with torch.random.fork_rng(devices=[]):  # building a network draws its weights: leave no trace of it
            network = Network(network)
    bands = [BINS, *(0, 0, 0)]
    layers = []

    def add(name: str, block, macs: tuple[int, int], gate: str | None) -> None:
        gated = network.config.parts == "gated" and gate is not None
        static, dynamic = macs if gated else (sum(macs), 0)
        parameters = sum(parameter.numel() for parameter in block.parameters())
        layers.append(Layer(name, static, dynamic, gate if gated else None, parameters))

    for i, block in enumerate((network.encoder_1, network.encoder_2, network.encoder_3), start=1):
        bands[i] = block.out_bands(bands[i - 1])
        add(f"encoder {i}", block, convolution(block, bands[i - 1]), f"encoder {i}" if i > 1 else None)
    for name in ("frequency_1", "time", "frequency_2"):
        block, label = getattr(network, name), name.replace("_", " ")
        if name == "time":
            add("time groups", block.gru, recurrence(block.gru, bands[3]), "time groups")
        else:
            add(f"{label} heads", block.attention, attention(block.attention, bands[3]), f"{label} heads")
        add(f"{label} hidden", block.feed_forward, feed_forward(block.feed_forward, bands[3]), f"{label} hidden")
    for i, block in ((3, network.decoder_3), (2, network.decoder_2), (1, network.decoder_1)):
        add(f"decoder {i}", block, transposed_convolution(block, bands[i]), f"decoder {i}" if i > 1 else None)
    rest = [network.band_embedding, *network.slopes]
    layers.append(Layer("slopes and embedding", 0, 0, None, sum(parameter.numel() for parameter in rest)))
    if network.config.parts == "gated":
        policy = network.policy
        macs = 3 * policy.width * (policy.bands + policy.width) + 2 * policy.gates * policy.width
        layers.append(Layer("policy", macs, 0, None, sum(parameter.numel() for parameter in policy.parameters())))
    return Count(tuple(layers))


def narrow(config: Config, mmacs_per_second: float, *, tolerance: float = 0.01) -> Config:
    """The static network with all widths of `config` shrunk alike until it costs `mmacs_per_second` on every frame.

    Widths are whole numbers, so shrinking alone rarely meets the cost: as few widths as possible are then moved by one.

    Parameters
    ----------
    config : Config
        Numbers of heads and groups stay; a policy, if there is one, is left out.
    mmacs_per_second : wanted cost in MMAC/s, at most that of ``config.static()``.
    tolerance : largest relative difference from it.

    Raises
    ------
    InputError
        When no such network comes within `tolerance` of the cost.

    Examples
    --------
    >>> narrow(Config.preset("base"), 60).parts, round(count(narrow(Config.preset("base"), 60)).open)
    ('always', 60)
    """
    full = config.static()
    least, most = count(full.scaled(0)).open, count(full).open

    def miss(candidate: Config) -> float:
        return abs(count(candidate).open / mmacs_per_second - 1)

    if least <= mmacs_per_second <= most * (1 + tolerance):
        low, high = 0.0, 1.0
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (middle, high) if count(full.scaled(middle)).open <= mmacs_per_second else (low, middle)
        shrunk = full.scaled(low)
        for changes in range(7):
            steps = (step for step in itertools.product((-1, 0, 1), repeat=6) if np.count_nonzero(step) == changes)
            best = min((candidate for step in steps if (candidate := _moved(shrunk, step))), key=miss)
            if miss(best) <= tolerance:
                return best
    raise InputError(
        f"no narrow network costs {mmacs_per_second} MMAC/s to within {tolerance:.1%}; "
        f"choose between {least:.1f} and {most:.1f}"
    )


def _moved(config: Config, step: tuple[int, ...]) -> Config | None:
    """`config` with a step added to each of its six widths; None where one gets too small."""
    changed = {name: getattr(config, name) + by for name, by in zip(_WIDTHS, step[3:], strict=True)}
    channels = tuple(width + by for width, by in zip(config.channels, step, strict=False))
    return replace(config, channels=channels, **changed) if min(*channels, *changed.values()) >= 2 else None


def convolution(block: DynamicConv, bands: int) -> tuple[int, int]:
    """(static, dynamic) MACs of one frame of a convolution over `bands` input bands."""
    one = block.out_bands(bands) * block.inputs * block.kernel[0] * block.kernel[1]
    return one * block.static, one * block.dynamic


def transposed_convolution(block: DynamicConvTranspose, bands: int) -> tuple[int, int]:
    """(static, dynamic) MACs of one frame of a transposed convolution over `bands` input bands."""
    one = bands * block.inputs * block.kernel
    return one * block.static, one * block.dynamic


def feed_forward(block: DynamicFeedForward, bands: int) -> tuple[int, int]:
    """(static, dynamic) MACs of one frame of a fully connected pair, applied in each of `bands` bands."""
    one = 2 * bands * block.channels
    return one * block.static, one * block.dynamic


def recurrence(block: DynamicGRU, bands: int) -> tuple[int, int]:
    """(static, dynamic) MACs of one frame of a grouped GRU and its output projection, in each of `bands` bands."""
    one = bands * block.group_width * (3 * (block.channels + block.group_width) + block.channels)
    return one * block.static, one * block.dynamic


def attention(block: DynamicAttention, bands: int) -> tuple[int, int]:
    """(static, dynamic) MACs of one frame of attention among `bands` bands: four projections and two products a head."""
    one = bands * block.head_width * (4 * block.channels + 2 * bands)
    return one * block.static, one * block.dynamic


def frame_macs(counted: Count, gates: np.ndarray) -> np.ndarray:
    """MACs [..., T] of each frame, given its gates [..., T, K] of 0 and 1.

    Examples
    --------
    >>> c = count(Config.preset("tiny"))
    >>> float(frame_macs(c, np.ones((1, 10)))[0] * FRAMES_PER_SECOND / 1e6) == c.open
    True
    """
    static = sum(layer.static for layer in counted.layers)
    return static + np.asarray(gates, dtype=float) @ counted.gate_macs


def _mmacs(macs_per_frame: float) -> float:
    return macs_per_frame * FRAMES_PER_SECOND / 1e6
