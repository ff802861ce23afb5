"""The bytes of a sound file, and a view of them that puts other bytes in places."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from dsn_lite.errors import InputError

BLOCK = 65536  # samples of one channel that are in memory at a time
_WINDOW = 1 << 18


def library_name(path: Path) -> str | bytes:
    """A name as soundfile takes it: elsewhere than on Windows names are bytes, and need not be text."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def open_bytes(path: Path) -> BinaryIO:
    """The bytes of a file; those of a pipe are kept in a temporary file, as decoders go back and forth."""
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise InputError(f"{path}: is a folder; name a file in it")
        if stat.S_ISREG(kind):
            return open(path, "rb")
        with open(path, "rb") as pipe:
            if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)) and path.resolve() != Path(os.devnull):
                raise InputError(f"{path}: is a device and no file; give a sound file or a pipe")
            spool = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it, which removes it
            shutil.copyfileobj(pipe, spool)
            return spool
    except FileNotFoundError:
        hint = "; the pipe is /dev/stdin" if str(path) == "-" else ""
        raise InputError(f"{path}: no such file; check the name{hint}") from None
    except PermissionError:
        raise InputError(f"{path}: not allowed to read it; change its permissions") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); copy it and try again") from None


class Source:
    """An open file that many small pieces are read of."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.size = file.seek(0, os.SEEK_END)
        self._first, self._window = 0, b""
        self.decoded = 0  #: up to where decoders have come

    def read(self, at: int, count: int) -> bytes:
        """`count` bytes from `at` on; fewer where the file ends."""
        if at < self._first or at + count > self._first + len(self._window):
            self._file.seek(at)
            self._first, self._window = at, self._file.read(max(count, _WINDOW))
        return self._window[at - self._first : at - self._first + count]

    def find(self, pattern: bytes, at: int) -> int:
        """Where `pattern` begins next, at `at` or later; -1 where it does not."""
        while at < self.size:
            window = self.read(at, _WINDOW)
            found = window.find(pattern)
            if found >= 0:
                return at + found
            at += max(1, len(window) - len(pattern) + 1)
        return -1


@dataclass(frozen=True)
class Part:
    """What a decoder is to read as one file of its own."""

    pieces: Sequence[bytes | range]  #: bytes, and stretches of the file
    samples: int | None = None  #: of one channel, where the header gives a number to be checked once all is decoded
    is_endless: bool = False  #: say that it is much longer, to a decoder that would stop where it guesses the end
    resume: Callable[[int], tuple[int, Part] | None] | None = None
    """Told how many samples came before the data was damaged: the number of the next that can be had, and the rest."""


@dataclass
class Contents:
    """What a file holds, whatever its header says."""

    parts: list[Part]
    faults: list[str] = field(default_factory=list)  #: what is missing or damaged, as the middle of a sentence
    notes: list[str] = field(default_factory=list)  #: what is odd and no fault


class View:
    """A :class:`Part` as the file object that soundfile takes."""

    def __init__(self, source: Source, part: Part):
        self._source, self._pieces, self._at = source, [], 0
        self.error: OSError | None = None  # a callback of libsndfile's has nobody to raise it to
        end = 0
        for piece in part.pieces:
            self._pieces.append((end, end + len(piece), piece))
            end += len(piece)
        self._end = end
        self._size = 64 * end if part.is_endless else end  # mp3: 320 kbit/s are 40 times the least rate

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As that of files."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """As that of files."""
        return self._at

    def read(self, count: int) -> bytes:
        """As that of files."""
        if self._at >= self._end:  # libmpg123 looks for a tag in the last 128 bytes, and gives up if there are none
            tag = bytes(max(0, min(count, self._size - self._at))) if self._at >= self._size - 128 else b""
            self._at += len(tag)
            return tag
        found = []
        for first, last, piece in self._pieces:
            if count and first <= self._at < last:
                part = slice(self._at - first, min(self._at - first + count, last - first))
                found.append(piece[part] if isinstance(piece, bytes) else self._stretch(piece[part]))
                self._at += part.stop - part.start
                count -= part.stop - part.start
        return b"".join(found)

    def _stretch(self, where: range) -> bytes:
        self._source.decoded = where.stop
        try:
            return self._source.read(where.start, len(where))
        except OSError as error:
            self.error = error
            return b""
