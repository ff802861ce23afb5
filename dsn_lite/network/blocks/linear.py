"""Fully connected pair with static and dynamic hidden units."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from dsn_lite.network.blocks.convolution import join
from dsn_lite.network.blocks.frames import where_open
from dsn_lite.network.blocks.norm import Norm


class Pair(nn.Module):
    """``down(relu(up(norm(x))))``: x [N, F, inputs] to [N, F, outputs]."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.norm = Norm(inputs)
        self.up, self.down = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [N, F, inputs] to [N, F, outputs]."""
        return self.down(functional.relu(self.up(self.norm(x))))

    def macs(self, bands: int) -> int:
        """Products of one frame."""
        return bands * (self.up.weight.numel() + self.down.weight.numel())


class DynamicFeedForward(nn.Module):
    """Residual fully connected pair of every band; the dynamic hidden units read all channels and add to the dynamic ones.

    Parameters
    ----------
    channels : (static, dynamic) channels of input and output.
    hidden : (static, dynamic) hidden units.

    Examples
    --------
    >>> import torch
    >>> block = DynamicFeedForward((8, 8), (16, 16))
    >>> s, d, gate = torch.randn(1, 3, 32, 8), torch.randn(1, 3, 32, 8), torch.tensor([[1.0, 0.0, 1.0]])
    >>> y = block.eval().refine(s, d, gate)
    >>> y.shape, bool((y[:, 1] == d[:, 1]).all())  # closed: nothing is added
    (torch.Size([1, 3, 32, 8]), True)
    """

    def __init__(self, channels: tuple[int, int], hidden: tuple[int, int]):
        super().__init__()
        self.static = Pair(channels[0], hidden[0], channels[0]) if hidden[0] else None
        self.dynamic = Pair(sum(channels), hidden[1], channels[1]) if hidden[1] else None

    def small(self, static: Tensor) -> Tensor:
        """Static channels [B, T, F, channels[0]], refined by the static hidden units."""
        return static if self.static is None else static + where_open(self.static, static, None)

    def refine(self, static: Tensor, dynamic: Tensor, gate: Tensor | None) -> Tensor:
        """Dynamic channels [B, T, F, channels[1]]; unchanged where `gate` [B, T] is closed."""
        return dynamic + where_open(self.dynamic, join(static, dynamic), gate, dynamic.shape[2:])

    def macs(self, bands: int) -> tuple[int, int]:
        """Products of one frame: static, dynamic."""
        static, dynamic = (part.macs(bands) if part else 0 for part in (self.static, self.dynamic))
        return static, dynamic
