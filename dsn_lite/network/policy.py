"""The policy: from what a frame sounds like and what the small network made of it to one margin for each gate.

It runs behind the small network and in front of the refinement, sees no dynamic part and looks at no later frame. So it is
causal, it costs little, and its gates do not depend on what they open: what a held GRU needs to be trained exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dsn_lite.audio.spectral import BINS, SAMPLE_RATE


def erb_pooling(bands: int, bins: int = BINS - 1) -> Tensor:
    """Triangular averaging weights [bins, bands], equally spaced on the ERB-rate scale (Glasberg and Moore, 1990).

    Each column sums to one; bin i lies at ``i * 31.25`` Hz.

    >>> bool(torch.allclose(erb_pooling(24).sum(0), torch.ones(24)))
    True
    """
    hertz = torch.arange(bins, dtype=torch.float64) * SAMPLE_RATE / 2 / (BINS - 1)
    rate = 21.4 * torch.log10(1 + 0.00437 * hertz)
    centres = torch.linspace(float(rate[1]), float(rate[-1]), bands, dtype=torch.float64)
    # Low bands are narrower than a bin: the triangle is at least as wide as the gap to the nearest bin.
    gap = (rate[:, None] - centres).abs().amin(0)
    width = torch.maximum(centres[1] - centres[0], 1.01 * gap)
    weights = (1 - (rate[:, None] - centres).abs() / width).clamp_min(0)
    return (weights / weights.sum(0)).float()


class Policy(nn.Module):
    """Pooled input, pooled small answer and static features -> GRU -> one margin a gate; a gate is open above zero.

    Parameters
    ----------
    gates : K.
    channels : static channels C of the middle.
    bands : pooled bands P.
    width : state size of the GRU.

    Examples
    --------
    >>> policy = Policy(8, channels=12, bands=16, width=32)
    >>> features = policy.features(torch.rand(2, 50, 256), torch.rand(2, 50, 256), torch.rand(2, 50, 32, 12))
    >>> margins, state = policy(features)
    >>> features.shape, margins.shape, state.shape
    (torch.Size([2, 50, 44]), torch.Size([2, 50, 8]), torch.Size([2, 32]))
    """

    def __init__(self, gates: int, *, channels: int, bands: int, width: int):
        super().__init__()
        self.width = width
        self.register_buffer("pooling", erb_pooling(bands), persistent=False)
        self.recurrent = nn.GRU(2 * bands + channels, width, batch_first=True)
        self.margins = nn.Linear(width, gates)

    def features(self, magnitude: Tensor, answer: Tensor, middle: Tensor) -> Tensor:
        """What the policy sees [B, T, 2 P + C].

        Of the magnitudes [B, T, 256] of the input and of the small answer, compressed and over the running level, the mean
        in each band; of the static channels [B, T, F, C] behind the middle, the mean over bands.
        """
        return torch.cat([magnitude @ self.pooling, answer @ self.pooling, middle.mean(2)], -1)

    def forward(self, features: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Margins [B, T, K] and the new state [B, width]; `state` None starts anew."""
        state = features.new_zeros(features.shape[0], self.width) if state is None else state
        hidden, last = self.recurrent(features, state.unsqueeze(0).contiguous())
        return self.margins(hidden), last.squeeze(0)

    def macs(self) -> int:
        """Products of one frame; the pooling is fixed and not counted."""
        return sum(
            weight.numel() for weight in (self.recurrent.weight_ih_l0, self.recurrent.weight_hh_l0, self.margins.weight)
        )
