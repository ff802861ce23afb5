"""Trained weights on disk: safetensors with a card (JSON) beside each, shipped or of your own. Never pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import nn

from dsn_lite.audio.files import replacing
from dsn_lite.errors import InputError, one_line

WEIGHTS = Path(__file__).parent.parent / "weights"
"""Where the shipped networks lie."""


def cards() -> list[dict]:
    """Cards of the shipped networks, by name."""
    return [json.loads(path.read_text()) for path in sorted(WEIGHTS.glob("*.json"))]


def find(name: str | os.PathLike) -> Path:
    """The `.safetensors` file of a shipped network, or the file of that name."""
    path = Path(name)
    if path.suffix != ".safetensors":
        path = WEIGHTS / f"{name}.safetensors"
        if not path.exists():
            known = ", ".join(card["name"] for card in cards()) or "none are shipped"
            raise InputError(f"no network {str(name)!r}; known are {known}; or give a .safetensors file")
    for needed in (path, path.with_suffix(".json")):
        if not needed.is_file():
            raise InputError(f"{needed}: not found; weights need the .safetensors file and the .json card beside it")
    return path


def kind(name: str | os.PathLike) -> str:
    """The kind of a network, as its card says."""
    return _card(find(name)).get("kind", "enhancer")


def read(name: str | os.PathLike, *classes: Any) -> Any:
    """A network of one of these classes in evaluation mode, with its ``name`` and ``card``.

    `name` is that of a shipped network, or a `.safetensors` file whose card lies beside it. Each class has a ``KIND`` and
    ``from_card``.

    >>> from dsn_lite.network.model import Network
    >>> read("static", Network).name
    'static'
    """
    path = find(name)
    card = _card(path)
    of_kind = {cls.KIND: cls for cls in classes}
    found = card.get("kind", "enhancer")
    if found not in of_kind:
        raise InputError(f"{path}: holds a network of the kind {found}; what is needed here is {' or '.join(of_kind)}")
    try:
        network = of_kind[found].from_card(card)
        network.load_state_dict(load_file(path))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise _not_ours(path, error) from None
    broken = [name for name, values in network.state_dict().items() if not values.isfinite().all()]
    if broken:
        raise InputError(f"{path}: these weights hold NaN or infinity ({broken[0]}); train or download them again")
    network.name, network.card = card.get("name", path.stem), card
    return network.float().eval()  # as the file has them, whatever PyTorch's default type is


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


def _card(path: Path) -> dict:
    try:
        return dict(json.loads(path.with_suffix(".json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise _not_ours(path, error) from None


def _not_ours(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: not weights of this program ({one_line(error)[:200]}); train or download them again")
