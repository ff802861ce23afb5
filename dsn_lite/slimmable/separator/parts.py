"""The parts of the separator: its shape, a block of two paths, and the module that picks widths."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dsn_lite.errors import InputError
from dsn_lite.settings import Count, Positive, build, check, plain
from dsn_lite.slimmable.choice import check_widths
from dsn_lite.slimmable.layers import SlimGRU, SlimLinear, SlimNorm

AT_ONCE = 2048
"""Chunks that evaluation runs through a GRU at once: bounds its memory on a long recording."""


@dataclass(frozen=True, kw_only=True)
class SeparatorConfig:
    """Shape of a separator.

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
        check_widths(self.widths)
        if self.reach % 2 == 0:
            raise InputError(f"reach: {self.reach} does not fit; it must be odd, as many frames before as after")

    @classmethod
    def from_dict(cls, values: dict, source: str = "network") -> SeparatorConfig:
        """From plain values, as they stand in a configuration or a card."""
        return build(cls, values, source)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return plain(self)


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
        # The frames of one place in all chunks are one sequence.
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
    """Logits of the widths of each chunk.

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
