"""Write sound files, and any other: whole under their name, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from dsn_lite.audio import mpeg
from dsn_lite.audio.checks import as_channels, as_rate
from dsn_lite.audio.sources import BLOCK, Source, library_name
from dsn_lite.errors import InputError

#: What a folder is searched for; a file named by the user may end in anything.
SUFFIXES = frozenset(
    [".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".mpga",
     ".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".voc", ".sph", ".nist"]
)  # fmt: skip
#: Sound that libsndfile cannot read or write; in a folder it is named, not passed over.
FOREIGN = frozenset(
    [".m4a", ".m4b", ".mp4", ".mov", ".aac", ".alac", ".wma", ".wmv", ".asf", ".webm", ".mka", ".mkv", ".avi", ".3gp",
     ".3g2", ".amr", ".awb", ".ac3", ".eac3", ".dts", ".ape", ".wv", ".tta", ".mpc", ".spx", ".ra", ".rm", ".dsf", ".dff"]
)  # fmt: skip

# What these cannot hold is not cut off at 1.0 by a writer: floats keep it, the lossy coders have their own limit.
_UNLIMITED = {"FLOAT", "DOUBLE", "VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"}
# Telephone codecs that round the length up to whole blocks; as they are lossy too, PCM is written instead.
_WHOLE_BLOCKS = ("IMA_ADPCM", "MS_ADPCM", "VOX_ADPCM", "NMS_ADPCM", "GSM610", "G721", "G723")
_ALIASES = {
    "OGA": "OGG", "OPUS": "OGG", "AIF": "AIFF", "AIFC": "AIFF", "SND": "AU", "WAVE": "WAV", "BWF": "WAV", "SPH": "NIST",
}  # fmt: skip
_temporary_number = count()


def temporary_name(path: str | Path) -> Path:
    """A free name in the folder of `path`, for what is renamed to `path` once it is complete."""
    return Path(path).parent / f".dsn-lite-{os.getpid()}-{next(_temporary_number)}.part"


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary name to write to; rename it to `path` at the end, or remove it if anything went wrong.

    Until the rename, what stood at `path` before stays untouched.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "note.txt"
    >>> with replacing(path) as temporary:
    ...     _ = temporary.write_text("whole or not at all")
    >>> path.read_text()
    'whole or not at all'
    """
    path = Path(path)
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # a full disk may show only now
        os.replace(temporary, path)
    except (OSError, soundfile.LibsndfileError) as error:
        raise _cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _cannot_write(path: Path, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
    with contextlib.suppress(OSError):
        if shutil.disk_usage(path.parent).free < 1 << 20:
            reason = "disk full"  # libsndfile says no more than "system error"
    return InputError(
        f"{path}: cannot be written ({reason.rstrip('.')}); free some space or choose another folder and run again"
    )


@contextlib.contextmanager
def writing(
    path: str | Path, *, sample_rate: int, channels: int, subtype: str | None = None, format: str | None = None
) -> Iterator[Writer]:
    """Open a sound file that appears under its name only when it is complete.

    Parameters
    ----------
    path : str or Path
        Where it ends up; folders that lack are made. What stands there is replaced, but only by a complete file.
    sample_rate, channels : int
        Rate in Hz.
    subtype, format : str or None
        soundfile's names. `format` None: from the suffix of `path` (WAV when that says nothing). A `subtype` that the
        format has not or that cannot keep the length (ADPCM, GSM), or None: the format's usual one.
    """
    path, sample_rate = Path(path), as_rate(sample_rate)
    format = format or format_of(path)
    if not subtype or subtype.startswith(_WHOLE_BLOCKS) or not soundfile.check_format(format, subtype):
        subtype = "OPUS" if path.suffix.lower() == ".opus" else soundfile.default_subtype(format)
    with replacing(path) as temporary:
        open(temporary, "wb").close()  # so that what libsndfile refuses below is the format, not the folder
        try:
            file = soundfile.SoundFile(library_name(temporary), "w", sample_rate, channels, subtype, format=format)
        except (soundfile.LibsndfileError, ValueError) as error:
            raise InputError(
                f"{path}: {format} cannot store {channels} channels at {sample_rate} Hz as {subtype}; name a .wav file"
            ) from error
        with file:
            writer = Writer(file, path)
            yield writer
        _check_complete(temporary, writer.samples, format)


class Writer:
    """What :func:`writing` gives: takes a file's samples block by block."""

    def __init__(self, file: soundfile.SoundFile, path: Path):
        self._file, self._path = file, path
        self.format: str = file.format  #: container in soundfile's names
        self.subtype: str = file.subtype  #: encoding in soundfile's names
        self.samples = 0  #: written so far, of one channel
        self.clipped = 0  #: samples beyond full scale that an integer encoding had to limit to it

    def write(self, wave: np.ndarray) -> None:
        """Append float32 [C, n]; what is no number is never written as sound."""
        if not np.isfinite(wave).all():
            raise InputError(f"{self._path}: not written, as samples of it are NaN or infinite; replace them by zero")
        if self.subtype not in _UNLIMITED:
            self.clipped += int(np.count_nonzero(np.abs(wave) > 1.0))
            wave = np.clip(wave, -1.0, 1.0)
        # Small pieces: libsndfile's Vorbis encoder overflows its stack on very long ones.
        for start in range(0, wave.shape[1], BLOCK):
            self._file.write(np.ascontiguousarray(wave[:, start : start + BLOCK].T))
        self.samples += wave.shape[1]


def kept_subtype(subtype: str) -> str | None:
    """The encoding of a result of another format than its input: the same number of bits, where it has one."""
    return subtype if subtype.startswith(("PCM", "FLOAT", "DOUBLE")) else None


def _check_complete(path: Path, samples: int, format: str) -> None:
    """Look for the last sample: compressing writers do not tell when the disk fills up while they close."""
    if format == "MP3":  # libmpg123 complains on the standard error when it starts in the middle
        with open(path, "rb") as stored:
            contents = mpeg.contents(Source(stored))
        there, is_last = sum(part.samples or 0 for part in contents.parts), not contents.faults
    else:
        with soundfile.SoundFile(library_name(path)) as file:
            file.seek(max(0, samples - 1))
            there, is_last = file.frames, len(file.read(1)) == min(1, samples)
    if there != samples or not is_last:
        raise OSError(f"{there} of {samples} samples arrived")


def format_of(path: str | Path) -> str:
    """soundfile's name of the format that a suffix stands for; `WAV` where it says nothing.

    >>> format_of("a.flac"), format_of("a.opus"), format_of("a")
    ('FLAC', 'OGG', 'WAV')
    """
    suffix = Path(path).suffix.lower()
    name = _ALIASES.get(suffix[1:].upper(), suffix[1:].upper())
    if name in soundfile.available_formats() and name != "RAW":
        return name
    if suffix in SUFFIXES | FOREIGN:
        raise InputError(f"{path}: {suffix[1:]} cannot be written; name a .wav, .flac, .ogg, .opus or .mp3 file")
    return "WAV"


def write(path: str | Path, wave: Any, sample_rate: Any, subtype: str | None = None, format: str | None = None) -> None:
    """Write a whole file; `wave` is [C, samples] or [samples], the rest as for :func:`writing`.

    >>> import tempfile
    >>> from dsn_lite.audio.reader import read
    >>> path = Path(tempfile.mkdtemp()) / "tone.wav"
    >>> write(path, np.sin(np.arange(1600) / 8), 16000)
    >>> read(path).wave.shape
    (1, 1600)
    """
    wave = as_channels(wave)
    with writing(path, sample_rate=sample_rate, channels=len(wave), subtype=subtype, format=format) as writer:
        writer.write(wave)
