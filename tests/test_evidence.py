"""`tools/evidence.py` makes what is missing or older than its weights, and nothing else."""

import importlib
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from dsn_lite.evaluation import read_runs
from dsn_lite.zoo import DEFAULT

ROOT = Path(__file__).parents[1]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The tool with networks of its own: two enhancers, a network of widths, a separator."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    tool = importlib.import_module("evidence")
    weights, results, pairs, streams = (tmp_path / name for name in ("weights", "results", "pairs", "streams"))
    for folder in (weights, results, pairs / "noisy", streams / "noisy", tmp_path / "book"):
        folder.mkdir(parents=True)
    kinds = {DEFAULT: "enhancer", "static": "enhancer", "slim-demucs": "slim-demucs", "separator": "separator"}
    for name in kinds:
        (weights / f"{name}.safetensors").write_text(name)
    (pairs / "noisy" / "a.wav").write_text("")
    (tmp_path / "manifest.csv").write_text("path")
    monkeypatch.setattr(tool, "WEIGHTS", weights)
    monkeypatch.setattr(tool, "cards", lambda: [{"name": name, "kind": kind} for name, kind in kinds.items()])
    monkeypatch.setattr(tool, "load", lambda name: SimpleNamespace(widths=(0.5, 1.0)))
    done: list[str] = []

    def run(line, cwd, check):
        done.append(" ".join(line[1:]))
        if "fails" in (weights / "static.safetensors").read_text() and "static" in line:
            return SimpleNamespace(returncode=2)
        for option in ("--json", "--picture"):
            if option in line:
                row = {"file": "a", "noisy": {"pesq": 1.0}}
                Path(line[line.index(option) + 1]).write_text(json.dumps({"per_file": [row]}))
        for script, file in (("demucs.py", "slim-demucs.json"), ("pareto.py", "pareto.png"),
                             ("tables.py", "../book/measured.md")):  # fmt: skip
            if line[-1].endswith(script):
                (results / file).write_text(script)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)

    def make(*options):
        monkeypatch.setattr("sys.argv", ["evidence.py", str(pairs), str(streams), str(tmp_path / "manifest.csv"),
                                         "--results", str(results), *options])  # fmt: skip
        done.clear()
        return tool.main(), list(done)

    return SimpleNamespace(make=make, tool=tool, weights=weights, results=results)


def test_all_of_it_then_nothing_then_what_changed(place):
    status, done = place.make()
    assert status == 0 and done[-1].endswith("tables.py")
    assert {"static", DEFAULT, f"{DEFAULT}-frozen", f"{DEFAULT}-other", "slim-demucs-width-0.5"} <= set(
        read_runs(place.results / "test.jsonl"))
    assert f"{DEFAULT}-known" in read_runs(place.results / "streams.jsonl")
    there = {path.name for path in place.results.iterdir()}
    assert there >= {"bench.json", "meaning-test.json", "meaning-streams.json", "seams.json", "separation.json"}
    record = json.loads((place.results / "evidence.json").read_text())
    assert set(record) >= {"test.jsonl static", "pareto.png"} and str(place.results.parent) not in json.dumps(record)
    assert place.make() == (0, [])
    (place.weights / "static.safetensors").write_text("other")
    status, done = place.make()
    assert "--model static" in done[0] and "--model static" in done[1]  # on both sets
    assert len(done) == 4  # and what shows them: picture and tables
    (place.results / "seams.json").unlink()
    assert "seams.py" in place.make()[1][0]


def test_it_goes_on_where_it_failed(place, capsys):
    (place.weights / "static.safetensors").write_text("fails")
    status, done = place.make()
    assert status == 1 and "--model static" in done[-1] and "run this again" in capsys.readouterr().err
    (place.weights / "static.safetensors").write_text("works")
    status, again = place.make()
    assert status == 0 and "--model static" in again[0] and len(again) > len(done)


def test_dry_and_only(place, capsys):
    status, done = place.make("--dry")
    assert (status, done) == (0, []) and "test.jsonl static (missing)" in capsys.readouterr().out
    assert not (place.results / "evidence.json").exists()
    assert len(place.make("--only", "test.jsonl static")[1]) == 1


def test_tables_follow_what_was_made_without_them(place):
    place.make()
    (place.weights / "static.safetensors").write_text("other")
    assert len(place.make("--only", "jsonl static")[1]) == 2
    assert [line.split("/")[-1] for line in place.make()[1]] == ["pareto.py", "tables.py"]
    assert place.make() == (0, [])


def test_one_that_runs_beside_another_does_not_forget_what_that_made(place, monkeypatch):
    path = place.results / "evidence.json"

    def make(job, results):
        path.write_text(json.dumps({"made beside it": {}}))
        return True

    monkeypatch.setattr(place.tool.Job, "make", make)
    place.make("--only", "test.jsonl static")
    assert set(json.loads(path.read_text())) == {"made beside it", "test.jsonl static"}
