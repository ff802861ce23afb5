"""Which speech, which noise, how loud, in which room: everything about a mixture, drawn from a seed.

A recipe is plain numbers. It is a pure function of (corpus, split, seed, index, seconds), so an epoch can be
made again, a killed run goes on with the next index, and what a slow metric says of a mixture can be cached.

Mostly plain, as in use; what varies is the noise, because recorded noise is scarce: one to four layers, each played at
another speed, through another equaliser, in its own time, some cut into grains that come in another order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from dsn_lite.data.cache import SAMPLE_RATE
from dsn_lite.data.corpus import Corpus, Pool
from dsn_lite.data.pieces import Piece, fill, talk
from dsn_lite.errors import InputError

CLEAN_DB = 120.0
"""SNR of a mixture without noise."""


@dataclass(frozen=True)
class Layer:
    """One noise of a mixture."""

    kind: str
    """``files`` (pieces), ``babble`` (pieces of several talkers at once), ``coloured``, or ``synthetic``
    (:func:`dsn_lite.data.synthetic.synthetic`)."""
    level_db: float = 0.0  #: relative to the first layer
    pieces: tuple[Piece, ...] = ()
    speed: float = 1.0  #: how fast pieces of files are played
    exponent: float = 0.0  #: coloured noise has the power 1/f^exponent
    seed: int = 0  #: of coloured and synthetic noise
    eq: tuple[float, ...] = ()  #: gains in dB at ``mixing.EQ_HZ``; empty for none
    swell: tuple[float, ...] = ()  #: gains in dB evenly spaced over the mixture; empty for none
    bursts: tuple[tuple[int, int], ...] = ()  #: samples between which the noise is on; empty for always


@dataclass(frozen=True)
class Recipe:
    """One mixture."""

    corpus: str  #: hash of the corpus it was drawn from
    split: str
    seed: int
    index: int
    samples: int  #: length at 16 kHz
    speech: tuple[Piece, ...]  #: utterances of one speaker, with gaps
    layers: tuple[Layer, ...]  #: the noises
    snr_db: float
    """Level of the active frames of the speech, without late reverberation, over the RMS of the noise; `CLEAN_DB` is
    no noise. A noise that bursts or pauses have nearly removed is raised by 30 dB at most."""
    speed: float = 1.0  #: how fast the speech is played, which changes pitch and tempo
    speech_eq: tuple[float, ...] = ()  #: gains in dB at ``mixing.EQ_HZ``; empty for none
    lowpass_hz: float = 0.0  #: band limit of the speech, 0 for none
    room: int = -1  #: row of the bank of small rooms, -1 for none
    response: int = -1  #: which response of that room the noise takes
    hall: int = -1  #: row of the manifest with the response of a large room, for the speech alone; -1 for none
    level_dbfs: float = -25.0  #: RMS of the mixture, lower where its peak would pass 0.99


def _generator(corpus: Corpus, split: str, seed: int, index: int, seconds: float) -> np.random.Generator:
    """Random numbers of one mixture: a pure function of what names it."""
    if seconds < 0.5:
        raise InputError(f"mixtures of {seconds} s: too short to hold speech; take at least 0.5 s")
    if not corpus.pool("speech", split).groups:
        raise InputError(f"{corpus.path}: no speech with split {split}; give some speakers that split")
    digest = hashlib.sha256(f"{corpus.hash}|{split}|{seed}|{index}|{float(seconds)!r}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def _noises(corpus: Corpus, split: str) -> Pool:
    """The noises of a split; those of training where a folder has none of its own for validation."""
    noise = corpus.pool("noise", split)
    return noise if noise.groups else corpus.pool("noise", "train")


def recipe(corpus: Corpus, seed: int, index: int, seconds: float, split: str = "train") -> Recipe:
    """Draw the mixture with that index; the same arguments give the same recipe, whatever was drawn before."""
    rng = _generator(corpus, split, seed, index, seconds)
    draw = _Draw(rng)
    speech, noise = corpus.pool("speech", split), _noises(corpus, split)
    n = round(seconds * SAMPLE_RATE)
    talker = speech.draw(rng)
    speed = draw.between(0.88, 1.14) if draw.chance(0.3) else 1.0
    gap = 1.5 if draw.chance(0.25) else 0.5
    pieces = talk(corpus, speech.groups[talker], int(n * speed) + 2, rng, pauses=True, gap=gap)
    layers = _layers(corpus, noise, speech, talker, n, rng)
    place = _place(corpus, split, draw)
    kind = rng.random()
    snr = CLEAN_DB if kind < 0.04 else draw.between(22, 40) if kind < 0.18 else draw.between(-8, 22)
    return Recipe(
        corpus=corpus.hash, split=split, seed=seed, index=index, samples=n, speech=pieces, layers=layers, snr_db=snr,
        speed=speed, speech_eq=draw.gains(3) if draw.chance(0.1) else (),
        lowpass_hz=draw.between(4000, 7500) if draw.chance(0.04) else 0.0, **place, level_dbfs=draw.between(-45, -12),
    )  # fmt: skip


def plain_recipe(corpus: Corpus, index: int, seconds: float, source: str, snr_db: float) -> Recipe:
    """A validation mixture of one speaker and one noise of the data set `source`, nothing done to either."""
    rng = _generator(corpus, "valid", 0, index, seconds)
    n = round(seconds * SAMPLE_RATE)
    speech = corpus.pool("speech", "valid")
    files = [i for i, e in enumerate(corpus.entries) if (e.kind, e.split, e.source) == ("noise", "valid", source)]
    if not files:
        raise InputError(f"{corpus.path}: no noise with split valid of {source}")
    layer = Layer("files", pieces=fill(corpus, rng.permutation(files)[:1], n, rng))
    pieces = talk(corpus, speech.groups[speech.draw(rng)], n, rng, pauses=False)
    return Recipe(corpus.hash, "valid", 0, index, n, pieces, (layer,), snr_db)


def stream_recipe(corpus: Corpus, index: int, seconds: float = 30.0) -> Recipe:
    """A validation stream: turns of two speakers with pauses of half a second to six, and a noise that goes on in them.

    The noise is steady, swells, begins within the stream, or gives way to another, by ``index`` in turn. The SNR is that
    of the turns, between -5 and 20 dB.
    """
    rng = _generator(corpus, "valid", 1, index, seconds)
    draw, n = _Draw(rng), round(seconds * SAMPLE_RATE)
    speech, noise = corpus.pool("speech", "valid"), _noises(corpus, "valid")
    talkers = rng.permutation(len(speech.groups))[:2]
    turns: list[Piece] = []
    at = int(rng.uniform(0.5, 4) * SAMPLE_RATE)
    while at < n - SAMPLE_RATE:
        length = min(int(rng.uniform(1.5, 6) * SAMPLE_RATE), n - at)
        said = talk(corpus, speech.groups[talkers[len(turns) % len(talkers)]], length, rng, pauses=False)
        turns += [replace(piece, at=piece.at + at) for piece in said]
        at += length + int(rng.uniform(0.5, 6) * SAMPLE_RATE)
    edge = int(rng.uniform(0.3, 0.7) * n)
    begins, ends = {"bursts": ((edge, n + SAMPLE_RATE),)}, {"bursts": ((-SAMPLE_RATE, edge),)}
    courses: tuple[dict, ...] = (({},), ({"swell": draw.gains(12, 6)},), (begins,), (ends, begins))[index % 4]
    layers = [Layer("files", pieces=fill(corpus, noise.groups[noise.draw(rng)], n, rng), **course) for course in courses]
    return Recipe(corpus.hash, "valid", 1, index, n, tuple(turns), tuple(layers), draw.between(-5, 20))


class _Draw:
    """Rounded numbers of one generator, so that a recipe reads well and is the same on every machine."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def between(self, low: float, high: float) -> float:
        return round(float(self.rng.uniform(low, high)), 3)

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def gains(self, db: float, count: int = 9) -> tuple[float, ...]:
        return tuple(self.between(-db, db) for _ in range(count))

    def speed(self, most: float) -> float:
        """Between 1 / most and most, each octave alike."""
        return round(float(np.exp(self.rng.uniform(-np.log(most), np.log(most)))), 4)


