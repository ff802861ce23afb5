"""Multi-head self-attention along the bands of one frame, with static and dynamic heads."""

from __future__ import annotations

from torch import Tensor, nn

from dsn_lite.network.blocks.convolution import join
from dsn_lite.network.blocks.frames import where_open
from dsn_lite.network.blocks.norm import Norm


class Heads(nn.Module):
    """Some heads (Vaswani et al., 2017) among the F bands of a frame: x [N, F, inputs] to [N, F, outputs]."""

    def __init__(self, inputs: int, heads: int, width: int, outputs: int):
        super().__init__()
        self.heads, self.width = heads, width
        self.norm = Norm(inputs)
        self.query_key_value = nn.Linear(inputs, 3 * heads * width)
        self.out = nn.Linear(heads * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [N, F, inputs] to [N, F, outputs]."""
        projected = self.query_key_value(self.norm(x))  # [N, F, 3 * heads * width]
        query, key, value = projected.unflatten(-1, (3, self.heads, self.width)).permute(2, 0, 3, 4, 1).contiguous()
        # Written out, and keys before queries, so that bands lie next to each other in every product: for so few bands a
        # fused attention takes half as long again, the usual order a third.
        scores = (key * self.width**-0.5).transpose(-1, -2) @ query  # [N, heads, F keys, F queries]
        mixed = value @ scores.softmax(-2)  # [N, heads, width, F]
        return self.out(mixed.permute(0, 3, 1, 2).flatten(2))

    def macs(self, bands: int) -> int:
        """Products of one frame: projections, scores, mixture."""
        both = self.query_key_value.weight.numel() + self.out.weight.numel()
        return bands * both + 2 * bands * bands * self.heads * self.width


class DynamicAttention(nn.Module):
    """Residual self-attention among bands; the dynamic heads read all channels and add to the dynamic ones.

    Each head adds its own share (``out`` is linear), so a closed head is a missing summand. Nothing looks along time.

    Parameters
    ----------
    channels : (static, dynamic) channels of input and output.
    heads : (static, dynamic) heads.
    width : channels of a static and of a dynamic head.

    Examples
    --------
    >>> import torch
    >>> block = DynamicAttention((8, 8), (1, 2), (4, 8))
    >>> s, d = torch.randn(1, 3, 32, 8), torch.randn(1, 3, 32, 8)
    >>> block.small(s).shape, block.refine(s, d, None).shape
    (torch.Size([1, 3, 32, 8]), torch.Size([1, 3, 32, 8]))
    """

    def __init__(self, channels: tuple[int, int], heads: tuple[int, int], width: tuple[int, int]):
        super().__init__()
        self.static = Heads(channels[0], heads[0], width[0], channels[0]) if heads[0] else None
        self.dynamic = Heads(sum(channels), heads[1], width[1], channels[1]) if heads[1] else None

    def small(self, static: Tensor) -> Tensor:
        """Static channels [B, T, F, channels[0]] after the static heads."""
        return static if self.static is None else static + where_open(self.static, static, None)

    def refine(self, static: Tensor, dynamic: Tensor, gate: Tensor | None) -> Tensor:
        """Dynamic channels [B, T, F, channels[1]]; unchanged where `gate` [B, T] is closed."""
        return dynamic + where_open(self.dynamic, join(static, dynamic), gate, dynamic.shape[2:])

    def macs(self, bands: int) -> tuple[int, int]:
        """Products of one frame: static, dynamic."""
        static, dynamic = (part.macs(bands) if part else 0 for part in (self.static, self.dynamic))
        return static, dynamic
