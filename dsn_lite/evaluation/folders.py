"""Folders of clean and noisy files of the same names."""

from __future__ import annotations

from contextlib import suppress
from csv import DictReader
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsn_lite import audio
from dsn_lite.audio.spectral import SAMPLE_RATE
from dsn_lite.errors import InputError


@dataclass(frozen=True)
class Pair:
    """One noisy file and its clean original."""

    name: str
    clean: Path
    noisy: Path
    snr_db: float | None = None


def pairs(folder: str | Path) -> tuple[list[Pair], list[str]]:
    """The pairs of a folder by name, and a line for each file that has no partner or is wrongly listed.

    Parameters
    ----------
    folder
        Holds ``clean/`` and ``noisy/`` with wav or flac files of the same names, and perhaps ``pairs.csv`` with the
        columns ``file`` and ``snr_db``.
    """
    folder = Path(folder)
    names = {kind: _sounds(folder, kind) for kind in ("clean", "noisy")}
    snr, errors = _listed_snr(folder / "pairs.csv")
    both, known = names["clean"] & names["noisy"], names["clean"] | names["noisy"]
    if not both:
        raise InputError(f"{folder}: holds no pair; give wav or flac files the same names in clean/ and noisy/")
    for kind, other in (("clean", "noisy"), ("noisy", "clean")):
        alone = sorted(names[kind] - names[other])
        errors += [f"{kind}/{name}: has no partner {other}/{name}; add it or remove the file" for name in alone]
    missing = (name for name in snr if name not in known)
    errors += [f"pairs.csv: lists {name}, which is not there; add it or remove the row" for name in missing]
    found = [Pair(name, folder / "clean" / name, folder / "noisy" / name, snr.get(name)) for name in sorted(both)]
    return found, errors


def _sounds(folder: Path, kind: str) -> set[str]:
    """Names of the sound files in `folder/kind`."""
    if not (folder / kind).is_dir():
        raise InputError(f"{folder}: has no folder {kind}/; put clean/ and noisy/ files of the same names into it")
    files = (path for path in (folder / kind).iterdir() if not path.name.startswith("."))
    return {path.name for path in files if path.suffix.lower() in (".wav", ".flac")}


def _listed_snr(path: Path) -> tuple[dict[str, float | None], list[str]]:
    """SNR in dB by file, None where it is no number, and a line for each of those."""
    if not path.exists():
        return {}, []
    listed: dict[str, float | None] = {}
    errors = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = DictReader(file)
            if not {"file", "snr_db"} <= set(reader.fieldnames or ()):
                raise InputError(f"{path}: lacks the columns file and snr_db; name them in its first line")
            for row in reader:
                name, text, value = row["file"], row["snr_db"], np.nan
                with suppress(ValueError, TypeError):
                    value = float(text)
                listed[name] = value if np.isfinite(value) else None
                if listed[name] is None:
                    errors.append(f"pairs.csv: the SNR {text!r} of {name} is no number; write it in dB")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text; save it as UTF-8") from error
    return listed, errors


def read_pair(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Clean and noisy [samples] at 16 kHz, mean of the channels."""
    waves = []
    for path in (pair.clean, pair.noisy):
        sound = audio.read(path, strict=True)
        waves.append(audio.to_mono(audio.resample(sound.wave, sound.sample_rate, SAMPLE_RATE)))
    clean, noisy = waves
    if len(clean) != len(noisy):
        lengths = f"clean has {len(clean)} samples at 16 kHz, noisy {len(noisy)}"
        raise InputError(f"{pair.name}: {lengths}; cut them to the same length")
    return clean, noisy
