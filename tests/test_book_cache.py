"""The cache of executed chapters is emptied when, and only when, something they use has changed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import book_cache

    return book_cache


@pytest.fixture
def project(tmp_path):
    for name in ("dsn_lite/gates.py", "dsn_lite/weights/a.json", "results/test.json", "requirements.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize("changed", ["dsn_lite/gates.py", "dsn_lite/weights/a.json", "results/new", "requirements.txt"])
def test_a_change_changes_the_hash(tool, project, changed):
    before = tool.package_hash(project)
    assert tool.package_hash(project) == before
    (project / changed).write_text("other")
    assert tool.package_hash(project) != before


def test_bytecode_and_prose_do_not_count(tool, project):
    before = tool.package_hash(project)
    (project / "dsn_lite" / "__pycache__").mkdir()
    (project / "dsn_lite" / "__pycache__" / "gates.pyc").write_text("x")
    (project / "README.md").write_text("x")
    assert tool.package_hash(project) == before


def test_a_stale_cache_is_emptied_and_a_fresh_one_kept(tool, tmp_path):
    cache = tmp_path / "build" / "cache"
    assert tool.refresh(cache, "one")
    (cache / "chapter").write_text("executed")
    assert not tool.refresh(cache, "one") and (cache / "chapter").exists()
    assert tool.refresh(cache, "two") and not (cache / "chapter").exists()
    sys.modules.pop("book_cache", None)
