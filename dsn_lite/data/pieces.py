"""Stretches of files laid end to end: what somebody says, and a noise that fills a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsn_lite.data.cache import SAMPLE_RATE
from dsn_lite.data.corpus import Corpus


@dataclass(frozen=True)
class Piece:
    """``length`` samples of ``file`` from ``start``, laid at sample ``at`` with ``gain_db``."""

    file: int
    start: int
    length: int
    at: int
    gain_db: float = 0.0


def talk(
    corpus: Corpus, files: np.ndarray, n: int, rng: np.random.Generator, *, pauses: bool, gain_db: float = 0.0,
    gap: float = 0.5,
) -> tuple[Piece, ...]:  # fmt: skip
    """Utterances of one speaker one after the other, with gaps of up to ``gap`` seconds, until n samples are full.

    With ``pauses``, three in ten begin late and two in ten end early, so that stretches of noise alone exist.
    """
    second = SAMPLE_RATE
    at, end = int(rng.uniform(0, 0.1) * second), n
    if pauses and rng.random() < 0.3:
        at = int(min(rng.uniform(0.2, 1.2) * second, 0.3 * n))
    if pauses and rng.random() < 0.2:
        end = n - int(min(rng.uniform(0.2, 1.2) * second, 0.3 * n))
    order, turn = rng.permutation(files), 0
    pieces: list[Piece] = []
    while not pieces or (end - at >= second // 2 and turn < 1000):
        file = int(order[turn % len(order)])
        turn += 1
        start, length = _stretch(corpus, file, end - at, rng, anywhere=not pieces)
        pieces.append(Piece(file, start, length, at, gain_db))
        at += length + int(rng.uniform(0.05, gap) * second)
    return tuple(pieces)


def _stretch(corpus: Corpus, file: int, room: int, rng: np.random.Generator, *, anywhere: bool) -> tuple[int, int]:
    """(start, length) of at most ``room`` samples of a file's active part: of 8 draws one not idle."""
    cache = corpus.cache
    begin = max(int(cache.begin[file]) - 800, 0)
    end = min(int(cache.end[file]) + 1600, int(cache.length[file]))
    length = min(end - begin, room)
    spare = end - begin - length
    if not (anywhere and spare):
        return begin, length
    best, most = begin, -1.0
    for _ in range(8):
        start = begin + int(rng.integers(spare + 1))
        active = cache.active(file, start, length)
        if active > most:
            best, most = start, active
        if active >= 0.4:
            break
    return best, length


def fill(corpus: Corpus, files: np.ndarray, n: int, rng: np.random.Generator, *, grain: int = 0) -> tuple[Piece, ...]:
    """Files of one noise class end to end until n samples are full; with ``grain``, in pieces of about so many samples."""
    order, at = rng.permutation(files), 0
    pieces: list[Piece] = []
    while at < n:
        file = int(order[len(pieces) % len(order)])
        room = min(n - at, round(grain * rng.uniform(0.5, 1.5))) if grain else n - at
        start, length = _stretch(corpus, file, room, rng, anywhere=True)
        pieces.append(Piece(file, start, length, at))
        at += length
    return tuple(pieces)
