"""Two talkers at once: mixtures drawn from the corpus as recipes, and the fixed list of test mixtures.

What overlap means. The *stretch* of a talker runs from where it may begin to speak to where it has ended; the *talk* is the
union of both stretches. With a talk of n samples and an overlap of o, each stretch is ``(1 + o) / 2 * n`` long, the first
one begins where the talk begins and the second one ends where it ends, so both are on for ``o * n`` samples. At an overlap
of 1 both are on all the time; at 0.25 the first and the last 3/8 have one talker. Pauses within speech are pauses here too,
so frames on which both really sound are fewer: ``activity`` says which. Before and after the talk there may be silence.

Everything here is a pure function of (corpus, split, seed, index, seconds), as in :mod:`dsn_lite.data.recipes`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from dsn_lite.audio.spectral import HOP, SAMPLE_RATE
from dsn_lite.data.cache import ACTIVE_DB
from dsn_lite.data.corpus import Corpus
from dsn_lite.data.mixing import EQ_HZ, PEAK, active_rms, curve, fast_size, lay, lay_noise, rms
from dsn_lite.data.mixtures import Mixtures
from dsn_lite.data.pieces import Piece, fill, talk
from dsn_lite.data.recipes import Layer
from dsn_lite.errors import InputError

OVERLAPS = (1.0, 0.5, 0.25)
"""Shares of the talk on which both talk; item i has number i % 3."""
CELLS = tuple((overlap, noisy) for noisy in (False, True) for overlap in OVERLAPS)
"""Overlap and noise of item i: number i % 6."""
TALKING = ("silence", "one talker", "two talkers")
"""What a chunk holds, by the number of its talkers."""
LEVELS_DB = (-5.0, 5.0)
"""Range of the level of the first talker over the second."""
SNR_DB = (5.0, 20.0)
"""Range of the level of both talkers over the noise."""
SPEEDS = (0.88, 1.12)
"""Range of the speed of a talker in training, so that a few hundred talkers sound like more."""


@dataclass(frozen=True)
class Talker:
    """Utterances of one speaker, laid from sample `start` on at `gain_db`, played `speed` times as fast."""

    pieces: tuple[Piece, ...]
    start: int
    length: int
    gain_db: float
    speed: float = 1.0
    eq: tuple[float, ...] = ()


@dataclass(frozen=True)
class PairRecipe:
    """One mixture of two talkers, what it was drawn from, and its length at 16 kHz."""

    corpus: str
    split: str
    seed: int
    index: int
    samples: int
    talkers: tuple[Talker, Talker]
    overlap: float
    noise: Layer | None
    noise_eq: tuple[float, ...]
    """Gains in dB at ``mixing.EQ_HZ``; empty for none."""
    snr_db: float
    """Level of the active frames of both talkers together over the RMS of the noise."""
    room: int
    """Row of the bank of small rooms, -1 for none. The talkers take its responses 0 and 1, the noise 2."""
    level_dbfs: float
    """RMS of the mixture (lower where its peak would pass 0.99)."""


def pair_recipe(corpus: Corpus, seed: int, index: int, seconds: float, split: str = "train") -> PairRecipe:
    """Draw the mixture of two talkers with that index."""
    if seconds < 1:
        raise InputError(f"mixtures of {seconds} s: too short for two talkers; take at least 1 s")
    digest = hashlib.sha256(f"two talkers|{corpus.hash}|{split}|{seed}|{index}|{float(seconds)!r}".encode()).digest()
    rng = np.random.default_rng(list(digest))
    n = round(seconds * SAMPLE_RATE)

    def uniform(low: float, high: float) -> float:
        return round(float(rng.uniform(low, high)), 3)

    overlap, is_noisy = CELLS[index % len(CELLS)]
    silent = int(n * rng.uniform(0.05, 0.2)) if rng.random() < 0.5 else 0
    first = int(silent * rng.random())
    stretch = round((1 + overlap) / 2 * (n - silent))
    starts = [first, first + (n - silent) - stretch]
    if rng.random() < 0.5:
        starts.reverse()
    level = uniform(*LEVELS_DB)
    talkers = []
    for group, start, gain in zip(_two(corpus, split, rng), starts, (level / 2, -level / 2), strict=True):
        speed = round(float(np.exp(rng.uniform(*np.log(SPEEDS)))), 4) if split == "train" else 1.0
        files = corpus.pool("speech", split).groups[group]
        pieces = talk(corpus, files, int(stretch * speed) + 2, rng, pauses=False)
        eq = tuple(uniform(-3, 3) for _ in EQ_HZ) if rng.random() < 0.5 else ()
        talkers.append(Talker(pieces, start, stretch, gain, speed, eq))
    room = -1
    if rng.random() < 0.25:
        rooms = corpus.rooms_of(split)
        room = int(rng.integers(rooms.start, rooms.stop))
    return PairRecipe(
        corpus=corpus.hash, split=split, seed=seed, index=index, samples=n, talkers=tuple(talkers), overlap=overlap,
        noise=_noise(corpus, split, n, rng) if is_noisy else None,
        noise_eq=tuple(uniform(-6, 6) for _ in EQ_HZ) if is_noisy else (),
        snr_db=uniform(*SNR_DB) if is_noisy else 0.0, room=room, level_dbfs=uniform(-35, -15),
    )  # fmt: skip


def _two(corpus: Corpus, split: str, rng: np.random.Generator) -> tuple[int, int]:
    """Two groups of the pool of speech that are not the same speaker.

    Unlabelled files of one source may well be of one speaker; two of them are never taken together.
    """
    pool = corpus.pool("speech", split)

    def who(group: int) -> tuple[str, str]:
        entry = corpus.entries[pool.groups[group][0]]
        return entry.source, "" if entry.speaker.endswith("unknown") else entry.speaker

    if len({who(group) for group in range(len(pool.groups))}) < 2:
        raise InputError(f"{corpus.path}: needs two known speakers with split {split}; name them in the column speaker")
    one = pool.draw(rng)
    while who(other := pool.draw(rng)) == who(one):
        pass
    return one, other


def _noise(corpus: Corpus, split: str, n: int, rng: np.random.Generator) -> Layer:
    """A recorded noise (85 %) or coloured noise. No babble: who talks must be known."""
    pool = corpus.pool("noise", split)
    if not pool.groups:  # a folder without noises of its own for validation
        pool = corpus.pool("noise", "train")
    if not pool.groups or rng.random() < 0.15:
        return Layer("coloured", exponent=round(float(rng.uniform(0, 2)), 3), seed=int(rng.integers(2**31)))
    speed = round(float(np.exp(rng.uniform(np.log(0.8), np.log(1.25)))), 4)
    return Layer("files", 0.0, fill(corpus, pool.groups[pool.draw(rng)], int(n * speed) + 2, rng), speed)


def render_pair(corpus: Corpus, recipe: PairRecipe) -> tuple[np.ndarray, np.ndarray]:
    """Mixture [samples] and sources [2, samples] of a recipe, float32.

    A source is a talker as it sounds in the room, at the level it has in the mixture; what is left of the mixture is noise.
    """
    n = recipe.samples
    responses = corpus.bank.responses[recipe.room] if recipe.room >= 0 else None
    size = fast_size(n + (0 if responses is None else responses.shape[-1]))

    def shape(wave: np.ndarray, eq: tuple[float, ...], response: int) -> np.ndarray:
        if not eq and responses is None:
            return wave
        spectrum = np.fft.rfft(wave, size)
        if eq:
            spectrum *= curve(eq, 0.0, spectrum.size)
        if responses is not None:
            spectrum *= np.fft.rfft(responses[response], size)
        return np.fft.irfft(spectrum, size)[:n]

    sources = np.zeros((2, n), dtype=np.float32)
    for row, talker in enumerate(recipe.talkers):
        length = int(talker.length * talker.speed) + 2
        wave = lay(corpus, talker.pieces, length)
        if talker.speed != 1:
            wave = np.interp(np.arange(talker.length) * talker.speed, np.arange(length), wave)
        laid = np.zeros(n, dtype=np.float32)
        laid[talker.start : talker.start + talker.length] = wave[: talker.length]
        laid = shape(laid, talker.eq, row)
        sources[row] = laid * (10 ** (talker.gain_db / 20) / max(active_rms(laid), 1e-3))
    noise = None
    if recipe.noise is not None:
        noise = shape(lay_noise(corpus, recipe.noise, n), recipe.noise_eq, 2)
    return mix(sources, noise, recipe.snr_db, recipe.level_dbfs)


def mix(
    sources: np.ndarray, noise: np.ndarray | None, snr_db: float, level_dbfs: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mixture [samples] and sources [2, samples] at one common gain; see :class:`PairRecipe` for the levels."""
    mixture = sources.sum(0)
    if noise is not None:
        mixture = mixture + noise * (active_rms(mixture) * 10 ** (-snr_db / 20) / max(rms(noise), 1e-6))
    peak = max(float(np.abs(mixture).max()), float(np.abs(sources).max()), 1e-9)
    scale = np.float32(min(10 ** (level_dbfs / 20) / max(rms(mixture), 1e-9), PEAK / peak))
    return (mixture * scale).astype(np.float32), (sources * scale).astype(np.float32)


