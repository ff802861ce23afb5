"""Trained weights: safetensors with a card (JSON) beside each, shipped or of your own. Never pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise

from dsn_lite.audio import replacing
from dsn_lite.config import Config
from dsn_lite.errors import InputError
from dsn_lite.model import Network

WEIGHTS = Path(__file__).parent / "weights"
DEFAULT = "mgt-dsn"
"""The network that `enhance` uses unless told otherwise."""


def available() -> list[dict]:
    """Cards of the networks that ship with the package, by name."""
    return [json.loads(path.read_text()) for path in sorted(WEIGHTS.glob("*.json"))]


def load(name: str | os.PathLike = DEFAULT) -> Network:
    """A trained network, ready to enhance.

    Parameters
    ----------
    name : one of the names of :func:`available`, or a `.safetensors` file whose card lies beside it.

    Raises
    ------
    InputError
        Unknown name; missing, damaged or foreign file.
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
        network = Network(Config.from_dict(card["network"]))
        network.load_state_dict(load_file(path))
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not weights of this program ({reason}); train or download them again") from None
    network.name, network.card = card.get("name", path.stem), card
    return network.eval()


def save(network: Network, path: str | os.PathLike, card: dict | None = None) -> None:
    """Write weights and card, each under another name first and then renamed.

    The card gets the network's configuration and, unless it has one, the file's stem as its name.
    """
    path = Path(path)
    card = {"name": path.stem, **(card or {}), "network": network.config.to_dict()}
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
