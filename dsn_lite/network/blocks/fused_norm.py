"""Batch normalisation and what bends its result, forward and backward, compiled for training on a processor.

The library reads a tensor some twenty times to normalise it, bend it and take both back, and the channels of a small
network, which lie next to each other, are too few to fill a vector. Here a row is `TILE` positions long, whatever the
channels, and each pass over the tensor does all that can be done in it: two passes forward, two backward.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dsn_lite.network.compiled import f32, jit

TILE = 16
"""Positions in a row: a multiple of the vectors' length, so that every channel stands where it stood in the row before."""
_BLOCK = 64
"""Rows that are summed in float32 before the sum goes into a float64."""
_ZERO = f32(0)


class FusedNorm(torch.autograd.Function):
    """``prelu(batch_norm(x))`` in training: statistics of the batch, all rows alike.

    ``FusedNorm.apply(x, weight, bias, slope, epsilon, shift)`` takes x [N, C], N a multiple of TILE; scale, offset and
    slopes below zero [C] (ones: no bend); and a rough mean ``shift`` [C], about which the variance is summed up. It returns
    the result [N, C], and mean and variance [C] of the batch, which get no gradient. All are float32 on the CPU.

    >>> x = torch.randn(32, 3)
    >>> y, mean, variance = FusedNorm.apply(x, torch.ones(3), torch.zeros(3), torch.ones(3), 1e-5, torch.zeros(3))
    >>> bool(torch.allclose(y, (x - x.mean(0)) / x.std(0, correction=0), atol=1e-4)), bool(torch.allclose(mean, x.mean(0)))
    (True, True)
    """

    @staticmethod
    def forward(
        ctx, x: Tensor, weight: Tensor, bias: Tensor, slope: Tensor, epsilon: float, shift: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        rows, count = _rows(x), len(x)
        total, square = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
        _sum(rows, _tiled(shift), total, square)
        offset = _channels(total, x) / count
        mean, variance = shift + offset.float(), (_channels(square, x) / count - offset.square()).clamp_min(0).float()
        inverse = (variance + epsilon).rsqrt()
        scale = weight * inverse
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        _bend(rows, _tiled(scale), _tiled(bias - mean * scale), _tiled(slope), _rows(out))
        ctx.save_for_backward(x, weight, bias, slope, mean, inverse)
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    def backward(ctx, d_out: Tensor, *_: Tensor):
        """Gradients of x, weight, bias and slope."""
        x, weight, bias, slope, mean, inverse = ctx.saved_tensors
        rows, d_rows, count = _rows(x), _rows(d_out), len(x)
        scale = weight * inverse
        told = [_tiled(each) for each in (scale, bias - mean * scale, slope, mean)]
        sums = np.zeros((3, rows.shape[1]))
        _sum_back(rows, d_rows, *told, *sums)
        d_bias, d_products, d_slope = (_channels(each, x).float() for each in sums)
        d_weight = d_products * inverse
        d_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        constant, linear = scale * d_bias / count, scale * inverse * d_weight / count
        _bend_back(rows, d_rows, *told, _tiled(constant), _tiled(linear), _rows(d_x))
        return d_x, d_weight, d_bias, d_slope, None, None


def _rows(x: Tensor) -> np.ndarray:
    """x [N, C] as [N / TILE, TILE * C]."""
    return x.detach().contiguous().view(-1, TILE * x.shape[1]).numpy()


def _tiled(values: Tensor) -> np.ndarray:
    """Values [C] for each position of a row."""
    return values.detach().repeat(TILE).numpy()


def _channels(sums: np.ndarray, x: Tensor) -> Tensor:
    """Sums of the positions of a row [TILE * C] to those of the channels [C]."""
    return torch.from_numpy(sums.reshape(TILE, x.shape[1]).sum(0))


@jit
def _sum(rows, shift, total, square):
    """Add what all rows hold above `shift`, and its square, to float64 sums."""
    height, width = rows.shape
    part, part_square = np.empty(width, f32), np.empty(width, f32)
    for first in range(0, height, _BLOCK):
        part[:], part_square[:] = _ZERO, _ZERO
        for r in range(first, min(first + _BLOCK, height)):
            row = rows[r]
            for k in range(len(part)):
                above = row[k] - shift[k]
                part[k] += above
                part_square[k] += above * above
        for k in range(len(part)):
            total[k] += part[k]
            square[k] += part_square[k]


@jit
def _bend(rows, scale, offset, slope, out):
    """out = prelu(scale * rows + offset)."""
    for r in range(len(rows)):
        row, target = rows[r], out[r]
        for k in range(len(scale)):
            y = row[k] * scale[k] + offset[k]
            target[k] = max(y, _ZERO) + slope[k] * min(y, _ZERO)


@jit
def _sum_back(rows, d_rows, scale, offset, slope, mean, d_bias, d_products, d_slope):
    """Add to float64 sums: the gradient in front of the bend, its product with rows less mean, that of the slopes."""
    height, width = rows.shape
    part, part_products, part_slope = np.empty(width, f32), np.empty(width, f32), np.empty(width, f32)
    for first in range(0, height, _BLOCK):
        part[:], part_products[:], part_slope[:] = _ZERO, _ZERO, _ZERO
        for r in range(first, min(first + _BLOCK, height)):
            row, d_row = rows[r], d_rows[r]
            for k in range(len(part)):
                y, given = row[k] * scale[k] + offset[k], d_row[k]
                d = given if y > _ZERO else given * slope[k]
                part[k] += d
                part_products[k] += d * (row[k] - mean[k])
                part_slope[k] += given * min(y, _ZERO)
        for k in range(len(part)):
            d_bias[k] += part[k]
            d_products[k] += part_products[k]
            d_slope[k] += part_slope[k]


@jit
def _bend_back(rows, d_rows, scale, offset, slope, mean, constant, linear, d_x):
    """The gradient of the rows, of which what moves mean and variance of a channel is taken away."""
    for r in range(len(rows)):
        row, d_row, target = rows[r], d_rows[r], d_x[r]
        for k in range(len(scale)):
            y, given = row[k] * scale[k] + offset[k], d_row[k]
            d = given if y > _ZERO else given * slope[k]
            target[k] = scale[k] * d - constant[k] - linear[k] * (row[k] - mean[k])
