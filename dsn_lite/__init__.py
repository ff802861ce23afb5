"""A dynamically slimmable speech enhancer: a small network that decides, frame by frame, how much of itself to use.

>>> import dsn_lite
>>> from dsn_lite.network.config import Config
>>> network = dsn_lite.Network(Config.preset("tiny")).eval()  # dsn_lite.load() gives the trained one
"""

from __future__ import annotations

from dsn_lite._names import face

__version__ = "0.1.0"
__all__ = ["Config", "InputError", "Network", "Stream", "available", "load"]

_HOMES = {
    "network.config": "Config", "errors": "InputError", "network.model": "Network", "engine.stream": "Stream",
    "zoo": "available load",
}  # fmt: skip
# Parts are imported on their first use, so that `dsn-lite --help` does not wait for torch.
__getattr__, __dir__ = face(globals(), _HOMES)
