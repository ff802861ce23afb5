"""A smaller static network cut out of a larger one: what is left when some dynamic parts are thrown away for good."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dsn_lite.config import Config
from dsn_lite.errors import InputError
from dsn_lite.model import Network


def can_prune(config: Config, to: Config) -> bool:
    """Whether a network of the shape `to` can be cut out of one of the shape `config`.

    Examples
    --------
    >>> base = Config.preset("base")
    >>> can_prune(base, base.static_only()), can_prune(base, Config.preset("tiny").static_only())
    (True, False)
    """
    same = {"share": 0.5, "group_share": 0.5, "parts": "absent", "policy_bands": 2, "policy_width": 1}
    return to.parts == "absent" != config.parts and replace(config, **same) == replace(to, **same)


def prune(network: Network, config: Config) -> Network:
    """The network of a static-only `config` with the weights that `network` has for what is left.

    With the shares of `network` itself that is what it computes with all gates closed; with smaller ones more of the
    dynamic parts stay and always run. It is the fair rival of a policy: a fixed sub-network that can be trained on.

    Parameters
    ----------
    network : Network with dynamic parts, gated or always running.
    config : Config of the same widths whose parts are "absent".

    Raises
    ------
    InputError
        The shapes do not fit.

    Examples
    --------
    >>> network = Network(Config.preset("tiny"))
    >>> prune(network, Config.preset("tiny").static_only()).gate_names
    []
    """
    if not can_prune(network.config, config):
        raise InputError(f"{network.name}: this shape cannot be cut out of it; keep its widths and set parts: absent")
    with torch.random.fork_rng(devices=[]):
        own = Network(config)
    given = network.state_dict()
    own.load_state_dict({name: _leading(name, given[name], value.shape) for name, value in own.state_dict().items()})
    own.name = network.name
    return own.train(network.training)


def _leading(name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    """The leading part of a tensor; queries, keys and values are three tensors in one."""
    if "query_key_value" in name:
        parts = tensor.unflatten(0, (3, -1))[:, : shape[0] // 3]
        return parts.flatten(0, 1)
    for axis, size in enumerate(shape):
        tensor = tensor.narrow(axis, 0, size)
    return tensor
