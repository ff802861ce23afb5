"""A corpus is a manifest: one row a file, saying what it is and whether it trains, validates or tests."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsn_lite import audio
from dsn_lite.errors import InputError

COLUMNS = ("path", "kind", "split", "source", "speaker", "language", "seconds", "licence")
KINDS = ("speech", "noise", "rir")
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Entry:
    """One file of a corpus."""

    path: str  #: as written in the manifest, relative to its folder or absolute
    kind: str  #: speech, noise or rir
    split: str = "train"  #: train, valid or test
    source: str = ""  #: the data set
    speaker: str = ""  #: of a noise its class
    language: str = ""
    seconds: float = 0.0
    licence: str = ""
    root: str = ""  #: folder that `path` is relative to

    @property
    def file(self) -> Path:
        """The file itself."""
        return Path(self.root) / self.path


def read_manifest(path: str | Path) -> list[Entry]:
    """Read a manifest (CSV with the columns ``COLUMNS``; only ``path`` and ``kind`` must be filled)."""
    path = Path(path)
    cure = f"write one with: dsn-lite corpus DIR -o {path}"
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:  # spreadsheets put a byte-order mark first
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error}); {cure}") from None
    if not rows or not {"path", "kind"} <= set(rows[0]):
        raise InputError(f"{path}: no rows or no columns path and kind; {cure}")
    root = str(path.resolve().parent)
    return [_entry(row, root, f"{path}: line {number}") for number, row in enumerate(rows, start=2)]


def _entry(row: dict[str, str], root: str, where: str) -> Entry:
    """The entry of a row that stands at `where`."""
    kind, split = row["kind"], row.get("split") or "train"
    if not row["path"] or kind not in KINDS or split not in SPLITS:
        raise InputError(f"{where}: needs a path, a kind of {KINDS} and a split of {SPLITS}")
    try:
        seconds = float(row.get("seconds") or 0)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InputError(f"{where}: seconds is {row['seconds']!r}; write a number, 0 or more")
    texts = {name: row.get(name) or "" for name in ("source", "speaker", "language", "licence")}
    return Entry(row["path"], kind, split, seconds=seconds, root=root, **texts)


def write_manifest(entries: Sequence[Entry], path: str | Path) -> None:
    """Write a manifest, whole or not at all; files below its folder get relative paths, others absolute."""
    folder = Path(path).resolve().parent
    with audio.replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for entry in entries:
            file = entry.file.absolute()
            name = file.relative_to(folder) if file.is_relative_to(folder) else file
            row = {column: getattr(entry, column) for column in COLUMNS}
            writer.writerow({**row, "path": name.as_posix(), "seconds": f"{entry.seconds:g}"})
