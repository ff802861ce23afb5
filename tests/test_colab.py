"""The notebooks for Colab: chapters as they are, behind a cell that installs what they import."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
URL = "https://example.org/someone/dsn_lite"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("colab")
    command = [sys.executable, ROOT / "tools" / "colab.py", ROOT / "book", out, "--url", URL, "--branch", "main"]
    subprocess.run(command, check=True)
    return out


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_behind_its_setup(written, chapter):
    given, made = (nbformat.read(path, as_version=4) for path in (chapter, written / chapter.name))
    nbformat.validate(made)
    title, _, setup, *rest = made.cells
    assert [title, *rest] == given.cells
    assert title.source.startswith("# ") and setup.cell_type == "code"
    assert f"git clone --quiet --depth 1 --branch main {URL} /content/project" in setup.source


def test_the_front_page_too(tmp_path):
    command = [sys.executable, ROOT / "tools" / "colab.py", ROOT / "index.ipynb", tmp_path, "--url", URL]
    subprocess.run(command, check=True)
    assert "colab-setup" in [cell.id for cell in nbformat.read(tmp_path / "index.ipynb", as_version=4).cells]


def test_setup_is_python_and_installs_what_chapters_import(written):
    setup = nbformat.read(written / CHAPTERS[0].name, as_version=4).cells[2].source
    plain = re.sub(r"^( *)[!%].*$", r"\1pass", setup, flags=re.M)  # commands of IPython
    ast.parse(plain)
    extras = set(re.search(r"project\[(.*?)]", setup).group(1).split(","))
    packages = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", packages, flags=re.M) for extra in extras)
    offered = {"evaluate": {"librosa", "onnxruntime", "pesq", "pystoi", "speechmos"}, "fast": {"numba"}, "onnx": {"onnx"}}
    there = {"dsn_lite", "numpy", "torch", "matplotlib", "scipy", "IPython", "ipywidgets"}
    there |= {"yaml", "safetensors", "soundfile", "tqdm"}  # what the package itself needs
    there |= {"anywidget"} if "anywidget" in setup else set()
    imported = set()
    for chapter in CHAPTERS:
        for cell in nbformat.read(chapter, as_version=4).cells:
            if cell.cell_type == "code":
                imported |= set(re.findall(r"^(?:import|from) (\w+)", cell.source, flags=re.M))
    needed = imported - there - set(sys.stdlib_module_names)
    assert needed <= set().union(*(offered[extra] for extra in extras))
