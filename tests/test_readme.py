"""The README shows what results/ holds, and links to what is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def test_tables_are_those_of_the_results():
    check = [sys.executable, ROOT / "tools" / "tables.py", "--check"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(check, env=environment).returncode == 0, "run `python tools/tables.py`"


def test_a_changed_number_is_noticed(monkeypatch):
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import tables
    finally:
        sys.path.pop(0)
    text = README.read_text()
    number = re.search(r"\| base \| [\d,]+ \| ([\d.]+)", text)
    assert number
    assert tables.written(text.replace(number[1], "12.3")) == text


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text()))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()


def test_commands_in_the_readme_exist():
    from dsn_lite.cli import make_parser

    known = set(next(a for a in make_parser()._actions if hasattr(a, "choices") and a.choices).choices)
    named = set(re.findall(r"dsn-lite ([a-z]+)", README.read_text()))
    assert named and named <= known, named - known
