"""Every file of a corpus decoded once into one memory-mapped file of 16-bit samples.

Decoding Ogg or FLAC for each mixture would cost more than mixing it. So the first use of a corpus decodes
every file to 16 kHz mono, scales it to its own peak (nothing clips) and appends it to one file; later uses
map that file. The cache lies in a folder named by a hash of the manifest. It is built under a temporary name,
under a lock, and renamed when complete: a killed build leaves nothing that could be taken for a finished one,
and of several processes one builds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from dsn_lite import audio
from dsn_lite.data.manifest import Entry
from dsn_lite.errors import InputError

SAMPLE_RATE = 16000
FRAME = 320  # samples, 20 ms: the grain of the stored envelope
SILENT = 1e-4  # a file whose peak stays below this holds nothing to learn from
_MP3 = threading.Lock()  # reading an mp3 redirects the process's standard error for a moment: one at a time
ACTIVE_DB = 40  # a frame is active when its level is at most this far below the loudest frame


def default_folder() -> Path:
    """Where caches go: the environment variable ``DSN_LITE_CACHE`` or ``~/.cache/dsn_lite``."""
    return Path(os.environ.get("DSN_LITE_CACHE") or Path.home() / ".cache" / "dsn_lite")


def manifest_hash(entries: Iterable[Entry]) -> str:
    """SHA-1 of the rows of a manifest as written: the same on every machine that holds the same manifest."""
    rows = [
        [e.path, e.kind, e.split, e.source, e.speaker, e.language, f"{e.seconds:.3f}", e.licence]
        for e in entries
    ]
    return hashlib.sha1(json.dumps(rows).encode()).hexdigest()


def progress(items: Iterable, total: int, text: str) -> Iterable:
    """A tqdm bar on standard error; none without tqdm or where standard error is no terminal."""
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    return tqdm(items, total=total, desc=text, leave=False, mininterval=1.0, disable=None)


def say(line: str) -> None:
    """Print a line on standard error, above a progress bar if there is one."""
    try:
        from tqdm import tqdm
    except ImportError:
        print(line, file=sys.stderr)
    else:
        tqdm.write(line, file=sys.stderr)


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; a killed holder frees it. Where ``fcntl`` is missing, no lock.

    Raises
    ------
    InputError
        Where the cache folder cannot be written or the disk is full.
    """
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
    with _MP3 if path.suffix.lower() == ".mp3" else contextlib.nullcontext():
        sound = audio.read(path)
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


def _encode(path: Path) -> tuple[np.ndarray, np.ndarray, dict] | str:
    """One file as (int16 samples, envelope, index row), or the line that says why not."""
    try:
        wave = decode(path)
    except InputError as error:
        return str(error)
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
    """The decoded files of a corpus.

    Parameters
    ----------
    entries : sequence of Entry
        Rows of the manifest; file ``i`` of the cache is row ``i``.
    folder : path, optional
        Where caches are kept, see :func:`default_folder`.
    workers : int
        Decoding threads of the first build.

    Attributes
    ----------
    length, begin, end : int64 [files]
        Samples of the file, and of its part between the first and last active frame. Length 0: left out.
    level : float64 [files]
        RMS over the active frames (20 ms, at most 40 dB below the loudest).
    left_out : list of str
        One line for each file that could not be used.
    """

    def __init__(
        self, entries: Sequence[Entry], folder: str | Path | None = None, *, workers: int = 2
    ) -> None:
        root = Path(folder) if folder else default_folder()
        self.hash = manifest_hash(entries)
        self.folder = root / f"audio-{self.hash[:16]}"
        if not (self.folder / "index.json").exists():
            with lock(root / f"audio-{self.hash[:16]}.lock"):
                if not (self.folder / "index.json").exists():
                    self._build(entries, workers)
        index = json.loads((self.folder / "index.json").read_text())
        self.left_out: list[str] = index["left_out"]
        columns = index["columns"]
        self.length, self.begin, self.end, self._offset, self._frame = (
            np.array(columns[name], dtype=np.int64) for name in ("length", "begin", "end", "offset", "frame")
        )
        self.level, self._scale = (np.array(columns[name]) for name in ("level", "scale"))
        self._envelope = np.fromfile(self.folder / "envelope.u8", dtype=np.uint8)
        self._map: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.length)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_map": None}  # a data-loader worker maps the file anew

    def read(self, i: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """Samples ``start`` to ``start + length`` of file ``i``, float32 [length] (zeros beyond its end)."""
        if self._map is None:
            self._map = np.memmap(self.folder / "audio.i16", dtype=np.int16, mode="r")
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

    def _build(self, entries: Sequence[Entry], workers: int) -> None:
        partial = self.folder.with_name(self.folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)  # what a killed build left
        partial.mkdir(parents=True)
        try:
            self._fill(partial, entries, workers)
            shutil.rmtree(self.folder, ignore_errors=True)
            os.replace(partial, self.folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @staticmethod
    def _fill(partial: Path, entries: Sequence[Entry], workers: int) -> None:
        names = ("length", "scale", "begin", "end", "level", "offset", "frame")
        columns: dict[str, list] = {name: [] for name in names}
        left_out: list[str] = []
        offset = frame = 0
        files = [entry.file for entry in entries]
        with (
            open(partial / "audio.i16", "wb") as audio_file,
            open(partial / "envelope.u8", "wb") as env_file,
            ThreadPoolExecutor(workers) as pool,
        ):
            # in blocks, so that a large corpus does not pile up in memory
            blocks = (files[k : k + 64] for k in range(0, len(files), 64))
            results = (result for block in blocks for result in pool.map(_encode, block))
            for result in progress(results, len(files), "decoding"):
                row = {"length": 0, "scale": 0.0, "begin": 0, "end": 0, "level": 0.0}
                if isinstance(result, str):
                    left_out.append(result)
                    say(f"left out: {result}")
                    samples, env = np.zeros(0, np.int16), np.zeros(0, np.uint8)
                else:
                    samples, env, row = result
                for name, value in {**row, "offset": offset, "frame": frame}.items():
                    columns[name].append(value)
                samples.tofile(audio_file)
                env.tofile(env_file)
                offset, frame = offset + samples.size, frame + env.size
        if not offset:
            raise InputError("no file of the manifest could be decoded; check the paths in it")
        (partial / "index.json").write_text(json.dumps({"columns": columns, "left_out": left_out}))
