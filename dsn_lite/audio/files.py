"""Read, write, resample, measure and mix sound.

Arrays are float32, full scale is 1.0, shape [C, samples] (C channels) or [samples] for one channel. Everything that
can be wrong with a file ends in one :class:`~dsn_lite.errors.InputError` that names the file and the cure.
:func:`read` and :func:`write` are for clips; :class:`Reader` and :func:`writing` go through a file of any length
block by block. soundfile (libsndfile) decodes and encodes; soxr resamples and is imported only where that happens.
"""

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Self

import numpy as np
import soundfile

from dsn_lite.errors import InputError

#: What a folder is searched for; a file named by the user may end in anything.
SUFFIXES = frozenset(
    [".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3",
     ".aiff", ".aif", ".aifc", ".au", ".caf", ".w64", ".rf64"]
)  # fmt: skip
BLOCK = 65536  # samples of one channel that are in memory at a time

# What these cannot hold is not cut off at 1.0 by a writer: floats keep it, the lossy coders have their own limit.
_UNLIMITED = {"FLOAT", "DOUBLE", "VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"}
# Telephone codecs that round the length up to whole blocks; as they are lossy too, PCM is written instead.
_WHOLE_BLOCKS = ("IMA_ADPCM", "MS_ADPCM", "VOX_ADPCM", "NMS_ADPCM", "GSM610", "G721", "G723")
_UNKNOWN_LENGTH = 1 << 62
_temporary_number = count()


@dataclass(frozen=True)
class Audio:
    """A decoded file: `wave` float32 [C, samples], `sample_rate` in Hz, and how the file stored it."""

    wave: np.ndarray
    sample_rate: int
    subtype: str
    format: str = "WAV"

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.wave.shape[-1] / self.sample_rate


# ---------------------------------------------------------------------------------------------------------- reading
class Reader:
    """An open sound file, read block by block; use it in a `with` statement.

    Parameters
    ----------
    path : str or Path
        Whatever libsndfile reads: wav, flac, ogg (vorbis, opus), mp3, aiff and more.

    Attributes
    ----------
    sample_rate : int
        In Hz.
    channels, samples : int
        Samples of one channel, as the header promises.
    format, subtype : str
        Container and encoding in soundfile's names, as `FLAC` and `PCM_16`.

    Raises
    ------
    InputError
        The file is missing, unreadable, empty or cut off. That compressed data is cut off or that a sample is not a
        number shows while reading.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.exists():
            raise InputError(f"{self.path}: no such file; check the name")
        if self.path.is_dir():
            raise InputError(f"{self.path}: is a folder; name a file in it")
        if not os.access(self.path, os.R_OK):
            raise InputError(f"{self.path}: not allowed to read it; change its permissions")
        if self.path.stat().st_size == 0:
            raise InputError(f"{self.path}: the file has no bytes; copy or record it again")
        try:
            with _quiet_decoder(self.path):
                self._file = soundfile.SoundFile(_name(self.path))
        except (soundfile.LibsndfileError, TypeError, OSError) as error:
            reason = getattr(error, "error_string", str(error)).rstrip(".")
            if "regular file" in reason:  # libsndfile's words when libmpg123 finds nothing
                reason = "no MPEG audio in it"
            raise InputError(
                f"{self.path}: not a sound file that can be read ({reason}); convert it to WAV or FLAC, "
                f"for example with ffmpeg"
            ) from error
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.samples: int = self._file.frames
        self.format: str = self._file.format
        self.subtype: str = self._file.subtype
        try:
            self._check_header()
        except InputError:
            self._file.close()
            raise

    def _check_header(self) -> None:
        if self.samples >= _UNKNOWN_LENGTH:
            raise InputError(
                f"{self.path}: the header does not give the length; convert the file, e.g. with ffmpeg"
            )
        missing = _missing_bytes(self._file, self.path)
        if missing:
            raise InputError(
                f"{self.path}: cut off, {missing} bytes are missing at its end; copy or record it again"
            )
        if self.samples == 0:
            raise InputError(f"{self.path}: no samples; record again or leave the file out")

    def blocks(self, size: int = BLOCK) -> Iterator[np.ndarray]:
        """Yield float32 [C, n] with n <= `size` until the file ends.

        Raises
        ------
        InputError
            The data ends early, or a sample is NaN or infinite (the first is named).
        """
        done = 0
        while done < self.samples:
            try:
                block = self._file.read(size, dtype="float32", always_2d=True).T
            except (soundfile.LibsndfileError, OSError) as error:
                raise self._cut_off(done) from error
            if block.shape[1] == 0:
                raise self._cut_off(done)
            finite = np.isfinite(block)
            if not finite.all():
                at = int(np.argmin(finite.all(0)))
                channel = int(np.argmin(finite[:, at]))
                value = "NaN" if np.isnan(block[channel, at]) else "infinite"
                raise InputError(
                    f"{self.path}: sample {done + at} ({(done + at) / self.sample_rate:.3f} s) of channel "
                    f"{channel + 1} is {value}; export the file again, or replace such samples by zero"
                )
            block = block[:, : self.samples - done]
            done += block.shape[1]
            yield block

    def _cut_off(self, done: int) -> InputError:
        rate = self.sample_rate
        return InputError(
            f"{self.path}: cut off or damaged after {done / rate:.1f} of {self.samples / rate:.1f} s; "
            f"copy or record it again"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


def _name(path: Path) -> str | bytes:
    """What soundfile takes: elsewhere than on Windows names are bytes, and need not be text."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def _missing_bytes(file: soundfile.SoundFile, path: Path) -> int:
    """How many bytes a truncated file lacks, as far as its container can tell; 0 if none.

    libsndfile reads what is left of a file that was cut off and says so only in its log, as `data : 529200 (should
    be 264578)`. Ogg has no total length; there the last page must be whole.
    """
    if file.format == "OGG":
        return _missing_in_last_ogg_page(path)
    chunk = {"WAV": "data", "WAVEX": "data", "AIFF": "SSND"}.get(file.format, r"[\w ]+?")
    found = re.search(rf"^\s*{chunk}\s*: (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    if not found:
        return 0
    declared, actual = map(int, found.groups())
    # Programs that write to a pipe leave "very long" in the header, and some recorders are a few header bytes off.
    piped = 0x7FFFF000 <= declared <= 0xFFFFFFFF
    missing = declared - actual
    return 0 if piped or missing < 64 else missing


def _missing_in_last_ogg_page(path: Path) -> int:
    longest_page = 27 + 255 + 255 * 255  # header, segment table, segments
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2 * longest_page))
        tail = file.read()
    start = tail.rfind(b"OggS")
    page = tail[start:] if start >= 0 else b""
    if len(page) < 27 or len(page) < 27 + page[26]:
        return 1
    return max(0, 27 + page[26] + sum(page[27 : 27 + page[26]]) - len(page))


