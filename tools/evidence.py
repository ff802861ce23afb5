"""Make everything under results/ that comes from the shipped weights: what is missing, or older than its weights.

    python tools/evidence.py PAIRS MANIFEST            or  make evidence PAIRS=... MANIFEST=...
    python tools/evidence.py PAIRS MANIFEST --dry      only say what would be done, and why

PAIRS is the folder of the test set, MANIFEST that of the training data, whose validation split some measurements use.
What a file was made from stands in results/evidence.json: the command and a hash of each of its sources. A file whose
command or sources have changed is made again; pictures and tables follow the files that they show.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dsn_lite.evaluation import POLICIES
from dsn_lite.evaluation.provenance import write_json
from dsn_lite.network.weights import WEIGHTS, cards
from dsn_lite.zoo import DEFAULT, load

ROOT = Path(__file__).resolve().parent.parent
BUDGETS = (0.25, 0.7)
TARGETS = (0.1, 0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Job:
    """A file under results/, the command that writes it, and what it is made from."""

    file: str
    command: tuple[str, ...]
    """Of `dsn-lite`, or a script of tools/ and its arguments."""
    sources: tuple[Path, ...]

    def state(self) -> dict:
        """What it would be made from now: its command and hashes of its sources."""
        return {"command": " ".join(self.command), "sources": {path.name: digest(path) for path in self.sources}}

    def line(self) -> list[str]:
        """The command line."""
        if self.command[0].endswith(".py"):
            return [sys.executable, str(ROOT / "tools" / self.command[0]), *self.command[1:]]
        return [sys.executable, "-m", "dsn_lite", *self.command]


def digest(path: Path) -> str:
    """Hash of a file, or of the names in a folder; empty where there is none."""
    if path.is_dir():
        return hashlib.sha256("\n".join(sorted(item.name for item in path.rglob("*"))).encode()).hexdigest()[:16]
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else ""


def jobs(pairs: Path, manifest: Path, results: Path) -> list[Job]:
    """Everything there is to make, measurements before the pictures and tables that show them."""
    kinds = {card["name"]: card.get("kind", "enhancer") for card in cards()}
    weights = {name: WEIGHTS / f"{name}.safetensors" for name in kinds}
    enhancers = [name for name, kind in kinds.items() if kind == "enhancer"]
    made: list[Job] = []

    def evaluate(name: str, ending: str = "", *options: str) -> None:
        file = f"test-{name}{ending}.json"
        command = ("evaluate", str(pairs), "--model", name, *options, "--json", str(results / file))
        made.append(Job(file, command, (weights[name], pairs)))

    for name in enhancers:
        evaluate(name)
    if DEFAULT in enhancers:
        for policy in list(POLICIES)[1:]:
            evaluate(DEFAULT, f"-{policy}", "--policy", policy)
        for budget in BUDGETS:
            evaluate(DEFAULT, f"-budget-{budget:g}", "--budget", f"{budget:g}")
        made += _of_the_default(weights[DEFAULT], pairs, results)
    for name in (name for name, kind in kinds.items() if kind == "slim-demucs"):
        for width in load(name).widths:
            evaluate(name, f"-width-{width:g}", "--width", f"{width:g}")
        for target in TARGETS:
            evaluate(name, f"-budget-{target:g}", "--budget", f"{target:g}")
        files = tuple(results / job.file for job in made if job.file.startswith(f"test-{name}-"))
        made.append(Job("slim-demucs.json", ("demucs.py",), files))
        seams = ("seams.py", str(manifest), name, "--json", str(results / "seams.json"))
        made.append(Job("seams.json", seams, (weights[name], manifest)))
    for name in (name for name, kind in kinds.items() if kind == "separator"):
        out = ("--json", str(results / "separation.json"), "--picture", str(results / "separation.png"))
        made.append(Job("separation.json", ("separation.py", str(pairs), "--model", name, *out), (weights[name], pairs)))
    scores = tuple(results / job.file for job in made if job.file.startswith("test-"))
    made.append(Job("pareto.png", ("pareto.py",), (*scores, results / "peers.csv")))
    made.append(Job("../README.md", ("tables.py",), tuple(sorted({results / job.file for job in made[:-1]}))))
    return made


def _of_the_default(weights: Path, pairs: Path, results: Path) -> Iterable[Job]:
    """What is measured of the default network alone."""
    bench = ("bench", "--json", str(results / "bench.json"), "--picture", str(results / "bench.png"))
    yield Job("bench.json", bench, (weights,))
    on_pairs = ("--engines", "kernel", "--seconds", "30", "--passes", "11", "--recordings")
    noisy = sorted(str(path) for path in (pairs / "noisy").glob("*"))
    yield Job("bench-test.json", ("bench", *on_pairs, *noisy, "--json", str(results / "bench-test.json")), (weights, pairs))
    out = str(results / "meaning.json")
    yield Job("meaning.json", ("meaning.py", str(pairs), DEFAULT, "--json", out), (weights, pairs))


def stale(made: list[Job], results: Path, record: dict) -> list[Job]:
    """Those that are missing or were made from something else, and those that are made from such."""
    again: list[Job] = []
    for job in made:
        waiting = {results / other.file for other in again}
        is_known = (results / job.file).exists() and record.get(job.file) == job.state()
        if not is_known or waiting.intersection(job.sources):
            again.append(job)
    return again


def main() -> int:
    """Make what is missing; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path, help="folder of the test set")
    parser.add_argument("manifest", type=Path, help="manifest of the training data")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="default: results/")
    parser.add_argument("--dry", action="store_true", help="only say what would be done")
    given = parser.parse_args()
    path = given.results / "evidence.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    todo = stale(jobs(given.pairs, given.manifest, given.results), given.results, record)
    for number, job in enumerate(todo, 1):
        why = "its sources or its command have changed" if (given.results / job.file).exists() else "missing"
        print(f"{number}/{len(todo)} {job.file} ({why}): {' '.join(job.command)[:160]}", flush=True)
        if given.dry:
            continue
        if subprocess.run(job.line(), cwd=ROOT, check=False).returncode:
            print(f"{job.file} was not made; mend that and run this again, it goes on here", file=sys.stderr)
            return 1
        record[job.file] = job.state()
        write_json(path, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
