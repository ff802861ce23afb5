"""Folders of speech and noise become seeded mixtures.

layouts.py and manifest.py list the files, cache.py decodes them once, rirs.py simulates rooms, and in corpus.py they come
together. recipes.py draws what a mixture is made of, mixing.py makes it, and mixtures.py counts through them.

>>> corpus = Corpus.open("manifest.csv")                            # doctest: +SKIP
>>> item = recipe(corpus, seed=1, index=0, seconds=4.0)             # doctest: +SKIP
>>> noisy, clean = render(corpus, item)                             # doctest: +SKIP
"""

from __future__ import annotations

from dsn_lite._names import face

_HOMES = {
    "manifest": "Entry read_manifest write_manifest",
    "layouts": "scan",
    "cache": "AudioCache default_folder",
    "rirs": "Bank open_bank",
    "recipes": "Recipe recipe",
    "mixing": "render",
    "corpus": "Corpus",
    "mixtures": "Mixtures PlainMixtures ValidationStreams",
}
__getattr__, __dir__ = face(globals(), _HOMES)
