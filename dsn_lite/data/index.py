"""What the files of a cache hold, and by what a file is known again."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dsn_lite.audio.files import replacing

SETTLED = 2_000_000_000  # ns after its last change, when a file's times can be trusted


def stamp_of(path: Path) -> list | None:
    """By what a file is known again: where it lies, size, and the times of its last change; None where there is no file.

    What changed a moment ago may change once more within the same tick of the clock: then the times are left out.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    times = [found.st_mtime_ns, found.st_ctime_ns]  # the second one cannot be set, as copying sets the first
    return [str(path.absolute()), found.st_size, *(times if time.time_ns() - max(times) > SETTLED else [])]


@dataclass
class Index:
    """What the files of a cache hold.

    ``sounds`` has a row for each content that was ever decoded, by its SHA-1; ``files`` has stamp and SHA-1 of each row of
    the manifest, or None where there was nothing to use.
    """

    files: list[dict | None]
    sounds: dict[str, dict] = field(default_factory=dict)
    samples: int = 0
    frames: int = 0

    @classmethod
    def read(cls, folder: Path, rows: int) -> Index:
        """The index of a cache; an empty one where there is none, or less in its files than it says."""
        try:
            index = cls(**json.loads((folder / "index.json").read_text()))
            sizes = [(folder / name).stat().st_size for name in ("audio.i16", "envelope.u8")]
            if len(index.files) == rows and sizes[0] >= 2 * index.samples and sizes[1] >= index.frames:
                return index
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
            pass  # a disk that fails is another matter: nothing is made anew
        return cls([None] * rows)

    def write(self, folder: Path) -> None:
        """Replace the index."""
        with replacing(folder / "index.json") as temporary:
            temporary.write_text(json.dumps(asdict(self)))

    def stale(self, stamps: Sequence[list | None]) -> list[int]:
        """Rows of the manifest whose file has to be looked into: unknown, or not what it was. One that is gone stays."""
        return [
            i for i, (known, stamp) in enumerate(zip(self.files, stamps, strict=True))
            if stamp is not None and (known is None or known["stamp"] != stamp or len(stamp) < 4)
        ]  # fmt: skip
