"""How a network runs on sound that arrives: streams, files of any length, the microphone, the clock."""

from __future__ import annotations

from dsn_lite._names import face

_HOMES = {
    "engines": "ENGINES Engine TorchEngine Transforms make_engine", "stream": "Runner Stream",
    "files": "Report enhance_file",
}
__getattr__, __dir__ = face(globals(), _HOMES)
