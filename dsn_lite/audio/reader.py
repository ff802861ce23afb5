"""Read sound files: all that can be decoded, whatever the header says."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import soundfile

from dsn_lite.audio import chunked, mpeg, xiph
from dsn_lite.audio.resampling import Resampler
from dsn_lite.audio.sources import BLOCK, Contents, Part, Source, View, library_name, open_bytes
from dsn_lite.errors import InputError

_MPEG_SUFFIXES = (".mp3", ".mp2", ".mp1", ".mpga")
_NO_LENGTH = 1 << 62


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


class Decoder(soundfile.SoundFile):
    """A part of a file, decoded from its beginning to its end and never sought in.

    soundfile seeks to where it is after each read; libmpg123 then starts anew, loses sound and says so on standard error.
    """

    def seekable(self) -> bool:
        """No."""
        return False


class Reader:
    """An open sound file, read block by block; use it in a `with` statement.

    What can be decoded comes out, to the last sample; the length in a header decides nothing. Files that were joined (mp3,
    chained Ogg, FLAC, WAV) come out one after the other, and a pipe is read like a file.

    Parameters
    ----------
    path : str or Path
        Whatever libsndfile reads: wav, flac, ogg (vorbis, opus), mp3, aiff and more.

    Examples
    --------
    >>> from dsn_lite.audio import clips
    >>> with Reader(clips.info("boat").path) as reader:
    ...     sum(block.shape[1] for block in reader.blocks()) == reader.samples, reader.damage
    (True, None)
    """

    sample_rate: int  #: in Hz
    channels: int
    format: str  #: container in soundfile's names, as `FLAC`
    subtype: str  #: encoding in soundfile's names, as `PCM_16`
    notes: list[str]  #: what is odd about the file and no fault

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._done, self._is_over = 0, False
        self._view: View | None = None
        self._bytes = open_bytes(self.path)
        try:
            self._source = Source(self._bytes)
            if self._source.size == 0:
                raise InputError(f"{self.path}: the file has no bytes; copy or record it again")
            contents = _contents(self._source, self.path)
            self._parts, self._faults, self.notes = contents.parts, contents.faults, contents.notes
            self._file = self._first_decoder()
            self.sample_rate, self.channels = self._file.samplerate, self._file.channels
            self.format, self.subtype = self._file.format, self._file.subtype
            if not self._faults and (missing := chunked.missing_in_log(self._file.extra_info)):
                self._faults.append(f"cut off, {missing} bytes are missing at its end")
            if self.samples == 0:
                raise self._no_samples()
        except BaseException as error:
            self._bytes.close()
            if isinstance(error, OSError):
                raise self._unreadable(error) from error
            raise

    def _first_decoder(self) -> Decoder:
        reason = "no MPEG audio in it"
        if self._parts:
            try:
                return self._decoder(self._parts[0])
            except (soundfile.LibsndfileError, TypeError, OSError) as error:
                if self._view and self._view.error:
                    raise self._view.error from error
                reason = getattr(error, "error_string", str(error)).rstrip(".")
        if self._faults:
            reason += f"; {self._faults[0]}"
        cure = "convert it to WAV or FLAC, for example with ffmpeg"
        raise InputError(f"{self.path}: not a sound file that can be read ({reason}); {cure}")

    def _decoder(self, part: Part) -> Decoder:
        if not part.pieces:  # nothing to set right, and perhaps the name tells libsndfile what it is
            return Decoder(library_name(self.path))
        self._view = View(self._source, part)
        return Decoder(self._view)

    @property
    def samples(self) -> int | None:
        """Of one channel: what came, once all is read; before, what the file promises, if it does."""
        if self._is_over:
            return self._done
        promised = [part.samples for part in self._parts]
        if len(promised) == 1 and promised[0] is None and self._file.frames < _NO_LENGTH:
            return self._file.frames
        return None if None in promised else sum(promised)

    @property
    def share(self) -> float:
        """How far the reading is, 0 to 1."""
        return min(1.0, self._source.decoded / self._source.size)

    @property
    def damage(self) -> InputError | None:
        """That the file is cut off or damaged; all of it is known once all is read."""
        if not self._faults:
            return None
        there = f"{self._done / self.sample_rate:.1f} s are there; " if self._is_over else ""
        return InputError(f"{self.path}: {self._faults[0]}; {there}copy or record it again")

    def blocks(self, size: int = BLOCK) -> Iterator[np.ndarray]:
        """Yield float32 [C, n] with n <= `size` until the file ends."""
        for number, part in enumerate(self._parts):
            if number and not self._open_next(part):
                break
            for block in self._converted(self._decoded(part, size)):
                if block.shape[1]:
                    self._check(block)
                    self._done += block.shape[1]
                    yield block
        self._is_over = True
        if not self._done:
            raise self._no_samples()

    def read(self) -> np.ndarray:
        """The whole file, float32 [C, samples]."""
        return np.concatenate(list(self.blocks()), axis=1)

    def _open_next(self, part: Part) -> bool:
        where = f"what was joined to it at {self._done / self.sample_rate:.1f} s"
        self._file.close()
        try:
            self._file = self._decoder(part)
        except (soundfile.LibsndfileError, OSError):
            self._faults.append(f"{where} cannot be read")
            return False
        if not self._is_alike():
            found = f"{self._file.samplerate} Hz, {self._file.channels} channels"
            self.notes.append(f"{where} has {found} and is converted")
        return True

    def _is_alike(self) -> bool:
        return (self._file.samplerate, self._file.channels) == (self.sample_rate, self.channels)

    def _converted(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Blocks at the rate and with the channels of the first part; of other channels all become the mean."""
        if self._is_alike():
            yield from blocks
            return
        resampler = Resampler(self._file.samplerate, self.sample_rate, 1)
        for block in blocks:
            yield resampler.feed(block.mean(0, keepdims=True)).repeat(self.channels, axis=0)
        yield resampler.feed(np.zeros((1, 0), np.float32), last=True).repeat(self.channels, axis=0)

    def _decoded(self, part: Part, size: int) -> Iterator[np.ndarray]:
        """Blocks [C, n] of one part; what was damaged in it is silent where its length is known."""
        done = 0
        while True:
            block, is_broken = self._next(size)
            done += block.shape[1]
            if block.shape[1]:
                yield block
            if is_broken and done != part.samples:  # what follows the last sample may be a tag
                after = part.resume(done) if part.resume else None
                where = f"{(self._done) / self.sample_rate:.1f} s"
                if after is None:
                    self._faults.append(f"cut off or damaged after {where}")
                    return
                self._faults.append(f"damaged at {where}: {after[0] - done} samples are silent")
                for first in range(done, after[0], size):
                    yield np.zeros((self._file.channels, min(size, after[0] - first)), np.float32)
                done = after[0]
                self._file.close()
                self._file = self._decoder(after[1])
            elif is_broken or not block.shape[1]:
                break
        if part.samples is not None and done < part.samples and not self._faults:
            came, promised = done / self.sample_rate, part.samples / self.sample_rate
            self._faults.append(f"cut off or damaged after {came:.1f} of {promised:.1f} s")

    def _next(self, size: int) -> tuple[np.ndarray, bool]:
        """What the decoder gives next, [C, n], and whether the data is broken there."""
        block = np.full((size, self._file.channels), np.nan, np.float32)  # tells what came before an error
        try:
            count, is_broken = len(self._file.read(out=block)), False
        except (soundfile.LibsndfileError, OSError):
            count, is_broken = np.count_nonzero(~np.isnan(block[:, 0])), True
        if self._view and self._view.error:
            raise self._unreadable(self._view.error)
        return block[:count].T, is_broken

    def _check(self, block: np.ndarray) -> None:
        finite = np.isfinite(block)
        if finite.all():
            return
        at = int(np.argmin(finite.all(0)))
        channel = int(np.argmin(finite[:, at]))
        value, at = "NaN" if np.isnan(block[channel, at]) else "infinite", at + self._done
        raise InputError(
            f"{self.path}: sample {at} ({at / self.sample_rate:.3f} s) of channel {channel + 1} is {value}; "
            f"export the file again, or replace such samples by zero"
        )

    def _unreadable(self, error: OSError) -> InputError:
        reason = error.strerror or error
        return InputError(f"{self.path}: cannot be read ({reason}); copy it to another disk and try again")

    def _no_samples(self) -> InputError:
        fault = f"{self._faults[0]}; " if self._faults else ""
        return InputError(f"{self.path}: {fault}no samples; record again or leave the file out")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        self._bytes.close()


def _contents(source: Source, path: Path) -> Contents:
    """What the file holds, by its first bytes; without pieces where libsndfile may take it as it is."""
    magic = source.read(0, 4)
    if magic in chunked.MAGIC:
        return chunked.contents(source)
    if magic == b"OggS":
        return xiph.ogg(source)
    if (flac := xiph.find_flac(source)) >= 0:
        return xiph.flac(source, flac)
    if path.suffix.lower() in _MPEG_SUFFIXES or mpeg.is_mpeg(source):
        return mpeg.contents(source)
    return Contents([Part([])] if path.is_file() else [Part([range(source.size)])])


def read(path: str | Path, *, strict: bool = False) -> Audio:
    """Read a whole file that libsndfile reads, or a pipe.

    One that is cut off or damaged gives what is there, and a warning; `strict` refuses it.
    """
    with Reader(path) as reader:
        wave = reader.read()
        if reader.damage and strict:
            raise reader.damage
    if reader.damage:
        warnings.warn(str(reader.damage), stacklevel=2)
    return Audio(wave, reader.sample_rate, reader.subtype, reader.format)
