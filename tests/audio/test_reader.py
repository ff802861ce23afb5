"""Sound that can be decoded comes out whole: a header is a hint, and what is damaged is said."""

import io
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dsn_lite import audio
from dsn_lite.audio import mpeg, xiph
from dsn_lite.audio.sources import Source
from dsn_lite.errors import InputError

ONCE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CONTAINERS = {  # where the size of the samples stands: tag, bytes behind it, format
    "WAV": (b"data", 4, "<I"), "AIFF": (b"SSND", 4, ">I"), "AU": (b".snd", 8, ">I"), "CAF": (b"data", 4, ">q"),
    "W64": (b"data", 16, "<q"), "RF64": (b"ds64", 16, "<q"),
}  # fmt: skip


def noise(samples=20_000, channels=1, seed=0):
    return (np.random.default_rng(seed).standard_normal((channels, samples)) * 0.1).astype(np.float32)


def encoded(format, wave, rate=16_000, **options):
    file = io.BytesIO()
    soundfile.write(file, wave.T, rate, format=format, **options)
    return bytearray(file.getvalue())


def mp3(wave, rate=16_000, mode="VARIABLE"):
    return encoded("MP3", wave, rate, bitrate_mode=mode, compression_level=0.5)


def frames_of(content):
    """Where the frames of an mp3 begin."""
    return [at for at, frame, _ in mpeg._walk(Source(io.BytesIO(bytes(content)))) if frame]


def decode(folder, content, name="x"):
    """(samples [C, n], what is said of the damage or None, notes)."""
    path = Path(folder) / name
    path.write_bytes(content)
    with audio.Reader(path) as reader:
        wave = reader.read()
        assert reader.samples == wave.shape[1]
        return wave, str(reader.damage) if reader.damage else None, reader.notes


def with_size(format, content, size):
    tag, behind, form = CONTAINERS[format]
    changed = bytearray(content)
    struct.pack_into(form, changed, changed.index(tag) + behind, size)
    return changed


# ------------------------------------------------------------------------------------------------- sizes in headers
@pytest.mark.parametrize("format", CONTAINERS)
@pytest.mark.parametrize("size", [0, 1, 100, 20_000, 2_000_000_000, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFFF, -1])
def test_the_size_in_a_header_decides_nothing(tmp_path, format, size):
    wave = noise()
    content = encoded(format, wave, subtype="FLOAT")
    try:
        content = with_size(format, content, size)
    except struct.error:
        pytest.skip("this field has no sign")
    found, damage, _ = decode(tmp_path, content)
    np.testing.assert_array_equal(found, wave)
    assert damage is None


@ONCE
@given(
    format=st.sampled_from(sorted(CONTAINERS)), size=st.integers(0, (1 << 32) - 1), samples=st.integers(1, 3000),
    channels=st.integers(1, 3), subtype=st.sampled_from(["PCM_16", "PCM_24", "FLOAT", "DOUBLE"]),
    rate=st.sampled_from([8000, 16_000, 44_100, 192_000]),
)  # fmt: skip
def test_any_size_in_any_header(tmp_path, format, size, samples, channels, subtype, rate):
    wave = noise(samples, channels, seed=samples)
    wave[:, -1] = 0.3  # what ends in zeros might be padding
    content = encoded(format, wave, rate, subtype=subtype)
    expected = decode(tmp_path, content)[0]
    assert expected.shape == wave.shape
    if format == "W64":
        size += 24
    found, damage, _ = decode(tmp_path, with_size(format, content, size))
    np.testing.assert_array_equal(found, expected)
    there = samples * channels * {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4, "DOUBLE": 8}[subtype]
    is_beyond = there + 88 <= size < 10**9  # more than there is, and not so much that nobody meant it
    assert (damage is not None) or not is_beyond
    assert damage is None or (size > there and "cut off" in damage)


@pytest.mark.parametrize("format", CONTAINERS)
@pytest.mark.parametrize("share", [0.4, 0.9])
def test_of_a_file_that_ends_early_what_is_there_comes_out(tmp_path, format, share):
    wave = noise()
    content = encoded(format, wave, subtype="FLOAT")
    found, damage, _ = decode(tmp_path, content[: int(share * len(content))])
    assert share * 20_000 - 1200 < found.shape[1] <= share * 20_000
    np.testing.assert_array_equal(found, wave[:, : found.shape[1]])
    assert "cut off" in damage and f"{found.shape[1] / 16_000:.1f} s are there; copy or record it again" in damage
    with pytest.warns(UserWarning, match="cut off"):
        assert audio.read(tmp_path / "x").wave.shape == found.shape
    with pytest.raises(InputError, match="cut off"):
        audio.read(tmp_path / "x", strict=True)


