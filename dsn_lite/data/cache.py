"""Every file of a corpus decoded once into one memory-mapped file of 16-bit samples.

Decoding Ogg or FLAC for each mixture would cost more than mixing it. So the first use of a corpus decodes
every file to 16 kHz mono, scales it to its own peak (nothing clips) and appends it to one file; later uses
map that file. The cache lies in a folder named by a hash of the manifest.

Samples are kept by the SHA-1 of the file that they came from. A file whose place, size and times of change are
those of last time is taken to be the same; any other is hashed, and decoded where its content is new. So a
replaced file is read again, a corpus that was moved or copied is not, and what is missing is looked for each time.
Samples are only ever added behind those that the index names, and then the index is replaced: who works with
an older index goes on undisturbed, and a killed build loses one block. Of several processes one decodes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from dsn_lite import audio
from dsn_lite.data.index import Index, stamp_of
from dsn_lite.data.manifest import Entry
from dsn_lite.errors import InputError

SAMPLE_RATE = 16000
FRAME = 320  # samples, 20 ms: the grain of the stored envelope
SILENT = 1e-4  # a file whose peak stays below this holds nothing to learn from
BLOCK = 64  # files between two states of the index: a large corpus does not pile up in memory
LAYOUT = "audio2"  # raise when what a cache holds, or how it is decoded, changes
_NOTHING = {"length": 0, "scale": 0.0, "begin": 0, "end": 0, "level": 0.0, "offset": 0, "frame": 0}
ACTIVE_DB = 40  # a frame is active when its level is at most this far below the loudest frame


def default_folder() -> Path:
    """Where caches go: the environment variable ``DSN_LITE_CACHE`` or ``~/.cache/dsn_lite``."""
    return Path(os.environ.get("DSN_LITE_CACHE") or Path.home() / ".cache" / "dsn_lite")


def manifest_hash(entries: Iterable[Entry]) -> str:
    """SHA-1 of the rows of a manifest as written: the same on every machine that holds the same manifest."""
    rows = [[e.path, e.kind, e.split, e.source, e.speaker, e.language, f"{e.seconds:.3f}", e.licence] for e in entries]
    return hashlib.sha1(json.dumps(rows).encode()).hexdigest()


def progress(items: Iterable, total: int, text: str) -> Iterable:
    """A tqdm bar on standard error; none where standard error is no terminal."""
    return tqdm(items, total=total, desc=text, leave=False, mininterval=1.0, disable=None)


def say(line: str) -> None:
    """Print a line on standard error, above a progress bar if there is one."""
    tqdm.write(line, file=sys.stderr)


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; a killed holder frees it. Where ``fcntl`` is missing, no lock."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as handle:
            with contextlib.suppress(ImportError):
                import fcntl

                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise InputError(
            f"{path.parent}: the cache cannot be written ({error.strerror or error}); "
            "free space there or name another folder in DSN_LITE_CACHE"
        ) from error


def decode(path: Path) -> np.ndarray:
    """Read a file as 16 kHz mono (mean of the channels), float32 [samples]; InputError names the cure."""
    sound = audio.read(path, strict=True)
    wave = audio.resample(audio.to_mono(sound.wave), sound.sample_rate, SAMPLE_RATE)
    if wave.size < FRAME or np.abs(wave).max() < SILENT:
        raise InputError(f"{path}: empty or silent; remove it")
    return wave


def envelope(wave: np.ndarray) -> np.ndarray:
    """Level of each 20 ms frame as whole dB below the loudest frame, uint8 [frames] (0 is the loudest)."""
    frames = wave[: wave.size // FRAME * FRAME].reshape(-1, FRAME)
    energy = np.einsum("tn,tn->t", frames, frames)
    decibels = 10 * np.log10(np.maximum(energy, 1e-20) / max(float(energy.max()), 1e-20))
    return np.clip(np.round(-decibels), 0, 255).astype(np.uint8)


def _encode(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict]:
    """A wave [samples] as int16 samples, envelope, and what the index holds of it."""
    scale = float(np.abs(wave).max()) / 32767
    env = envelope(wave)
    active = np.flatnonzero(env <= ACTIVE_DB)
    frames = wave[: env.size * FRAME].reshape(-1, FRAME)[active]
    row = {
        "length": int(wave.size),
        "scale": scale,
        "begin": int(active[0] * FRAME),
        "end": int(min((active[-1] + 1) * FRAME, wave.size)),
        "level": float(np.sqrt(np.mean(frames.astype(np.float64) ** 2))),
    }
    return np.round(wave / scale).astype(np.int16), env, row


class AudioCache:
    """The decoded files of a corpus; file ``i`` is row ``i`` of its manifest, `entries`.

    `folder` is where caches are kept (see :func:`default_folder`), `workers` the number of threads that decode.
    """

    def __init__(self, entries: Sequence[Entry], folder: str | Path | None = None, *, workers: int = 2) -> None:
        root = Path(folder) if folder else default_folder()
        self.hash = manifest_hash(entries)
        self.folder = root / f"{LAYOUT}-{self.hash[:16]}"
        stamps = [stamp_of(entry.file) for entry in entries]
        index, reasons = Index.read(self.folder, len(entries)), {}
        if index.stale(stamps):
            with lock(root / f"{self.folder.name}.lock"):
                index = Index.read(self.folder, len(entries))
                reasons = self._update(index, entries, stamps, workers)
        #: one line for each file that could not be used
        self.left_out = self._name_missing(index, entries, stamps, reasons)
        rows = [index.sounds[known["sha1"]] if known else _NOTHING for known in index.files]
        if not any(row["length"] for row in rows):
            first = f" ({self.left_out[0]})" if self.left_out else ""
            raise InputError(f"no file of the manifest could be decoded{first}; check the paths in it")
        hashes = "|".join(known["sha1"] if known else "" for known in index.files)
        #: SHA-1 over what the files hold, the same wherever they lie and whenever they were written
        self.contents = hashlib.sha1(hashes.encode()).hexdigest()
        #: samples of each file, 0 where it is left out, and of the part from its first to its last active frame
        self.length, self.begin, self.end, self._offset, self._frame = (
            np.array([row[name] for row in rows], dtype=np.int64)
            for name in ("length", "begin", "end", "offset", "frame")
        )
        #: RMS of each file over its active frames (20 ms, at most 40 dB below the loudest)
        self.level, self._scale = (np.array([row[name] for row in rows]) for name in ("level", "scale"))
        self._envelope = np.fromfile(self.folder / "envelope.u8", dtype=np.uint8, count=index.frames)
        self._map: np.ndarray | None = None

    @staticmethod
    def _name_missing(
        index: Index, entries: Sequence[Entry], stamps: Sequence[list | None], reasons: dict[int, str]
    ) -> list[str]:
        """Say which files are not used and which are not there any more; returns the lines of the first kind."""
        left_out = []
        for i, (entry, known) in enumerate(zip(entries, index.files, strict=True)):
            if known is None:
                missing = f"{entry.file}: no such file; put it back or take its row out of the manifest"
                left_out.append(reasons.get(i, missing))
                say(f"left out: {left_out[-1]}")
            elif stamps[i] is None:
                say(f"{entry.file}: not there any more; what was decoded of it before is used")
        return left_out

    def __len__(self) -> int:
        return len(self.length)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_map": None}  # a data-loader worker maps the file anew

    def read(self, i: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """Samples ``start`` to ``start + length`` of file ``i``, float32 [length] (zeros beyond its end)."""
        if self._map is None:
            try:
                self._map = np.memmap(self.folder / "audio.i16", dtype=np.int16, mode="r")
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{self.folder}: the cache cannot be read ({error}); it is made anew next time"
                ) from None
        length = int(self.length[i]) - start if length is None else length
        stop = min(start + length, int(self.length[i]))
        out = np.zeros(length, dtype=np.float32)
        if stop > start:
            offset = int(self._offset[i])
            coded = self._map[offset + start : offset + stop]
            np.multiply(coded, np.float32(self._scale[i]), out=out[: stop - start])
        return out

    def active(self, i: int, start: int, length: int) -> float:
        """Share of the 20 ms frames of that stretch that are active, 0 to 1."""
        first, last = int(self._frame[i]), int(self._frame[i]) + int(self.length[i]) // FRAME
        stretch = self._envelope[first + start // FRAME : min(first + -(-(start + length) // FRAME), last)]
        return float(np.mean(stretch <= ACTIVE_DB)) if stretch.size else 0.0

    def _update(
        self, index: Index, entries: Sequence[Entry], stamps: Sequence[list | None], workers: int
    ) -> dict[int, str]:
        """Bring an index up to date; returns by row why a file cannot be used. The lock is held."""
        self.folder.mkdir(parents=True, exist_ok=True)
        todo, reasons = index.stale(stamps), {}

        def look(i: int) -> tuple[str, tuple | None] | InputError:
            file = entries[i].file
            try:
                with open(file, "rb") as handle:
                    sha1 = hashlib.file_digest(handle, "sha1").hexdigest()
                return sha1, None if sha1 in index.sounds else _encode(decode(file))
            except OSError as error:
                return InputError(f"{file}: cannot be read ({error.strerror or error}); it is tried again next time")
            except InputError as error:
                return error

        with (
            _appending(self.folder / "audio.i16", 2 * index.samples) as audio_file,
            _appending(self.folder / "envelope.u8", index.frames) as env_file,
            ThreadPoolExecutor(workers) as pool,
            tqdm(total=len(todo), desc="decoding", leave=False, mininterval=1.0, disable=None) as bar,
        ):
            for block in (todo[k : k + BLOCK] for k in range(0, len(todo), BLOCK)):
                for i, found in zip(block, pool.map(look, block), strict=True):
                    bar.update()
                    if isinstance(found, InputError):
                        index.files[i], reasons[i] = None, str(found)
                        continue
                    sha1, encoded = found
                    if encoded and sha1 not in index.sounds:
                        samples, env, row = encoded
                        audio_file.write(samples.tobytes())
                        env_file.write(env.tobytes())
                        index.sounds[sha1] = {**row, "offset": index.samples, "frame": index.frames}
                        index.samples, index.frames = index.samples + samples.size, index.frames + env.size
                    index.files[i] = {"stamp": stamps[i], "sha1": sha1}
                for file in (audio_file, env_file):
                    file.flush()
                    os.fsync(file.fileno())
                index.write(self.folder)
        return reasons


@contextlib.contextmanager
def _appending(path: Path, size: int) -> Iterator[BinaryIO]:
    """Write behind the first `size` bytes of a file; what lies behind them is of a build that was killed."""
    if not size:
        path.unlink(missing_ok=True)  # another process may still read what was there
    with open(path, "ab") as file:
        file.truncate(size)
        yield file
