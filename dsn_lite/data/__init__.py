"""Folders of speech and noise become seeded mixtures.

layouts.py and manifest.py list the files, cache.py decodes them once, rirs.py simulates rooms, recipes.py draws what a
mixture is made of, mixing.py makes it, and in corpus.py they come together.
"""

from __future__ import annotations

from dsn_lite._names import find, listed

_HOMES = {
    "manifest": "Entry read_manifest write_manifest",
    "layouts": "scan",
    "cache": "AudioCache default_folder",
    "rirs": "Bank open_bank",
    "recipes": "Recipe recipe",
    "mixing": "render",
    "corpus": "Corpus Mixtures",
}


def __getattr__(name: str):
    return find(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return listed(globals(), _HOMES)
