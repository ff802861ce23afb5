"""Slimmable DEMUCS: a causal waveform U-Net in four widths, and a router that picks one for each 128 ms of sound.

After Miccini et al. (arXiv 2507.04879), who slim DEMUCS (Défossez et al., arXiv 2006.12847). Ours is small, runs at 16 kHz
and subtracts what it takes for noise. The parts that the papers leave open are ours.

What is slimmed are the channels *inside* a level: between its two convolutions, and the units of the GRU. The channels that
levels hand to each other stay whole, so that a narrow segment sees all that the levels above and below have to say, and so
that every convolution is slimmed on one side only: its cost grows with u and not with its square.

On a segment of width u a layer writes the first ``ceil(u * C)`` inner channels, the next one reads them; the others are
zero, in the past positions of its receptive field too. The units of the GRU beyond u hold their state. So the widths of a
signal may change from segment to segment, and the past that a wide segment looks back to is as narrow as it was computed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dsn_lite.audio.checks import as_channels, as_rate
from dsn_lite.audio.resampling import fit, resample
from dsn_lite.audio.spectral import HOP, SAMPLE_RATE
from dsn_lite.engine.stream import Stream
from dsn_lite.errors import InputError
from dsn_lite.network.enhance import Result
from dsn_lite.settings import Count, Positive, Range, build, check, plain
from dsn_lite.slimmable.choice import check_widths, step_names
from dsn_lite.slimmable.cost import WidthCount, rows, whole
from dsn_lite.slimmable.demucs.parts import KERNEL, STRIDE, Decoder, Encoder, Mix, Router, State, begin_as_bands, tail
from dsn_lite.slimmable.demucs.stream import SEGMENT, SEGMENT_FRAMES, SegmentRunner, level_out
from dsn_lite.slimmable.layers import SlimGRU, SlimNorm

LEVELS = 4


@dataclass(frozen=True, kw_only=True)
class DemucsConfig:
    """Shape of a slimmable DEMUCS.

    >>> DemucsConfig().widths
    (0.125, 0.25, 0.5, 1.0)
    """

    channels: tuple[Count, ...] = (32, 48, 96, 128)
    """Of the four levels at full width; the last is the width of the GRU too."""
    recurrent_layers: Count = 2
    widths: tuple[Positive, ...] = (0.125, 0.25, 0.5, 1.0)
    """Utilisation factors, rising to 1."""
    router_bands: Count = 16
    router_width: Count = 48
    target: Annotated[float, Range(gt=0, le=1)] = 0.25
    """Utilisation that the router aims at unless a budget says otherwise."""

    def __post_init__(self) -> None:
        check(self)
        if len(self.channels) != LEVELS:
            raise InputError(f"channels: {list(self.channels)} does not fit; give {LEVELS} numbers, one for each level")
        check_widths(self.widths)

    @staticmethod
    def from_dict(values: dict, source: str = "network") -> DemucsConfig:
        """Configuration from plain values; what is not named keeps its default."""
        return build(DemucsConfig, values, source)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return plain(self)


class SlimDemucs(nn.Module):
    """Noisy wave in, enhanced wave out, at one width or at one width a segment.

    The wave is divided by its level so far, and the output multiplied by it: loud and quiet clips are alike. What comes out
    of the last level is subtracted from the input and begins near zero: untrained, the network is the identity at every
    width. It is late by a frame, 256 samples; with the router by a segment, 2048 samples (128 ms).

    >>> network = SlimDemucs(DemucsConfig()).eval()
    >>> network(torch.randn(2, 5000), 0.25).shape
    torch.Size([2, 5000])
    >>> choice = torch.eye(4)[torch.tensor([[0, 3, 1]])]  # three segments of 2048 samples
    >>> network(torch.randn(1, 5000), choice).shape
    torch.Size([1, 5000])
    """

    KIND = "slim-demucs"
    segment_frames = SEGMENT_FRAMES

    def __init__(self, config: DemucsConfig):
        super().__init__()
        self.config = config
        self.name = "untrained"
        self.card: dict = {}
        self.widths = config.widths
        sides = list(zip((1, *config.channels), config.channels, strict=False))
        self.encoders = nn.ModuleList(
            Encoder(narrow, wide, normalised=level > 1) for level, (narrow, wide) in enumerate(sides)
        )
        deepest = config.channels[-1]
        self.norm = SlimNorm(deepest, axis=1)
        self.recurrent = SlimGRU(deepest, deepest, layers=config.recurrent_layers, full_in=True)
        self.decoders = nn.ModuleList(
            Decoder(wide, narrow, last=level == 0) for level, (narrow, wide) in reversed(list(enumerate(sides)))
        )
        begin_as_bands(self.encoders[0], self.decoders[-2], self.decoders[-1])
        self.router = Router(len(self.widths), bands=config.router_bands, width=config.router_width)

    @classmethod
    def from_card(cls, card: dict) -> SlimDemucs:
        """An untrained network of the shape that a card holds under ``network``."""
        return cls(DemucsConfig.from_dict(card["network"]))

    def route(self, wave: Tensor, target: float, router: Router | None = None) -> Tensor:
        """The router's logits [B, S, W] for waves [B, samples] and a target utilisation; or those of another router."""
        padded = functional.pad(wave, (0, -wave.shape[-1] % HOP))
        levelled = level_out(padded, wave.new_zeros(wave.shape[0], 2))[0]
        return (router or self.router)(levelled, wave.new_full(wave.shape[:1], target))[0]

    # ---- one width after the other

    def initial_state(self, batch: int) -> State:
        """State before the first sample."""
        zero, channels = self.norm.gain.new_zeros, self.config.channels
        return State(
            tuple(zero(batch, n, KERNEL - STRIDE) for n in (1, *channels[:-1])),
            tuple(zero(batch, n, 1) for n in reversed(channels)),
            zero(self.config.recurrent_layers, batch, channels[-1]),
        )

    def forward(self, wave: Tensor, choice: float | Tensor = 1.0) -> Tensor:
        """Enhance waves [B, samples] at 16 kHz.

        `choice` is one width for all, or one-hot widths [B, S, W] of the S = ceil(samples / 2048) segments. Where it has a
        gradient every width is computed and mixed by it; otherwise the chosen one alone.
        """
        if not isinstance(choice, Tensor):
            return _without(wave, HOP, lambda x: self._run(x, float(choice), self.initial_state(len(x)))[0])
        expected = (len(wave), math.ceil(wave.shape[-1] / SEGMENT), len(self.widths))
        if choice.shape != expected:
            raise ValueError(f"choice has the shape {tuple(choice.shape)}; needed is {expected}")
        if choice.requires_grad:
            return _without(wave, SEGMENT, lambda x: self._mixed(x, choice))
        rows = []
        for one, chosen in zip(wave.split(1), choice.argmax(-1).tolist(), strict=True):
            rows.append(_without(one, HOP, lambda x, c=chosen: self.run_segments(x, c, self.initial_state(1))[0]))
        return torch.cat(rows)

    def run_segments(self, levelled: Tensor, chosen: list[int], state: State) -> tuple[Tensor, State]:
        """Noise [1, samples] of a levelled wave of whole frames, at the widths (indices) of its segments."""
        parts, start = [], 0
        for index, segments in itertools.groupby(chosen):  # runs of one width at once
            end = start + len(list(segments)) * SEGMENT
            noise, state = self._run(levelled[:, start:end], self.widths[index], state)
            parts.append(noise)
            start = end
        return torch.cat(parts, -1), state

    def _run(self, levelled: Tensor, width: float, state: State) -> tuple[Tensor, State]:
        """Noise [B, samples] of whole frames at one width, and the new state."""
        x, skips, before, after = levelled[:, None], [], [], []
        for encoder, past in zip(self.encoders, state.convolutions, strict=True):
            x = encoder.norm(x)
            before.append(tail(past, x))
            x = encoder(x, width, past)
            skips.append(x)
        y, recurrent = self.recurrent(self.norm(x).transpose(1, 2), width, state.recurrent)
        x = functional.pad(y, (0, x.shape[1] - y.shape[-1])).transpose(1, 2)
        for decoder, past in zip(self.decoders, state.transposed, strict=True):
            x = decoder.mix(x + skips.pop(), width)
            after.append(tail(past, x))
            x = decoder.expand(x, width, past)
        held = state.recurrent[..., recurrent.shape[-1] :]
        recurrent = torch.cat([recurrent, held], -1)
        return x[:, 0], State(tuple(before), tuple(after), recurrent)

    # ---- all widths at once, for training

    def _mixed(self, levelled: Tensor, choice: Tensor) -> Tensor:
        """Noise [B, samples] with the straight-through gradient of every width from every layer."""
        x, skips, widths = levelled[:, None], [], self.widths
        for encoder in self.encoders:
            x = encoder.norm(x)
            x = Mix.apply(choice, *(encoder(x, width, None) for width in widths))
            skips.append(x)
        x = self._recur(self.norm(x), choice)
        for decoder in self.decoders:
            x = x + skips.pop()
            x = Mix.apply(choice, *(decoder.mix(x, width) for width in widths))
            x = Mix.apply(choice, *(decoder.expand(x, width, None) for width in widths))
        return x[:, 0]

    def _recur(self, x: Tensor, choice: Tensor) -> Tensor:
        """The GRU on x [B, C, T], segment by segment at all widths from the same state."""
        state = x.new_zeros(self.config.recurrent_layers, x.shape[0], x.shape[1])
        sliced = [(width, self.recurrent.weights(width)) for width in self.widths]
        outputs = []
        for part, chosen in zip(x.transpose(1, 2).split(SEGMENT_FRAMES, 1), choice.split(1, 1), strict=True):
            results = [self.recurrent(part, width, state, weights) for width, weights in sliced]
            outputs.append(Mix.apply(chosen, *(y.transpose(1, 2).contiguous() for y, _ in results)))
            # The units beyond a width hold: to the next segment its state is the old one there.
            reached = [torch.cat([new, state[..., new.shape[-1] :]], -1) for _, new in results]
            state = (torch.stack(reached, -1) * chosen).sum(-1)
        return torch.cat(outputs, -1)

    # ---- as the main network: gates, enhancement, streams

    @property
    def gate_names(self) -> list[str]:
        """Names of the K = W - 1 gates of the thermometer, "over 1/8" and so on."""
        return step_names(self.widths)

    def utilisation(self, gates: np.ndarray) -> np.ndarray:
        """Width of each frame, [...], of thermometer gates [..., K].

        >>> SlimDemucs(DemucsConfig()).utilisation(np.array([[0, 0, 0], [1, 1, 0], [1, 1, 1]]))
        array([0.125, 0.5  , 1.   ])
        """
        return self.widths[0] + np.asarray(gates) @ np.diff(self.widths)

    def count(self) -> WidthCount:
        """MACs layer by layer, per frame of 256 samples."""
        layers = []
        for level, encoder in enumerate(self.encoders, start=1):
            positions = HOP // STRIDE**level
            layers += rows(f"encoder {level}", encoder.macs, self.widths, positions=positions, modules=[encoder])
        layers += rows("recurrent", self.recurrent.macs, self.widths, modules=[self.norm, self.recurrent])
        for level, decoder in zip(range(LEVELS, 0, -1), self.decoders, strict=True):
            positions = HOP // STRIDE**level
            layers += rows(f"decoder {level}", decoder.macs, self.widths, positions=positions, modules=[decoder])
        # The router has one width and runs once a segment; its share of a frame is rounded up.
        layers.append(whole("policy", math.ceil(self.router.macs() / SEGMENT_FRAMES), self.router))
        return WidthCount(tuple(layers), tuple(self.gate_names), self.widths)

    def enhance(self, wave, sample_rate: int, *, budget: float | None = None, policy="learned") -> Result:
        """Enhance a signal of any rate; see :meth:`~dsn_lite.network.enhance.Enhancer.enhance`.

        Parameters
        ----------
        wave, sample_rate : as there
        budget : wanted mean width; the router was trained for 0.1 to 0.75, 0 is the narrowest and 1 the widest alone.
        policy : "learned", "open" (the widest), "closed" (the narrowest), a width such as 0.25, or gates [T, K]
        """
        rate, channels = as_rate(sample_rate), as_channels(wave)
        if not channels.size:
            raise InputError("the signal has no samples")
        waves, gates = zip(*(self._channel(one, rate, budget, policy) for one in channels), strict=True)
        return Result.of(wave, waves, gates, self.count())

    def _channel(self, wave: np.ndarray, sample_rate: int, budget: float | None, policy) -> tuple[np.ndarray, np.ndarray]:
        """One enhanced channel [samples] and its gates [T, K]."""
        stream = Stream(self, budget=budget, policy=policy)
        body = stream.feed(resample(wave, sample_rate, SAMPLE_RATE)), stream.take_gates()
        low, used = map(np.concatenate, zip(body, (stream.flush(), stream.take_gates()), strict=True))
        return fit(resample(low, SAMPLE_RATE, sample_rate), len(wave)), used

    def soften(self, share: float) -> None:
        """Subtract only ``1 - share`` of what is taken for noise, for good: it is too sure on noises it has not heard."""
        if not 0 <= share <= 1:
            raise InputError(f"share {share}: must lie between 0 (all of it) and 1 (the input as it is)")
        with torch.no_grad():
            for values in self.decoders[-1].convolution.parameters():
                values *= 1 - share

    def runner(self, *, budget: float | None = None, policy="learned") -> SegmentRunner:
        """What a :class:`~dsn_lite.engine.stream.Stream` of this network runs."""
        return SegmentRunner(self, budget, policy)


def _without(wave: Tensor, unit: int, noise_of: Callable[[Tensor], Tensor]) -> Tensor:
    """A wave [B, samples] less the noise that is found in it: levelled, in whole units of samples."""
    padded = functional.pad(wave, (0, -wave.shape[-1] % unit))
    levelled, level, _ = level_out(padded, wave.new_zeros(len(wave), 2))
    return ((levelled - noise_of(levelled)) * level)[:, : wave.shape[-1]]
