"""Where a table of results comes from: commit, command, machine, versions; no names of hosts, users or folders."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path


def provenance(packages: Sequence[str] = ()) -> dict:
    """What every file under ``results/`` states.

    Returns
    -------
    dict
        ``command``, ``commit``, ``date``, ``machine`` and ``versions`` (of Python, this package and ``packages``).

    Examples
    --------
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

    Examples
    --------
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
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        ).stdout

    try:
        # A package installed below somebody else's checkout is not part of it.
        git("ls-files", "--error-unmatch", "errors.py")
        changed = git("status", "--porcelain", "--untracked-files=no", ".").strip()
        return git("rev-parse", "HEAD").strip()[:12] + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def processor() -> str:
    """Model of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    if sys.platform == "darwin":
        answer = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        if answer.stdout.strip():
            return answer.stdout.strip()
    return platform.processor() or platform.machine()


def report(values: dict, path: Path | None = None) -> None:
    """Print a result as JSON, and write it to a file where one is named.

    Examples
    --------
    >>> report({"steps": 3})
    {
     "steps": 3
    }
    """
    text = json.dumps(values, indent=1)
    print(text)
    if path:
        path.write_text(text + "\n")


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Installed versions; None for a package that is not installed.

    Examples
    --------
    >>> versions(["no-such-package"])
    {'no-such-package': None}
    """

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    return {package: version(package) for package in packages}
