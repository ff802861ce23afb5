"""Batch normalisation of the last axis, which is gone at inference."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


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

    def forward(self, x: Tensor) -> Tensor:
        """Normalised x [..., C]."""
        flat = x.reshape(-1, x.shape[-1])
        y = functional.batch_norm(
            flat, self.mean, self.variance, self.weight, self.bias,
            training=self.training and not self.frozen, momentum=self.momentum, eps=self.epsilon,
        )  # fmt: skip
        return y.view(x.shape)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Scale and shift [C] that the running statistics come to."""
        scale = self.weight * (self.variance + self.epsilon).rsqrt()
        return scale, self.bias - self.mean * scale
