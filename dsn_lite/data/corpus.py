"""A corpus: the files of a manifest, decoded, in groups to draw from, and a bank of rooms."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dsn_lite.data.cache import SAMPLE_RATE, AudioCache, default_folder
from dsn_lite.data.manifest import Entry, read_manifest
from dsn_lite.data.rirs import Bank, open_bank

RULES = 3  # raise when the drawing or the mixing changes: labels cached before must not be taken for these


class Pool:
    """Groups of files (speakers, noise classes) of one kind and split, and how often each is drawn.

    A source (a data set) weighs ``hours ** 0.5 * groups ** 0.25`` and a group within it ``seconds ** 0.5``:
    between "every file alike", where the largest set is all there is, and "every speaker alike", where a long
    recording of one good speaker is hardly heard. Unlabelled speakers (empty, or ending in ``unknown``) count
    file by file.
    """

    def __init__(self, entries: Sequence[Entry], cache: AudioCache, kind: str, split: str) -> None:
        members: dict[tuple[str, str], list[int]] = {}
        for i, entry in enumerate(entries):
            if entry.kind == kind and entry.split == split and cache.length[i]:
                known = entry.speaker and not entry.speaker.endswith("unknown")
                members.setdefault((entry.source, entry.speaker if known else entry.path), []).append(i)
        self.groups = [np.array(files) for files in members.values()]
        sources = [source for source, _ in members]
        if not self.groups:
            return
        seconds = np.array([float((cache.end - cache.begin)[files].sum()) for files in self.groups]) / SAMPLE_RATE
        weight = np.sqrt(seconds)
        for source in set(sources):
            here = np.array([s == source for s in sources])
            weight[here] *= np.sqrt(seconds[here].sum()) * here.sum() ** 0.25 / weight[here].sum()
        self._edges = np.cumsum(weight) / weight.sum()

    def draw(self, rng: np.random.Generator) -> int:
        """A group's number."""
        return min(int(np.searchsorted(self._edges, rng.random(), side="right")), len(self.groups) - 1)


class Corpus:
    """The manifest at `path`, its rows `entries`, their decoded files `cache`, and `bank`, small rooms."""

    def __init__(self, path: Path, entries: Sequence[Entry], cache: AudioCache, bank: Bank) -> None:
        self.path, self.entries, self.cache, self.bank = path, entries, cache, bank
        present = "".join("1" if length else "0" for length in cache.length)
        #: SHA-1 over the manifest's rows, the files left out, how the rooms were made and the rules of drawing
        self.hash = hashlib.sha1(f"{RULES}|{cache.hash}|{present}|{bank.name}".encode()).hexdigest()
        self._pools: dict[tuple[str, str], Pool] = {}

    @classmethod
    def open(cls, manifest: str | Path, cache_folder: str | Path | None = None, rooms: int | None = None) -> Corpus:
        """Read a manifest; the first use decodes its files (9 h of Opus in a minute or two) and simulates `rooms` (200)."""
        folder = Path(cache_folder) if cache_folder else default_folder()
        entries = read_manifest(manifest)
        return cls(Path(manifest), entries, AudioCache(entries, folder), open_bank(folder, rooms))

    def pool(self, kind: str, split: str) -> Pool:
        """Groups of files of that kind and split."""
        if (kind, split) not in self._pools:
            self._pools[kind, split] = Pool(self.entries, self.cache, kind, split)
        return self._pools[kind, split]

    def rooms_of(self, split: str) -> range:
        """Rows of the bank: nine tenths train, the rest validates."""
        rooms = len(self.bank.responses)
        return range(rooms * 9 // 10) if split == "train" else range(rooms * 9 // 10, rooms)
