"""A dynamically slimmable speech enhancer: a small network that decides, frame by frame, how much of itself to use.

>>> import dsn_lite
>>> from dsn_lite.config import Config
>>> network = dsn_lite.Network(Config.preset("tiny")).eval()  # dsn_lite.load() gives the trained one
"""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["Config", "InputError", "Network", "Stream", "available", "load"]

_HOMES = {
    "Config": "config", "InputError": "errors", "Network": "model", "Stream": "streaming",
    "available": "registry", "load": "registry",
}  # fmt: skip


def __getattr__(name: str):
    """Import the parts on their first use, so that ``dsn-lite --help`` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dsn_lite' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"dsn_lite.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
