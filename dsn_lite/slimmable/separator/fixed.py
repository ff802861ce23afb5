"""The fixed list of test mixtures of two talkers, from a folder of clean and noisy pairs."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsn_lite.audio.spectral import SAMPLE_RATE
from dsn_lite.data.mixing import active_rms
from dsn_lite.errors import InputError
from dsn_lite.evaluation.folders import Pair, read_pair
from dsn_lite.slimmable.separator.mixtures import CELLS, LEVELS_DB, SNR_DB, mix


@dataclass(frozen=True)
class FixedPair:
    """A test mixture: files below the folder of pairs, and how they are laid."""

    name: str
    overlap: float
    talkers: tuple[str, str]
    noise: str | None
    level_db: float
    snr_db: float
    silence: tuple[float, float]
    """Seconds before and after the talk."""


def fixed_list(folder: str | Path, *, each: int = 30, seed: int = 0) -> list[FixedPair]:
    """The fixed test mixtures of a folder of pairs: `each` of every overlap, clean and noisy.

    The folder has ``clean/``, ``noisy/`` and ``pairs.csv`` (columns ``file``, ``speaker``, ``snr_db``). The talkers are
    clean utterances of two different speakers; the noise of a noisy mixture is noisy minus clean of a third pair, of a
    third speaker and with an SNR of 10 dB at most.
    """
    path = Path(folder) / "pairs.csv"
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = sorted(csv.DictReader(file), key=lambda row: row["file"])
        speakers: dict[str, list[str]] = {}
        for row in rows:
            speakers.setdefault(row["speaker"], []).append(row["file"])
        noises = [(row["speaker"], row["file"]) for row in rows if float(row["snr_db"]) <= 10]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); it lists file, speaker and snr_db") from None
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: needs the columns file, speaker and snr_db, one pair a line ({error!r})") from None
    if len(speakers) < 3 or len({speaker for speaker, _ in noises}) < 3:
        raise InputError(f"{path}: lists fewer than three speakers; two talk, and the noise comes from a third pair")
    pairs, names = [], sorted(speakers)
    for cell, (overlap, is_noisy) in enumerate(CELLS):
        for number in range(each):
            rng = np.random.default_rng([seed, cell, number])
            two = [names[i] for i in rng.choice(len(names), 2, replace=False)]
            talkers = tuple(str(rng.choice(speakers[name])) for name in two)
            level, snr = (round(float(rng.uniform(*limits)), 2) for limits in (LEVELS_DB, SNR_DB))
            silence = tuple(round(float(rng.uniform(0.1, 0.6)), 2) for _ in range(2))
            free = [file for speaker, file in noises if speaker not in two]
            noise = str(rng.choice(free))
            name = f"{round(100 * overlap)}-{'noisy' if is_noisy else 'clean'}-{number:02d}"
            pairs.append(FixedPair(name, overlap, talkers, noise if is_noisy else None, level, snr, silence))
    return pairs


def render_fixed(folder: str | Path, pair: FixedPair) -> tuple[np.ndarray, np.ndarray]:
    """Mixture [samples] and sources [2, samples], at 16 kHz and -26 dBFS; stretches as long as the shorter utterance."""

    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        return read_pair(Pair(name, Path(folder) / "clean" / name, Path(folder) / "noisy" / name))

    waves = [read(name)[0] for name in pair.talkers]
    stretch = min(len(wave) for wave in waves)
    talking = round(2 * stretch / (1 + pair.overlap))
    before, after = (round(seconds * SAMPLE_RATE) for seconds in pair.silence)
    sources = np.zeros((2, before + talking + after), dtype=np.float32)
    for row, wave in enumerate(waves):
        start = before + (talking - stretch if row else 0)
        sources[row, start : start + stretch] = wave[:stretch]
        sources[row] *= 10 ** ((0.5 - row) * pair.level_db / 20) / max(active_rms(sources[row]), 1e-6)
    noise = None
    if pair.noise is not None:
        clean, noisy = read(pair.noise)
        noise = np.resize(noisy - clean, sources.shape[1])
    return mix(sources, noise, pair.snr_db, -26.0)
