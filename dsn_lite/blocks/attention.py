"""Multi-head self-attention along the bands of one frame, with dynamic heads."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from dsn_lite.blocks.frames import gate_slice, is_training_gate, on_open_frames


class DynamicAttention(nn.Module):
    """Self-attention among the F bands of each frame; the last heads exist only where the gate is open.

    Each head adds its own share to the output (``out`` is linear), so a closed head is simply a missing summand. Nothing
    looks along time: the block is causal and has no state.

    Parameters
    ----------
    channels : C, width of input and output.
    head_width : channels of one head.
    static, dynamic : heads that always run, heads behind the gate.

    Examples
    --------
    >>> import torch
    >>> block = DynamicAttention(8, head_width=4, static=1, dynamic=1)
    >>> block(torch.randn(2, 5, 33, 8), torch.ones(2, 5)).shape
    torch.Size([2, 5, 33, 8])
    """

    def __init__(self, channels: int, *, head_width: int, static: int, dynamic: int = 0):
        super().__init__()
        self.channels, self.head_width, self.static, self.dynamic = channels, head_width, static, dynamic
        width = (static + dynamic) * head_width
        self.query_key_value = nn.Linear(channels, 3 * width)
        self.out = nn.Linear(width, channels)

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """Map x [B, T, F, C] to [B, T, F, C]; `gate` [B, T], None means open everywhere."""
        heads = self.static + self.dynamic
        if gate is None or not self.dynamic:
            return self._heads(x, 0, heads, self.out.bias)
        if is_training_gate(gate):
            mixed = self._attend(x, self.query_key_value.weight, self.query_key_value.bias, heads)
            return self.out(gate_slice(mixed, gate, self.static * self.head_width))
        static = self._heads(x, 0, self.static, self.out.bias)
        return static + on_open_frames(lambda open_x: self._heads(open_x, self.static, heads), x, gate, x.shape[2:])

    def _heads(self, x: Tensor, first: int, last: int, bias: Tensor | None = None) -> Tensor:
        """Summed output [..., F, C] of the heads first..last-1; no other head's weights are read."""
        heads = self.static + self.dynamic
        weight = self.query_key_value.weight.unflatten(0, (3, heads, self.head_width))[:, first:last].flatten(0, 2)
        offset = self.query_key_value.bias.unflatten(0, (3, heads, self.head_width))[:, first:last].flatten()
        mixed = self._attend(x, weight, offset, last - first)
        return functional.linear(mixed, self.out.weight[:, first * self.head_width : last * self.head_width], bias)

    def _attend(self, x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> Tensor:
        """Concatenated head outputs [..., F, heads * head_width] of x [..., F, C]."""
        projected = functional.linear(x.flatten(0, -3), weight, bias)  # [N, F, 3 * heads * head_width]
        query, key, value = projected.unflatten(-1, (3, heads, self.head_width)).permute(2, 0, 3, 4, 1).contiguous()
        # Written out, and keys before queries, so that bands lie next to each other in every product: for so few bands a
        # fused attention takes half as long again, the usual order a third.
        scores = (key * self.head_width**-0.5).transpose(-1, -2) @ query  # [N, heads, F keys, F queries]
        mixed = value @ scores.softmax(-2)  # [N, heads, head_width, F]
        return mixed.permute(0, 3, 1, 2).reshape(*x.shape[:-1], heads * self.head_width)
