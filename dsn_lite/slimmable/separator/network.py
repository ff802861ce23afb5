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

from dsn_lite.audio.checks import as_channels, as_output, as_rate
from dsn_lite.audio.resampling import fit, resample
from dsn_lite.audio.spectral import BINS, SAMPLE_RATE, compress, frame_count, istft, power, stft
from dsn_lite.errors import InputError
from dsn_lite.slimmable import choice as choosing
from dsn_lite.slimmable.cost import WidthCount, rows, whole
from dsn_lite.slimmable.layers import SlimNorm
from dsn_lite.slimmable.separator.parts import Block, Gating, SeparatorConfig

TALKERS = 2


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
        self.register_buffer("costs", torch.tensor(counted.width_mmacs / counted.open).float(), persistent=False)
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
        """Separate waves [B, samples] at 16 kHz, once for each choice of widths; the input is looked at once for all.

        A choice is a width for all chunks, one-hot widths [B, S, W], or None: the gating module chooses, moved by `shift`
        (see :meth:`budget_shift`), and in training sampled with the Gumbel `noise` [B, S, W]; None draws it.
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

        Examples
        --------
        >>> network = Separator(SeparatorConfig(channels=16, hidden=16, across=8, blocks=1)).eval()
        >>> result = network.separate(np.zeros((2, 8000), np.float32), 8_000, policy=0.5)
        >>> result.waves.shape, result.widths.tolist(), result.frame_mmacs.shape
        ((2, 8000), [0.5, 0.5, 0.5, 0.5], (64,))
        """
        as_rate(sample_rate)
        channels = as_channels(wave)
        if not channels.size:
            raise InputError("the signal has no samples")
        low = resample(channels.mean(0), sample_rate, SAMPLE_RATE)
        given, shift = self._asked(policy, self.chunks(len(low)), budget)
        with torch.no_grad():
            mixture = torch.from_numpy(low).to(self.read.weight)
            output = self(mixture[None], [given], shift=shift)
            talkers = output.waves[0][0]
            waves = (talkers * _levels(talkers, mixture)[:, None]).float().cpu().numpy()
            picked = output.choices[0][0].argmax(-1).cpu().numpy()
        as_output(waves, self.name)
        back = np.stack([fit(resample(talker, SAMPLE_RATE, sample_rate), channels.shape[1]) for talker in waves])
        counted, widths = self.count(), np.array(self.config.widths)
        frames = picked.repeat(self.config.chunk)[: frame_count(len(low))]
        spent = counted.width_mmacs[frames]
        return Separated(
            waves=torch.from_numpy(back) if isinstance(wave, Tensor) else back,
            widths=widths[picked],
            frame_mmacs=spent,
            mmacs_per_second=float(spent.mean()),
            utilisation=float(widths[frames].mean()),
            activation=min(max(float((spent.mean() - counted.closed) / (counted.open - counted.closed)), 0.0), 1.0),
        )

    def _asked(self, policy: str | float | np.ndarray, count: int, budget: float | None) -> tuple[Tensor | None, float]:
        """One-hot widths [1, S, W], None where the gating module chooses, and its shift."""
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
        given = np.full(count, given) if given.ndim == 0 else given
        if given.shape != (count,):
            raise InputError(f"widths of shape {given.shape}; this signal has {count} chunks of {self.config.chunk} frames")
        for width in np.unique(given):
            self.check_width(float(width))
        one_hot = torch.from_numpy(given[None, :, None] == np.array(widths))
        return one_hot.to(self.read.weight), 0.0

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

        >>> counted = Separator(SeparatorConfig()).count()
        >>> bool(60 < counted.open < 120), bool(counted.closed < 0.4 * counted.open)
        (True, True)
        """
        config, channels = self.config, self.config.channels
        layers = [whole("encoder", BINS * channels, self.read)]
        for i, block in enumerate(self.blocks, start=1):
            slimmed = [block.get_submodule(name) for name in ("inside", "out")]
            layers += rows(f"inside {i}", block.inside_macs, config.widths, modules=slimmed)
            across = block.across.macs() + channels * 2 * config.across
            layers.append(whole(f"across {i}", across, block.across, block.across_out))
            layers.append(whole(f"blend {i}", channels * config.reach, block.blend, block.inside_norm, block.across_norm))
        layers.append(whole("masks", channels * TALKERS * BINS, self.masks, self.norm))
        layers.append(whole("policy", self.gating.macs(), self.gating))
        return WidthCount(tuple(layers), tuple(self.gate_names), config.widths)


def _levels(talkers: Tensor, mixture: Tensor, firmness: float = 1e-3) -> Tensor:
    """Gains [2] that bring the sum of talkers [2, samples] closest to the mixture [samples], drawn a little towards 1."""
    gram = (talkers @ talkers.T).double()
    ridge = firmness * gram.trace() + 1e-12
    unit = torch.eye(TALKERS, dtype=gram.dtype, device=gram.device)
    gains = torch.linalg.solve(gram + ridge * unit, (talkers @ mixture).double() + ridge)
    return gains.clamp(0, 10).float()
