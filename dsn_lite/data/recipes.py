"""Which speech, which noise, how loud, in which room: everything about a mixture, drawn from a seed.

A recipe is plain numbers. It is a pure function of (corpus, split, seed, index, seconds), so an epoch can be
made again, and a killed run goes on with the next index.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from dsn_lite.data.cache import SAMPLE_RATE
from dsn_lite.data.corpus import Corpus, Pool
from dsn_lite.errors import InputError


@dataclass(frozen=True)
class Piece:
    """``length`` samples of ``file`` from ``start``, laid at sample ``at`` with ``gain_db``."""

    file: int
    start: int
    length: int
    at: int
    gain_db: float = 0.0


@dataclass(frozen=True)
class Layer:
    """One noise, at ``level_db`` relative to the first layer.

    ``kind`` is ``files`` (pieces, played ``speed`` times as fast), ``babble`` (pieces of several talkers at
    once) or ``coloured`` (power 1/f^``exponent``, drawn from ``seed``).
    """

    kind: str
    level_db: float = 0.0
    pieces: tuple[Piece, ...] = ()
    speed: float = 1.0
    exponent: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """One mixture.

    Attributes
    ----------
    corpus, split, seed, index, samples
        What it was drawn from (``corpus`` is the corpus' hash), and its length at 16 kHz.
    speech : tuple of Piece
        Utterances of one speaker, with gaps.
    speech_eq, noise_eq : tuple of float
        Gains in dB at ``mixing.EQ_HZ``; empty for none.
    lowpass_hz : float
        Band limit of the speech, 0 for none.
    layers : tuple of Layer
        The noises.
    swell : tuple of float
        Gains in dB, evenly spaced over the mixture; empty for none.
    bursts : tuple of (int, int)
        Samples between which the noise is on; empty for always.
    room, response : int
        Row of the bank of small rooms and which of its responses the noise takes; -1 for none.
    hall : int
        Row of the manifest with the response of a large room, -1 for none. Only the speech is convolved with
        it.
    snr_db : float
        Level of the active frames of the speech, without late reverberation, over the RMS of the noise. A noise
        that bursts or pauses have nearly removed is raised by 30 dB at most.
    level_dbfs : float
        RMS of the mixture (lower where its peak would pass 0.99).
    """

    corpus: str
    split: str
    seed: int
    index: int
    samples: int
    speech: tuple[Piece, ...]
    speech_eq: tuple[float, ...]
    lowpass_hz: float
    layers: tuple[Layer, ...]
    noise_eq: tuple[float, ...]
    swell: tuple[float, ...]
    bursts: tuple[tuple[int, int], ...]
    room: int
    response: int
    hall: int
    snr_db: float
    level_dbfs: float


def recipe(corpus: Corpus, seed: int, index: int, seconds: float, split: str = "train") -> Recipe:
    """Draw the mixture with that index; the same arguments give the same recipe, whatever was drawn before.

    Raises
    ------
    InputError
        Where the corpus has no speech in that split, or the mixture is to be shorter than half a second.
    """
    if seconds < 0.5:
        raise InputError(f"mixtures of {seconds} s: too short to hold speech; take at least 0.5 s")
    speech, noise = corpus.pool("speech", split), corpus.pool("noise", split)
    if not speech.groups:
        raise InputError(f"{corpus.path}: no speech with split {split}; give some speakers that split")
    if not noise.groups:  # a folder without noises of its own for validation
        noise = corpus.pool("noise", "train")
    digest = hashlib.sha256(f"{corpus.hash}|{split}|{seed}|{index}|{float(seconds)!r}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:16], "little"))
    n = round(seconds * SAMPLE_RATE)

    def uniform(low: float, high: float) -> float:
        return round(float(rng.uniform(low, high)), 3)

    def chance(probability: float) -> bool:
        return bool(rng.random() < probability)

    talker = speech.draw(rng)
    pieces = talk(corpus, speech.groups[talker], n, rng, pauses=True)
    layers = _layers(corpus, noise, speech, talker, n, rng)
    room = response = hall = -1
    where = rng.random()
    halls = corpus.pool("rir", split)
    if where < 0.35:
        rooms = corpus.rooms_of(split)
        room, response = (
            int(rng.integers(rooms.start, rooms.stop)),
            int(rng.integers(1, corpus.bank.responses.shape[1])),
        )
    elif where < 0.38 and halls.groups:
        hall = int(rng.choice(halls.groups[halls.draw(rng)]))
    swell: tuple[float, ...] = ()
    bursts: tuple[tuple[int, int], ...] = ()
    if chance(0.3):
        swell = tuple(uniform(-8, 8) for _ in range(max(2, round(n / SAMPLE_RATE / 0.7) + 1)))
    if chance(0.1):
        bursts = _bursts(n, rng)
    return Recipe(
        corpus=corpus.hash,
        split=split,
        seed=seed,
        index=index,
        samples=n,
        speech=pieces,
        speech_eq=tuple(uniform(-3, 3) for _ in range(8)) if chance(0.5) else (),
        lowpass_hz=uniform(4000, 7500) if chance(0.05) else 0.0,
        layers=layers,
        noise_eq=tuple(uniform(-6, 6) for _ in range(8)) if chance(0.9) else (),
        swell=swell,
        bursts=bursts,
        room=room,
        response=response,
        hall=hall,
        snr_db=_snr(uniform(20, 30) if chance(0.05) else uniform(-5, 20), digest),
        level_dbfs=uniform(-35, -15),
    )


def _snr(usual: float, digest: bytes) -> float:
    """The usual SNR, or for 15 % of the items one of 20 to 35 dB: what is nearly clean must not get worse."""
    rng = np.random.default_rng(int.from_bytes(digest[16:], "little"))
    return round(float(rng.uniform(20, 35)), 3) if rng.random() < 0.15 else usual


def talk(
    corpus: Corpus, files: np.ndarray, n: int, rng: np.random.Generator, *, pauses: bool, gain_db: float = 0.0
) -> tuple[Piece, ...]:
    """Utterances of one speaker one after the other, with short gaps, until n samples are full.

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
        at += length + int(rng.uniform(0.05, 0.5) * second)
    return tuple(pieces)


def _stretch(
    corpus: Corpus, file: int, room: int, rng: np.random.Generator, *, anywhere: bool
) -> tuple[int, int]:
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


def _layers(
    corpus: Corpus, noise: Pool, speech: Pool, talker: int, n: int, rng: np.random.Generator
) -> tuple[Layer, ...]:
    """One file noise (52 %), two (28 %), babble (11 %) or coloured noise (9 %); 1 in 10 with colour too."""
    what = rng.random()
    others = [g for g in range(len(speech.groups)) if g != talker]

    def level(first: bool) -> float:
        return 0.0 if first else round(float(rng.uniform(-12, 0)), 3)

    def coloured(first: bool) -> Layer:
        exponent = round(float(rng.uniform(0, 2)), 3)
        return Layer("coloured", level(first), exponent=exponent, seed=int(rng.integers(2**31)))

    layers: list[Layer] = []
    if what < 0.11 and len(others) >= 3:
        count = int(rng.integers(3, min(8, len(others)) + 1))
        pieces: list[Piece] = []
        used = {talker}
        while len(used) <= count:
            group = speech.draw(rng)
            if group in used:
                group = others[int(rng.integers(len(others)))]
            if group not in used:
                used.add(group)
                gain = round(float(rng.uniform(-6, 0)), 3)
                pieces.extend(talk(corpus, speech.groups[group], n, rng, pauses=False, gain_db=gain))
        layers.append(Layer("babble", pieces=tuple(pieces)))
    elif what < 0.20 or not noise.groups:
        return (coloured(True),)
    else:
        for first in (True, False) if what < 0.48 else (True,):
            speed = round(float(np.exp(rng.uniform(np.log(0.8), np.log(1.25)))), 4)
            files = noise.groups[noise.draw(rng)]
            layers.append(Layer("files", level(first), fill(corpus, files, int(n * speed) + 2, rng), speed))
    if rng.random() < 0.1:
        layers.append(coloured(False))
    return tuple(layers)


def fill(corpus: Corpus, files: np.ndarray, n: int, rng: np.random.Generator) -> tuple[Piece, ...]:
    """Files of one noise class end to end until n samples are full."""
    order, at = rng.permutation(files), 0
    pieces: list[Piece] = []
    while at < n:
        file = int(order[len(pieces) % len(order)])
        start, length = _stretch(corpus, file, n - at, rng, anywhere=True)
        pieces.append(Piece(file, start, length, at))
        at += length
    return tuple(pieces)


def _bursts(n: int, rng: np.random.Generator) -> tuple[tuple[int, int], ...]:
    """Stretches of 0.2 to 1.5 s with the noise on, with pauses of the same kind between."""
    bursts, at = [], int(rng.uniform(0, min(0.8 * SAMPLE_RATE, 0.4 * n)))
    while at < n:
        stop = min(at + int(rng.uniform(0.2, 1.5) * SAMPLE_RATE), n)
        bursts.append((at, stop))
        at = stop + int(rng.uniform(0.2, 1.2) * SAMPLE_RATE)
    return tuple(bursts)
