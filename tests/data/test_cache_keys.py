"""What the cache of decoded files takes for the same file, what it reads again, and what it says of files that are gone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dsn_lite.data import cache as audiocache
from dsn_lite.data import index
from dsn_lite.data.cache import AudioCache
from dsn_lite.data.manifest import Entry
from dsn_lite.errors import InputError

LONG_AGO = 1_000_000_000


def tone(hertz: float, samples: int = 8000) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(samples) / 16_000)


def put(path: Path, hertz: float, when: int = LONG_AGO) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(hertz), 16_000)
    os.utime(path, (when, when))
    return path


def entries(folder: Path, *names: str) -> list[Entry]:
    return [Entry(name, "speech", seconds=0.5, root=str(folder)) for name in names]


def pitch(wave: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(wave)).argmax() * 16_000 / wave.size)


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the files that were decoded."""
    names, decode = [], audiocache.decode
    monkeypatch.setattr(audiocache, "decode", lambda path: (names.append(path.name), decode(path))[1])
    return names


@pytest.fixture
def settled(monkeypatch):
    """As if all files had lain there for long: their times count."""
    monkeypatch.setattr(index, "SETTLED", -1)


def test_an_untouched_corpus_is_decoded_once_and_not_even_hashed_again(tmp_path, decoded, settled, monkeypatch):
    files = entries(tmp_path, "a.wav", "b.wav")
    for i, entry in enumerate(files):
        put(entry.file, 500 + 500 * i)
    first = AudioCache(files, tmp_path / "cache")
    monkeypatch.setattr(audiocache.hashlib, "file_digest", None)
    again = AudioCache(files, tmp_path / "cache")
    assert sorted(decoded) == ["a.wav", "b.wav"]
    assert (first.hash, first.contents) == (again.hash, again.contents)


@pytest.mark.parametrize("when", [LONG_AGO, LONG_AGO + 1, LONG_AGO + 5, None], ids=["older", "same", "newer", "now"])
@pytest.mark.parametrize("age", ["fresh", "settled"])
def test_a_file_replaced_by_one_of_equal_length_is_read_again(tmp_path, decoded, when, age, request):
    """Whatever time it says it has, as copies bring theirs along."""
    if age == "settled":
        request.getfixturevalue("settled")
    files = entries(tmp_path, "a.wav", "b.wav")
    put(files[0].file, 500, LONG_AGO + 1)
    put(files[1].file, 1000)
    first = AudioCache(files, tmp_path / "cache")
    size = files[0].file.stat().st_size
    put(files[0].file, 2000, LONG_AGO if when is None else when)
    if when is None:
        os.utime(files[0].file)
    assert files[0].file.stat().st_size == size
    again = AudioCache(files, tmp_path / "cache")
    assert pitch(again.read(0)) == pytest.approx(2000, abs=3) and pitch(again.read(1)) == pytest.approx(1000, abs=3)
    assert decoded.count("b.wav") == 1
    assert first.contents != again.contents and first.hash == again.hash
    assert pitch(first.read(0)) == pytest.approx(500, abs=3), "who works with the older index must go on undisturbed"
    put(files[0].file, 500, LONG_AGO + 9)  # back again: known, not decoded a second time
    back = AudioCache(files, tmp_path / "cache")
    assert pitch(back.read(0)) == pytest.approx(500, abs=3) and back.contents == first.contents
    assert decoded.count("a.wav") == 2


def test_changed_twice_within_a_tick_of_the_clock(tmp_path):
    files = entries(tmp_path, "a.wav")
    put(files[0].file, 500)
    os.utime(files[0].file)
    now = files[0].file.stat().st_mtime_ns
    AudioCache(files, tmp_path / "cache")
    put(files[0].file, 2000)
    os.utime(files[0].file, ns=(now, now))
    assert pitch(AudioCache(files, tmp_path / "cache").read(0)) == pytest.approx(2000, abs=3)


