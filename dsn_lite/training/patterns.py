"""Which gates a training item uses: everything open, everything closed, a random pattern, or the policy's own.

A network trained only on the pattern its policy likes forgets the others: parts that stay closed rot, and opening them
later makes things worse. So every batch holds all kinds, and before the policy is allowed to choose there is a phase
without it, in which the network learns to be good at any pattern.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dsn_lite.errors import InputError
from dsn_lite.settings import Share, check

HOLDS = (1, 4, 16, 64)
"""Lengths in frames for which a random pattern keeps its value."""


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Shares of the items of a batch; what is left over is given to the policy.

    >>> Mix(open=0.25, closed=0.15, random=0.6).policy
    0.0
    """

    open: Share
    closed: Share
    random: Share

    def __post_init__(self) -> None:
        check(self)
        if self.policy < 0:
            given = f"open {self.open:g}, closed {self.closed:g}, random {self.random:g}"
            raise InputError(f"{given}: together more than 1; give shares of a batch")

    @property
    def policy(self) -> float:
        """Share of the items whose gates the policy chooses."""
        return round(1 - self.open - self.closed - self.random, 9)


def draw(mix: Mix, batch: int, frames: int, gates: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Gates [B, T, K] for a batch, and which items [B] the policy chooses instead.

    A random item has a keep rate, uniform in 0..1, and a hold length from ``HOLDS``; half of the random items have another
    keep rate for each gate, so that patterns near "this gate always, that gate never" occur as well.

    >>> generator = torch.Generator().manual_seed(1)
    >>> pattern, chosen = draw(Mix(open=0.5, closed=0.25, random=0.25), 4, 100, 10, generator)
    >>> pattern.shape, bool(chosen.any())
    (torch.Size([4, 100, 10]), False)
    """
    # Shares are met in every batch as nearly as its size allows: positions on a shuffled ruler.
    ruler = (torch.randperm(batch, generator=generator) + torch.rand(1, generator=generator)) / batch
    is_open, is_closed = ruler < mix.open, (ruler >= mix.open) & (ruler < mix.open + mix.closed)
    chosen = ruler >= (mix.open + mix.closed + mix.random if mix.policy else math.inf)
    pattern = torch.zeros(batch, frames, gates)
    for item in range(batch):
        # The same numbers are drawn for every kind, so that one item's kind does not shift the next one's pattern.
        hold = HOLDS[int(torch.randint(len(HOLDS), (1,), generator=generator))]
        rate = torch.rand(gates, generator=generator)
        if torch.rand(1, generator=generator) < 0.5:
            rate = rate[:1].expand(gates)
        coarse = torch.rand(frames // hold + 2, gates, generator=generator) < rate
        start = int(torch.randint(hold, (1,), generator=generator))
        pattern[item] = coarse.repeat_interleave(hold, dim=0)[start : start + frames].float()
    pattern[is_open], pattern[is_closed] = 1.0, 0.0
    return pattern, chosen


def spans(batch: int, frames: int, generator: torch.Generator) -> Tensor:
    """Open or closed [B, T], held for a while of a length from ``HOLDS``; every item has a length of its own.

    >>> spans(2, 50, torch.Generator().manual_seed(1)).shape
    torch.Size([2, 50])
    """
    rows = []
    for _ in range(batch):
        hold = HOLDS[int(torch.randint(len(HOLDS), (1,), generator=generator))]
        coarse = torch.randint(2, (frames // hold + 2,), generator=generator).float()
        start = int(torch.randint(hold, (1,), generator=generator))
        rows.append(coarse.repeat_interleave(hold)[start : start + frames])
    return torch.stack(rows)
