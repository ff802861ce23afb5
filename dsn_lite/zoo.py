"""From a name to a trained network: `load` and `available`."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from dsn_lite.network import weights

DEFAULT = "benefit"
"""The network that `enhance` uses unless told otherwise."""
KINDS = {
    "enhancer": "dsn_lite.network.model:Network",
    "slim-demucs": "dsn_lite.slimmable.demucs.network:SlimDemucs",
    "separator": "dsn_lite.slimmable.separator.network:Separator",
}
"""Module and class of each kind of network, the ``kind`` of a card; imported when one is loaded."""


def available() -> list[dict]:
    """Cards of the networks that ship with the package, by name."""
    return weights.cards()


def load(name: str | os.PathLike = DEFAULT, *, kinds: tuple[str, ...] = tuple(KINDS)) -> Any:
    """A trained network, ready to use.

    Parameters
    ----------
    name : one of the names of :func:`available`, or a `.safetensors` file whose card lies beside it.
    kinds : what it may be, of ``KINDS``.

    Returns
    -------
    Network, SlimDemucs or Separator, in evaluation mode, with its card.

    Examples
    --------
    >>> load("static").name
    'static'
    """
    kind = weights.kind(name)
    classes = [_class(each) for each in ([kind] if kind in kinds else kinds)]
    return weights.read(name, *classes)


def _class(kind: str) -> Any:
    module, name = KINDS[kind].split(":")
    return getattr(import_module(module), name)


# What was found here, in the module `registry`, before: for one version.
save = weights.save
