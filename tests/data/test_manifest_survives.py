"""Manifests as spreadsheets write them, and corpora of one speaker."""

from __future__ import annotations

import re

import numpy as np
import pytest
import soundfile

from dsn_lite import cli
from dsn_lite.data import read_manifest
from dsn_lite.errors import InputError

ROWS = "path,kind,split,seconds\na.wav,speech,train,1\nb.wav,noise,valid,2.5\n"


def put(folder, *names, seconds=0.5):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        time = np.arange(round(16_000 * (seconds + 0.1 * number))) / 16_000
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * (200 + 50 * number) * time), 16_000)


@pytest.mark.parametrize(
    "content",
    [
        ROWS.encode("utf-8-sig"), ROWS.replace("\n", "\r\n").encode("utf-8-sig"),
        ROWS.replace("path", '"path"', 1).encode("utf-8-sig"), ROWS.encode(), (ROWS + "\n\n").encode(),
    ],
    ids=["mark", "mark and CRLF", "mark and quotes", "plain", "empty lines at the end"],
)  # fmt: skip
def test_a_byte_order_mark_is_no_letter(tmp_path, content):
    (tmp_path / "m.csv").write_bytes(content)
    entries = read_manifest(tmp_path / "m.csv")
    assert [(e.path, e.kind, e.split, e.seconds) for e in entries] == [
        ("a.wav", "speech", "train", 1.0), ("b.wav", "noise", "valid", 2.5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (ROWS.encode("utf-16"), "cannot be read"),
        (ROWS.replace("a.wav", "ä.wav").encode("latin-1"), "cannot be read"),
        (ROWS.replace(",", ";").encode(), "no columns path and kind"),
        (ROWS.replace("2.5", "nan").encode(), "line 3: seconds is 'nan'"),
        (ROWS.replace("2.5", "-1").encode(), "line 3: seconds is '-1'"),
        (ROWS.replace("2.5", "inf").encode(), "line 3: seconds is 'inf'"),
        (b"\xef\xbb\xbf", "no rows"),
    ],
)
def test_what_is_no_manifest_is_one_line(tmp_path, content, words):
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        read_manifest(tmp_path / "m.csv")
    assert "\n" not in str(caught.value)


def corpus(tmp_path, capsys) -> tuple[int, str, dict[str, str]]:
    status = cli.main(["corpus", str(tmp_path / "mine"), "-o", str(tmp_path / "m.csv")])
    splits = {entry.file.name: entry.split for entry in read_manifest(tmp_path / "m.csv")}
    return status, capsys.readouterr().err, splits


def test_one_speaker_with_several_files_is_split_by_file_and_that_is_said(tmp_path, capsys):
    put(tmp_path, *(f"mine/speech/anna/{number}.wav" for number in range(10)), "mine/noise/fan.wav")
    status, said, splits = corpus(tmp_path, capsys)
    assert status == 0 and "anna: trains and validates" in said
    speech = [split for name, split in splits.items() if name != "fan.wav"]
    assert speech.count("valid") == 1 and speech.count("train") == 9


def test_one_speaker_with_one_file_is_said_at_once(tmp_path, capsys):
    put(tmp_path, "mine/speech/anna/all.wav", "mine/noise/fan.wav")
    status, said, splits = corpus(tmp_path, capsys)
    assert status == 2 and "no speech to validate on" in said and "cut this one in two" in said
    assert splits["all.wav"] == "train"


def test_two_speakers_are_not_torn_apart(tmp_path, capsys):
    names = [f"mine/speech/{who}/{number}.wav" for who in ("anna", "bert") for number in range(3)]
    put(tmp_path, *names, "mine/noise/fan.wav")
    entries = corpus(tmp_path, capsys)
    assert entries[0] == 0 and "trains and validates" not in entries[1]
    by_speaker = {entry.speaker: set() for entry in read_manifest(tmp_path / "m.csv") if entry.kind == "speech"}
    for entry in read_manifest(tmp_path / "m.csv"):
        if entry.kind == "speech":
            by_speaker[entry.speaker].add(entry.split)
    assert sorted(map(sorted, by_speaker.values())) == [["train"], ["valid"]]


def test_a_corpus_of_noise_alone_says_what_is_missing(tmp_path, capsys):
    put(tmp_path, "mine/noise/fan.wav", "mine/noise/rain.wav")
    status, said, _ = corpus(tmp_path, capsys)
    assert status == 2 and "no speech to train on" in said
