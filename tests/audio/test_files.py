"""Reading, writing, resampling, levels and mixing."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import dsn_lite
from dsn_lite import audio
from dsn_lite.errors import InputError


def tone(samples, rate=16000, hertz=440.0, channels=1):
    phase = 2 * np.pi * hertz * np.arange(samples) / rate
    return np.stack([0.3 * np.sin(phase + c) for c in range(channels)]).astype(np.float32)


def leftovers(folder):
    return [path.name for path in Path(folder).iterdir() if path.name.endswith(".part")]


# ------------------------------------------------------------------------------------------------ reading and writing
@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [
        ("wav", "PCM_16", 1e-4), ("wav", "PCM_24", 1e-6), ("wav", "FLOAT", 0), ("wav", "PCM_U8", 1e-2),
        ("flac", "PCM_16", 1e-4), ("flac", "PCM_24", 1e-6), ("aiff", "PCM_16", 1e-4), ("ogg", "VORBIS", 0.05),
        ("opus", "OPUS", 0.05), ("mp3", "MPEG_LAYER_III", 0.05),
    ],
)  # fmt: skip
@pytest.mark.parametrize("samples", [1, 1000, 70001])
def test_what_is_written_is_read_back_with_its_length(tmp_path, suffix, subtype, tolerance, samples):
    wave = tone(samples, 48000, channels=2)
    path = tmp_path / f"x.{suffix}"
    audio.write(path, wave, 48000, subtype)
    back = audio.read(path)
    assert back.wave.shape == wave.shape
    assert back.wave.dtype == np.float32
    assert (back.sample_rate, back.subtype) == (48000, subtype)
    assert back.seconds == samples / 48000
    if samples > 10000:  # lossy coders need a moment to settle
        np.testing.assert_allclose(back.wave[:, 5000:-5000], wave[:, 5000:-5000], atol=max(tolerance, 1e-9))


def test_sixteen_bit_samples_survive_unchanged(tmp_path):
    every = np.arange(-32768, 32768).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", every, 16000)
    audio.write(tmp_path / "b.wav", audio.read(tmp_path / "a.wav").wave, 16000, "PCM_16")
    np.testing.assert_array_equal(soundfile.read(tmp_path / "b.wav", dtype="int16")[0], every)


def test_integer_encodings_are_limited_to_full_scale_and_floats_are_not(tmp_path):
    wave = np.array([[2.0, -2.0, 0.5, 1.0, -1.0]], dtype=np.float32)
    audio.write(tmp_path / "i.wav", wave, 16000, "PCM_16")
    codes = soundfile.read(tmp_path / "i.wav", dtype="int16")[0]
    assert codes.tolist() == [32767, -32768, 16384, 32767, -32768]
    for subtype in ("ULAW", "ALAW", "PCM_U8", "PCM_24"):  # libsndfile lets the first two wrap around
        audio.write(tmp_path / "i.wav", wave, 16000, subtype)
        np.testing.assert_allclose(audio.read(tmp_path / "i.wav").wave, wave.clip(-1, 1), atol=0.03)
    audio.write(tmp_path / "f.wav", wave, 16000, "FLOAT")
    np.testing.assert_array_equal(audio.read(tmp_path / "f.wav").wave, wave)
    with audio.writing(tmp_path / "n.wav", sample_rate=16000, channels=1, subtype="PCM_16") as writer:
        writer.write(wave)
    assert writer.clipped == 2


def test_a_subtype_that_cannot_keep_the_length_or_be_had_falls_back(tmp_path):
    for subtype in ("IMA_ADPCM", "GSM610", "MPEG_LAYER_II", "nonsense"):
        audio.write(tmp_path / "x.wav", tone(1001, 8000), 8000, subtype)
        assert audio.read(tmp_path / "x.wav").wave.shape == (1, 1001)
        assert soundfile.info(tmp_path / "x.wav").subtype == "PCM_16"


def test_blocks_together_are_the_whole(tmp_path):
    wave = tone(100_003, 44100, channels=3)
    audio.write(tmp_path / "x.flac", wave, 44100)
    with audio.Reader(tmp_path / "x.flac") as reader:
        blocks = list(reader.blocks(4096))
    assert {block.shape[1] for block in blocks[:-1]} == {4096}
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), audio.read(tmp_path / "x.flac").wave)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.wav", b"", "no bytes"),
        ("text.wav", b"hello world\n" * 100, "not a sound file"),
        ("random.mp3", bytes(range(256)) * 20, "not a sound file"),
        ("header.flac", b"fLaC\0\0\0\x22", "not a sound file"),
        ("bare.raw", bytes(1000), "not a sound file"),
    ],
)
def test_an_unreadable_file_is_named_with_a_cure(tmp_path, capfd, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        audio.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and says in message and ";" in message and "\n" not in message
    assert capfd.readouterr().err == ""  # decoders must not add lines of their own


def test_missing_file_folder_and_no_samples(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        audio.read(tmp_path / "nope.wav")
    with pytest.raises(InputError, match="is a folder"):
        audio.read(tmp_path)
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    with pytest.raises(InputError, match=r"none\.wav: no samples"):
        audio.read(tmp_path / "none.wav")


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_the_first_sample_that_is_no_number_is_named(tmp_path, value, word):
    wave = tone(200_000, 16000, channels=2)
    wave[1, 80_000:] = value
    wave[0, 150_000] = value
    soundfile.write(tmp_path / "x.wav", wave.T, 16000, subtype="FLOAT")
    with pytest.raises(InputError, match=rf"sample 80000 \(5.000 s\) of channel 2 is {word}"):
        audio.read(tmp_path / "x.wav")


# -------------------------------------------------------------------------------------------------- nothing is lost
def test_a_file_appears_only_when_complete(tmp_path):
    path = tmp_path / "deep" / "x.wav"
    audio.write(path, tone(1000), 16000)
    before = path.read_bytes()

    def interrupted():
        with audio.writing(path, sample_rate=16000, channels=1) as writer:
            writer.write(tone(500))
            assert len(leftovers(path.parent)) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == before
    assert leftovers(path.parent) == []


def test_the_old_file_stands_until_the_new_one_takes_its_name(tmp_path, monkeypatch):
    path = tmp_path / "x.wav"
    audio.write(path, tone(1000), 16000)
    before = path.read_bytes()

    def refused(source, target):
        assert Path(source).exists() and path.read_bytes() == before
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(InputError, match=r"x\.wav: cannot be written \(Permission denied\)"):
        audio.write(path, tone(500), 16000)
    assert path.read_bytes() == before and leftovers(tmp_path) == []


def test_a_full_disk_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "x.wav"
    audio.write(path, tone(1000), 16000)
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(soundfile.SoundFile, "write", full)
    with pytest.raises(InputError, match=r"x\.wav: cannot be written \(No space left on device\); free"):
        audio.write(path, tone(5000), 16000)
    assert path.read_bytes() == before
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_a_disk_that_really_refuses_more_bytes(tmp_path, suffix):
    code = f"""
