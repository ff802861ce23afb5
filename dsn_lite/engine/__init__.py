"""How a network runs on sound that arrives: streams, files of any length, the microphone, the clock."""

from __future__ import annotations

from dsn_lite._names import find, listed

_HOMES = {
    "engines": "ENGINES Engine TorchEngine Transforms make_engine", "stream": "Runner Stream",
    "files": "Report enhance_file",
}


def __getattr__(name: str):
    return find(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return listed(globals(), _HOMES)
