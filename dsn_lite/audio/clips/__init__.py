"""Twenty short sentences that ship with the package, spoken by free speech synthesisers.

So a first run, the tests and the book need no download. The sentences are the project's own. `clips.csv` says
which engine and voice spoke each, with which options; `tools/make_clips.py` makes the files from that table.
All are 16 kHz, one channel, 3 to 5 s, at an active level of -26 dB relative to full scale, in digital silence.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from dsn_lite.audio import reader
from dsn_lite.errors import InputError

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Clip:
    """One row of `clips.csv`."""

    file: str  #: name of the FLAC file beside the table
    voice: str  #: a short name of the voice
    speaker: str  #: whether it sounds like a `woman` or a `man`
    engine: str  #: the program that spoke
    version: str
    options: str  #: what it was called with besides the text and the output
    text: str  #: the sentence
    seconds: float  #: length of the file

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return _FOLDER / self.file


@cache
def _table() -> dict[str, Clip]:
    with open(_FOLDER / "clips.csv", newline="", encoding="utf-8") as file:
        rows = [Clip(**{**row, "seconds": float(row["seconds"])}) for row in csv.DictReader(file)]
    return {Path(clip.file).stem: clip for clip in rows}


def names() -> tuple[str, ...]:
    """The names of all clips, in the order of the table.

    >>> len(names()), names()[0]
    (20, 'umbrella')
    """
    return tuple(_table())


def info(name: str) -> Clip:
    """What the table says about a clip.

    >>> info("owl").text
    'Did you hear the owl that lives behind the old church?'
    """
    try:
        return _table()[name]
    except KeyError:
        raise InputError(f"there is no clip {name!r}; take one of {', '.join(names())}") from None


def load(name: str) -> np.ndarray:
    """The samples of a clip, float32 [samples] at 16 kHz, within -1 to 1; a fresh copy.

    >>> load("umbrella").dtype
    dtype('float32')
    """
    return reader.read(info(name).path).wave[0]
