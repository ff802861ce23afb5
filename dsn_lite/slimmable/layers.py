"""Layers that run at a utilisation factor u in (0, 1]: the first ``ceil(u * width)`` channels in and out.

Called with u, each layer equals the library's layer of that width with the sliced weights, and reads no weight beyond
them. Slimmable networks are by Yu et al. (arXiv 1812.08928); normalisation here takes its statistics from the active
channels of one position, so that it needs no set of them for each width (their "switchable" normalisation).

Layout: convolutions take [B, C, T] as the library does; all others have channels last. Inputs may hold more channels than
are read. ``macs(u)`` counts a layer by the rule of :mod:`dsn_lite.network.macs`, for one position.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from dsn_lite.errors import InputError


def active(width: int, utilisation: float) -> int:
    """Active channels ``ceil(u * width)`` of a width, u in (0, 1].

    >>> active(16, 0.125), active(10, 0.25), active(10, 0.3), active(7, 1)
    (2, 3, 3, 7)
    """
    if not 0 < utilisation <= 1:
        raise InputError(f"utilisation is {utilisation}; it must lie above 0, and at most at 1")
    return math.ceil(width * utilisation - 1e-9)  # ceil(0.3 * 10) would be 4, were it not for the allowance


class _Sliced:
    """Which rows and columns of a weight a utilisation factor leaves."""

    inputs: int
    outputs: int
    parts: int
    full_in: bool
    full_out: bool

    def active_in(self, utilisation: float) -> int:
        """Channels read."""
        return self.inputs if self.full_in else active(self.inputs, utilisation)

    def active_out(self, utilisation: float) -> int:
        """Channels written, in each of the parts."""
        return self.outputs if self.full_out else active(self.outputs, utilisation)

    def _rows(self, values: Tensor | None, utilisation: float) -> Tensor | None:
        """The active outputs of a weight or a bias, whose first dimension is `parts` times `outputs`."""
        if values is None or self.active_out(utilisation) == self.outputs:
            return values
        return values.unflatten(0, (self.parts, self.outputs))[:, : self.active_out(utilisation)].flatten(0, 1)


class SlimLinear(_Sliced, nn.Linear):
    """Fully connected layer [..., C in] -> [..., C out], channels last.

    Parameters
    ----------
    inputs, outputs : full widths.
    bias : whether there is one.
    parts : the outputs are this many blocks of `outputs` channels, each sliced by itself; 2 for a gated linear unit.
    full_in, full_out : keep that side at its full width whatever u is.

    Examples
    --------
    >>> layer = SlimLinear(8, 12)
    >>> layer(torch.randn(2, 5, 8), 0.5).shape, layer.macs(0.5)
    (torch.Size([2, 5, 6]), 24)
    """

    def __init__(
        self, inputs: int, outputs: int, *, bias: bool = True, parts: int = 1, full_in: bool = False,
        full_out: bool = False,
    ):  # fmt: skip
        super().__init__(inputs, parts * outputs, bias=bias)
        self.inputs, self.outputs, self.parts, self.full_in, self.full_out = inputs, outputs, parts, full_in, full_out

    def forward(self, x: Tensor, utilisation: float = 1.0) -> Tensor:
        """Map x [..., C in or more] to [..., parts * C out]."""
        wide = self.active_in(utilisation)
        weight = self._rows(self.weight, utilisation)[:, :wide]
        return functional.linear(x[..., :wide], weight, self._rows(self.bias, utilisation))

    def macs(self, utilisation: float = 1.0) -> int:
        """Multiply-accumulates of one position."""
        return self.active_in(utilisation) * self.parts * self.active_out(utilisation)


class SlimConv1d(_Sliced, nn.Conv1d):
    """Causal convolution [B, C in, T] -> [B, C out, T / stride]: output j ends with input ``stride * (j + 1) - 1``.

    Parameters
    ----------
    inputs, outputs : full widths.
    kernel, stride : in samples; ``kernel - stride`` zeros come before the input.
    parts, full_in, full_out : as for :class:`SlimLinear`

    Examples
    --------
    >>> layer = SlimConv1d(4, 8, 8, stride=4)
    >>> layer(torch.randn(2, 4, 32), 0.25).shape, layer.macs(0.25)
    (torch.Size([2, 2, 8]), 16)
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, parts: int = 1, full_in: bool = False,
        full_out: bool = False,
    ):  # fmt: skip
        super().__init__(inputs, parts * outputs, kernel, stride=stride)
        self.inputs, self.outputs, self.parts, self.full_in, self.full_out = inputs, outputs, parts, full_in, full_out
        self.context = kernel - stride
        """Samples before its input that it looks back to."""

    def forward(self, x: Tensor, utilisation: float = 1.0, past: Tensor | None = None) -> Tensor:
        """Map x [B, C in or more, T]; `past` [B, C in or more, context] came before it, zeros if None."""
        wide = self.active_in(utilisation)
        x = x[:, :wide]
        if self.context:
            x = functional.pad(x, (self.context, 0)) if past is None else torch.cat([past[:, :wide], x], -1)
        weight = self._rows(self.weight, utilisation)[:, :wide]
        return functional.conv1d(x, weight, self._rows(self.bias, utilisation), self.stride)

    def macs(self, utilisation: float = 1.0) -> int:
        """Multiply-accumulates of one output position."""
        return self.active_in(utilisation) * self.parts * self.active_out(utilisation) * self.kernel_size[0]


