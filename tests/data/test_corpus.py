"""Manifests, the cache of decoded files, recipes and the mixtures they make. All sounds are made here."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsn_lite import audio
from dsn_lite.audio.levels import active_level, rms_dbfs
from dsn_lite.commands import corpus as command
from dsn_lite.data import (
    Corpus,
    Entry,
    Mixtures,
    PlainMixtures,
    ValidationStreams,
    mixing,
    read_manifest,
    recipe,
    recipes,
    render,
    scan,
    write_manifest,
)
from dsn_lite.data import cache as audiocache
from dsn_lite.data import rirs as rooms
from dsn_lite.data.cache import AudioCache, default_folder
from dsn_lite.data.manifest import COLUMNS
from dsn_lite.data.synthetic import synthetic
from dsn_lite.errors import InputError

RATE = 16000


def voice(seed: int, seconds: float, rate: int = RATE) -> np.ndarray:
    """Something like speech: a tone with harmonics in syllables, with pauses."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    pitch = rng.uniform(90, 250)
    wave = sum(np.sin(2 * np.pi * pitch * k * time + rng.uniform(0, 6)) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(2, 4) * time + rng.uniform(0, 6)) + 0.4, 0, 1)
    return (0.1 * wave * syllables).astype(np.float32)


def save(path: Path, wave: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate)
    return path


