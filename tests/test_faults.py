"""Write, rename and read fail at a random call, or the process is killed in it: nothing half-written, nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

TIMES = {"enhance": 60, "evaluate": 40, "train": 100}
"""Faults, 200 in all."""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("command", TIMES)
def test_nothing_is_lost(command, tmp_path):
    """After each fault: inputs byte-identical, no half under a final name, status 2 or a signal's, and it can be mended."""
    script = Path(__file__).with_name("faults.py")
    arguments = [sys.executable, script, command, tmp_path, str(TIMES[command]), "1"]
    done = subprocess.run(arguments, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == TIMES[command] and all(row["hit"] for row in rows)
    assert {row["how"] for row in rows} == {"once", "stays", "kill"}
    assert {row["status"] for row in rows} <= {0, 2, -9} and Counter(row["status"] for row in rows)[0] < len(rows) / 10
    assert not [row for row in rows if row["problems"]]
