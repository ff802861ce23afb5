"""Run a function on the open frames alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def where_open(
    function: Callable[[Tensor], Tensor], x: Tensor, gate: Tensor | None, shape: tuple[int, int] | None = None
) -> Tensor:
    """`function` of x [B, T, F, C] on the frames whose gate [B, T] is open, zero on the others; None opens all.

    `function` maps [N, F, C] to [N, F', C'], frame by frame; `shape` is (F', C'), needed where there is a gate. Where no
    gradient is wanted it is called with the open frames and no others, and not at all when every gate is closed: what is
    closed is not computed. In training it runs on every frame and the gate multiplies its result, so that a gate learns
    what opening would have added.

    >>> x = torch.arange(3.0).reshape(1, 3, 1, 1)
    >>> where_open(lambda frames: frames + 1, x, torch.tensor([[1.0, 0.0, 1.0]]), (1, 1)).flatten()
    tensor([1., 0., 3.])
    """
    if gate is None:
        return function(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    if torch.is_grad_enabled():
        result = where_open(function, x, None)
        # Gates that are given, and all open, change nothing: it saves two passes over what they would multiply.
        return result if not gate.requires_grad and bool((gate == 1).all()) else result * gate[..., None, None]
    is_open = gate.bool()
    if is_open.all():
        return where_open(function, x, None)
    result = x.new_zeros(*gate.shape, *shape)
    if is_open.any():
        result[is_open] = function(x[is_open])
    return result