@pytest.fixture(scope="module", autouse=True)
def small_bank():
    """A few rooms of the kind that needs no extra package: quick, and the same wherever the tests run."""
    patch = pytest.MonkeyPatch()
    patch.setattr(rooms, "ROOMS", 20)
    patch.setitem(sys.modules, "pyroomacoustics", None)  # import raises ImportError
    yield
    patch.undo()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Five speakers to train and two to validate, three noises and one, a hall."""
    root = tmp_path_factory.mktemp("corpus")
    rows = []

    def add(path: str, kind: str, split: str, speaker: str, wave: np.ndarray, rate: int = RATE) -> None:
        save(root / path, wave, rate)
        seconds = f"{len(wave) / rate:.3f}"
        rows.append([path, kind, split, "made", speaker, "en", seconds, "CC0, made here"])

    for s in range(7):
        for u in range(3):
            split = "train" if s < 5 else "valid"
            add(f"speech/{split}/s{s}, {u}.wav", "speech", split, f"s{s}", voice(10 * s + u, 1.0 + 0.8 * u))
    rng = np.random.default_rng(0)
    for k in range(4):
        split = "train" if k < 3 else "valid"
        add(f"noise/n{k}.flac", "noise", split, f"n{k}", 0.05 * rng.standard_normal(int((1 + 2 * k) * RATE)))
    hall = rng.standard_normal(8000) * 10 ** (-3 * np.arange(8000) / 8000) * 0.1
    hall[0] = 0.9
    add("rir/hall.wav", "rir", "train", "hall", hall)
    with open(root / "manifest.csv", "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return root


@pytest.fixture(scope="module")
def corpus(folder: Path, tmp_path_factory) -> Corpus:
    return Corpus.open(folder / "manifest.csv", tmp_path_factory.mktemp("cache"))


# --------------------------------------------------------------------------------------------------- manifest
def test_manifest_survives_a_round_trip(folder: Path, tmp_path: Path):
    entries = read_manifest(folder / "manifest.csv")
    assert len(entries) == 26
    assert entries[0].path == "speech/train/s0, 0.wav"  # a comma in a quoted field
    assert entries[0].licence == "CC0, made here"
    assert all(entry.file.exists() for entry in entries)

    write_manifest(entries, tmp_path / "elsewhere.csv")  # files lie above it: absolute paths
    again = read_manifest(tmp_path / "elsewhere.csv")
    assert [entry.file for entry in again] == [entry.file.absolute() for entry in entries]
    assert [dataclasses.replace(e, path="", root="") for e in again] == [
        dataclasses.replace(e, path="", root="") for e in entries
    ]
    assert os.listdir(tmp_path) == ["elsewhere.csv"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no rows"),
        ("file,what\na.wav,speech\n", "columns path and kind"),
        ("path,kind\na.wav,music\n", "line 2"),
        ("path,kind,split\na.wav,noise,training\n", "line 2"),
        ("path,kind,seconds\na.wav,noise,1\nb.wav,noise,long\n", "line 3: seconds is 'long'"),
    ],
)
def test_a_wrong_manifest_is_named_with_the_line(tmp_path: Path, text: str, words: str):
    path = tmp_path / "manifest.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_manifest_names_the_cure(tmp_path: Path):
    with pytest.raises(InputError, match="dsn-lite corpus"):
        read_manifest(tmp_path / "none.csv")


# ---------------------------------------------------------------------------------------------------- layouts
def by_name(entries: list[Entry]) -> dict[str, Entry]:
    return {entry.file.name: entry for entry in entries}


def test_librispeech(tmp_path: Path):
    for speaker in range(20, 60):
        for subset in ("train-clean-100",) if speaker < 55 else ("test-clean",):
            for utterance in range(2):
                name = f"{speaker}-7-{utterance:04d}.flac"
                save(tmp_path / "LibriSpeech" / subset / str(speaker) / "7" / name, voice(speaker, 0.3))
    entries = scan([tmp_path / "LibriSpeech"])
    assert len(entries) == 80
    assert {e.kind for e in entries} == {"speech"}
    assert {e.source for e in entries} == {"librispeech"}
    first = by_name(entries)["20-7-0000.flac"]
    assert (first.speaker, first.language, first.seconds) == ("librispeech-20", "en", 0.3)
    speakers = {
        split: {e.speaker for e in entries if e.split == split} for split in ("train", "valid", "test")
    }
    assert speakers["test"] == {f"librispeech-{s}" for s in range(55, 60)}
    assert 1 <= len(speakers["valid"]) <= 4
    assert not speakers["valid"] & speakers["train"]
    assert scan([tmp_path / "LibriSpeech"]) == entries  # the split is a function of the seed
    assert {e.speaker for e in scan([tmp_path / "LibriSpeech"], seed=1) if e.split == "valid"} != speakers[
        "valid"
    ]


def test_voicebank_and_demand(tmp_path: Path):
    for speaker in ("p226", "p227", "p228"):
        for folder in ("clean_trainset_28spk_wav", "noisy_trainset_28spk_wav"):
            save(tmp_path / folder / f"{speaker}_001.wav", voice(1, 0.2, 48000), 48000)
    save(tmp_path / "clean_testset_wav" / "p232_001.wav", voice(1, 0.2))
    save(tmp_path / "noisy_testset_wav" / "p232_001.wav", voice(1, 0.2))
    for microphone in (1, 2, 16):
        save(tmp_path / "DEMAND" / "DKITCHEN" / f"ch{microphone:02d}.wav", voice(2, 0.2))
    entries = scan([tmp_path])
    assert sorted(e.file.parent.name for e in entries) == sorted(
        ["clean_trainset_28spk_wav"] * 3 + ["clean_testset_wav", "DKITCHEN"]
    )
    assert [e.speaker for e in entries if e.split == "test"] == ["vctk-p232"]
    noise = next(e for e in entries if e.kind == "noise")
    assert (noise.source, noise.speaker, noise.file.name) == ("demand", "dkitchen", "ch01.wav")


def test_dns_challenge(tmp_path: Path):
    root = tmp_path / "DNS-Challenge" / "datasets"
    save(root / "clean" / "book_00000_chp_0009_reader_06709_0.wav", voice(1, 0.2))
    save(root / "clean" / "book_00001_chp_0002_reader_00012_3.wav", voice(2, 0.2))
    save(root / "noise" / "door.wav", voice(3, 0.2))
    save(root / "impulse_responses" / "SLR26" / "room1.wav", voice(4, 0.2))
    save(root / "test_set" / "synthetic" / "noisy" / "mix.wav", voice(5, 0.2))
    save(tmp_path / "DNS-Challenge" / "datasets_fullband" / "noise_fullband" / "rain.wav", voice(6, 0.2))
    entries = by_name(scan([tmp_path / "DNS-Challenge"]))
    assert "mix.wav" not in entries
    assert {e.source for e in entries.values()} == {"dns"}
    assert entries["book_00000_chp_0009_reader_06709_0.wav"].speaker == "reader-06709"
    assert [entries[n].kind for n in ("door.wav", "room1.wav", "rain.wav")] == ["noise", "rir", "noise"]


def test_esc50_keeps_clips_of_one_recording_together(tmp_path: Path):
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for recording in range(30):
        for take in "AB":
            name = f"1-{recording}-{take}-0.wav"
            save(tmp_path / "ESC-50-master" / "audio" / name, voice(recording, 0.2))
            rows.append(f"{name},1,0,{'dog' if recording % 2 else 'rain'},True,{recording},{take}")
    (tmp_path / "ESC-50-master" / "meta").mkdir()
    (tmp_path / "ESC-50-master" / "meta" / "esc50.csv").write_text("\n".join(rows))
    entries = scan([tmp_path / "ESC-50-master"])
    assert len(entries) == 60
    assert {(e.kind, e.source, e.speaker) for e in entries} == {
        ("noise", "esc50", "dog"),
        ("noise", "esc50", "rain"),
    }
    recordings = {
        split: {e.file.name.split("-")[1] for e in entries if e.split == split}
        for split in ("train", "valid")
    }
    assert recordings["valid"]
    assert not recordings["valid"] & recordings["train"]


def test_any_folder_and_its_unreadable_files(tmp_path: Path, capsys):
    root = tmp_path / "mine"
    save(root / "Speech" / "anna" / "a.wav", voice(1, 0.5))
    save(root / "Speech" / "bert" / "b.ogg", voice(2, 0.5))
    save(root / "noise" / "fan.wav", voice(3, 0.5))
    save(root / "rir" / "kitchen.wav", voice(4, 0.5))
    save(root / "music" / "song.wav", voice(5, 0.5))
    (root / "noise" / "broken.wav").write_bytes(b"no sound")
    (root / "noise" / "empty.wav").write_bytes(b"")
    (root / "noise" / "._fan.wav").write_bytes(b"what a Mac leaves behind")
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["corpus", str(root), str(root / "noise"), "-o", str(root / "manifest.csv")])
    assert args.run(args) == 2  # done, but two files were left out
    entries = read_manifest(root / "manifest.csv")
    assert sorted((e.path, e.kind, e.speaker) for e in entries) == [
        ("Speech/anna/a.wav", "speech", "anna"),
        ("Speech/bert/b.ogg", "speech", "bert"),
        ("noise/fan.wav", "noise", ""),
        ("rir/kitchen.wav", "rir", ""),
    ]
    assert {e.split for e in entries if e.kind == "speech"} == {"train", "valid"}
    out = capsys.readouterr()
    assert "speech" in out.out
    lines = [line for line in out.err.splitlines() if line.startswith("left out")]
    assert {Path(line.split(": ")[1]).name for line in lines} == {"broken.wav", "empty.wav"}


def test_a_folder_with_nothing_in_it(tmp_path: Path):
    with pytest.raises(InputError, match="no such folder"):
        scan([tmp_path / "none"])
    with pytest.raises(InputError, match="no sound files"):
        scan([tmp_path])
    save(tmp_path / "music" / "song.wav", voice(1, 0.2))
    with pytest.raises(InputError, match="nothing in it is recognised"):
        scan([tmp_path / "music"])
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "x.wav").write_bytes(b"no sound")
    with pytest.raises(InputError, match="can be read"):
        scan([tmp_path / "noise"], report=lambda line: None)


# ------------------------------------------------------------------------------------------------------ cache
def test_cache_holds_what_the_files_hold(corpus: Corpus):
    for i, entry in enumerate(corpus.entries):
        wave, _ = soundfile.read(entry.file, dtype="float32")
        kept = corpus.cache.read(i)
        assert kept.dtype == np.float32
        np.testing.assert_allclose(kept, wave, atol=float(np.abs(wave).max()) / 32767)
        assert corpus.cache.level[i] == pytest.approx(10 ** (active_level(wave) / 20), rel=0.05)
    part = corpus.cache.read(0, 100, 20000)  # beyond the end: zeros
    np.testing.assert_array_equal(part[:1000], corpus.cache.read(0)[100:1100])
    assert not part[int(corpus.cache.length[0]) - 100 :].any()


def test_cache_takes_any_rate_and_channels_and_leaves_out_the_rest(tmp_path: Path, capsys):
    tone = 3.0 * np.sin(
        2 * np.pi * 440 * np.arange(48000) / 48000
    )  # louder than full scale, as float files can be
    soundfile.write(tmp_path / "loud.wav", np.stack([tone, tone], axis=1), 48000, subtype="FLOAT")
    save(tmp_path / "silent.wav", np.zeros(8000))
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    names = ("loud.wav", "silent.wav", "broken.wav", "missing.wav")
    cache = AudioCache([Entry(name, "noise", root=str(tmp_path)) for name in names], tmp_path / "cache")
    assert list(cache.length) == [16000, 0, 0, 0]
    expected = 3.0 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    np.testing.assert_allclose(cache.read(0)[500:-500], expected[500:-500], atol=0.01)
    assert [Path(line.split(": ")[0]).name for line in cache.left_out] == list(names[1:])
    assert len([line for line in capsys.readouterr().err.splitlines() if "left out" in line]) == 3
    with pytest.raises(InputError, match="no file of the manifest"):
        AudioCache([Entry("missing.wav", "noise", root=str(tmp_path))], tmp_path / "cache")


def test_cache_is_made_once_and_travels_to_a_worker(corpus: Corpus, monkeypatch):
    def never(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(audiocache, "decode", never)
    again = AudioCache(corpus.entries, corpus.cache.folder.parent)
    sent = pickle.loads(pickle.dumps(again))
    np.testing.assert_array_equal(sent.read(3), corpus.cache.read(3))


def test_cache_folder_comes_from_the_environment(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("DSN_LITE_CACHE", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("DSN_LITE_CACHE")
    assert default_folder() == Path.home() / ".cache" / "dsn_lite"


def test_a_folder_that_cannot_hold_the_cache(folder: Path, tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="DSN_LITE_CACHE"):
        AudioCache(read_manifest(folder / "manifest.csv"), tmp_path / "file")


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
def test_a_killed_build_leaves_nothing_half_made(folder: Path, tmp_path: Path):
    code = f"""
        import time
        from dsn_lite.data import cache as audiocache
        from dsn_lite.data.manifest import read_manifest
        encode = audiocache._encode
        audiocache._encode = lambda path: (time.sleep(0.3), encode(path))[1]
        audiocache.AudioCache(read_manifest({str(folder / "manifest.csv")!r}), {str(tmp_path)!r}, workers=1)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("audio*/audio.i16")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (data,) = tmp_path.glob("audio*/audio.i16")
    assert not data.with_name("index.json").exists(), "it finished before it was killed"
    data.write_bytes(b"odd")  # as if the kill had come in the middle of a sample
    cache = AudioCache(read_manifest(folder / "manifest.csv"), tmp_path)
    assert (cache.length > 0).all()
    np.testing.assert_allclose(cache.read(25), soundfile.read(folder / "rir" / "hall.wav")[0], atol=1e-3)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == ["", ".lock"]
    assert sorted(p.name for p in cache.folder.iterdir()) == ["audio.i16", "envelope.u8", "index.json"]


