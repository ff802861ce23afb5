"""A small separator of two talkers whose width is chosen chunk by chunk.

A dual-path network (Luo et al., arXiv 1910.06379) on spectra: chunks of 16 frames (256 ms) that do not overlap, and in each
block one GRU inside the chunks and one across them. The GRU inside, where most of the computing is, is slimmable: the first
``ceil(u * hidden)`` units of each direction run, and the width u of a chunk is the same in all blocks (after Elminshawi et
al., IEEE Signal Processing Letters 2024 and arXiv 2507.06179). The path across chunks is small, always whole, and carries
what is known of a talker over stretches that were computed narrowly.

Nothing here is causal: both GRUs run in both directions, and the level is that of the whole signal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dsn_lite.audio.checks import as_output
from dsn_lite.audio.resampling import fit, resample
from dsn_lite.audio.spectral import BINS, FRAMES_PER_SECOND, SAMPLE_RATE, compress, frame_count, istft, power, stft
from dsn_lite.enhancement import checked
from dsn_lite.errors import InputError
from dsn_lite.macs import Layer, frame_macs
from dsn_lite.settings import Count, Positive, build, check, plain
from dsn_lite.slimmable import choice as choosing
from dsn_lite.slimmable.cost import WidthCount, rows
from dsn_lite.slimmable.layers import SlimGRU, SlimLinear, SlimNorm

TALKERS = 2
AT_ONCE = 2048
"""Chunks that evaluation runs through a GRU at once: bounds its memory on a long recording."""


@dataclass(frozen=True, kw_only=True)
class SeparatorConfig:
    """Shape of a separator.

    Examples
    --------
    >>> SeparatorConfig.from_dict({"widths": [0.5, 1]}).widths
    (0.5, 1.0)
    """

    widths: tuple[Positive, ...] = (0.125, 0.25, 0.5, 1.0)
    """Utilisation factors, rising to 1."""
    channels: Count = 128
    """Channels of the path that all blocks add to."""
    hidden: Count = 192
    """Units of the GRU inside a chunk, in each direction, at full width."""
    across: Count = 64
    """Units of the GRU across chunks, in each direction."""
    blocks: Count = 3
    chunk: Count = 16
    """Frames of a chunk."""
    reach: Count = 5
    """Frames that a block blends, channel by channel, so that a chunk hears what lies around it."""
    gating_channels: Count = 32
    gating_hidden: Count = 24

    def __post_init__(self):
        check(self)
        widths = self.widths
        if not widths or list(widths) != sorted(set(widths)) or widths[-1] != 1:
            raise InputError(f"widths: {list(widths)} does not fit; they must rise within (0, 1] and end at 1")
        if self.reach % 2 == 0:
            raise InputError(f"reach: {self.reach} does not fit; it must be odd, as many frames before as after")

    @classmethod
    def from_dict(cls, values: dict, source: str = "network") -> SeparatorConfig:
        """From plain values, as they stand in a configuration or a card."""
        return build(cls, values, source)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return plain(self)


class Output(NamedTuple):
    """What a forward pass gives, one entry for each of the choices asked for."""

    waves: tuple[Tensor, ...]
    """Talkers [B, 2, samples]."""
    choices: tuple[float | Tensor, ...]
    """The width that ran, or one-hot [B, S, W]."""
    logits: Tensor
    """Of the gating module, [B, S, W]."""


@dataclass(frozen=True)
class Separated:
    """What came out of a separation, and what was spent on it."""

    waves: np.ndarray | Tensor
    """Talkers [2, samples]: kind and rate of the input."""
    widths: np.ndarray
    """Width of each chunk, [S]."""
    frame_mmacs: np.ndarray
    """Rate of computing in each frame of 16 ms, in MMAC/s, [T]."""
    mmacs_per_second: float
    """Mean of `frame_mmacs`."""
    utilisation: float
    """Mean of `widths` over the frames."""
    activation: float
    """MACs above those of the narrowest width / MACs that the full width adds to it."""


class Separator(nn.Module):
    """Two talkers from one mixture, each as a mask on its spectrum.

    A chunk holds ``config.chunk`` frames of 16 ms; S = ceil(T / chunk) chunks for T frames. Which talker comes out first is
    not known beforehand.

    Parameters
    ----------
    config : SeparatorConfig

    Examples
    --------
    >>> import torch
    >>> network = Separator(SeparatorConfig(channels=16, hidden=16, across=8, blocks=1)).eval()
    >>> output = network(torch.randn(3, 16000), [0.25, None])
    >>> output.waves[0].shape, output.choices[1].shape
    (torch.Size([3, 2, 16000]), torch.Size([3, 4, 4]))
    """

    KIND = "separator"

    def __init__(self, config: SeparatorConfig):
        super().__init__()
        self.config = config
        self.name = "untrained"
        self.card: dict = {}
        self.temperature = 1.0
        """Temperature of the sampled widths in training; see :func:`dsn_lite.slimmable.choice.sample`."""
        self.read = nn.Linear(BINS, config.channels)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = SlimNorm(config.channels, kind="layer")
        self.masks = nn.Linear(config.channels, TALKERS * BINS)
        self.gating = Gating(config)
        counted = self.count()
        costs = torch.tensor(counted.width_mmacs / counted.open, dtype=torch.float32)
        self.register_buffer("costs", costs, persistent=False)
        self.costs: Tensor
        """MACs of each width / MACs of the full width, all layers, [W]."""

    @classmethod
    def from_card(cls, card: dict) -> Separator:
        """An untrained network of the shape that a card holds under ``network``."""
        return cls(SeparatorConfig.from_dict(card["network"], "card"))

    @property
    def gate_names(self) -> list[str]:
        """Names of the W - 1 steps between widths, the gates of the thermometer view."""
        return choosing.step_names(self.config.widths)

    def chunks(self, samples: int) -> int:
        """Chunks S of a signal of `samples` samples at 16 kHz."""
        return math.ceil(frame_count(samples) / self.config.chunk)

    def forward(
        self, wave: Tensor, choices: Sequence[float | Tensor | None] = (None,), *, shift: float = 0.0,
        noise: Tensor | None = None,
    ) -> Output:  # fmt: skip
        """Separate a batch, once for each choice of widths; the input is looked at once for all.

        Parameters
        ----------
        wave : Tensor [B, samples]
            At 16 kHz.
        choices : for each pass a width for all chunks, one-hot widths [B, S, W], or None: the gating module chooses,
            sampled in training and deterministic in evaluation.
        shift : moves the chosen widths; see :meth:`budget_shift`.
        noise : Tensor [B, S, W], Gumbel noise for sampled widths; None draws it.
        """
        spectrum = stft(wave)
        level = wave.square().mean(-1).add(1e-10).sqrt()[:, None, None]
        magnitude = power(compress(spectrum / level)).add(1e-12).sqrt()
        frames = magnitude.shape[1]
        missing = -frames % self.config.chunk
        x = self.read(functional.pad(magnitude, (0, 0, 0, missing))).unflatten(1, (-1, self.config.chunk))
        # The gating module reads the first layer but does not train it: that is for separating.
        logits = self.gating(x.detach())
        waves, used = [], []
        for choice in choices:
            if choice is None and self.training:
                choice = choosing.sample(logits, self.temperature, noise)
            elif choice is None:
                choice = choosing.decide(logits, shift, self.costs)
            elif isinstance(choice, float):
                self.check_width(choice)
            y = x
            for block in self.blocks:
                y = block(y, choice)
            y = self.norm(y).flatten(1, 2)[:, :frames]
            masks = torch.sigmoid(self.masks(y)).unflatten(-1, (TALKERS, BINS)).transpose(1, 2)
            waves.append(istft(masks * spectrum[:, None], wave.shape[-1]))
            used.append(choice)
        return Output(tuple(waves), tuple(used), logits)

    def check_width(self, width: float) -> None:
        """Refuse a width that was not trained, with an InputError."""
        if width not in self.config.widths:
            known = ", ".join(f"{known:g}" for known in self.config.widths)
            raise InputError(f"width {width!r}: this network was trained for {known}; choose one of them")

    def separate(
        self, wave: np.ndarray | Tensor, sample_rate: int, *, budget: float | None = None,
        policy: str | float | np.ndarray = "learned",
    ) -> Separated:  # fmt: skip
        """Separate the two talkers of a whole signal.

        The signal is taken as a whole, in about 1 MB of memory a second. SI-SDR, which the network is trained for, leaves
        levels open: each talker is scaled so that the sum of both comes closest to the input.

        Parameters
        ----------
        wave : array or tensor, [samples] or [channels, samples]
            The mean of the channels is separated.
        sample_rate : in Hz; other rates than 16 kHz are resampled there and back, what lies above 8 kHz is lost.
        budget : wanted activation 0..1 of the learned widths, None as trained; see :meth:`budget_shift`.
        policy : "learned", "open" (full width), "closed" (narrowest), one width, or the width of each chunk [S]

        Returns
        -------
        Separated

        Raises
        ------
        dsn_lite.errors.InputError
            Empty signal, NaN or infinite samples, wrong shape, unknown policy or width.

        Examples
        --------
        >>> network = Separator(SeparatorConfig(channels=16, hidden=16, across=8, blocks=1)).eval()
        >>> result = network.separate(np.zeros((2, 8000), np.float32), 8_000, policy=0.5)
        >>> result.waves.shape, result.widths.tolist(), result.frame_mmacs.shape
        ((2, 8000), [0.5, 0.5, 0.5, 0.5], (64,))
        """
        channels = checked(wave, sample_rate)
        low = resample(channels.mean(0), sample_rate, SAMPLE_RATE)
        count = self.chunks(len(low))
        given, shift = self._asked(policy, count, budget)
        with torch.no_grad():
            mixture = torch.from_numpy(low).to(self.read.weight)
            one_hot = None if given is None else functional.one_hot(given, len(self.config.widths))[None].to(mixture)
            output = self(mixture[None], [one_hot], shift=shift)
            waves = (output.waves[0][0] * _levels(output.waves[0][0], mixture)[:, None]).float().cpu().numpy()
            picked = output.choices[0][0].argmax(-1).cpu()
        as_output(waves, self.name)
        back = np.stack([fit(resample(talker, SAMPLE_RATE, sample_rate), channels.shape[1]) for talker in waves])
        frames = picked.repeat_interleave(self.config.chunk)[: frame_count(len(low))]
        counted = self.count()
        gates = choosing.thermometer(functional.one_hot(frames, len(self.config.widths)).float())
        spent = frame_macs(counted, gates.numpy()) * FRAMES_PER_SECOND / 1e6
        widths = np.array(self.config.widths)
        span = counted.open - counted.closed
        return Separated(
            waves=torch.from_numpy(back) if isinstance(wave, Tensor) else back,
            widths=widths[picked.numpy()],
            frame_mmacs=spent,
            mmacs_per_second=float(spent.mean()),
            utilisation=float(widths[frames.numpy()].mean()),
            activation=min(max(float((spent.mean() - counted.closed) / span), 0.0), 1.0) if span else 1.0,
        )

    def _asked(
        self, policy: str | float | np.ndarray, count: int, budget: float | None
    ) -> tuple[Tensor | None, float]:
        """Number of the width of each chunk [S], None where the gating module chooses, and its shift."""
        widths = self.config.widths
        if isinstance(policy, str) and policy == "learned":
            return None, self.budget_shift(budget)
        if budget is not None:
            raise InputError(f"budget {budget} with widths that are given; leave it out, or let the network choose")
        if isinstance(policy, str):
            if policy not in ("open", "closed"):
                raise InputError(f"no policy {policy!r}; choose learned, open, closed or a width")
            policy = widths[-1 if policy == "open" else 0]
        given = np.asarray(policy, dtype=float)
        if given.ndim == 0:
            given = np.full(count, given)
        if given.shape != (count,):
            raise InputError(f"widths of shape {given.shape}; this signal has {count} chunks of {self.config.chunk} frames")
        for width in np.unique(given):
            self.check_width(float(width))
        return torch.from_numpy(np.searchsorted(widths, given)), 0.0

    def budget_shift(self, budget: float | None) -> float:
        """Shift of the logits for a wanted activation `budget` in 0..1; None is the trained operating point.

        0 is the narrowest width everywhere, 1 the full one. In between the shift comes from the calibration in the model's
        card: the activation on the validation mixtures at each of several shifts. A single clip will differ from it.
        """
        if budget is None:
            return 0.0
        if not 0 <= budget <= 1:
            raise InputError(f"budget is {budget}; it must lie between 0 (narrowest) and 1 (full width)")
        if budget in (0, 1):
            return math.inf if budget else -math.inf
        table = self.card.get("calibration")
        if not table:
            raise InputError(f"the network {self.name} has no calibration in its card; leave the budget out")
        return float(np.interp(budget, [row["activation"] for row in table], [row["shift"] for row in table]))

    def count(self) -> WidthCount:
        """MACs of each width, layer by layer.

        Examples
        --------
        >>> counted = Separator(SeparatorConfig()).count()
        >>> bool(60 < counted.open < 120), bool(counted.closed < 0.4 * counted.open)
        (True, True)
        """
        config, layers = self.config, []
        layers.append(Layer("encoder", BINS * config.channels, 0, None, _parameters(self.read)))
        for i, block in enumerate(self.blocks, start=1):
            slimmed = [block.get_submodule(name) for name in ("inside", "out")]
            layers += rows(f"inside {i}", lambda u, b=block: b.inside_macs(u), config.widths, modules=slimmed)
            across = block.across.macs() + config.channels * 2 * config.across
            layers.append(Layer(f"across {i}", across, 0, None, _parameters(block.across, block.across_out)))
            small = _parameters(block.blend, block.inside_norm, block.across_norm)
            layers.append(Layer(f"blend {i}", config.channels * config.reach, 0, None, small))
        layers.append(Layer("masks", config.channels * TALKERS * BINS, 0, None, _parameters(self.masks, self.norm)))
        layers.append(Layer("policy", self.gating.macs(), 0, None, _parameters(self.gating)))
        return WidthCount(tuple(layers), config.widths)


class Block(nn.Module):
    """Blend of neighbouring frames, slimmable GRU inside the chunks, small GRU across them; all residual.

    x [B, S, L, C] -> the same, L frames a chunk.
    """

    def __init__(self, config: SeparatorConfig):
        super().__init__()
        channels = config.channels
        self.widths = config.widths
        self.blend = nn.Conv1d(channels, channels, config.reach, padding=config.reach // 2, groups=channels)
        self.inside_norm = SlimNorm(channels, kind="layer")
        self.inside = SlimGRU(channels, config.hidden, bidirectional=True, full_in=True)
        # One projection a direction: each takes the first units of its own.
        self.out = SlimDirections(config.hidden, channels)
        self.across_norm = SlimNorm(channels, kind="layer")
        self.across = SlimGRU(channels, config.across, bidirectional=True)
        self.across_out = nn.Linear(2 * config.across, channels)

    def forward(self, x: Tensor, choice: float | Tensor) -> Tensor:
        """Map x [B, S, L, C] with one width, or one-hot widths [B, S, W]."""
        flat = x.flatten(1, 2)
        x = (flat + self.blend(flat.transpose(1, 2)).transpose(1, 2)).view_as(x)
        x = x + self._inside(self.inside_norm(x), choice)
        # Across: the frames of one place in all chunks are one sequence.
        y = self.across_norm(x).transpose(1, 2)
        y = self.across_out(self.across(y.flatten(0, 1))[0]).view_as(y)
        return x + y.transpose(1, 2)

    def _inside(self, y: Tensor, choice: float | Tensor) -> Tensor:
        shape, y = y.shape, y.flatten(0, 1)
        if isinstance(choice, float):
            return self._run(y, choice).view(shape)
        choice = choice.flatten(0, 1)
        if choice.requires_grad:  # every width, so that the router has the gradient of each
            runs = (self._run(y, u) * choice[:, i, None, None] for i, u in enumerate(self.widths))
            return sum(runs).view(shape)
        out = torch.empty_like(y)
        for i, width in enumerate(self.widths):
            (here,) = choice[:, i].nonzero(as_tuple=True)
            for part in here.split(AT_ONCE):
                out[part] = self._run(y[part], width)
        return out.view(shape)

    def _run(self, y: Tensor, width: float) -> Tensor:
        return self.out(self.inside(y, width)[0], width)

    def inside_macs(self, width: float) -> int:
        """MACs of a frame inside the chunk."""
        return self.inside.macs(width) + self.out.macs(width)


class SlimDirections(nn.Module):
    """Projection of both directions of a slimmable GRU [..., 2 * active] to full width [..., C].

    Examples
    --------
    >>> import torch
    >>> layer = SlimDirections(8, 5)
    >>> layer(torch.randn(3, 4), 0.25).shape, layer.macs(0.25)
    (torch.Size([3, 5]), 20)
    """

    def __init__(self, hidden: int, channels: int):
        super().__init__()
        self.forward_out = SlimLinear(hidden, channels, full_out=True)
        self.backward_out = SlimLinear(hidden, channels, bias=False, full_out=True)

    def forward(self, x: Tensor, width: float) -> Tensor:
        """Map x [..., 2 * active] to [..., C]."""
        one, other = x.chunk(2, -1)
        return self.forward_out(one, width) + self.backward_out(other, width)

    def macs(self, width: float) -> int:
        """MACs of one position."""
        return self.forward_out.macs(width) + self.backward_out.macs(width)


class Gating(nn.Module):
    """Logits of the widths of each chunk, from local features and a look at the chunks around.

    Frames are mapped to a few channels and blended with their neighbours; mean and maximum over the chunk go through a
    small GRU along the chunks, in both directions.
    """

    def __init__(self, config: SeparatorConfig):
        super().__init__()
        self.config = config
        narrow = config.gating_channels
        self.read = nn.Linear(config.channels, narrow)
        self.blend = nn.Conv1d(narrow, narrow, config.reach, padding=config.reach // 2)
        self.recurrent = nn.GRU(2 * narrow, config.gating_hidden, batch_first=True, bidirectional=True)
        self.logits = nn.Linear(2 * config.gating_hidden, len(config.widths))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, S, W] of x [B, S, L, C]."""
        y = functional.relu(self.read(x.flatten(1, 2)))
        y = functional.relu(self.blend(y.transpose(1, 2))).transpose(1, 2).unflatten(1, x.shape[1:3])
        pooled = torch.cat([y.mean(2), y.amax(2)], -1)
        return self.logits(self.recurrent(pooled)[0])

    def macs(self) -> int:
        """MACs of one frame."""
        config = self.config
        narrow, hidden = config.gating_channels, config.gating_hidden
        a_frame = config.channels * narrow + narrow * narrow * config.reach
        a_chunk = 2 * 3 * hidden * (2 * narrow + hidden) + 2 * hidden * len(config.widths)
        return a_frame + math.ceil(a_chunk / config.chunk)


def _parameters(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def _levels(talkers: Tensor, mixture: Tensor, firmness: float = 1e-3) -> Tensor:
    """Gains [2] that bring the sum of talkers [2, samples] closest to the mixture [samples], drawn a little towards 1."""
    gram = (talkers @ talkers.T).double()
    ridge = firmness * gram.trace() + 1e-12
    unit = torch.eye(TALKERS, dtype=gram.dtype, device=gram.device)
    gains = torch.linalg.solve(gram + ridge * unit, (talkers @ mixture).double() + ridge)
    return gains.clamp(0, 10).float()
