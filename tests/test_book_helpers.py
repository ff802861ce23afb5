"""The helpers of the chapters, and that no chapter defines what another one does."""

import ast
import json
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from dsn_lite import book
from dsn_lite.errors import InputError

matplotlib.use("Agg")
CHAPTERS = sorted((Path(__file__).parents[1] / "book").glob("*.ipynb"))


@pytest.fixture
def axes():
    import matplotlib.pyplot as plt

    with plt.rc_context():
        yield plt.figure().subplots()
    plt.close("all")


def bodies(chapter: Path) -> set[str]:
    """The functions that a chapter defines, without names of functions and docstrings, but for one-liners."""
    found = set()
    for cell in json.loads(chapter.read_text())["cells"]:
        if cell["cell_type"] == "code" and "raises-exception" not in cell["metadata"].get("tags", []):
            for node in ast.walk(ast.parse("".join(cell["source"]))):
                if isinstance(node, ast.FunctionDef):
                    body = node.body[1:] if ast.get_docstring(node) else node.body
                    if len(body) > 1:
                        found.add("\n".join(map(ast.unparse, body)))
    return found


def test_a_helper_stands_in_no_two_chapters():
    where = defaultdict(list)
    for chapter in CHAPTERS:
        for body in bodies(chapter):
            where[body].append(chapter.stem)
    assert not {body: chapters for body, chapters in where.items() if len(chapters) > 1}


def test_players_share_a_gain_or_do_not():
    quiet, loud = np.full(100, 0.1), np.full(100, 0.5)
    together, apart = (book.players({"so quiet": quiet}, so_loud=loud, shared=shared).data for shared in (True, False))
    for page in (together, apart):
        assert "so quiet" in page and "so loud" in page and page.count("<audio") == 2
    sounds = [part.split("base64,")[1].split('"')[0] for page in (together, apart) for part in page.split("<audio")[1:]]
    assert sounds[0] != sounds[1] == sounds[2] == sounds[3]
    assert "nothing" in book.players(nothing=np.zeros(10)).data


@pytest.mark.parametrize("mel", [False, True])
def test_a_spectrogram_shows_a_tone_where_it_is(axes, mel):
    pytest.importorskip("librosa")
    time = np.arange(32_000) / book.RATE
    wave = np.sin(2 * np.pi * 1000 * time) * (time > 1)
    book.spectrogram(axes, wave, "tone", mel=mel)
    mesh = axes.collections[0]
    level, corners = np.asarray(mesh.get_array()), np.asarray(mesh.get_coordinates())
    row = level[:, 100].argmax()
    assert corners[row, 0, 1] - 40 <= 1000 <= corners[row + 1, 0, 1] + 40
    seconds = (corners[0, :-1, 0] + corners[0, 1:, 0]) / 2
    assert level[row, seconds < 0.95].max() < level[row, seconds > 1.05].min() - 40
    assert abs(seconds[0]) < 0.02 and abs(seconds[-1] - 2) < 0.02 and axes.get_title() == "tone"


def test_a_spectrum_is_drawn_as_its_wave(axes):
    pytest.importorskip("librosa")
    import torch

    from dsn_lite.audio.spectral import stft

    wave = 0.1 * np.random.default_rng(0).standard_normal(16_000)
    book.spectrogram(axes, wave)
    book.spectrogram(axes, stft(torch.from_numpy(wave)).numpy())
    of_wave, of_spectrum = (np.asarray(mesh.get_array()) for mesh in axes.collections)
    assert np.abs(of_wave - of_spectrum).max() < 0.1


def test_lanes(axes):
    gates = np.random.default_rng(0).integers(0, 2, (50, 3))
    book.lanes(axes, gates, ["a", "b", "c"])
    image = axes.images[0]
    assert np.array_equal(image.get_array(), gates.T) and image.get_extent()[:2] == [-0.008, 49.5 * 0.016]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]


def test_what_is_not_caught_is_an_error(capsys):
    def check(a, b=1):
        assert a > 0, "too small"

    book.catches(check, {"nothing": 0, "two": (-1, 5)})
    assert "nothing  caught: too small" in capsys.readouterr().out
    with pytest.raises(RuntimeError, match="fine was not caught"):
        book.catches(check, {"nothing": 0, "fine": 2})


def test_results_are_read_by_their_kind(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(book, "_RESULTS", tmp_path)
    (tmp_path / "a.json").write_text('{"x": 1}')
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n{"x": 2}\n')
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    assert book.results("a.json") == {"x": 1} and book.results("a.jsonl") == [{"x": 1}, {"x": 2}]
    assert book.results("a.csv") == [{"x": "1", "y": "2"}]
    assert book.results("b.json") is None and "results/b.json is not here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "file"),
    [(name, "blocks.js") for name in ("convolution", "attention", "pair", "recurrent", "groups", "zeros", "join")]
    + [(name, "engine.js") for name in ("Engine", "frame", "ask", "synthesise")],
)
def test_lines_of_the_engine(name, file):
    found, first, lines = book.find_lines(name)
    whole = (Path(book.__file__).parent / "widgets" / file).read_text().splitlines()
    assert found == file and whole[first - 1 : first - 1 + len(lines)] == lines
    text = "\n".join(lines)
    assert text.count("{") == text.count("}") > 0 and lines[-1].endswith("}")
    assert f" {name}" in " " + lines[0] + lines[1 if len(lines) > 1 else 0] + lines[min(2, len(lines) - 1)]
    shown = book.engine_lines(name).data
    assert f"<code>{file}</code>, lines {first} to {first + len(lines) - 1}" in shown
    assert f"{first:4}  " in shown and "<script" not in shown


def test_what_the_engine_has_not_is_an_error():
    with pytest.raises(InputError, match="no 'soften'"):
        book.find_lines("soften")


def test_a_corpus_to_try_with(tmp_path):
    corpus = book.tiny_corpus(tmp_path, rooms=10)
    kinds = [(entry.kind, entry.split) for entry in corpus.entries]
    assert sorted(kinds) == [("noise", "train"), ("noise", "valid"), ("speech", "train"), ("speech", "valid")]
    assert len(corpus.bank.responses) == 10
