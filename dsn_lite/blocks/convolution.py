"""Convolutions over (time, frequency), causal in time, with a dynamic slice of output channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dsn_lite.blocks.frames import gate_slice, is_training_gate, on_open_frames


class DynamicConv(nn.Module):
    """Strided convolution along frequency, causal along time; the last output channels are zero where the gate is closed.

    Output frame t reads the input frames t - time_kernel + 1 .. t. The state is the last time_kernel - 1 input frames.

    Parameters
    ----------
    inputs : input channels.
    static, dynamic : output channels that always run, output channels behind the gate.
    absent : output channels that are always zero (the network without its dynamic parts keeps the shape this way).
    kernel : (time, frequency) taps; frequency odd.
    stride : frequency stride.

    Examples
    --------
    >>> block = DynamicConv(2, static=4, dynamic=4, kernel=(2, 3), stride=2)
    >>> y, state = block(torch.randn(1, 5, 257, 2), torch.ones(1, 5))
    >>> y.shape, state.shape
    (torch.Size([1, 5, 129, 8]), torch.Size([1, 1, 257, 2]))
    """

    def __init__(
        self,
        inputs: int,
        *,
        static: int,
        dynamic: int = 0,
        absent: int = 0,
        kernel: tuple[int, int] = (1, 3),
        stride: int = 2,
    ):
        super().__init__()
        self.inputs, self.static, self.dynamic, self.absent = inputs, static, dynamic, absent
        self.kernel, self.stride = kernel, stride
        _check_odd(kernel[1])
        self.conv = nn.Conv2d(inputs, static + dynamic, kernel, stride=(1, stride), padding=(0, kernel[1] // 2))

    def out_bands(self, bands: int) -> int:
        """Bands of the output for an input of `bands` bands."""
        return (bands - 1) // self.stride + 1

    def initial_state(self, batch: int, bands: int) -> Tensor:
        """Zero frames [B, time_kernel - 1, F, C] that precede the first frame."""
        return self.conv.weight.new_zeros(batch, self.kernel[0] - 1, bands, self.inputs)

    def forward(self, x: Tensor, gate: Tensor | None = None, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x [B, T, F, inputs] to ([B, T, F', static + dynamic + absent], new state); `gate` [B, T] or None (open)."""
        past = self.kernel[0] - 1
        if state is None:
            state = self.initial_state(x.shape[0], x.shape[2])
        if past:
            x = torch.cat([state, x], dim=1)
        new_state = x[:, x.shape[1] - past :]
        weight, bias = self.conv.weight, self.conv.bias
        if gate is None or not self.dynamic:
            y = self._convolve(x, weight, bias)
        elif is_training_gate(gate):
            y = gate_slice(self._convolve(x, weight, bias), gate, self.static)
        else:
            always = self._convolve(x, weight[: self.static], bias[: self.static])
            windows = x.unfold(1, past + 1, 1).permute(0, 1, 4, 2, 3)  # [B, T, time_kernel, F, C], one per output frame
            shape = (self.out_bands(x.shape[2]), self.dynamic)
            y = torch.cat([always, on_open_frames(self._dynamic_part, windows, gate, shape)], dim=-1)
        return functional.pad(y, (0, self.absent)), new_state

    def _dynamic_part(self, windows: Tensor) -> Tensor:
        return self._convolve(windows, self.conv.weight[self.static :], self.conv.bias[self.static :]).squeeze(1)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = functional.conv2d(x.permute(0, 3, 1, 2), weight, bias, self.conv.stride, self.conv.padding)
        return y.permute(0, 2, 3, 1)


def _check_odd(taps: int) -> None:
    if taps % 2 == 0:
        raise ValueError(f"{taps} taps along frequency; take an odd number, so that every output band has a centre")


class DynamicConvTranspose(nn.Module):
    """Transposed convolution along frequency (one frame at a time), the mirror of :class:`DynamicConv`.

    Maps F bands to ``(F - 1) * stride + 1`` bands. The last output channels are zero where the gate is closed.

    Examples
    --------
    >>> DynamicConvTranspose(8, static=2, dynamic=2)(torch.randn(1, 5, 33, 8), torch.zeros(1, 5)).shape
    torch.Size([1, 5, 65, 4])
    """

    def __init__(
        self, inputs: int, *, static: int, dynamic: int = 0, absent: int = 0, kernel: int = 3, stride: int = 2
    ):
        super().__init__()
        self.inputs, self.static, self.dynamic, self.absent = inputs, static, dynamic, absent
        self.kernel, self.stride = kernel, stride
        _check_odd(kernel)
        self.conv = nn.ConvTranspose2d(
            inputs, static + dynamic, (1, kernel), stride=(1, stride), padding=(0, kernel // 2)
        )

    def out_bands(self, bands: int) -> int:
        """Bands of the output for an input of `bands` bands."""
        return (bands - 1) * self.stride + 1

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """Map x [B, T, F, inputs] to [B, T, F', static + dynamic + absent]; `gate` [B, T] or None (open)."""
        weight, bias = self.conv.weight, self.conv.bias
        if gate is None or not self.dynamic:
            y = self._convolve(x, weight, bias)
        elif is_training_gate(gate):
            y = gate_slice(self._convolve(x, weight, bias), gate, self.static)
        else:
            always = self._convolve(x, weight[:, : self.static], bias[: self.static])
            shape = (self.out_bands(x.shape[2]), self.dynamic)
            y = torch.cat([always, on_open_frames(self._dynamic_part, x, gate, shape)], dim=-1)
        return functional.pad(y, (0, self.absent))

    def _dynamic_part(self, frames: Tensor) -> Tensor:
        x = frames.unsqueeze(1)
        return self._convolve(x, self.conv.weight[:, self.static :], self.conv.bias[self.static :]).squeeze(1)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = functional.conv_transpose2d(x.permute(0, 3, 1, 2), weight, bias, self.conv.stride, self.conv.padding)
        return y.permute(0, 2, 3, 1)
