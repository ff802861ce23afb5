"""Networks without gates, cut out of one with gates: everything always on, or the small network alone."""

from __future__ import annotations

import torch

from dsn_lite.network.config import Config
from dsn_lite.network.model import Network


def without_gates(network: Network) -> Network:
    """The same weights with every dynamic part always running: what all gates open compute, and no policy.

    >>> from dsn_lite.network.config import Config
    >>> network, spectrum = Network(Config.preset("tiny")).eval(), torch.randn(1, 9, 257, dtype=torch.complex64)
    >>> full, opened = without_gates(network)(spectrum).spectrum, network(spectrum, torch.ones(1, 9, 8)).spectrum
    >>> bool(torch.equal(full, opened))
    True
    """
    return _cut(network, network.config.static())


def small_alone(network: Network) -> Network:
    """The small network as a network of its own: what all gates closed compute, and nothing else.

    >>> from dsn_lite.network.config import Config
    >>> network, spectrum = Network(Config.preset("tiny")).eval(), torch.randn(1, 9, 257, dtype=torch.complex64)
    >>> bool(torch.equal(small_alone(network)(spectrum).spectrum, network(spectrum).small))
    True
    """
    return _cut(network, network.config.static_only())


def _cut(network: Network, config: Config) -> Network:
    """A network of this shape with the weights that `network` has for it."""
    with torch.random.fork_rng(devices=[]):  # building a network draws its weights: leave no trace of it
        own = Network(config)
    own.load_state_dict({name: value for name, value in network.state_dict().items() if name in own.state_dict()})
    own.name, own.card = network.name, dict(network.card)
    return own.train(network.training)