def test_a_build_on_a_full_disk_says_so_and_the_next_goes_on(folder: Path, tmp_path: Path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(audiocache.os, "fsync", full)
        with pytest.raises(InputError, match="No space left"):
            AudioCache(read_manifest(folder / "manifest.csv"), tmp_path)
    assert not list(tmp_path.glob("*/index.json"))
    assert (AudioCache(read_manifest(folder / "manifest.csv"), tmp_path).length > 0).all()


# ------------------------------------------------------------------------------------------------------ rooms
def test_responses_begin_with_the_direct_path(corpus: Corpus):
    responses = corpus.bank.responses
    assert corpus.bank.method == "decay"
    assert responses.shape == (20, rooms.RESPONSES, rooms.SAMPLES)
    assert np.isfinite(responses).all()
    assert (responses[..., 0] == 1).all()
    part = rooms.early(responses[0, 0])
    np.testing.assert_array_equal(part[:480], responses[0, 0, :480])
    assert part.size == 800
    assert abs(part[-1]) < 1e-4


def test_image_source_rooms():
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "pyroomacoustics")
        pytest.importorskip("pyroomacoustics")
        room = rooms._image_source(np.random.default_rng(5))
        again = rooms._image_source(np.random.default_rng(5))
    np.testing.assert_array_equal(room, again)
    assert room.shape == (rooms.RESPONSES, rooms.SAMPLES)
    assert (room[:, 0] == 1).all()
    assert np.abs(room[0, 1:20]).max() < 0.5  # nothing but the direct path at first: it was one clean sample
    energy = (room[0] ** 2).reshape(-1, 800).sum(axis=1)
    assert energy[0] > 3 * energy[-1]