import os, resource, numpy as np
from dsn_lite import audio
from dsn_lite.errors import InputError
noise = np.random.default_rng(0).standard_normal((1, 100_000)).astype("float32") * 0.1
audio.write("small.{suffix}", noise[:, :1000], 16000)
audio.write("probe.{suffix}", noise, 16000)
size = os.path.getsize("probe.{suffix}")
for share in (0.1, 0.5, 0.9, 1 - 1 / size):  # the last one fills up while the file is closed
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size * share), resource.RLIM_INFINITY))
    try:
        audio.write("small.{suffix}", noise, 16000)
    except InputError as error:
        print(error)
assert audio.read("small.{suffix}").wave.shape == (1, 1000)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(dsn_lite.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4 and all(f"small.{suffix}: cannot be written (" in line for line in lines), lines
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"probe.{suffix}", f"small.{suffix}"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"x\.wav: cannot be written"):
        audio.write(tmp_path / "file" / "x.wav", tone(10), 16000)


def test_what_a_format_cannot_store_is_named(tmp_path):
    with pytest.raises(InputError, match=r"x\.mp3: MP3 cannot store 8 channels at 16000 Hz"):
        audio.write(tmp_path / "x.mp3", tone(100, channels=8), 16000)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------- resampling
RATES = [8000, 11025, 16000, 22050, 44100, 48000, 96000]


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_stays_the_same_tone(rate):
    there = audio.resample(tone(rate, rate), rate, 16000)
    assert there.shape == (1, 16000)
    np.testing.assert_allclose(there[:, 500:-500], tone(16000, 16000)[:, 500:-500], atol=1e-3)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("samples", [1, 2, 511, 44101])
