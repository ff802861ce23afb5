"""The policy: from the spectrum of a frame (and of those before it) to one pair of logits for each gate.

It sees the pooled compressed magnitudes of the noisy input and nothing of the network itself. So it is causal, it costs
little, and the gates of a whole signal are known before the network runs: what a held GRU needs to be trained exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dsn_lite.audio.spectral import BINS, SAMPLE_RATE


def erb_pooling(bands: int, bins: int = BINS) -> Tensor:
    """Triangular averaging weights [bins, bands], equally spaced on the ERB-rate scale (Glasberg and Moore, 1990).

    Each column sums to one.

    Examples
    --------
    >>> bool(torch.allclose(erb_pooling(24).sum(0), torch.ones(24)))
    True
    """
    hertz = torch.linspace(0, SAMPLE_RATE / 2, bins, dtype=torch.float64)
    rate = 21.4 * torch.log10(1 + 0.00437 * hertz)
    centres = torch.linspace(float(rate[1]), float(rate[-1]), bands, dtype=torch.float64)
    # Low bands are narrower than a bin: the triangle is at least as wide as the gap to the nearest bin.
    gap = (rate[:, None] - centres).abs().amin(0)
    width = torch.maximum(centres[1] - centres[0], 1.01 * gap)
    weights = (1 - (rate[:, None] - centres).abs() / width).clamp_min(0)
    return (weights / weights.sum(0)).float()


class Policy(nn.Module):
    """Pooled magnitudes -> GRU -> two logits a gate.

    Parameters
    ----------
    gates : K.
    bands : pooled bands.
    width : state size of the GRU.

    Examples
    --------
    >>> policy = Policy(10, bands=24, width=16)
    >>> logits, state = policy(torch.rand(2, 50, 257))
    >>> logits.shape, state.shape
    (torch.Size([2, 50, 10, 2]), torch.Size([2, 16]))
    """

    def __init__(self, gates: int, *, bands: int, width: int):
        super().__init__()
        self.gates, self.bands, self.width = gates, bands, width
        self.register_buffer("pooling", erb_pooling(bands), persistent=False)
        self.recurrent = nn.GRU(bands, width, batch_first=True)
        self.logits = nn.Linear(width, 2 * gates)

    def initial_state(self, batch: int) -> Tensor:
        """Zero state [B, width]."""
        return self.logits.weight.new_zeros(batch, self.width)

    def forward(self, magnitude: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits [B, T, K, 2] (closed, open) and new state [B, width] from compressed magnitudes [B, T, F]."""
        return self.decide(self.features(magnitude), state)

    def features(self, magnitude: Tensor) -> Tensor:
        """Pooled magnitudes [B, T, bands] of compressed magnitudes [B, T, F]."""
        return magnitude @ self.pooling

    def decide(self, features: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits [B, T, K, 2] and new state [B, width] from pooled magnitudes [B, T, bands]."""
        if state is None:
            state = self.initial_state(features.shape[0])
        hidden, last = self.recurrent(features, state.unsqueeze(0))
        return self.logits(hidden).unflatten(-1, (self.gates, 2)), last.squeeze(0)
