"""A small network that always runs, and a refinement of its answer that is opened frame by frame.

After Zhao, Yang and Madhu (arXiv 2510.11395) and their FTF-Net lineage (arXiv 2505.21057): a causal U-Net along frequency
with attention over the bands of a frame and grouped GRUs along time in its middle, a complex mask on the power-compressed
spectrum, and dynamic slices of every layer behind gates. What is ours: static channels read static channels alone, so the
static part is a complete small network whose answer no gate can change. The dynamic part reads everything and adds a
correction to its mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dsn_lite.audio.spectral import FRAMES_PER_SECOND, compress, decompress, power
from dsn_lite.network.blocks import DynamicAttention, DynamicConv, DynamicFeedForward, DynamicGRU
from dsn_lite.network.config import Config
from dsn_lite.network.enhance import Enhancer
from dsn_lite.network.policy import Policy

BINS = 256
"""Bins that the network sees and answers for: all of a frame but the Nyquist bin, which becomes zero."""
RELEASE = math.exp(-1 / (2.0 * FRAMES_PER_SECOND))
"""How much of the level of a frame the next one remembers: 2 s."""


class Layer(NamedTuple):
    """One row of the table of layers, which every engine, counter, graph and picture goes over."""

    name: str
    kind: str
    """"down", "bands", "attention", "linear", "recurrent", "up" or "mask"."""
    block: nn.Module
    bands: int
    """Bands of its input."""
    gate: int | None
    """Which gate opens its dynamic part; None where it has none."""


class State(NamedTuple):
    """What the network remembers between frames; of constant size."""

    level: Tensor
    """Level follower [B]."""
    past: Tensor
    """Features of the last frame [B, 1, F, 3]."""
    recurrent: tuple[tuple[Tensor | None, Tensor | None], ...]
    """Static and dynamic state of each GRU, [B, F, groups, width]."""
    policy: Tensor | None
    """State of the policy [B, width]."""


class Output(NamedTuple):
    """Result of one forward pass."""

    spectrum: Tensor
    """Enhanced spectrum, complex [B, T, 257], not compressed."""
    small: Tensor
    """The small network's answer alone, likewise."""
    gates: Tensor
    """Gates used, [B, T, K]."""
    margins: Tensor | None
    """Margins of the policy [B, T, K]; None where it did not run."""
    state: State


class BandEmbedding(nn.Module):
    """A learnt offset for every band, by which the middle tells low from high; it costs no products."""

    def __init__(self, bands: int, channels: tuple[int, int]):
        super().__init__()
        self.static, self.dynamic = (
            nn.Parameter(0.1 * torch.randn(bands, width)) if width else None for width in channels
        )

    def small(self, static: Tensor) -> Tensor:
        """Static channels [B, T, F, Cs] with their offsets."""
        return static + self.static

    def refine(self, static: Tensor, dynamic: Tensor, gate: Tensor | None) -> Tensor:
        """Dynamic channels [B, T, F, Cd] with their offsets."""
        return dynamic + self.dynamic

    def macs(self, bands: int) -> tuple[int, int]:
        """None."""
        return 0, 0