def _place(corpus: Corpus, split: str, draw: _Draw) -> dict:
    """A small room for 13 %, a hall for 2 %, none for the others."""
    where = draw.rng.random()
    halls = corpus.pool("rir", split)
    if where < 0.13:
        rooms = corpus.rooms_of(split)
        room = int(draw.rng.integers(rooms.start, rooms.stop))
        return {"room": room, "response": int(draw.rng.integers(1, corpus.bank.responses.shape[1]))}
    if where < 0.15 and halls.groups:
        return {"hall": int(draw.rng.choice(halls.groups[halls.draw(draw.rng)]))}
    return {}


def _layers(
    corpus: Corpus, noise: Pool, speech: Pool, talker: int, n: int, rng: np.random.Generator
) -> tuple[Layer, ...]:
    """One to four noises: of files, 12 % babble, 22 % synthetic, 10 % coloured; each with a course of its own."""
    draw, layers = _Draw(rng), []
    others = [group for group in range(len(speech.groups)) if group != talker]
    for i in range(int(rng.choice([1, 2, 3, 4], p=[0.45, 0.3, 0.15, 0.1]))):
        what = rng.random()
        given: dict = {"level_db": draw.between(-15, 0) if i else 0.0}
        if what < 0.12 and len(others) >= 3:
            given |= {"kind": "babble", "pieces": _babble(corpus, speech, talker, others, n, rng)}
        elif what < 0.34:
            given |= {"kind": "synthetic", "seed": int(rng.integers(2**31))}
        elif what < 0.44 or not noise.groups:
            given |= {"kind": "coloured", "exponent": draw.between(0, 2), "seed": int(rng.integers(2**31))}
        else:
            speed = draw.speed(2.0 if draw.chance(0.5) else 1.25)
            grain = int(rng.uniform(0.06, 0.5) * SAMPLE_RATE) if draw.chance(0.15) else 0
            pieces = fill(corpus, noise.groups[noise.draw(rng)], int(n * speed) + 2, rng, grain=grain)
            given |= {"kind": "files", "pieces": pieces, "speed": speed}
        layers.append(Layer(**given, **_course(n, draw, first=i == 0)))
    return tuple(layers)