@contextlib.contextmanager
def _quiet_decoder(path: Path) -> Iterator[None]:
    """Keep libmpg123 from writing its own remarks beside our one line: it prints to the process's stderr."""
    if path.suffix.lower() != ".mp3":
        yield
        return
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def read(path: str | Path) -> Audio:
    """Read a whole file.

    Parameters
    ----------
    path : str or Path
        A file that libsndfile reads.

    Returns
    -------
    Audio
        `wave` is float32 [C, samples].

    Raises
    ------
    InputError
        See :class:`Reader`.
    """
    with Reader(path) as reader:
        wave = np.concatenate(list(reader.blocks()), axis=1)
        return Audio(wave, reader.sample_rate, reader.subtype, reader.format)


# ---------------------------------------------------------------------------------------------------------- writing
def temporary_name(path: str | Path) -> Path:
    """A free name in the folder of `path`, for what is renamed to `path` once it is complete."""
    return Path(path).parent / f".dsn-lite-{os.getpid()}-{next(_temporary_number)}.part"


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary name to write to; rename it to `path` at the end, or remove it if anything went wrong.

    Until the rename, what stood at `path` before stays untouched.

    Raises
    ------
    InputError
        The disk is full or the folder cannot be written.

    Examples
    --------
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
    path: str | Path,
    *,
    sample_rate: int,
    channels: int,
    subtype: str | None = None,
    format: str | None = None,
) -> Iterator["Writer"]:
    """Open a sound file that appears under its name only when it is complete.

    Parameters
    ----------
    path : str or Path
        Where it ends up; folders that lack are made.
    sample_rate, channels : int
        Rate in Hz.
    subtype, format : str or None
        soundfile's names. `format` None: from the suffix of `path` (WAV when that says nothing). A `subtype` that the
        format has not or that cannot keep the length (ADPCM, GSM), or None: the format's usual one.

    Raises
    ------
    InputError
        Disk full, folder not writable, or a rate or channel count that the format cannot store. What stood at `path`
        before is then still there, and nothing else.
    """
    path = Path(path)
    format = format or format_of(path)
    if not subtype or subtype.startswith(_WHOLE_BLOCKS) or not soundfile.check_format(format, subtype):
        subtype = "OPUS" if path.suffix.lower() == ".opus" else soundfile.default_subtype(format)
    with replacing(path) as temporary:
        open(temporary, "wb").close()  # so that what libsndfile refuses below is the format, not the folder
        try:
            file = soundfile.SoundFile(_name(temporary), "w", sample_rate, channels, subtype, format=format)
        except (soundfile.LibsndfileError, ValueError) as error:
            raise InputError(
                f"{path}: {format} cannot store {channels} channels at {sample_rate} Hz as {subtype}; name a .wav file"
            ) from error
        with file:
            writer = Writer(file)
            yield writer
        _check_complete(temporary, writer.samples)


