"""A network as numbers, row by row of its table of layers, with the norms folded: what every engine computes from.

Each part of a layer (``static`` always runs, ``dynamic`` where its gate is open) is a dictionary of float32 arrays:

===========  =======================================================================================================
kind         arrays
===========  =======================================================================================================
down, up     ``weight`` [outputs, inputs, taps], ``bias`` [outputs], ``slope`` [outputs] of the PReLU behind it
mask         the same as up, without ``slope``
bands        ``offset`` [F, C]
attention    ``input`` [3 (query, key, value), heads, width, inputs], ``input_bias``, ``out`` [outputs, heads * width],
             ``out_bias``; the keys hold the factor ``width ** -0.5``
linear       ``up`` [hidden, inputs], ``up_bias``, ``down`` [outputs, hidden], ``down_bias``
recurrent    ``input`` [groups, 3 (reset, update, new), H, inputs], ``input_bias`` [groups, 3, H], ``recurrent``
             [groups, 3, H, H], ``recurrent_bias``, ``out`` [outputs, groups * H], ``out_bias``; equations of torch.nn.GRU
policy       ``pooling`` [256, P], ``input`` [3, H, 2 P + C], ``input_bias``, ``recurrent`` [3, H, H],
             ``recurrent_bias``, ``margins`` [K, H], ``margins_bias``
===========  =======================================================================================================

A dynamic part reads the static and the dynamic channels of its layer's input, in this order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dsn_lite.network.model import Network

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class FoldedLayer:
    """One row of the table of layers as numbers."""

    name: str
    kind: str
    bands: int
    """Bands of its input."""
    stride: int
    """Of a convolution; 1 for the others."""
    gate: int | None
    static: Arrays | None
    dynamic: Arrays | None


def fold(network: Network) -> list[FoldedLayer]:
    """The rows of a network's table as numbers, in the order of computation; the policy is not among them.

    >>> from dsn_lite.network.config import Config
    >>> rows = fold(Network(Config.preset("tiny")))
    >>> rows[0].name, rows[0].static["weight"].shape
    ('encoder 1', (4, 6, 5))
    """
    rows = []
    for layer in network.layers:
        parts = [None if part is None else FOLDS[layer.kind](part) for part in (layer.block.static, layer.block.dynamic)]
        stride = layer.block.static.stride if layer.kind in ("down", "up", "mask") else 1
        rows.append(FoldedLayer(layer.name, layer.kind, layer.bands, stride, layer.gate, *parts))
    return rows


def fold_policy(network: Network) -> Arrays | None:
    """The policy as numbers; None where there is none."""
    if network.policy is None:
        return None
    gru, margins = network.policy.recurrent, network.policy.margins
    return _arrays(pooling=network.policy.pooling, **_gru(gru), margins=margins.weight, margins_bias=margins.bias)


def _convolution(part: nn.Module) -> Arrays:
    weight = part.weight.squeeze(2)
    if part.up:
        weight = weight.transpose(0, 1)
    if part.norm is None:
        return _arrays(weight=weight, bias=part.bias)
    scale, shift = part.norm.folded()
    return _arrays(weight=weight * scale[:, None, None], bias=shift, slope=part.slope)


def _bands(part: Tensor) -> Arrays:
    return _arrays(offset=part)


def _behind_norm(norm: nn.Module, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [..., inputs] and bias of a product behind a norm, with the norm in them."""
    scale, shift = norm.folded()
    return weight * scale, bias + weight @ shift


def _attention(part: nn.Module) -> Arrays:
    weight, bias = _behind_norm(part.norm, part.query_key_value.weight, part.query_key_value.bias)
    weight = weight.unflatten(0, (3, part.heads, part.width)).clone()
    bias = bias.unflatten(0, (3, part.heads, part.width)).clone()
    weight[1], bias[1] = weight[1] * part.width**-0.5, bias[1] * part.width**-0.5
    return _arrays(input=weight, input_bias=bias, out=part.out.weight, out_bias=part.out.bias)


def _linear(part: nn.Module) -> Arrays:
    up, up_bias = _behind_norm(part.norm, part.up.weight, part.up.bias)
    return _arrays(up=up, up_bias=up_bias, down=part.down.weight, down_bias=part.down.bias)


def _gru(gru: nn.GRU, norm: nn.Module | None = None) -> dict[str, Tensor]:
    weight, bias = gru.weight_ih_l0, gru.bias_ih_l0
    if norm is not None:
        weight, bias = _behind_norm(norm, weight, bias)
    shape = (3, gru.hidden_size)
    return {
        "input": weight.unflatten(0, shape), "input_bias": bias.unflatten(0, shape),
        "recurrent": gru.weight_hh_l0.unflatten(0, shape), "recurrent_bias": gru.bias_hh_l0.unflatten(0, shape),
    }  # fmt: skip


def _recurrent(part: nn.Module) -> Arrays:
    groups = [_gru(group, part.norm) for group in part.groups]
    stacked = {name: torch.stack([group[name] for group in groups]) for name in groups[0]}
    return _arrays(**stacked, out=part.out.weight, out_bias=part.out.bias)


FOLDS = {
    "down": _convolution, "up": _convolution, "mask": _convolution, "bands": _bands, "attention": _attention,
    "linear": _linear, "recurrent": _recurrent,
}  # fmt: skip


def _arrays(**tensors: Tensor) -> Arrays:
    return {name: np.ascontiguousarray(t.detach().cpu().numpy(), dtype=np.float32) for name, t in tensors.items()}
