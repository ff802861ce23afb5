"""Run a function on the open frames alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def on_open_frames(function: Callable[[Tensor], Tensor], x: Tensor, gate: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Result [B, T, *shape] of `function` on the frames of x [B, T, ...] whose gate [B, T] is open, zero elsewhere.

    `function` maps [N, ...] to [N, *shape], frame by frame. It is not called at all when every gate is closed.

    Examples
    --------
    >>> x = torch.arange(3.0).reshape(1, 3, 1)
    >>> on_open_frames(lambda frames: frames + 1, x, torch.tensor([[1.0, 0.0, 1.0]]), (1,)).flatten()
    tensor([1., 0., 3.])
    """
    is_open = gate.bool()
    result = x.new_zeros((*gate.shape, *shape))
    if is_open.all():
        return function(x.flatten(0, 1)).unflatten(0, gate.shape)
    if is_open.any():
        result[is_open] = function(x[is_open])
    return result


def is_training_gate(gate: Tensor | None) -> bool:
    """Whether a gradient has to reach this gate, so that the dynamic part must run on closed frames too."""
    return gate is not None and gate.requires_grad and torch.is_grad_enabled()


def per_frame(gate: Tensor, x: Tensor) -> Tensor:
    """Gate [B, T] with as many trailing axes as x [B, T, ...] needs to multiply it."""
    return gate.reshape(*gate.shape, *(1,) * (x.dim() - 2)).to(x.dtype)


def gate_slice(x: Tensor, gate: Tensor, static: int) -> Tensor:
    """x [B, T, ..., C] whose channels from `static` on are multiplied by the gate [B, T]: the training path of a slice.

    Examples
    --------
    >>> gate_slice(torch.ones(1, 2, 3), torch.tensor([[1.0, 0.0]]), static=1)
    tensor([[[1., 1., 1.],
             [1., 0., 0.]]])
    """
    return torch.cat([x[..., :static], x[..., static:] * per_frame(gate, x)], dim=-1)