def _course(n: int, draw: _Draw, *, first: bool) -> dict:
    """Equaliser, swell and times of one layer; the later ones come and go more often than the first."""
    given: dict = {}
    if draw.chance(0.8):
        given["eq"] = draw.gains(6)
    if draw.chance(0.3):
        given["swell"] = draw.gains(8, max(2, round(n / SAMPLE_RATE / 0.7) + 1))
    kind = draw.rng.random()
    if kind < 0.1:
        given["bursts"] = _bursts(n, draw.rng)
    elif kind < (0.22 if first else 0.4):  # begins, or ends, inside the clip
        edge = int(draw.rng.uniform(0.15, 0.85) * n)
        given["bursts"] = ((edge, n + SAMPLE_RATE),) if draw.chance(0.6) else ((-SAMPLE_RATE, edge),)
    return given


def _babble(
    corpus: Corpus, speech: Pool, talker: int, others: list[int], n: int, rng: np.random.Generator
) -> tuple[Piece, ...]:
    """Three to eight other talkers at once."""
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
    return tuple(pieces)


def _bursts(n: int, rng: np.random.Generator) -> tuple[tuple[int, int], ...]:
    """Stretches of 0.2 to 1.5 s with the noise on, with pauses of the same kind between."""
    bursts, at = [], int(rng.uniform(0, min(0.8 * SAMPLE_RATE, 0.4 * n)))
    while at < n:
        stop = min(at + int(rng.uniform(0.2, 1.5) * SAMPLE_RATE), n)
        bursts.append((at, stop))
        at = stop + int(rng.uniform(0.2, 1.2) * SAMPLE_RATE)
    return tuple(bursts)
