"""Convolutions along frequency, down and up, with a static and a dynamic slice of output channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dsn_lite.network.blocks.frames import where_open
from dsn_lite.network.blocks.norm import Norm


class Slice(nn.Module):
    """One slice of a convolution along frequency: product, norm, PReLU; frame by frame.

    Parameters
    ----------
    inputs, outputs : channels.
    kernel : taps along frequency, odd.
    stride : bands that one output band moves on; going `up`, output bands for one input band.
    up : transposed convolution.
    plain : without norm and PReLU, but with a bias: the mask.
    """

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, up: bool, plain: bool = False):
        super().__init__()
        self.stride, self.up, self.kernel = stride, up, kernel
        shape = (inputs, outputs) if up else (outputs, inputs)
        self.weight = nn.Parameter(torch.empty(*shape, 1, kernel))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.outputs = outputs
        self.norm = None if plain else Norm(outputs)
        self.bias = nn.Parameter(torch.zeros(outputs)) if plain else None
        self.slope = None if plain else nn.Parameter(torch.full((outputs,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Map x [N, F, inputs] to [N, F', outputs]."""
        x = x.unsqueeze(0).permute(0, 3, 1, 2)  # [1, C, N, F]: frames are rows of one image
        if self.up:
            y = functional.conv_transpose2d(
                x, self.weight, self.bias, (1, self.stride), (0, self.kernel // 2), (0, self.stride - 1)
            )
        else:
            y = functional.conv2d(x, self.weight, self.bias, (1, self.stride), (0, self.kernel // 2))
        y = y.permute(0, 2, 3, 1).squeeze(0)
        return y if self.norm is None else self.norm(y, self.slope)

    def out_bands(self, bands: int) -> int:
        """Bands of the output for `bands` bands of the input."""
        return bands * self.stride if self.up else -(-bands // self.stride)

    def macs(self, bands: int) -> int:
        """Products of one frame of `bands` input bands."""
        return min(bands, self.out_bands(bands)) * self.weight.numel()


class DynamicConv(nn.Module):
    """Strided convolution along frequency; the dynamic slice reads all channels and exists where its gate is open.

    Static output channels read static input channels alone. So what a gate decides never reaches them.

    Parameters
    ----------
    inputs : (static, dynamic) input channels.
    outputs : (static, dynamic) output channels.
    kernel, stride, up, plain : see :class:`Slice`.

    Examples
    --------
    >>> block = DynamicConv((6, 0), (4, 4), kernel=5, stride=2)
    >>> x, gate = torch.randn(1, 7, 256, 6), torch.ones(1, 7)
    >>> block.small(x).shape, block.refine(x, None, gate).shape
    (torch.Size([1, 7, 128, 4]), torch.Size([1, 7, 128, 4]))
    """

    def __init__(
        self, inputs: tuple[int, int], outputs: tuple[int, int], *, kernel: int, stride: int = 2,
        up: bool = False, plain: bool = False,
    ):  # fmt: skip
        super().__init__()
        options = {"kernel": kernel, "stride": stride, "up": up, "plain": plain}
        self.static = Slice(inputs[0], outputs[0], **options)
        self.dynamic = Slice(sum(inputs), outputs[1], **options) if outputs[1] else None

    def small(self, static: Tensor) -> Tensor:
        """Static output [B, T, F', outputs[0]] of the static input [B, T, F, inputs[0]]."""
        return where_open(self.static, static, None)

    def refine(self, static: Tensor, dynamic: Tensor | None, gate: Tensor | None) -> Tensor:
        """Dynamic output [B, T, F', outputs[1]] of both inputs [B, T, F, ...]; zero where `gate` [B, T] is closed."""
        shape = self.dynamic.out_bands(static.shape[2]), self.dynamic.outputs
        return where_open(self.dynamic, join(static, dynamic), gate, shape)

    def macs(self, bands: int) -> tuple[int, int]:
        """Products of one frame of `bands` bands: static, dynamic."""
        return self.static.macs(bands), self.dynamic.macs(bands) if self.dynamic else 0


def join(static: Tensor, dynamic: Tensor | None) -> Tensor:
    """Static and dynamic channels side by side [..., Cs + Cd]."""
    return static if dynamic is None else torch.cat([static, dynamic], dim=-1)