def test_what_follows_the_samples_is_no_sound(tmp_path):
    wave = noise()
    content = encoded("WAV", wave, subtype="PCM_16")
    for tail in (
        b"LIST\x04\0\0\0INFO", b"LIST\x04\0\0\0INFOid3 \x02\0\0\0ab", b"TAG" + bytes(125), bytes(4096),
        b"odd \x03\0\0\0abc\0", b"bext\xff\xff\0\0cut off",
    ):  # fmt: skip
        assert decode(tmp_path, content + tail)[0].shape == wave.shape, tail
    found, _, notes = decode(tmp_path, content + noise(10).astype("<f4").tobytes())
    assert found.shape == (1, 20_020) and "promises 40000 bytes, 40040 are there" in notes[0]


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610", "ULAW"])
def test_telephone_codecs_with_a_placeholder(tmp_path, subtype):
    content = encoded("WAV", noise(8000), 8000, subtype=subtype)
    expected = decode(tmp_path, content)[0]
    for size in (0xFFFFFFFF, 2_000_000_000):
        np.testing.assert_array_equal(decode(tmp_path, with_size("WAV", content, size))[0], expected)


def test_other_byte_orders(tmp_path):
    wave = noise()
    for format, endian in (("WAV", "BIG"), ("AIFF", "LITTLE"), ("AU", "LITTLE")):
        content = encoded(format, wave, subtype="PCM_16", endian=endian)
        assert decode(tmp_path, content)[0].shape == wave.shape
        assert decode(tmp_path, content[:20_000])[1]


# ------------------------------------------------------------------------------------------------------------- flac
def flac_with_length(content, samples):
    changed = bytearray(content)
    changed[21] = changed[21] & 0xF0 | samples >> 32
    changed[22:26] = struct.pack(">I", samples & 0xFFFFFFFF)
    return changed


@ONCE
@given(samples=st.integers(0, (1 << 36) - 1) | st.integers(0, 40_000))
def test_flac_of_any_length_in_its_header(tmp_path, samples):
    wave = noise()
    content = flac_with_length(encoded("FLAC", wave, subtype="PCM_24"), samples)
    found, damage, _ = decode(tmp_path, content)
    np.testing.assert_allclose(found, wave, atol=1e-6)
    assert (damage is not None) == (20_000 < samples < (1 << 36) - 1)


