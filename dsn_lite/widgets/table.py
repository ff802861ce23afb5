"""A network as a table for the page: rows of layers in JSON, and one buffer of float32 numbers.

`engine.js` reads both. The rows are those of :func:`dsn_lite.network.folded.fold`; of each array the table says where it
begins in the buffer and its shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dsn_lite.audio.offset import DECAY
from dsn_lite.audio.spectral import COMPRESSION, HOP, SAMPLE_RATE, WINDOW, stft
from dsn_lite.errors import InputError
from dsn_lite.network.folded import Arrays, fold, fold_policy
from dsn_lite.network.macs import count
from dsn_lite.network.model import BINS, RELEASE, Network
from dsn_lite.widgets.shared import FOLDER, text_of


def products() -> bytes:
    """The WebAssembly module that `products.c` builds to."""
    return (FOLDER / "products.wasm").read_bytes()


def engine() -> str:
    """Text of the engine; it defines ``Engine``, ``fastKernel`` and ``plain`` and exports nothing."""
    return text_of("blocks.js", "engine.js")


@dataclass(frozen=True)
class Table:
    """What the page needs of a network."""

    header: dict
    """Rows, gates, costs; for JSON."""
    weights: bytes
    """float32, little-endian."""


class _Buffer:
    """Arrays one after the other; each is found again by {at, shape}."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []
        self.at = 0

    def add(self, arrays: Arrays | None) -> dict | None:
        """Append arrays; None stays None."""
        if arrays is None:
            return None
        places = {}
        for name, array in arrays.items():
            places[name] = {"at": self.at, "shape": list(array.shape)}
            self.parts.append(array.astype("<f4").ravel())
            self.at += array.size
        return places


def pack(network: Network, waves: Sequence[np.ndarray] = ()) -> Table:
    """A network of any configuration as a table and a buffer.

    The budget is calibrated on `waves` [samples] of 16 kHz, noisy signals, where the network's card has no calibration.

    >>> from dsn_lite.network.config import Config
    >>> table = pack(Network(Config.preset("tiny")))
    >>> table.header["rows"][0]["name"], table.header["rows"][0]["static"]["weight"]
    ('encoder 1', {'at': 0, 'shape': [4, 6, 5]})
    """
    if not isinstance(network, Network):
        raise InputError(
            f"{getattr(network, 'name', network)} has no table of layers; take a network of dsn_lite.network"
        )
    buffer, counted = _Buffer(), count(network)
    rows = [
        {
            "name": row.name, "kind": row.kind, "bands": row.bands, "stride": row.stride, "gate": row.gate,
            "static": buffer.add(row.static), "dynamic": buffer.add(row.dynamic),
        }
        for row in fold(network)
    ]  # fmt: skip
    header = {
        "name": network.name, "rows": rows, "policy": buffer.add(fold_policy(network)), "gates": list(network.gate_names),
        "mmacs": {"closed": counted.closed, "open": counted.open,
                  "gates": (counted.gate_macs * SAMPLE_RATE / HOP / 1e6).tolist()},
        "signal": {"rate": SAMPLE_RATE, "window": WINDOW, "hop": HOP, "bins": BINS, "compression": COMPRESSION,
                   "release": RELEASE, "floor": 1e-20, "quietest": 1e-3, "pole": 1 - DECAY},
        "calibration": network.card.get("calibration") or calibrate(network, waves),
    }  # fmt: skip
    return Table(header, np.concatenate(buffer.parts).tobytes())


def calibrate(network: Network, waves: Sequence[np.ndarray]) -> list[dict]:
    """Activation of these signals at several shifts of the margins, rising: rows of ``{"shift", "activation"}``."""
    if network.policy is None or not len(waves):
        return []
    with torch.inference_mode():
        margins = [network(stft(torch.from_numpy(np.asarray(wave, np.float32)))[None]).margins[0] for wave in waves]
    margins = torch.cat(margins).numpy()
    counted, rows = count(network), []
    for quantile in np.linspace(0.02, 0.98, 25):
        shift = -float(np.quantile(margins, 1 - quantile))
        activation = counted.activation(margins + shift > 0)
        if math.isfinite(shift) and (not rows or activation > rows[-1]["activation"]):
            rows.append({"shift": shift, "activation": activation})
    return rows
