"""Where a table of results comes from: commit, command, machine, versions; no names of hosts, users or folders."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from dsn_lite.audio.files import replacing


def provenance(packages: Sequence[str] = ()) -> dict:
    """What every file under ``results/`` states; ``versions`` are of Python, this package and `packages`.

    >>> sorted(provenance())
    ['command', 'commit', 'date', 'machine', 'versions']
    """
    return {
        "command": command(sys.argv),
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": {"processor": processor(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), **versions(("dsn-lite", *packages))},
    }


def command(arguments: Sequence[str]) -> str:
    """A command line as one would type it; of absolute paths only the last name is kept.

    >>> command(["/usr/bin/dsn-lite", "evaluate", "/data/pairs", "--json=/tmp/a.json", "-j", "2"])
    'dsn-lite evaluate pairs --json=a.json -j 2'
    """

    def last_name(argument: str) -> str:
        option, equals, value = argument.rpartition("=")
        return option + equals + (Path(value).name if os.path.isabs(value) else value)

    program = Path(arguments[0]).name
    return " ".join(["dsn-lite" if program == "__main__.py" else program, *map(last_name, arguments[1:])])


def commit() -> str | None:
    """Commit of the checkout the package runs from, with ``+`` where files differ from it; None outside a checkout."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).resolve().parent.parent  # the package
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout

    try:
        # A package installed below somebody else's checkout is not part of it.
        git("ls-files", "--error-unmatch", "errors.py")
        changed = git("status", "--porcelain", "--untracked-files=no", ".").strip()
        return git("rev-parse", "HEAD").strip()[:12] + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def processor() -> str:
    """Model of the processor."""
    name = ""
    if sys.platform == "darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        name = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    with suppress(OSError):
        named = re.search(r"^model name\s*: *(.*\S)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        name = named[1] if named else name
    return name or platform.processor() or platform.machine()


def json_text(values: Any, indent: int = 0) -> str:
    """JSON to read and to compare line by line: what is short on one line, and of a list one item a line.

    >>> print(json_text({"steps": 3, "per_file": [{"file": "a", "pesq": 1.5}, {"file": "b" * 90, "pesq": 2.5}]}))
    {
     "steps": 3,
     "per_file": [
      {"file": "a", "pesq": 1.5},
      {"file": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "pesq": 2.5}
     ]
    }
    """
    short = json.dumps(values, allow_nan=False)
    if len(short) + indent <= 110 or not isinstance(values, (dict, list, tuple)):
        return short
    if isinstance(values, dict):
        items = [f"{json.dumps(str(key))}: {json_text(value, indent + 1)}" for key, value in values.items()]
    else:
        items = [json.dumps(value, allow_nan=False) for value in values]
    margin = "\n" + " " * (indent + 1)
    return short[0] + margin + f",{margin}".join(items) + "\n" + " " * indent + short[-1]


def write_json(path: str | os.PathLike, values: Any) -> None:
    """Write values as :func:`json_text`, under another name first and then renamed."""
    text = json_text(values) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def report(values: dict, path: Path | None = None) -> None:
    """Print a result as JSON, and write it to a file where one is named.

    >>> report({"steps": 3})
    {"steps": 3}
    """
    print(json_text(values))
    if path:
        write_json(path, values)


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Installed versions; None for a package that is not installed.

    >>> versions(["no-such-package"])
    {'no-such-package': None}
    """

    found: dict[str, str | None] = dict.fromkeys(packages)
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
