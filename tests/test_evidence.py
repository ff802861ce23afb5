"""`tools/evidence.py` makes what is missing or older than its weights, and nothing else."""

import importlib
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The tool with networks of its own: two enhancers, a network of widths, a separator."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    tool = importlib.import_module("evidence")
    weights, results, pairs = (tmp_path / name for name in ("weights", "results", "pairs"))
    for folder in (weights, results, pairs / "noisy"):
        folder.mkdir(parents=True)
    kinds = {"mgt-dsn": "enhancer", "static": "enhancer", "slim-demucs": "slim-demucs", "separator": "separator"}
    for name in kinds:
        (weights / f"{name}.safetensors").write_text(name)
    (pairs / "noisy" / "a.wav").write_text("")
    (tmp_path / "manifest.csv").write_text("path")
    monkeypatch.setattr(tool, "WEIGHTS", weights)
    monkeypatch.setattr(tool, "cards", lambda: [{"name": name, "kind": kind} for name, kind in kinds.items()])
    monkeypatch.setattr(tool, "load", lambda name: SimpleNamespace(widths=(0.5, 1.0)))
    done: list[str] = []

    def run(line, cwd, check):
        done.append(line[-1] if "--json" not in line else Path(line[line.index("--json") + 1]).name)
        if "fails" in (weights / "static.safetensors").read_text() and "static" in line:
            return SimpleNamespace(returncode=2)
        for option in ("--json", "--picture"):
            if option in line:
                Path(line[line.index(option) + 1]).write_text("{}")
        for script, file in (("demucs.py", "slim-demucs.json"), ("pareto.py", "pareto.png"), ("tables.py", "../README.md")):
            if line[-1].endswith(script):
                (results / file).write_text(script)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)

    def make(*options):
        monkeypatch.setattr("sys.argv", ["evidence.py", str(pairs), str(tmp_path / "manifest.csv"),
                                         "--results", str(results), *options])  # fmt: skip
        done.clear()
        return tool.main(), list(done)

    return SimpleNamespace(make=make, weights=weights, results=results)


def test_all_of_it_then_nothing_then_what_changed(place):
    status, done = place.make()
    assert status == 0 and {"test-static.json", "test-mgt-dsn-frozen.json", "test-slim-demucs-width-0.5.json"} <= set(done)
    assert {"bench.json", "meaning.json", "seams.json", "separation.json"} <= set(done) and done[-1].endswith("tables.py")
    assert set(json.loads((place.results / "evidence.json").read_text())) >= {"test-static.json", "pareto.png"}
    assert place.make() == (0, [])
    (place.weights / "static.safetensors").write_text("other")
    status, done = place.make()
    assert done[0] == "test-static.json" and len(done) == 3  # and what shows it: picture and tables
    (place.results / "seams.json").unlink()
    assert place.make()[1][0] == "seams.json"


def test_it_goes_on_where_it_failed(place, capsys):
    (place.weights / "static.safetensors").write_text("fails")
    status, done = place.make()
    assert status == 1 and done[-1] == "test-static.json" and "run this again" in capsys.readouterr().err
    (place.weights / "static.safetensors").write_text("works")
    status, again = place.make()
    assert status == 0 and again[0] == "test-static.json" and not set(done[:-1]) & set(again)


def test_dry(place, capsys):
    status, done = place.make("--dry")
    assert (status, done) == (0, []) and "test-static.json (missing)" in capsys.readouterr().out
    assert not (place.results / "evidence.json").exists()