def test_there_and_back_keeps_the_length(rate, samples):
    wave = tone(samples, rate, channels=2)
    there = audio.resample(wave, rate, 16000)
    assert there.shape == (2, audio.resampled_length(samples, rate, 16000))
    back = audio.fit(audio.resample(there, 16000, rate), samples)
    assert back.shape == wave.shape
    if samples > 2000:
        np.testing.assert_allclose(back[:, 1000:-1000], wave[:, 1000:-1000], atol=2e-3)


@pytest.mark.parametrize("rate", RATES)
def test_resampling_in_blocks_equals_resampling_at_once(rate):
    rng = np.random.default_rng(1)
    wave = rng.standard_normal((2, 30_011)).astype(np.float32)
    stream, parts, at = audio.Resampler(rate, 16000, 2), [], 0
    while at < wave.shape[1]:
        size = int(rng.integers(1, 7000))
        parts.append(stream.feed(wave[:, at : at + size], last=at + size >= wave.shape[1]))
        at += size
    streamed, whole = np.concatenate(parts, axis=1), audio.resample(wave, rate, 16000)
    assert 0 <= whole.shape[1] - streamed.shape[1] <= 1  # rounded, not rounded up
    np.testing.assert_allclose(streamed, whole[:, : streamed.shape[1]], atol=1e-6)


def test_resampling_keeps_leading_axes():
    assert audio.resample(np.zeros((2, 3, 480)), 48000, 16000).shape == (2, 3, 160)
    assert audio.resample(np.zeros(480), 48000, 16000).shape == (160,)


# ------------------------------------------------------------------------------------------------- levels and mixing
def test_levels():
    assert audio.rms_dbfs(np.ones(10)) == 0
    assert audio.rms_dbfs(np.zeros(10)) == -np.inf
    assert audio.rms_dbfs(np.zeros(0)) == -np.inf
    assert audio.rms_dbfs(np.full((2, 10), 0.1)) == pytest.approx(-20)
    assert audio.to_mono(np.array([[1.0, 2.0], [3.0, 4.0]])).tolist() == [2.0, 3.0]
    assert audio.to_mono(np.array([1.0, 2.0])).tolist() == [1.0, 2.0]


def test_pauses_do_not_change_the_active_level():
    speech = tone(16000)[0]
    level = audio.active_level(speech)
    pause = np.random.default_rng(0).standard_normal(48000) * 1e-4
    assert audio.active_level(np.concatenate([speech, pause])) == pytest.approx(level, abs=1e-3)
    # 39 dB below the loudest still counts, 41 dB below does not
    assert audio.active_level(np.concatenate([speech, speech * 10 ** (-39 / 20)])) < level - 2.9
    assert audio.active_level(np.concatenate([speech, speech * 10 ** (-41 / 20)])) == pytest.approx(level, abs=1e-3)
    assert audio.active_level(np.full(100, 0.1)) == pytest.approx(-20)  # shorter than a frame
    assert audio.active_level(np.zeros(1000)) == -np.inf


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 20.0])
@pytest.mark.parametrize("length", [4000, 16000, 50000])
def test_mixtures_have_the_wanted_ratio(snr_db, length):
    rng = np.random.default_rng(2)
    speech = np.concatenate([tone(16000)[0], np.zeros(8000, np.float32)])
    noisy = audio.mix_at_snr(speech, rng.standard_normal(length), snr_db)
    assert noisy.dtype == np.float32 and noisy.shape == speech.shape
    added = noisy - speech
    assert audio.active_level(speech) - audio.rms_dbfs(added) == pytest.approx(snr_db, abs=1e-2)


def test_silence_cannot_be_mixed():
    with pytest.raises(InputError, match="speech is silent"):
        audio.mix_at_snr(np.zeros(1000), np.ones(1000), 0)
    with pytest.raises(InputError, match="noise is silent"):
        audio.mix_at_snr(np.ones(1000), np.zeros(1000), 0)