class Writer:
    """What :func:`writing` gives: takes a file's samples block by block.

    Attributes
    ----------
    format, subtype : str
        Container and encoding in soundfile's names.
    samples : int
        Written so far, of one channel.
    clipped : int
        Samples beyond full scale that an integer encoding had to limit to it.
    """

    def __init__(self, file: soundfile.SoundFile):
        self._file = file
        self.format: str = file.format
        self.subtype: str = file.subtype
        self.samples = self.clipped = 0

    def write(self, wave: np.ndarray) -> None:
        """Append float32 [C, n]."""
        if self.subtype not in _UNLIMITED:
            self.clipped += int(np.count_nonzero(np.abs(wave) > 1.0))
            wave = np.clip(wave, -1.0, 1.0)
        # Small pieces: libsndfile's Vorbis encoder overflows its stack on very long ones.
        for start in range(0, wave.shape[1], BLOCK):
            self._file.write(np.ascontiguousarray(wave[:, start : start + BLOCK].T))
        self.samples += wave.shape[1]


def _check_complete(path: Path, samples: int) -> None:
    """Look for the last sample: compressing writers do not tell when the disk fills up while they close."""
    with soundfile.SoundFile(_name(path)) as file:
        file.seek(max(0, samples - 1))
        if file.frames != samples or len(file.read(1)) != min(1, samples):
            raise OSError(f"{file.frames} of {samples} samples arrived")


def format_of(path: str | Path) -> str:
    """soundfile's name of the format that a suffix stands for; `WAV` where it says nothing.

    Examples
    --------
    >>> format_of("a.flac"), format_of("a.opus"), format_of("a")
    ('FLAC', 'OGG', 'WAV')
    """
    suffix = Path(path).suffix.lstrip(".").upper()
    names = {"OGA": "OGG", "OPUS": "OGG", "AIF": "AIFF", "AIFC": "AIFF", "SND": "AU", "WAVE": "WAV"}
    name = names.get(suffix, suffix)
    return name if name in soundfile.available_formats() and name != "RAW" else "WAV"


def write(
    path: str | Path,
    wave: np.ndarray,
    sample_rate: int,
    subtype: str | None = None,
    format: str | None = None,
) -> None:
    """Write a whole file, under a temporary name that is renamed at the end.

    Parameters
    ----------
    path : str or Path
        What stands there is replaced, but only by a complete file.
    wave : float array [C, samples] or [samples]
        Integer encodings limit it to full scale, -1 to 1.
    sample_rate : int
        In Hz.
    subtype, format : str or None
        See :func:`writing`.

    Raises
    ------
    InputError
        See :func:`writing`.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "tone.wav"
    >>> write(path, np.sin(np.arange(1600) / 8).astype("float32"), 16000)
    >>> read(path).wave.shape
    (1, 1600)
    """
    wave = np.atleast_2d(np.asarray(wave, dtype=np.float32))
    with writing(path, sample_rate=sample_rate, channels=len(wave), subtype=subtype, format=format) as writer:
        writer.write(wave)


# ------------------------------------------------------------------------------------------------------- resampling
class Resampler:
    """A stream that changes its sampling rate: soxr, high quality, without delay once flushed.

    Fed block by block it gives the same samples as :func:`resample` at once.

    Parameters
    ----------
    from_rate, to_rate : int
        In Hz; equal rates pass the samples through.
    channels : int
        C.
    """

    def __init__(self, from_rate: int, to_rate: int, channels: int):
        self._stream = None
        if from_rate != to_rate:
            import soxr

            self._stream = soxr.ResampleStream(from_rate, to_rate, channels, dtype="float32", quality="HQ")

    def feed(self, wave: np.ndarray, *, last: bool = False) -> np.ndarray:
        """Take float32 [C, n], give what is ready, float32 [C, m]; `last` brings out the rest."""
        if self._stream is None:
            return wave
        return self._stream.resample_chunk(np.ascontiguousarray(wave.T, dtype=np.float32), last=last).T