# ---------------------------------------------------------------------------------------------------- recipes
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**40),
    index=st.integers(0, 2**31),
    seconds=st.sampled_from([0.5, 1.0, 2.5, 4.0]),
    split=st.sampled_from(["train", "valid"]),
)
def test_a_recipe_is_a_pure_function(corpus: Corpus, seed: int, index: int, seconds: float, split: str):
    item = recipe(corpus, seed, index, seconds, split)
    recipe(corpus, seed + 1, index, seconds, split)  # what is drawn between changes nothing
    again = recipe(corpus, seed, index, seconds, split)
    assert item == again
    plain = json.loads(json.dumps(dataclasses.asdict(item)))
    assert plain["snr_db"] == item.snr_db
    assert item != recipe(corpus, seed, index + 1, seconds, split)
    for piece in (*item.speech, *(p for layer in item.layers for p in layer.pieces)):
        assert piece.length > 0
        assert 0 <= piece.start <= piece.start + piece.length <= corpus.cache.length[piece.file]
    assert all(0 <= p.at < p.at + p.length <= item.samples * item.speed + 2 for p in item.speech)
    noisy, clean = render(corpus, item)
    assert noisy.shape == clean.shape == (item.samples,)
    assert noisy.dtype == clean.dtype == np.float32
    assert np.isfinite(noisy).all()
    assert np.isfinite(clean).all()
    assert max(np.abs(noisy).max(), np.abs(clean).max()) <= 0.9901
    assert np.abs(clean).max() > 0


