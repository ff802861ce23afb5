"""Pack the built book into one zip file that unpacks to one folder and reads offline.

    python tools/zip_book.py _build/html dsn-lite-book.zip

The same pages give the same bytes: entries are sorted and carry no date of today.
"""

import sys
import zipfile
from pathlib import Path


def pack(folder: Path, target: Path) -> int:
    """Write all files below `folder` into `target`, under a folder named like it; return how many."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".buildinfo")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in files:
            entry = zipfile.ZipInfo(f"{target.stem}/{path.relative_to(folder).as_posix()}", (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    return len(files)


if __name__ == "__main__":
    if len(sys.argv) != 3 or not Path(sys.argv[1]).is_dir():
        sys.exit(__doc__)
    count = pack(Path(sys.argv[1]), Path(sys.argv[2]))
    print(f"{sys.argv[2]}: {count} files, {Path(sys.argv[2]).stat().st_size / 1e6:.1f} MB")