def test_a_damaged_flac_is_silent_where_nothing_is_known(tmp_path):
    wave = noise(60_000, channels=2)
    content = encoded("FLAC", wave, subtype="PCM_16")
    whole = decode(tmp_path, content)[0]
    for at, count in ((len(content) // 2, 10), (len(content) // 3, 9000)):
        spoilt = bytearray(content)
        spoilt[at : at + count] = bytes(count)
        for length in (60_000, 0):
            found, damage, _ = decode(tmp_path, flac_with_length(spoilt, length))
            assert found.shape == whole.shape and "samples are silent" in damage
            differs = np.flatnonzero((found != whole).any(0))
            assert not found[:, differs].any() and len(differs) <= 4096 * (2 + count // 4096)
            assert differs[-1] - differs[0] + 1 >= len(differs) > 0
    found, damage, _ = decode(tmp_path, content[: len(content) // 2])
    assert "cut off" in damage and found.shape[1] % 4096 == 0 and np.array_equal(found, whole[:, : found.shape[1]])
    assert decode(tmp_path, content + b"TAG" + bytes(125))[1] is None


def test_a_flac_behind_a_tag(tmp_path):
    wave = noise()
    tag = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)
    assert decode(tmp_path, tag + encoded("FLAC", wave, subtype="PCM_16"))[0].shape == wave.shape


# -------------------------------------------------------------------------------------------------------------- mp3
def loud_then_quiet(seconds=6, rate=16_000):
    wave = noise(seconds * rate)
    wave[:, wave.shape[1] // 4 :] *= 0.001
    return wave


@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT", "AVERAGE"])
@pytest.mark.parametrize("is_quiet_first", [False, True])
def test_an_mp3_without_its_first_frame(tmp_path, capfd, mode, is_quiet_first):
    wave = loud_then_quiet()[:, :: -1 if is_quiet_first else 1]
    content = mp3(wave, mode=mode)
    whole, damage, _ = decode(tmp_path, content)
    assert whole.shape == wave.shape and damage is None
    frames = frames_of(content)
    found, damage, _ = decode(tmp_path, content[frames[1] :])
    assert damage is None and found.shape[1] == 576 * (len(frames) - 1)
    delay = 576 + 529  # of the encoder and the decoder, that the frame would have told
    np.testing.assert_allclose(found[:, delay : delay + wave.shape[1]], whole, atol=1e-6)
    for first in range(2, 40, 5):  # as recorded from a station: the first frames need bytes of those before
        assert decode(tmp_path, content[frames[first] :])[0].shape[1] == 576 * (len(frames) - first)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("count", [0, 1, 100, 100_000])
def test_a_wrong_number_of_frames(tmp_path, count):
    wave = loud_then_quiet()
    content = mp3(wave)
    at = content.index(b"Xing") + 8
    content[at : at + 4] = count.to_bytes(4, "big")
    found, damage, _ = decode(tmp_path, content)
    frames = len(frames_of(content)) - 1
    assert found.shape[1] == 576 * frames - 576 - 529 >= wave.shape[1]
    assert (damage is not None) == (count > frames)


def test_an_mp3_that_ends_early(tmp_path, capfd):
    wave = noise(48_000, channels=2)
    content = mp3(wave, 44_100, "CONSTANT")
    whole, frames = decode(tmp_path, content)[0], frames_of(content)
    for end in (frames[20], frames[20] + 7, frames[21] - 1):
        found, damage, _ = decode(tmp_path, content[:end])
        assert "cut off" in damage and found.shape[1] == 19 * 1152 - 576 - 529
        np.testing.assert_allclose(found, whole[:, : found.shape[1]], atol=1e-6)
    assert capfd.readouterr().err == ""


def test_damage_within_an_mp3_costs_no_more_than_its_frame(tmp_path, capfd):
    content = mp3(noise(64_000), mode="CONSTANT")
    frames = frames_of(content)
    content[frames[30] : frames[31]] = bytes(frames[31] - frames[30])
    found, damage, _ = decode(tmp_path, content)
    assert "are no MPEG audio" in damage and found.shape[1] == 576 * (len(frames) - 2) - 576 - 529
    assert capfd.readouterr().err == ""


def test_words_and_noise_are_no_mp3(tmp_path, capfd):
    contents = bytes(range(256)) * 20, b"\xff\xfe" + "text".encode("utf-16") * 99, b"ID3" + bytes(500)
    for number, content in enumerate(contents):
        with pytest.raises(InputError, match="not a sound file"):
            decode(tmp_path, content, f"{number}.mp3")
    assert capfd.readouterr().err == ""


@ONCE
@given(seed=st.integers(0, 1 << 30), cut=st.integers(0, 2000), tail=st.binary(max_size=200))
def test_an_mp3_in_rubbish(tmp_path, seed, cut, tail):
    content = mp3(noise(8000, seed=3))
    frames = frames_of(content)
    rubbish = np.random.default_rng(seed).bytes(cut).replace(b"\xff", b"\xfe")
    assume(not any(mark in rubbish + tail for mark in (b"\xff", b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")))
    found, _, _ = decode(tmp_path, rubbish + content + tail, "x.mp3")
    assert found.shape == (1, 8000) or (tail and found.shape[1] >= 8000)
    assert len(frames) > 10


def test_eight_threads_read_mp3_and_no_descriptor_changes(tmp_path):
    code = """
import os, sys, threading
import numpy as np
from dsn_lite import audio
audio.write("a.mp3", np.random.default_rng(0).standard_normal(48_000) * 0.1, 16_000)
before, calls = os.fstat(2), []
for name in ("dup", "dup2"):
    setattr(os, name, lambda *_, name=name: calls.append(name))
def work():
    for _ in range(25):
        assert audio.read("a.mp3").wave.shape == (1, 48_000)
threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
after = os.fstat(2)
assert (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino) and not calls
os.write(2, b"still heard")
"""
    environment = os.environ | {"PYTHONPATH": str(Path(audio.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "still heard")


# ------------------------------------------------------------------------------------------------------------ joined
MAKERS = {
    "mp3": mp3,
    "vorbis": lambda wave, rate=16_000: encoded("OGG", wave, rate, subtype="VORBIS"),
    "opus": lambda wave, rate=16_000: encoded("OGG", wave, rate, subtype="OPUS"),
    "flac": lambda wave, rate=16_000: encoded("FLAC", wave, rate, subtype="PCM_16"),
    **{
        name.lower(): lambda wave, rate=16_000, name=name: encoded(name, wave, rate, subtype="PCM_16")
        for name in CONTAINERS
    },
}


@pytest.mark.parametrize("kind", MAKERS)
def test_files_that_were_joined_come_out_one_after_the_other(tmp_path, kind):
    first, second = noise(20_000, seed=1), noise(30_011, seed=2)
    one, two = MAKERS[kind](first), MAKERS[kind](second)
    found, damage, _ = decode(tmp_path, one + two + one)
    alone = [decode(tmp_path, part)[0] for part in (one, two, one)]
    assert [part.shape[1] for part in alone] == [20_000, 30_011, 20_000] and damage is None
    np.testing.assert_allclose(found, np.concatenate(alone, axis=1), atol=1e-6)
    found, damage, _ = decode(tmp_path, one + two[: len(two) * 2 // 3])
    assert damage and found.shape[1] > 20_000
    np.testing.assert_allclose(found[:, :20_000], alone[0], atol=1e-6)


def test_tags_between_joined_mp3s(tmp_path):
    one, front, back = mp3(noise(8000)), b"ID3\x04\0\0\0\0\0\x0a" + bytes(10), b"TAG" + bytes(125)
    found, damage, _ = decode(tmp_path, front + one + back + front + one + back)
    assert found.shape == (1, 16_000) and damage is None


@pytest.mark.parametrize("kind", ["mp3", "vorbis", "flac"])
def test_what_was_joined_at_another_rate_is_converted_and_said(tmp_path, kind):
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)[None].repeat(2, axis=0).astype(np.float32)
    found, damage, notes = decode(tmp_path, MAKERS[kind](noise(16_000)) + MAKERS[kind](tone, 48_000))
    assert found.shape == (1, 32_000) and damage is None and "48000 Hz, 2 channels and is converted" in notes[0]
    expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(found[0, 18_000:30_000], expected[2000:14_000], atol=0.05)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_damaged_ogg_gives_the_pages_that_are_whole(tmp_path, subtype):
    content = encoded("OGG", noise(200_000), subtype=subtype)
    pages = [page for page in xiph._pages(Source(io.BytesIO(bytes(content)))) if page]
    assert pages[0].at == 0 and pages[-1].at + pages[-1].size == len(content) and len(pages) > 5
    for end in (pages[-1].at, pages[-1].at - 5):
        found, damage, notes = decode(tmp_path, content[:end])
        assert 100_000 < found.shape[1] < 200_000 and (damage or "no mark at its end" in notes[0])
    content[pages[4].at + 100] ^= 255
    found, damage, _ = decode(tmp_path, content)
    assert "pages are missing or spoilt" in damage and 20_000 < found.shape[1] < 200_000
    assert xiph.checksum(b"123456789") == 0x89A1897F


# --------------------------------------------------------------------------------------------- pipes, devices, faults
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "vorbis"])
def test_a_pipe_is_read_like_a_file(tmp_path, kind):
    content = bytes(MAKERS[kind](noise(120_000)))
    expected = decode(tmp_path, content)[0]
    os.mkfifo(tmp_path / "pipe")
    thread = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(content))
    thread.start()
    found = audio.read(tmp_path / "pipe").wave
    thread.join()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("name", "words"), [("/dev/null", "no bytes"), ("/dev/zero", "is a device"), ("-", "/dev/stdin")])
@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no such devices")
def test_what_is_no_file_is_said(name, words):
    with pytest.raises(InputError, match=words):
        audio.read(name)


def test_a_disk_that_cannot_be_read_is_said(tmp_path, monkeypatch, capfd):
    for suffix in ("wav", "flac", "mp3", "ogg"):
        path = tmp_path / f"x.{suffix}"
        audio.write(path, noise(200_000, channels=2), 44_100)
        for fails_at in range(8):
            reads, read = [], Source.read

            def failing(self, at, count, reads=reads, read=read, fails_at=fails_at):
                reads.append(at)
                if len(reads) > fails_at * 3:
                    raise OSError(5, "Input/output error")
                return read(self, at, count)

            with monkeypatch.context() as patch:
                patch.setattr(Source, "read", failing)
                with pytest.raises(InputError, match="cannot be read .Input/output error"):
                    audio.read(path)
    assert capfd.readouterr().err == ""


@ONCE
@given(
    kind=st.sampled_from(["wav", "flac", "mp3", "vorbis", "opus", "aiff", "caf", "w64", "au"]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4),
    end=st.floats(0, 1),
)  # fmt: skip
def test_no_damage_ends_in_anything_but_sound_or_one_line(tmp_path, kind, changes, end):
    content = MAKERS[kind](noise(12_000))
    for share, new in changes:
        at = int(share * (len(content) - len(new)))
        content[at : at + len(new)] = new
    try:
        found, _, _ = decode(tmp_path, content[: max(1, int(end * 1.5 * len(content)))])
    except InputError as error:
        assert "\n" not in str(error) and str(error).startswith(str(tmp_path))  # noqa: PT017 - either is right
    else:
        assert found.ndim == 2 and found.size and np.isfinite(found).all()