def test_a_recipe_keeps_to_one_speaker_and_one_split(corpus: Corpus):
    for index in range(200):
        split = ("train", "valid")[index % 2]
        item = recipe(corpus, 3, index, 3.0, split)
        speakers = {corpus.entries[piece.file].speaker for piece in item.speech}
        assert len(speakers) == 1
        for layer in item.layers:
            files = [corpus.entries[piece.file] for piece in layer.pieces]
            assert all(entry.split == split for entry in files)
            if layer.kind == "babble":
                assert not speakers & {entry.speaker for entry in files}
        assert item.room < 0 or item.room in corpus.rooms_of(split)


def test_how_often_things_happen(corpus: Corpus):
    items = [recipe(corpus, 7, index, 4.0) for index in range(2000)]

    def share(condition) -> float:
        return float(np.mean([condition(item) for item in items]))

    # Mostly plain, as in use: rooms and equalised speech in at most a quarter.
    assert share(lambda r: r.room >= 0) == pytest.approx(0.13, abs=0.03)
    assert share(lambda r: r.hall >= 0) == pytest.approx(0.02, abs=0.015)
    assert share(lambda r: r.room >= 0 or r.hall >= 0 or bool(r.speech_eq)) < 0.26
    assert share(lambda r: r.lowpass_hz > 0) == pytest.approx(0.04, abs=0.02)
    # The noise is varied as far as it goes.
    layers = [layer for item in items for layer in item.layers]
    assert share(lambda r: len(r.layers) > 1) == pytest.approx(0.55, abs=0.04)
    for kind, often in (("babble", 0.12), ("synthetic", 0.22), ("coloured", 0.10), ("files", 0.56)):
        assert np.mean([layer.kind == kind for layer in layers]) == pytest.approx(often, abs=0.03)
    assert np.mean([bool(layer.swell) for layer in layers]) == pytest.approx(0.30, abs=0.04)
    assert np.mean([bool(layer.bursts) for layer in layers]) > 0.2
    assert {0.5 <= layer.speed <= 2 for layer in layers} == {True}
    assert max(len(layer.pieces) for layer in layers if layer.kind == "files") > 15  # grains
    assert share(lambda r: len({p.file for p in r.speech}) > 1) > 0.5
    levels = {-8 <= r.snr_db <= 40 or r.snr_db == recipes.CLEAN_DB for r in items}
    assert levels == {-45 <= r.level_dbfs <= -12 for r in items} == {True}
    assert share(lambda r: r.snr_db > 22) == pytest.approx(0.18, abs=0.03)
    assert share(lambda r: r.snr_db == recipes.CLEAN_DB) == pytest.approx(0.04, abs=0.02)
    assert share(lambda r: r.speech[0].at > RATE // 5) > 0.15  # noise alone at first


def test_unlabelled_speakers_are_not_joined(folder: Path, tmp_path: Path):
    entries = [dataclasses.replace(e, speaker="set-unknown") for e in read_manifest(folder / "manifest.csv")]
    write_manifest(entries, tmp_path / "manifest.csv")
    corpus = Corpus.open(tmp_path / "manifest.csv", tmp_path / "cache")
    assert len(corpus.pool("speech", "train").groups) == 15
    for index in range(20):
        assert len({piece.file for piece in recipe(corpus, 1, index, 3.0).speech}) == 1


def test_what_a_corpus_must_have(folder: Path, tmp_path: Path, corpus: Corpus):
    with pytest.raises(InputError, match="no speech with split test"):
        recipe(corpus, 1, 0, 2.0, "test")
    with pytest.raises(InputError, match="too short"):
        recipe(corpus, 1, 0, 0.1)
    entries = [e for e in read_manifest(folder / "manifest.csv") if e.kind == "speech"]
    write_manifest(entries, tmp_path / "manifest.csv")
    quiet = Corpus.open(tmp_path / "manifest.csv", tmp_path / "cache")  # no noise: what needs no file, and babble
    kinds = {layer.kind for index in range(60) for layer in recipe(quiet, 1, index, 2.0).layers}
    assert kinds == {"coloured", "synthetic", "babble"}


def test_hash_follows_what_makes_the_mixtures(corpus: Corpus, folder: Path, tmp_path: Path, monkeypatch):
    same = Corpus.open(folder / "manifest.csv", tmp_path)
    assert same.hash == corpus.hash
    assert recipe(same, 1, 5, 2.0) == recipe(corpus, 1, 5, 2.0)
    image = dataclasses.replace(corpus.bank, method="image-source")
    assert Corpus(corpus.path, corpus.entries, corpus.cache, image).hash != corpus.hash
    lines = (folder / "manifest.csv").read_text().splitlines()
    write_manifest(corpus.entries[:-1], folder / "fewer.csv")
    assert len((folder / "fewer.csv").read_text().splitlines()) == len(lines) - 1
    assert Corpus.open(folder / "fewer.csv", tmp_path).hash != corpus.hash


# ----------------------------------------------------------------------------------------------------- mixing
def bare(item: recipes.Recipe, **changes) -> recipes.Recipe:
    """A recipe without whatever colours the speech or moves the level."""
    plain = {"speech_eq": (), "lowpass_hz": 0.0, "speed": 1.0, "room": -1, "hall": -1}
    return dataclasses.replace(item, **{**plain, **changes})


def test_the_same_recipe_gives_the_same_bits(corpus: Corpus):
    for index in range(20):
        first = render(corpus, recipe(corpus, 1, index, 2.0))
        second = render(corpus, recipe(corpus, 1, index, 2.0))
        assert first[0].tobytes() == second[0].tobytes()
        assert first[1].tobytes() == second[1].tobytes()


def test_snr_and_level_are_those_of_the_recipe(corpus: Corpus):
    met = 0
    for index in range(150):
        item = recipe(corpus, 2, index, 3.0)
        noisy, clean = render(corpus, item)
        level = rms_dbfs(noisy)
        assert level == pytest.approx(item.level_dbfs, abs=0.01) or (
            level < item.level_dbfs and max(np.abs(noisy).max(), np.abs(clean).max()) == pytest.approx(0.99)
        )
        if item.room < 0 and item.hall < 0:
            snr = active_level(clean) - rms_dbfs(noisy.astype(np.float64) - clean)
            assert snr == pytest.approx(item.snr_db, abs=0.05) or item.snr_db == recipes.CLEAN_DB
            met += 1
    assert met > 60


def test_the_target_is_the_speech_where_it_was_laid(corpus: Corpus):
    item = bare(recipe(corpus, 4, 1, 2.0), snr_db=60.0)
    noisy, clean = render(corpus, item)
    laid = mixing.lay(corpus, item.speech, item.samples)
    assert np.argmax(np.correlate(clean, laid[400:-400], "valid")) == 400
    assert np.corrcoef(clean, laid)[0, 1] > 0.9999
    assert np.corrcoef(noisy, clean)[0, 1] > 0.999


def test_four_seconds_are_four_seconds(corpus: Corpus):
    """A whole number once drew other mixtures than the float: labels then belonged to none of them."""
    assert recipe(corpus, 4, 1, 4) == recipe(corpus, 4, 1, 4.0)


@pytest.mark.parametrize("where", ["room", "hall"])
def test_the_target_keeps_its_room(corpus: Corpus, where: str):
    hall = next(i for i, entry in enumerate(corpus.entries) if entry.kind == "rir")
    place = {"room": 3, "response": 1} if where == "room" else {"hall": hall}
    item = bare(recipe(corpus, 4, 2, 2.0), snr_db=80.0, **place)
    noisy, clean = (wave.astype(np.float64) for wave in render(corpus, item))
    response = corpus.bank.responses[3, 0] if where == "room" else corpus.cache.read(hall)
    if where == "hall":
        response = response / response[0]
    laid = mixing.lay(corpus, item.speech, item.samples).astype(np.float64)
    expected = np.convolve(laid, response)[: item.samples]  # the definition, slowly
    gain = np.dot(clean, expected) / np.dot(expected, expected)
    np.testing.assert_allclose(clean, gain * expected, atol=2e-4 * np.abs(clean).max())
    np.testing.assert_allclose(noisy, gain * expected, atol=2e-3 * np.abs(noisy).max())


def test_the_snr_in_a_room_is_that_of_direct_sound_and_early_reflections(corpus: Corpus):
    white = (recipes.Layer("coloured", seed=3),)
    item = bare(recipe(corpus, 4, 2, 2.0), snr_db=5.0, layers=white, room=3, response=1)
    noisy, clean = render(corpus, item)
    laid = mixing.lay(corpus, item.speech, item.samples).astype(np.float64)
    direct = np.convolve(laid, rooms.early(corpus.bank.responses[3, 0]))[: item.samples]
    heard = np.convolve(laid, corpus.bank.responses[3, 0])[: item.samples]
    gain = np.dot(clean, heard) / np.dot(heard, heard)
    found = audio.active_level(gain * direct) - audio.rms_dbfs(noisy - clean)
    assert found == pytest.approx(5.0, abs=0.1)


def test_coloured_noise_has_its_slope(corpus: Corpus):
    for exponent in (0.0, 1.0, 2.0):
        wave = mixing.lay_noise(corpus, recipes.Layer("coloured", exponent=exponent, seed=1), 64000)
        assert np.sqrt(np.mean(wave**2)) == pytest.approx(1, abs=1e-3)
        power = np.abs(np.fft.rfft(wave)) ** 2
        octaves = [power[400 * 2**k : 800 * 2**k].mean() for k in range(6)]  # 100 Hz to 6.4 kHz
        slope = np.polyfit(np.arange(6), np.log2(octaves), 1)[0]
        assert slope == pytest.approx(-exponent, abs=0.1)


def test_bursts_and_band_limit_and_swell(corpus: Corpus):
    white = recipes.Layer("coloured", seed=3)
    bursting = dataclasses.replace(white, bursts=((4000, 8000), (20000, 24000)))
    item = bare(recipe(corpus, 5, 0, 2.0), layers=(bursting,), snr_db=5.0)
    noisy, clean = render(corpus, item)
    noise = noisy - clean
    assert np.abs(noise[5000:7000]).max() > 1e-3
    assert np.abs(noise[9000:19000]).max() < 1e-6

    swelling = bare(item, layers=(dataclasses.replace(bursting, swell=(0.0, 8.0, -8.0, 0.0)),))
    noisy, clean = render(corpus, swelling)
    noise = (noisy - clean)[: 30000 // 3 * 3].reshape(-1, 2000)
    levels = 10 * np.log10(np.mean(noise**2, axis=1))
    assert np.ptp(levels) > 10

    bright = bare(item, layers=(dataclasses.replace(white, eq=(0.0,) * 8 + (6.0,)),))
    tilted, flat = (np.subtract(*render(corpus, one)) for one in (bright, bare(item, layers=(white,))))
    gain = np.abs(np.fft.rfft(tilted)) / np.abs(np.fft.rfft(flat))
    assert 20 * np.log10(gain[15000] / gain[2000]) == pytest.approx(6.0, abs=0.1)  # 7.5 kHz over 1 kHz

    noisy, clean = render(corpus, bare(item, lowpass_hz=4000.0))
    power = np.abs(np.fft.rfft(clean)) ** 2
    hertz = np.fft.rfftfreq(clean.size, 1 / RATE)
    assert power[hertz > 4700].sum() < 1e-5 * power.sum()


def test_speech_played_faster_is_higher_and_shorter(corpus: Corpus):
    time = np.arange(32000) / RATE
    tone = np.sin(2 * np.pi * 1000 * time).astype(np.float32)
    played = mixing._played(tone, 1.1, 16000)
    peak = np.argmax(np.abs(np.fft.rfft(played[2000:12000] * np.hanning(10000))))
    assert peak * RATE / 10000 == pytest.approx(1100, abs=2)
    assert played.std() == pytest.approx(tone.std(), rel=0.02)


def test_a_clean_mixture_has_no_noise(corpus: Corpus):
    noisy, clean = render(corpus, bare(recipe(corpus, 5, 1, 2.0), snr_db=recipes.CLEAN_DB))
    assert np.array_equal(noisy, clean)


@given(seed=st.integers(0, 2**31 - 1), n=st.integers(800, 50_000))
@settings(deadline=None, max_examples=60)
def test_synthetic_noise_is_sound_of_one_seed(seed: int, n: int):
    wave = synthetic(seed, n)
    assert wave.shape == (n,)
    assert wave.dtype == np.float32
    assert np.isfinite(wave).all()
    assert np.abs(wave).max() > 0
    assert np.array_equal(wave, synthetic(seed, n))


def test_synthetic_noises_differ():
    spectra = np.array([np.abs(np.fft.rfft(synthetic(seed, 16000)))[:4000].reshape(40, 100).sum(1) for seed in range(40)])
    spectra /= np.linalg.norm(spectra, axis=1, keepdims=True)
    alike = spectra @ spectra.T
    assert np.median(alike[np.triu_indices(40, 1)]) < 0.85


def test_plain_mixtures_are_one_voice_and_one_noise(corpus: Corpus):
    source = next(entry.source for entry in corpus.entries if (entry.kind, entry.split) == ("noise", "valid"))
    data = PlainMixtures(corpus, source, 3, 1.0)
    for item, snr in zip(list(data), (0.0, 5.0, 10.0), strict=True):
        noise = (item["noisy"] - item["clean"]).numpy()
        assert active_level(item["clean"].numpy()) - rms_dbfs(noise) == pytest.approx(snr, abs=0.05)
    with pytest.raises(InputError, match="no noise with split valid of elsewhere"):
        PlainMixtures(corpus, "elsewhere", 3)[0]


def test_validation_streams_have_turns_pauses_and_noise_in_them(corpus: Corpus):
    data = ValidationStreams(corpus, 8, 12.0)
    for i in range(8):
        item, recipe = data[i], data.recipe(i)
        clean, noise = item["clean"].numpy(), (item["noisy"] - item["clean"]).numpy()
        frames = np.abs(clean[: len(clean) // 800 * 800].reshape(-1, 800)).max(1)
        assert 0.2 < (frames < 1e-4).mean() < 0.95
        assert np.array_equal(clean, data[i]["clean"].numpy())
        assert {piece.file for piece in recipe.speech} <= set(np.concatenate(corpus.pool("speech", "valid").groups))
        kind, edges = i % 4, {time for layer in recipe.layers for burst in layer.bursts for time in burst}
        level = [rms_dbfs(noise[at : at + 16_000]) for at in (0, len(noise) - 16_000)]
        if kind == 2:  # begins
            assert level[0] < -90 < level[1]
        else:
            assert min(level) > -90
        assert len(recipe.layers) == 1 + (kind == 3) and bool(edges) == (kind >= 2)


def test_silence_divides_nothing(corpus: Corpus):
    item = recipe(corpus, 5, 1, 2.0)
    nothing = recipes.Layer("files", pieces=(recipes.Piece(0, int(corpus.cache.length[0]), 1, 0),))
    mute = (recipes.Piece(0, int(corpus.cache.length[0]), 1000, 0),)
    for changes in ({"layers": (nothing,)}, {"speech": mute}, {"layers": (nothing,), "speech": mute}):
        noisy, clean = render(corpus, bare(item, **changes))
        assert np.isfinite(noisy).all()
        assert np.isfinite(clean).all()


# ---------------------------------------------------------------------------------------------------- dataset
def test_mixtures_count_on_where_a_run_stopped(corpus: Corpus):
    data = Mixtures(corpus, "train", 1.0, seed=1)
    assert len(data) == 2**31
    whole = [data[i] for i in range(6)]
    again = Mixtures(corpus, "train", 1.0, seed=1)  # which has not drawn the others before
    assert torch.equal(again[5]["noisy"], whole[5]["noisy"])
    loader = torch.utils.data.DataLoader(data, batch_size=2, sampler=range(4, 6))
    batch = next(iter(loader))
    assert batch["noisy"].shape == batch["clean"].shape == (2, RATE)
    assert batch["noisy"].dtype == torch.float32
    assert batch["index"].tolist() == [4, 5]
    assert batch["snr"].tolist() == pytest.approx([whole[4]["snr"], whole[5]["snr"]])
    assert torch.equal(batch["clean"][1], whole[5]["clean"])


def test_validation_is_fixed(corpus: Corpus):
    data = Mixtures(corpus, "valid", 1.0, seed=0, size=3)
    assert len(data) == len(list(data)) == 3
    with pytest.raises(IndexError):
        data[3]
    assert data.recipe(2) == Mixtures(corpus, "valid", 1.0, seed=0, size=3).recipe(2)
