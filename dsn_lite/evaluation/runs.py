"""Evaluations of many networks and policies on one set of pairs, kept in one file: a line of JSON for each run.

Scores of each file stand in columns, and those of the noisy input once, in the line ``noisy``.
"""

from __future__ import annotations

import json
from pathlib import Path

from dsn_lite.audio.files import replacing
from dsn_lite.evaluation.statistics import METRICS

NOISY = "noisy"


def write_run(path: str | Path, name: str, values: dict) -> None:
    """Put an evaluation (what ``evaluate`` returns) into a file of runs, in place of one of that name.

    >>> import tempfile
    >>> rows = [{"file": "a", "pesq": 1.5, "noisy": {"pesq": 1.1}}, {"file": "b", "pesq": 2.5, "noisy": {"pesq": 1.4}}]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_run(Path(folder) / "test.jsonl", "dsn", {"pesq": 2.0, "per_file": rows})
    ...     read_runs(Path(folder) / "test.jsonl")["dsn"]["per_file"] == rows
    True
    """
    path = Path(path)
    lines = _lines(path) if path.exists() else {}
    rows = values["per_file"]
    lines[name] = {**values, "per_file": _columns([{k: v for k, v in row.items() if k != NOISY} for row in rows])}
    inputs = {row["file"]: row for row in _rows(lines.get(NOISY, {}).get("per_file", {}))}
    for row in rows:  # what was left out this time may be known from a run before
        known = {key: value for key, value in row[NOISY].items() if value is not None}
        inputs[row["file"]] = {"file": row["file"], **row[NOISY], **inputs.get(row["file"], {}), **known}
    lines[NOISY] = {"per_file": _columns([inputs[file] for file in sorted(inputs)])}
    text = "".join(json.dumps({"run": run, **lines[run]}, allow_nan=False) + "\n" for run in sorted(lines))
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_runs(path: str | Path) -> dict[str, dict]:
    """The evaluations in a file of runs by name, each as it was written."""
    lines = _lines(Path(path))
    noisy = {row.pop("file"): row for row in _rows(lines.pop(NOISY)["per_file"])}
    for values in lines.values():
        values["per_file"] = [{**row, NOISY: noisy[row["file"]]} for row in _rows(values["per_file"])]
    return lines


def _lines(path: Path) -> dict[str, dict]:
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line.pop("run"): line for line in found}


def _columns(rows: list[dict]) -> dict[str, list]:
    return {key: [_short(key, row[key]) for row in rows] for key in rows[0]}


def _rows(columns: dict[str, list]) -> list[dict]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _short(key: str, value):
    """A score with four decimals: more is noise."""
    return round(value, 4) if key in METRICS and value is not None else value
