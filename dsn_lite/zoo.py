"""Trained weights: safetensors with a card (JSON) beside each, shipped or of your own. Never pickle."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import nn

from dsn_lite.audio.files import replacing
from dsn_lite.errors import InputError

WEIGHTS = Path(__file__).parent / "weights"
DEFAULT = "mgt-dsn"
"""The network that `enhance` uses unless told otherwise."""
KINDS = {
    "enhancer": "dsn_lite.model:Network",
    "slim-demucs": "dsn_lite.slimmable.demucs.network:SlimDemucs",
    "separator": "dsn_lite.slimmable.separator.network:Separator",
}
"""Module and class of each kind of network, the ``kind`` of a card; imported when one is loaded."""


def available() -> list[dict]:
    """Cards of the networks that ship with the package, by name."""
    return [json.loads(path.read_text()) for path in sorted(WEIGHTS.glob("*.json"))]


def load(name: str | os.PathLike = DEFAULT, *, kinds: tuple[str, ...] = tuple(KINDS)) -> Any:
    """A trained network, ready to use.

    Parameters
    ----------
    name : one of the names of :func:`available`, or a `.safetensors` file whose card lies beside it.
    kinds : what it may be, of ``KINDS``.

    Returns
    -------
    Network, SlimDemucs or Separator, in evaluation mode, with its card.

    Raises
    ------
    InputError
        Unknown name; missing, damaged or foreign file; a network of another kind.
    """
    path = Path(name)
    if path.suffix != ".safetensors":
        path = WEIGHTS / f"{name}.safetensors"
        if not path.exists():
            known = ", ".join(card["name"] for card in available()) or "none are shipped"
            raise InputError(f"no network {str(name)!r}; known are {known}; or give a .safetensors file")
    card_path = path.with_suffix(".json")
    for needed in (path, card_path):
        if not needed.is_file():
            raise InputError(f"{needed}: not found; weights need the .safetensors file and the .json card beside it")
    try:
        card = json.loads(card_path.read_text())
        kind = dict(card).get("kind", "enhancer")
        if kind in kinds:
            network = _class(kind).from_card(card)
            network.load_state_dict(load_file(path))
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not weights of this program ({reason}); train or download them again") from None
    if kind not in kinds:
        raise InputError(f"{path}: holds a network of the kind {kind}; what is needed here is {' or '.join(kinds)}")
    network.name, network.card = card.get("name", path.stem), card
    return network.eval()


def _class(kind: str) -> Any:
    module, name = KINDS[kind].split(":")
    return getattr(importlib.import_module(module), name)


def save(network: nn.Module, path: str | os.PathLike, card: dict | None = None) -> None:
    """Write weights and card, each under another name first and then renamed.

    The card gets the network's configuration and, unless it has one, the file's stem as its name.
    """
    path = Path(path)
    card = {"name": path.stem, "kind": network.KIND, **(card or {}), "network": network.config.to_dict()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with replacing(path) as temporary:
        temporary.write_bytes(serialise(tensors))
    with replacing(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(card, indent=1) + "\n")


def refuse_card(path: str | os.PathLike) -> None:
    """Refuse to write results over the card of a network.

    Raises
    ------
    InputError
        Weights of that name lie beside `path`.

    Examples
    --------
    >>> refuse_card("results.json")
    """
    if Path(path).suffix == ".json" and Path(path).with_suffix(".safetensors").exists():
        raise InputError(f"{path}: is the card of a network; give the results another name")