def test_a_moved_copied_or_touched_corpus_is_not_decoded_again(tmp_path, decoded):
    put(tmp_path / "here" / "a.wav", 500)
    put(tmp_path / "here" / "b.wav", 1000)
    first = AudioCache(entries(tmp_path / "here", "a.wav", "b.wav"), tmp_path / "cache")
    shutil.copytree(tmp_path / "here", tmp_path / "there", copy_function=shutil.copyfile)  # other times of change
    moved = AudioCache(entries(tmp_path / "there", "a.wav", "b.wav"), tmp_path / "cache")
    assert len(decoded) == 2
    elsewhere = AudioCache(entries(tmp_path / "there", "a.wav", "b.wav"), tmp_path / "another machine")
    for cache in (moved, elsewhere):
        assert (cache.hash, cache.contents) == (first.hash, first.contents)
        np.testing.assert_array_equal(cache.read(1), first.read(1))


def test_two_corpora_with_the_same_rows_do_not_mix(tmp_path, decoded):
    for folder, hertz in (("one", 500), ("two", 2000)):
        put(tmp_path / folder / "a.wav", hertz)
    for _ in range(3):
        for folder, hertz in (("one", 500), ("two", 2000)):
            cache = AudioCache(entries(tmp_path / folder, "a.wav"), tmp_path / "cache")
            assert pitch(cache.read(0)) == pytest.approx(hertz, abs=3)
    assert len(decoded) == 2


def test_a_file_missing_once_is_tried_again_and_named_each_time(tmp_path, capsys):
    files = entries(tmp_path, "a.wav", "b.wav", "c.wav")
    put(files[0].file, 500)
    files[2].file.write_bytes(b"no sound")
    for _ in range(2):
        cache = AudioCache(files, tmp_path / "cache")
        assert [bool(length) for length in cache.length] == [True, False, False]
        said = capsys.readouterr().err
        assert f"left out: {files[1].file}: no such file" in said and f"left out: {files[2].file}" in said
        assert len(cache.left_out) == 2
    put(files[1].file, 1000)
    put(files[2].file, 2000)
    cache = AudioCache(files, tmp_path / "cache")
    assert [round(pitch(cache.read(i)), -1) for i in range(3)] == [500, 1000, 2000]
    assert not cache.left_out and not capsys.readouterr().err


def test_what_was_decoded_is_used_where_its_file_is_gone_and_that_is_said(tmp_path, capsys):
    """A cache may travel to a machine without the corpus."""
    files = entries(tmp_path, "a.wav", "b.wav")
    for i, entry in enumerate(files):
        put(entry.file, 500 + 500 * i)
    first = AudioCache(files, tmp_path / "cache")
    files[1].file.unlink()
    for _ in range(2):
        cache = AudioCache(files, tmp_path / "cache")
        assert (cache.hash, cache.contents) == (first.hash, first.contents)
        assert pitch(cache.read(1)) == pytest.approx(1000, abs=3)
        assert f"{files[1].file}: not there any more" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["short", "no json", "half json", "gone"])
def test_a_damaged_cache_is_made_anew(tmp_path, damage):
    files = entries(tmp_path, "a.wav")
    put(files[0].file, 500)
    folder = AudioCache(files, tmp_path / "cache").folder
    index = folder / "index.json"
    if damage == "short":
        (folder / "audio.i16").write_bytes((folder / "audio.i16").read_bytes()[:1000])
    elif damage == "gone":
        (folder / "envelope.u8").unlink()
    else:
        index.write_text(index.read_text()[: 40 if damage == "half json" else 0])
    assert pitch(AudioCache(files, tmp_path / "cache").read(0)) == pytest.approx(500, abs=3)


def test_a_corpus_that_is_nowhere_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"no file of the manifest.*a\.wav: no such file") as caught:
        AudioCache(entries(tmp_path, "a.wav", "b.wav"), tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_an_index_that_cannot_be_read_for_once_costs_nothing(tmp_path, decoded, monkeypatch):
    """A disk that fails is no damaged cache: another process may be reading from it."""
    files = entries(tmp_path, "a.wav")
    put(files[0].file, 500)
    first = AudioCache(files, tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(OSError, match="Input/output"):
            AudioCache(files, tmp_path / "cache")
    assert pitch(AudioCache(files, tmp_path / "cache").read(0)) == pytest.approx(500, abs=3)
    (first.folder / "index.json").write_text("{")  # and where it is damaged, who has the samples open keeps them
    before = first.read(0)
    AudioCache(files, tmp_path / "cache")
    np.testing.assert_array_equal(first.read(0), before)
    assert decoded == ["a.wav", "a.wav"]
