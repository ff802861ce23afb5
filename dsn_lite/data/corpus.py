"""Any folder of speech and noise -> seeded mixtures.

layouts.py and manifest.py list the files, audiocache.py decodes them once, rooms.py simulates rooms,
recipes.py draws what a mixture is made of and mixing.py makes it. Here they come together.

>>> corpus = Corpus.open("manifest.csv")                            # doctest: +SKIP
>>> item = recipe(corpus, seed=1, index=0, seconds=4.0)             # doctest: +SKIP
>>> noisy, clean = render(corpus, item)                             # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from dsn_lite.data.cache import AudioCache, default_folder
from dsn_lite.data.layouts import scan
from dsn_lite.data.manifest import Entry, read_manifest, write_manifest
from dsn_lite.data.mixing import render
from dsn_lite.data.recipes import Pool, Recipe, recipe
from dsn_lite.data.rirs import Bank, open_bank

__all__ = [
    "AudioCache",
    "Corpus",
    "Entry",
    "Mixtures",
    "Recipe",
    "read_manifest",
    "recipe",
    "render",
    "scan",
    "write_manifest",
]

RULES = 2  # raise when the drawing or the mixing changes: labels cached before must not be taken for these


class Corpus:
    """A manifest, its decoded files and a bank of rooms.

    Attributes
    ----------
    path : Path
        The manifest.
    entries : sequence of Entry
        Its rows.
    cache : AudioCache
        Their samples.
    bank : Bank
        Small rooms.
    hash : str
        SHA-1 over the manifest's rows, the files left out, how the rooms were made and the rules of drawing.
    """

    def __init__(self, path: Path, entries: Sequence[Entry], cache: AudioCache, bank: Bank) -> None:
        self.path, self.entries, self.cache, self.bank = path, entries, cache, bank
        present = "".join("1" if length else "0" for length in cache.length)
        self.hash = hashlib.sha1(f"{RULES}|{cache.hash}|{present}|{bank.name}".encode()).hexdigest()
        self._pools: dict[tuple[str, str], Pool] = {}

    @classmethod
    def open(cls, manifest: str | Path, cache_folder: str | Path | None = None) -> Corpus:
        """Read a manifest and decode its files on the first use (about 9 h of Opus take a minute or two)."""
        folder = Path(cache_folder) if cache_folder else default_folder()
        entries = read_manifest(manifest)
        return cls(Path(manifest), entries, AudioCache(entries, folder), open_bank(folder))

    def pool(self, kind: str, split: str) -> Pool:
        """Groups of files of that kind and split."""
        if (kind, split) not in self._pools:
            self._pools[kind, split] = Pool(self, kind, split)
        return self._pools[kind, split]

    def rooms_of(self, split: str) -> range:
        """Rows of the bank: nine tenths train, the rest validates."""
        rooms = len(self.bank.responses)
        return range(rooms * 9 // 10) if split == "train" else range(rooms * 9 // 10, rooms)


class Mixtures(torch.utils.data.Dataset):
    """Mixtures by index: ``noisy`` and ``clean`` float32 [samples], ``index`` int, ``snr`` float.

    Training counts up: item ``i`` of a run is always recipe ``start + i``, so a run resumed at step s takes
    up the index s * batch. Validation is a fixed ``size`` of the valid split.

    Parameters
    ----------
    corpus : Corpus
    split : {"train", "valid", "test"}
    seconds : float
        Length of each mixture.
    seed : int
        Another seed, other mixtures.
    start : int
        Recipe index of item 0.
    size : int, optional
        Number of items; without it 2**31, as good as endless: use a sampler that counts, not one that
        shuffles.
    """

    def __init__(
        self, corpus: Corpus, split: str, seconds: float, seed: int, start: int = 0, size: int | None = None
    ) -> None:
        self.corpus, self.split, self.seconds, self.seed, self.start = corpus, split, seconds, seed, start
        self.size = 2**31 if size is None else size

    def __len__(self) -> int:
        return self.size

    def recipe(self, i: int) -> Recipe:
        """The recipe of item ``i``."""
        if not 0 <= i < self.size:
            raise IndexError(i)
        return recipe(self.corpus, self.seed, self.start + i, self.seconds, self.split)

    def __getitem__(self, i: int) -> dict:
        item = self.recipe(i)
        noisy, clean = render(self.corpus, item)
        return {
            "noisy": torch.from_numpy(noisy),
            "clean": torch.from_numpy(clean),
            "index": item.index,
            "snr": item.snr_db,
        }
