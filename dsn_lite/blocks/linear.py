"""Fully connected pair with a dynamic slice of hidden units."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from dsn_lite.blocks.frames import gate_slice, is_training_gate, on_open_frames


class DynamicFeedForward(nn.Module):
    """``down(relu(up(x)))`` whose last `dynamic` hidden units exist only where the gate is open.

    A closed slice costs nothing in either product: its rows of `up` and its columns of `down` are not read.

    Parameters
    ----------
    channels : C, width of input and output.
    static : hidden units that always run.
    dynamic : hidden units behind the gate.

    Examples
    --------
    >>> import torch
    >>> block = DynamicFeedForward(8, static=4, dynamic=4)
    >>> x, gate = torch.randn(2, 5, 3, 8), torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 1, 1.0]])
    >>> block(x, gate).shape
    torch.Size([2, 5, 3, 8])
    """

    def __init__(self, channels: int, *, static: int, dynamic: int = 0):
        super().__init__()
        self.channels, self.static, self.dynamic = channels, static, dynamic
        self.up = nn.Linear(channels, static + dynamic)
        self.down = nn.Linear(static + dynamic, channels)

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """Map x [B, T, ..., C] to [B, T, ..., C]; `gate` [B, T], None means open everywhere."""
        if gate is None or not self.dynamic:
            return self.down(functional.relu(self.up(x)))
        if is_training_gate(gate):
            return self.down(gate_slice(functional.relu(self.up(x)), gate, self.static))
        static = functional.linear(x, self.up.weight[: self.static], self.up.bias[: self.static])
        static = functional.linear(functional.relu(static), self.down.weight[:, : self.static], self.down.bias)
        return static + on_open_frames(self._dynamic_part, x, gate, x.shape[2:])

    def _dynamic_part(self, x: Tensor) -> Tensor:
        hidden = functional.linear(x, self.up.weight[self.static :], self.up.bias[self.static :])
        return functional.linear(functional.relu(hidden), self.down.weight[:, self.static :])
