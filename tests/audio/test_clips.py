"""The clips are what their table says, and speech in form and level."""

import csv

import numpy as np
import pytest
import soundfile

from dsn_lite import audio
from dsn_lite.audio import clips
from dsn_lite.errors import InputError

CLIPS = pytest.mark.parametrize("name", clips.names())


def test_table_and_folder_agree():
    folder = clips.info("umbrella").path.parent
    assert {path.name for path in folder.glob("*.flac")} == {clips.info(name).file for name in clips.names()}
    with open(folder / "clips.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(clips.names())
    assert all(value for row in rows for value in row.values())  # versions and lengths were written back


def test_voices_are_many_and_sentences_differ():
    infos = [clips.info(name) for name in clips.names()]
    assert 16 <= len(infos) <= 24
    assert len({info.text for info in infos}) == len(infos)
    assert len({info.voice for info in infos}) >= 10
    assert {info.engine for info in infos} == {"flite", "espeak-ng"}
    women = sum(info.speaker == "woman" for info in infos)
    assert 6 <= women <= len(infos) - 6 and {info.speaker for info in infos} == {"woman", "man"}


@CLIPS
def test_form(name):
    info = clips.info(name)
    header = soundfile.info(info.path)
    assert (header.format, header.subtype, header.samplerate, header.channels) == ("FLAC", "PCM_16", 16000, 1)
    wave = clips.load(name)
    assert wave.dtype == np.float32 and wave.shape == (header.frames,)
    assert 3 <= header.duration <= 5
    assert header.duration == pytest.approx(info.seconds, abs=0.006)


@CLIPS
def test_level_and_silence_at_the_ends(name):
    wave = clips.load(name)
    assert audio.active_level(wave, 16000) == pytest.approx(-26, abs=0.2)
    assert np.abs(wave).max() < 0.7  # room for noise on top
    assert not wave[: round(0.2 * 16000)].any() and not wave[-round(0.2 * 16000) :].any()
    assert wave[: round(0.4 * 16000)].any()  # and not longer than a moment


@CLIPS
def test_spectrum_is_that_of_wide_band_speech(name):
    power = np.abs(np.fft.rfft(clips.load(name))) ** 2
    hertz = np.fft.rfftfreq(2 * power.size - 2, 1 / 16000)
    share = {limits: power[(hertz >= limits[0]) & (hertz < limits[1])].sum() / power.sum() for limits in
             ((0, 60), (100, 1000), (4000, 8000))}  # fmt: skip
    assert share[0, 60] < 0.01
    assert share[100, 1000] > 0.4
    assert share[4000, 8000] > 5e-4


def test_loading_twice_gives_separate_copies():
    first, second = clips.load("owl"), clips.load("owl")
    first[:] = 0
    assert second.any()


def test_unknown_clip_is_named_with_the_cure():
    with pytest.raises(InputError, match=r"'owls'.*umbrella"):
        clips.load("owls")
