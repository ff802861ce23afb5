"""Make everything under results/ that comes from the shipped weights: what is missing, or older than its weights.

    python tools/evidence.py PAIRS STREAMS MANIFEST            or  make evidence PAIRS=... STREAMS=... MANIFEST=...
    python tools/evidence.py PAIRS STREAMS MANIFEST --dry      only say what would be done, and why
    python tools/evidence.py PAIRS STREAMS MANIFEST --only TEXT    only what has this text in its name

PAIRS and STREAMS are the folders of the test sets, MANIFEST that of the training data, whose validation split some
measurements use.
What a file was made from stands in results/evidence.json: the command and a hash of each of its sources. A file whose
command or sources have changed is made again; pictures and tables follow the files that they show.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dsn_lite.evaluation import POLICIES, read_runs, write_run
from dsn_lite.evaluation.provenance import command, write_json
from dsn_lite.network.weights import WEIGHTS, cards
from dsn_lite.zoo import DEFAULT, load

ROOT = Path(__file__).resolve().parent.parent
RATED = ("open", "closed")
"""Policies whose answers DNSMOS rates: it takes most of the time."""
BUDGETS = (0.2, 0.4, 0.6, 0.8)
TARGETS = (0.1, 0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Job:
    """A file under results/ or a run in a file of runs, the command that makes it, and what it is made from."""

    file: str
    """Name of the file; of a run ``SET.jsonl NAME``."""
    command: tuple[str, ...]
    """Of `dsn-lite`, or a script of tools/ and its arguments."""
    sources: tuple[Path | str, ...]
    """Files and folders, and the names of other jobs."""

    def state(self, record: dict) -> dict:
        """What it would be made from now: its command, hashes of its files, and one of what is known of the other jobs."""
        files = {source.name: digest(source) for source in self.sources if isinstance(source, Path)}
        others = [record.get(source) for source in self.sources if isinstance(source, str)]
        if others:
            files["others"] = hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()[:16]
        return {"command": command(["dsn-lite", *self.command]), "sources": files}

    def line(self) -> list[str]:
        """The command line."""
        if self.command[0].endswith(".py"):
            return [sys.executable, str(ROOT / "tools" / self.command[0]), *self.command[1:]]
        return [sys.executable, "-m", "dsn_lite", *self.command]

    def is_there(self, results: Path) -> bool:
        """Whether what it makes is there."""
        file, _, run = self.file.partition(" ")
        path = results / file
        return path.exists() and (not run or run in read_runs(path))

    def make(self, results: Path) -> bool:
        """Make it; False where the command failed. What evaluates writes to a file of its own, which is then taken in."""
        file, _, run = self.file.partition(" ")
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / "run.json"
            line = [*self.line(), "--json", str(written)] if run else self.line()
            if subprocess.run(line, cwd=ROOT, check=False).returncode:
                return False
            if run:
                write_run(results / file, run, json.loads(written.read_text()))
        return True


def digest(path: Path) -> str:
    """Hash of a file, or of the names in a folder; empty where there is none."""
    if path.is_dir():
        return hashlib.sha256("\n".join(sorted(item.name for item in path.rglob("*"))).encode()).hexdigest()[:16]
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else ""


def jobs(sets: dict[str, Path], manifest: Path, results: Path) -> list[Job]:
    """Everything there is to make, measurements before the pictures and tables that show them."""
    kinds = {card["name"]: card.get("kind", "enhancer") for card in cards()}
    weights = {name: WEIGHTS / f"{name}.safetensors" for name in kinds}
    enhancers = [name for name, kind in kinds.items() if kind == "enhancer"]
    made: list[Job] = []

    def evaluate(pairs: str, name: str, ending: str = "", *options: str) -> None:
        command = ("evaluate", str(sets[pairs]), "--model", name, *options)
        made.append(Job(f"{pairs}.jsonl {name}{ending}", command, (weights[name], sets[pairs])))

    for pairs in sets:
        for name in enhancers:
            evaluate(pairs, name)
        if DEFAULT in enhancers:
            for policy in (name for name in list(POLICIES)[1:] if pairs == "test" or name != "snr"):
                evaluate(pairs, DEFAULT, f"-{policy}", "--policy", policy, *([] if policy in RATED else ["--no-dnsmos"]))
            for budget in BUDGETS:
                evaluate(pairs, DEFAULT, f"-budget-{budget:g}", "--budget", f"{budget:g}", "--no-dnsmos")
    for name in (name for name, kind in kinds.items() if kind == "slim-demucs"):
        for width in load(name).widths:
            evaluate("test", name, f"-width-{width:g}", "--width", f"{width:g}")
        for target in TARGETS:
            evaluate("test", name, f"-budget-{target:g}", "--budget", f"{target:g}")
        files = tuple(job.file for job in made if job.file.startswith(f"test.jsonl {name}-"))
        made.append(Job("slim-demucs.json", ("demucs.py",), files))
        seams = ("seams.py", str(manifest), name, "--json", str(results / "seams.json"))
        made.append(Job("seams.json", seams, (weights[name], manifest)))
    for name in (name for name, kind in kinds.items() if kind == "separator"):
        out = ("--json", str(results / "separation.json"), "--picture", str(results / "separation.png"))
        command = ("separation.py", str(sets["test"]), "--model", name, *out)
        made.append(Job("separation.json", command, (weights[name], sets["test"])))
    scores = tuple(job.file for job in made if ".jsonl " in job.file)
    made += _of_the_default(weights.get(DEFAULT), sets, results)
    made.append(Job("pareto.png", ("pareto.py",), (*scores, results / "peers.csv")))
    made.append(Job("../book/measured.md", ("tables.py",), tuple(job.file for job in made)))
    return made


def _of_the_default(weights: Path | None, sets: dict[str, Path], results: Path) -> Iterable[Job]:
    """What is measured of the default network alone."""
    if weights is None:
        return
    bench = ("bench", "--json", str(results / "bench.json"), "--picture", str(results / "bench.png"))
    yield Job("bench.json", bench, (weights,))
    page = ("page_engine.py", DEFAULT, "--json", str(results / "page-engine.json"))
    yield Job("page-engine.json", page, (weights, *sorted((ROOT / "dsn_lite" / "widgets").glob("products.*"))))
    for pairs, folder in sets.items():
        out = str(results / f"meaning-{pairs}.json")
        yield Job(f"meaning-{pairs}.json", ("meaning.py", str(folder), DEFAULT, "--json", out), (weights, folder))


def read_record(path: Path) -> dict:
    """What is known of each file; empty where nothing is."""
    return json.loads(path.read_text()) if path.exists() else {}


def stale(made: list[Job], results: Path, record: dict) -> list[Job]:
    """Those that are missing or were made from something else, and those that are made from such."""
    again: list[Job] = []
    for job in made:
        waiting = {other.file for other in again}
        is_known = job.is_there(results) and record.get(job.file) == job.state(record)
        if not is_known or waiting.intersection(job.sources):
            again.append(job)
    return again


def main() -> int:
    """Make what is missing; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path, help="folder of the test set")
    parser.add_argument("streams", type=Path, help="folder of the streams")
    parser.add_argument("manifest", type=Path, help="manifest of the training data")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="default: results/")
    parser.add_argument("--only", default="", metavar="TEXT", help="only what has this text in its name")
    parser.add_argument("--dry", action="store_true", help="only say what would be done")
    given = parser.parse_args()
    path = given.results / "evidence.json"
    record = read_record(path)
    sets = {"test": given.pairs, "streams": given.streams}
    todo = stale(jobs(sets, given.manifest, given.results), given.results, record)
    todo = [job for job in todo if given.only in job.file]
    for number, job in enumerate(todo, 1):
        why = "its sources or its command have changed" if job.is_there(given.results) else "missing"
        print(f"{number}/{len(todo)} {job.file} ({why}): {' '.join(job.command)[:160]}", flush=True)
        if given.dry:
            continue
        if not job.make(given.results):
            print(f"{job.file} was not made; mend that and run this again, it goes on here", file=sys.stderr)
            return 1
        record = read_record(path)  # again: one for each of the sets may run beside this
        record[job.file] = job.state(record)
        write_json(path, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