class Network(Enhancer):
    """Noisy spectrum in, enhanced spectrum out, with a gate vector for every frame.

    Parameters
    ----------
    config : Config

    Examples
    --------
    >>> network = Network(Config.preset("tiny")).eval()
    >>> output = network(torch.randn(1, 20, 257, dtype=torch.complex64))
    >>> output.spectrum.shape, output.gates.shape
    (torch.Size([1, 20, 257]), torch.Size([1, 20, 8]))
    """

    KIND = "enhancer"

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.name, self.card = "untrained", {}
        table, self.gate_names = _table(config)
        self.blocks = nn.ModuleDict({name.replace(" ", "_"): block for name, _, block, _, _ in table})
        self.layers = tuple(Layer(*row) for row in table)
        # The untrained network is close to the identity: masks act on magnitudes to the power 0.3, and a random one would
        # shout.
        self.policy: Any = None  # a Policy where there is one
        self.renew_policy()
        mask = self.layers[-1].block
        with torch.no_grad():
            for weight in (part.weight for part in (mask.static, mask.dynamic) if part):
                weight *= 0.1
            mask.static.bias[0] = 1.0

    @classmethod
    def from_card(cls, card: dict) -> Network:
        """An untrained network of the shape that a card holds under ``network``."""
        return cls(Config.from_dict(card["network"]))

    def renew_policy(self) -> None:
        """Give the network a policy that has learnt nothing yet."""
        config = self.config
        if config.policy_width and self.gate_names:
            self.policy = Policy(
                len(self.gate_names), channels=config.channels[-1][0], bands=config.policy_bands, width=config.policy_width
            )

    def forward(
        self, spectrum: Tensor, gates: Tensor | Callable | None = None, state: State | None = None, *, shift: float = 0.0
    ) -> Output:
        """Enhance the frames of a spectrum.

        Parameters
        ----------
        spectrum : Tensor, complex [B, T, 257]
            From :func:`dsn_lite.audio.spectral.stft`, at 16 kHz.
        gates : Tensor [B, T, K], a function that makes them of the policy's margins [B, T, K], or None
            Gates to use; None opens where the policy's margin is above zero, and all where there is no policy.
        state : State or None
            Where an earlier call stopped; None starts anew.
        shift : added to every margin of the policy.
        """
        if isinstance(gates, Tensor) and gates.shape[-1] != len(self.gate_names):
            raise ValueError(f"gates for {gates.shape[-1]} parts; this network has {len(self.gate_names)}")
        compressed = compress(spectrum, floor=1e-20)
        features, level, past = self.features(compressed, state)
        recurrent = [layer.name for layer in self.layers if layer.kind == "recurrent"]
        memory = dict(zip(recurrent, state.recurrent if state else [(None, None)] * len(recurrent), strict=True))
        inputs, small_mask, static_states = self.small(features, memory)
        margins, policy_state = None, None
        if self.policy is not None and not isinstance(gates, Tensor):
            seen = self.policy_features(features, small_mask, inputs)
            margins, policy_state = self.policy(seen, None if state is None else state.policy)
            gates = gates(margins) if callable(gates) else (margins + shift > 0).to(margins.dtype)
        mask, dynamic_states = small_mask, [None] * len(recurrent)
        if self.config.is_dynamic:
            correction, dynamic_states = self.refine(inputs, gates, memory)
            mask = small_mask + correction
        if gates is None:
            gates = features.new_ones(*spectrum.shape[:2], len(self.gate_names))
        answer, small = (decompress(apply(one, compressed)) for one in (mask, small_mask))
        states = tuple(zip(static_states, dynamic_states, strict=True))
        return Output(answer, small, gates, margins, State(level, past, states, policy_state))

    def policy_features(self, features: Tensor, mask: Tensor, inputs: list[Tensor]) -> Tensor:
        """What the policy sees [B, T, P]; nothing that it sees is taught through it."""
        magnitude = features[..., 2]
        middle = next(x for x, layer in zip(inputs, self.layers, strict=True) if layer.kind in ("up", "mask"))
        return self.policy.features(magnitude, magnitude * mask.square().sum(-1).sqrt(), middle).detach()

    def features(self, compressed: Tensor, state: State | None) -> tuple[Tensor, Tensor, Tensor]:
        """What the network sees [B, T, 256, 6] of a compressed spectrum [B, T, 257], and the new level and past frame.

        Real part, imaginary part and magnitude of this frame and of the one before, each over the running level of the
        signal: the answer is the same for a whisper and a shout.
        """
        kept = compressed[..., :BINS]
        magnitude = power(kept).sqrt()
        level = follow(magnitude.mean(-1), None if state is None else state.level)
        seen = torch.stack([kept.real, kept.imag, magnitude], -1) / level[..., None, None]
        past = torch.zeros_like(seen[:, :1]) if state is None else state.past
        earlier = torch.cat([past, seen[:, :-1]], dim=1)
        return torch.cat([seen, earlier], -1), level[:, -1], seen[:, -1:]

    def small(self, x: Tensor, memory: dict) -> tuple[list[Tensor], Tensor, list[Tensor | None]]:
        """The small network: static input of every layer, its mask [B, T, 256, 2], and its new GRU states."""
        inputs, skips, states = [], [], []
        for layer in self.layers:
            inputs.append(x)
            if layer.kind == "recurrent":
                x, state = layer.block.small(x, memory[layer.name][0])
                states.append(state)
            else:
                x = layer.block.small(x)
            if layer.kind == "down":
                skips.append(x)
            elif layer.kind == "bands":
                skips.pop()  # what enters the middle is no skip
            elif layer.kind == "up":
                x = x + skips.pop()
        return inputs, x, states

    def refine(self, inputs: list[Tensor], gates: Tensor | None, memory: dict) -> tuple[Tensor, list[Tensor]]:
        """The correction [B, T, 256, 2] that open gates add to the small mask, and the new GRU states."""
        y: Any = None
        skips, states = [], []
        for layer, x in zip(self.layers, inputs, strict=True):
            gate = None if gates is None or layer.gate is None else gates[..., layer.gate]
            if layer.kind == "recurrent":
                y, state = layer.block.refine(x, y, gate, memory[layer.name][1])
                states.append(state)
            else:
                y = layer.block.refine(x, y, gate)
            if layer.kind == "down":
                skips.append(y)
            elif layer.kind == "bands":
                skips.pop()
            elif layer.kind == "up":
                y = y + skips.pop()
        return y, states