def activity(sources: np.ndarray) -> np.ndarray:
    """Who sounds when: bool [2, frames] of sources [2, samples], in whole frames of 16 ms, the last one perhaps shorter.

    A talker is active on a frame that is at most 40 dB below its loudest.

    >>> activity(np.stack([np.r_[np.ones(256), np.zeros(256)], np.zeros(512)])).tolist()
    [[True, False], [False, False]]
    """
    frames = -(-sources.shape[-1] // HOP)
    padded = np.pad(sources, ((0, 0), (0, frames * HOP - sources.shape[-1]))).reshape(len(sources), frames, HOP)
    energy = np.square(padded, dtype=np.float64).sum(-1)
    return (energy > 0) & (energy >= energy.max(-1, keepdims=True) * 10 ** (-ACTIVE_DB / 10))


def chunk_talkers(active: np.ndarray, chunks: int, length: int) -> np.ndarray:
    """Talkers of each chunk, 0, 1 or 2 [..., S], of activity [..., 2, frames] and chunks of `length` frames.

    A talker counts where it is active on more than a quarter of the chunk.

    >>> chunk_talkers(np.array([[True] * 8 + [False] * 4, [False] * 6 + [True] * 3 + [False] * 3]), 3, 4).tolist()
    [1, 2, 0]
    """
    spare = chunks * length - active.shape[-1]
    padded = np.pad(active, [(0, 0)] * (active.ndim - 1) + [(0, max(spare, 0))])[..., : chunks * length]
    return (padded.reshape(*active.shape[:-1], chunks, length).mean(-1) > 0.25).sum(-2)


class PairMixtures(Mixtures):
    """Mixtures of two talkers by index, as :class:`dsn_lite.data.mixtures.Mixtures` has those of one.

    An item has ``mixture`` float32 [samples], ``sources`` float32 [2, samples], ``activity`` bool [2, frames], ``overlap``
    float, ``noisy`` bool and ``index`` int.
    """

    def __getitem__(self, i: int) -> dict:
        if not 0 <= i < self.size:
            raise IndexError(i)
        recipe = pair_recipe(self.corpus, self.seed, i, self.seconds, self.split)
        mixture, sources = render_pair(self.corpus, recipe)
        return {
            "mixture": torch.from_numpy(mixture),
            "sources": torch.from_numpy(sources),
            "activity": torch.from_numpy(activity(sources)),
            "overlap": recipe.overlap,
            "noisy": recipe.noise is not None,
            "index": i,
        }