def resample(wave: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Change the sampling rate.

    Parameters
    ----------
    wave : float array [..., samples]
    from_rate, to_rate : int
        In Hz.

    Returns
    -------
    float32 array [..., ceil(samples * to_rate / from_rate)]
        There and back, followed by :func:`fit`, keeps the length.

    Examples
    --------
    >>> resample(np.zeros((2, 44100), dtype="float32"), 44100, 16000).shape
    (2, 16000)
    """
    wave = np.asarray(wave, dtype=np.float32)
    if from_rate == to_rate:
        return wave
    flat = wave.reshape(-1, wave.shape[-1])
    out = Resampler(from_rate, to_rate, len(flat)).feed(flat, last=True)
    out = fit(out, resampled_length(wave.shape[-1], from_rate, to_rate))
    return out.reshape(*wave.shape[:-1], out.shape[-1])


def resampled_length(samples: int, from_rate: int, to_rate: int) -> int:
    """Samples after resampling, rounded up.

    Examples
    --------
    >>> resampled_length(1, 44100, 16000)
    1
    """
    return -(-samples * to_rate // from_rate)


def fit(wave: np.ndarray, samples: int) -> np.ndarray:
    """Cut the end off, or append zeros, so that the last axis has `samples`.

    Examples
    --------
    >>> fit(np.array([1.0, 2.0]), 3), fit(np.array([1.0, 2.0]), 1)
    (array([1., 2., 0.]), array([1.]))
    """
    lacking = samples - wave.shape[-1]
    if lacking <= 0:
        return wave[..., :samples]
    return np.concatenate([wave, np.zeros((*wave.shape[:-1], lacking), dtype=wave.dtype)], axis=-1)


# ------------------------------------------------------------------------------------------------- levels and mixing
def to_mono(wave: np.ndarray) -> np.ndarray:
    """The mean of the channels: [C, samples] or [samples] -> [samples]."""
    wave = np.asarray(wave)
    return wave if wave.ndim == 1 else wave.mean(axis=0, dtype=wave.dtype)


def rms_dbfs(wave: np.ndarray) -> float:
    """Root mean square level in dB relative to full scale (a constant 1.0 is 0 dB); silence is -inf.

    Examples
    --------
    >>> rms_dbfs(np.full(8, 0.1))
    -20.0
    """
    return _power_db(float(np.mean(np.square(np.asarray(wave, dtype=np.float64))))) if np.size(wave) else -np.inf


def _power_db(power: float) -> float:
    return float(np.round(10 * np.log10(power), 9)) if power > 0 else -np.inf


def active_level(wave: np.ndarray, sample_rate: int = 16000) -> float:
    """Level of speech while somebody speaks, in dB relative to full scale.

    The mean power of the 20 ms frames that lie at most 40 dB below the loudest one, so that pauses do not count.

    Parameters
    ----------
    wave : float array [samples]
    sample_rate : int
        In Hz.

    Examples
    --------
    >>> speech = np.concatenate([np.full(16000, 0.1), np.zeros(16000)])
    >>> active_level(speech), round(rms_dbfs(speech), 2)
    (-20.0, -23.01)
    """
    frame = max(1, round(0.02 * sample_rate))
    wave = np.asarray(wave, dtype=np.float64)
    if wave.size < frame:
        return rms_dbfs(wave)
    power = np.square(wave[: wave.size // frame * frame]).reshape(-1, frame).mean(axis=1)
    return _power_db(float(power[power >= power.max() * 1e-4].mean()))


def mix_at_snr(speech: np.ndarray, noise: np.ndarray, snr_db: float, sample_rate: int = 16000) -> np.ndarray:
    """Add noise to speech at a given signal-to-noise ratio; the speech stays as loud as it is.

    Parameters
    ----------
    speech : float array [samples]
        Its :func:`active_level` counts.
    noise : float array [any length]
        Repeated or cut to the length of the speech; its mean level over that length counts.
    snr_db : float
        In dB.
    sample_rate : int
        In Hz.

    Returns
    -------
    float32 array [samples]
        May go beyond full scale: it is not limited, so that `noisy - speech` is the noise that was added.

    Raises
    ------
    InputError
        Speech or noise is silent: no gain gives the ratio.

    Examples
    --------
    >>> speech, noise = np.sin(np.arange(16000) / 8), np.cos(np.arange(8000) * 2)
    >>> noisy = mix_at_snr(speech, noise, 6.0)
    >>> round(active_level(speech) - rms_dbfs(noisy - speech), 3)
    6.0
    """
    speech, noise = np.asarray(speech, dtype=np.float32), np.asarray(noise, dtype=np.float32)
    noise = np.resize(noise, speech.shape)
    speech_db, noise_db = active_level(speech, sample_rate), rms_dbfs(noise)
    for name, level in (("speech", speech_db), ("noise", noise_db)):
        if level == -np.inf:
            raise InputError(f"the {name} is silent, so there is no signal-to-noise ratio; take another clip")
    return speech + noise * np.float32(10 ** ((speech_db - noise_db - snr_db) / 20))