def follow(mean: Tensor, level: Tensor | None = None) -> Tensor:
    """Running level [B, T] of frame means [B, T]: it rises at once and falls within seconds; `level` [B] came before.

    Proportional to its input, so that a signal over its level does not depend on how loud it was recorded.

    >>> follow(torch.tensor([[1.0, 0.0, 2.0]]))
    tensor([[1.0000, 0.9920, 2.0000]])
    """
    level = torch.zeros_like(mean[:, 0]) if level is None else level
    levels = []
    for now in mean.unbind(1):
        level = torch.maximum(now, RELEASE * level + (1 - RELEASE) * now)
        levels.append(level)
    return torch.stack(levels, 1).clamp_min(1e-3)


def apply(mask: Tensor, compressed: Tensor) -> Tensor:
    """Masked compressed spectrum [B, T, 257] of a complex mask [B, T, 256, 2]; the Nyquist bin becomes zero."""
    mask = nn.functional.pad(mask, (0, 0, 0, compressed.shape[-1] - mask.shape[-2]))
    return torch.view_as_complex(mask.contiguous()) * compressed


def _table(config: Config) -> tuple[list[tuple], list[str]]:
    """The rows of the table of layers, and the names of the gates in the order of the gating vector."""
    rows: list[tuple] = []
    gates: list[str] = []

    def gate(name: str) -> int | None:
        if not (config.gated and config.is_dynamic):
            return None
        if name not in gates:
            gates.append(name)
        return gates.index(name)

    channels, bands, depth = config.channels, BINS, len(config.channels)
    before = (6, 0)
    for i in range(depth):
        block = DynamicConv(before, channels[i], kernel=config.kernels[i], stride=config.strides[i])
        # The outermost layers are cheap and of no use one by one: they share a gate with their neighbour.
        rows.append((f"encoder {i + 1}", "down", block, bands, gate(f"encoder {max(i + 1, 2)}")))
        bands, before = bands // config.strides[i], channels[i]
    rows.append(("bands", "bands", BandEmbedding(bands, before), bands, None))
    for i in range(config.blocks):
        static = 1 if i == 0 else 0  # blocks behind the first are dynamic alone

        def part(widths: tuple[int, int], static: int = static) -> tuple[int, int]:
            return widths[0] * static, widths[1]

        parts = (
            ("attention", DynamicAttention(before, part(config.heads), config.head_width), "heads"),
            ("linear", DynamicFeedForward(before, part(config.hidden)), "hidden units"),
            ("recurrent", DynamicGRU(before, part(config.groups), config.group_width), "groups"),
        )
        for kind, block, name in parts:
            rows.append((f"middle {i + 1} {kind}", kind, block, bands, gate(name if i == 0 else f"middle {i + 1}")))
    for i in reversed(range(1, depth)):
        block = DynamicConv(before, channels[i - 1], kernel=config.kernels[i], stride=config.strides[i], up=True)
        rows.append((f"decoder {i + 1}", "up", block, bands, gate(f"decoder {i + 1}")))
        bands, before = bands * config.strides[i], channels[i - 1]
    mask = DynamicConv(
        before, (2, 2 if config.is_dynamic else 0), kernel=config.kernels[0], stride=config.strides[0], up=True, plain=True
    )
    rows.append(("mask", "mask", mask, bands, gate("decoder 2")))
    return rows, gates