class SlimConvTranspose1d(_Sliced, nn.ConvTranspose1d):
    """Causal transposed convolution [B, C in, T] -> [B, C out, T * stride]: input j reaches outputs from ``stride * j`` on.

    Parameters
    ----------
    inputs, outputs : full widths.
    kernel, stride : in samples, the kernel at least as long; what would come after the last input is cut.
    full_in, full_out : as for :class:`SlimLinear`

    Examples
    --------
    >>> layer = SlimConvTranspose1d(8, 4, 8, stride=4)
    >>> layer(torch.randn(2, 8, 10), 0.5).shape, layer.macs(0.5)
    (torch.Size([2, 2, 40]), 64)
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, full_in: bool = False, full_out: bool = False
    ):
        super().__init__(inputs, outputs, kernel, stride=stride)
        self.inputs, self.outputs, self.parts, self.full_in, self.full_out = inputs, outputs, 1, full_in, full_out
        self.context = math.ceil(kernel / stride) - 1
        """Positions before its input whose tails reach into its output."""

    def forward(  # type: ignore[override]  # a width is not in the library's signature
        self, x: Tensor, utilisation: float = 1.0, past: Tensor | None = None
    ) -> Tensor:
        """Map x [B, C in or more, T]; `past` [B, C in or more, context] came before it, zeros if None."""
        wide, high = self.active_in(utilisation), self.active_out(utilisation)
        stride, x, first, last = self.stride[0], x[:, :wide], 0, x.shape[-1]
        if past is not None and self.context:
            x, first, last = torch.cat([past[:, :wide], x], -1), self.context, self.context + last
        y = functional.conv_transpose1d(x, self.weight[:wide, :high], self.bias[:high], stride)
        return y[..., first * stride : last * stride]

    def macs(self, utilisation: float = 1.0) -> int:
        """Multiply-accumulates of one input position."""
        return self.active_in(utilisation) * self.active_out(utilisation) * self.kernel_size[0]


class SlimGRU(_Sliced, nn.GRU):
    """GRU along time, [B, T, C in] -> [B, T, hidden], sliced within each of its three gates.

    Parameters
    ----------
    inputs, hidden : full widths.
    layers : GRUs on top of each other.
    bidirectional : run along both directions; the output is [forward, backward], each sliced by itself.
    full_in : read all inputs whatever u is.

    Examples
    --------
    >>> layer = SlimGRU(8, 16)
    >>> y, state = layer(torch.randn(2, 5, 8), 0.25)
    >>> y.shape, state.shape, layer.macs(0.25)
    (torch.Size([2, 5, 4]), torch.Size([1, 2, 4]), 72)
    """

    def __init__(self, inputs: int, hidden: int, *, layers: int = 1, bidirectional: bool = False, full_in: bool = False):
        super().__init__(inputs, hidden, layers, batch_first=True, bidirectional=bidirectional)
        self.inputs, self.outputs, self.parts, self.full_in, self.full_out = inputs, hidden, 3, full_in, False
        self.directions = 2 if bidirectional else 1

    def weights(self, utilisation: float = 1.0) -> list[Tensor]:
        """The sliced weights in the library's order; a caller of many short runs slices once and gives them back."""
        high, sliced = self.active_out(utilisation), []
        for layer in range(self.num_layers):
            for direction in ("", "_reverse")[: self.directions]:
                read = self._rows(getattr(self, f"weight_ih_l{layer}{direction}"), utilisation)
                if layer:  # reads the output of the layer below, each direction sliced by itself
                    read = read.unflatten(1, (self.directions, self.outputs))[:, :, :high].flatten(1)
                else:
                    read = read[:, : self.active_in(utilisation)]
                held = self._rows(getattr(self, f"weight_hh_l{layer}{direction}"), utilisation)[:, :high]
                sliced += [read.contiguous(), held.contiguous()]
                sliced += [
                    self._rows(getattr(self, f"bias_{kind}_l{layer}{direction}"), utilisation) for kind in ("ih", "hh")
                ]
        return sliced

    def forward(  # type: ignore[override]  # nor here
        self, x: Tensor, utilisation: float = 1.0, state: Tensor | None = None, weights: list[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map x [B, T, C in or more] to ([B, T, hidden], state [layers * directions, B, hidden]).

        `state` may hold more units than are read; None is zero. `weights` are those of :meth:`weights`.
        """
        high = self.active_out(utilisation)
        if state is None:
            state = x.new_zeros(self.num_layers * self.directions, x.shape[0], high)
        return torch.gru(
            x[..., : self.active_in(utilisation)], state[..., :high].contiguous(),
            self.weights(utilisation) if weights is None else weights,
            True, self.num_layers, 0.0, False, self.bidirectional, True,
        )  # fmt: skip

    def macs(self, utilisation: float = 1.0) -> int:
        """Multiply-accumulates of one position."""
        high = self.active_out(utilisation)
        above = (self.num_layers - 1) * (self.directions + 1) * high
        return self.directions * 3 * high * (self.active_in(utilisation) + high + above)


class SlimNorm(nn.Module):
    """Normalisation over the active channels of one position: no statistics over time, batch or width are kept.

    Parameters
    ----------
    channels : full width.
    kind : "rms" divides by the root of the mean square and multiplies by a gain; "layer" takes the mean off before and
        adds a bias after.
    axis : of the channels: -1 for channels last, 1 for [B, C, T].

    Examples
    --------
    >>> SlimNorm(8)(torch.full((1, 8), 3.0), 0.25).detach().round(decimals=3)
    tensor([[1., 1.]])
    """

    floor = 1e-6
    """Added to the mean square."""

    def __init__(self, channels: int, *, kind: str = "rms", axis: int = -1):
        super().__init__()
        if kind not in ("rms", "layer"):
            raise InputError(f"normalisation is {kind!r}; choose rms or layer")
        self.channels, self.axis = channels, axis
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if kind == "layer" else None

    def forward(self, x: Tensor, utilisation: float = 1.0) -> Tensor:
        """Normalise the first channels of x."""
        wide = active(self.channels, utilisation)
        x, shape = x.narrow(self.axis, 0, wide), (wide, 1) if self.axis == 1 else (wide,)
        if self.bias is not None:
            x = x - x.mean(self.axis, keepdim=True)
        scale = torch.rsqrt(x.square().mean(self.axis, keepdim=True) + self.floor)
        y = x * scale * self.gain[:wide].view(shape)
        return y if self.bias is None else y + self.bias[:wide].view(shape)
