"""Batch normalisation of the last axis, which is gone at inference."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

try:
    from dsn_lite.network.blocks.fused_norm import TILE, FusedNorm
except ImportError:  # a bare training machine without Numba
    TILE, FusedNorm = 1, None


class Norm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy, 2015) of x [..., C] over all axes but the last.

    In training it takes the statistics of the batch, or its running ones where `frozen`. In evaluation it is one product
    and one sum a channel, which :meth:`folded` hands to the neighbouring layer: no norm is left to compute.

    Parameters
    ----------
    channels : C.

    Examples
    --------
    >>> norm = Norm(8).eval()
    >>> scale, shift = norm.folded()
    >>> x = torch.randn(2, 5, 32, 8)
    >>> bool(torch.allclose(norm(x), x * scale + shift, atol=1e-6))
    True
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.frozen = False
        self.epsilon, self.momentum = 1e-5, 0.05

    def forward(self, x: Tensor, slope: Tensor | None = None) -> Tensor:
        """Normalised x [..., C], through a PReLU of these slopes [C] where they are given."""
        flat, of_batch = x.reshape(-1, x.shape[-1]), self.training and not self.frozen
        if of_batch and FusedNorm is not None and _is_plain(flat):
            return self._fused(flat, slope).view(x.shape)
        y = functional.batch_norm(
            flat, self.mean, self.variance, self.weight, self.bias, of_batch, self.momentum, self.epsilon
        )
        # PReLU with channels last; the gradient of the library's takes three times as long in that order.
        y = y if slope is None else torch.lerp(functional.relu(y), y, slope)
        return y.view(x.shape)

    def _fused(self, x: Tensor, slope: Tensor | None) -> Tensor:
        """The same of x [N, C] by the compiled passes."""
        slope = torch.ones_like(self.weight) if slope is None else slope
        y, mean, variance = FusedNorm.apply(x, self.weight, self.bias, slope, self.epsilon, self.mean)
        with torch.no_grad():
            self.mean.lerp_(mean, self.momentum)
            self.variance.lerp_(variance * len(x) / (len(x) - 1), self.momentum)
        return y

    def folded(self) -> tuple[Tensor, Tensor]:
        """Scale and shift [C] that the running statistics come to."""
        scale = self.weight * (self.variance + self.epsilon).rsqrt()
        return scale, self.bias - self.mean * scale


def _is_plain(x: Tensor) -> bool:
    """Whether the compiled passes take x [N, C]."""
    return torch.is_grad_enabled() and x.device.type == "cpu" and x.dtype == torch.float32 and len(x) % TILE == 0
