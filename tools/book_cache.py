"""Forget the executed chapters when something they use has changed.

    python tools/book_cache.py _build/.jupyter_cache

Jupyter Book keeps an executed chapter under the text of its cells, and would show what an older package printed. So the
cache carries a hash of the package, the results and the pinned requirements, and is emptied when that changes.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
USED = ("dsn_lite", "results", "requirements.txt")


def package_hash(root: Path = ROOT) -> str:
    """SHA-256 of the names and the bytes of everything that a chapter may use."""
    digest = hashlib.sha256()
    for name in USED:
        for path in sorted([root / name, *(root / name).rglob("*")]):
            if path.is_file() and "__pycache__" not in path.parts:
                content = path.read_bytes()
                digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def refresh(cache: Path, wanted: str) -> bool:
    """Empty the cache unless it was made with this hash; whether it was emptied."""
    stamp = cache / "package.sha256"
    if stamp.exists() and stamp.read_text() == wanted:
        return False
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(parents=True)
    stamp.write_text(wanted)
    return True


if __name__ == "__main__":
    print("chapters run anew" if refresh(Path(sys.argv[1]), package_hash()) else "chapters that did not change are kept")
