"""`dsn-lite enhance`, `models` and `macs`, as a user meets them: good files, bad files and the others beside them."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from networks import random_network

import dsn_lite
from dsn_lite import audio, cli, zoo
from dsn_lite.commands import _batch, enhance, models
from dsn_lite.engine import stream as streaming
from dsn_lite.network.config import Config
from dsn_lite.network.weights import save as save_weights

ROOT = Path(dsn_lite.__file__).parents[1]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A `tiny` network with random weights."""
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_weights(random_network("tiny"), path)
    return path


@pytest.fixture
def run(weights, tmp_path, monkeypatch, capfd):
    """Run a command in an empty folder: (exit status, lines of stdout, lines of stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, model=weights):
        status = cli.main(["enhance", *map(str, arguments), "--model", str(model)])
        shown = capfd.readouterr()
        return status, shown.out.splitlines(), shown.err.splitlines()

    return run


def noise(samples, channels=1, seed=0):
    return (np.random.default_rng(seed).standard_normal((channels, samples)) * 0.1).astype(np.float32)


def save(name, wave, rate=16000, subtype="PCM_16"):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(name, wave.T, rate, subtype=subtype)


def tree():
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


# ---------------------------------------------------------------------------------------------------- the right result
@pytest.mark.parametrize(
    ("rate", "channels", "seconds"),
    [(16000, 1, 2.0), (8000, 1, 1.5), (44100, 2, 9.3), (48000, 8, 0.7), (11025, 1, 1.0)],
)
def test_same_rate_length_and_channels_and_equal_to_the_offline_result(run, weights, rate, channels, seconds):
    wave = noise(int(rate * seconds), channels)
    save("x.wav", wave, rate, "FLOAT")
    status, lines, errors = run("x.wav", "-o", "out", "--report", "r.json")
    assert (status, len(lines), errors) == (0, 1, [])
    out = audio.read("out/x.wav")
    assert (out.wave.shape, out.sample_rate, out.subtype, out.format) == (wave.shape, rate, "FLOAT", "WAV")
    offline = zoo.load(weights).enhance(wave, rate)
    np.testing.assert_allclose(out.wave, offline.wave, atol=1e-5)
    assert np.abs(out.wave).max() > 0.05
    row = json.loads(Path("r.json").read_text())["files"][0]
    assert row["activation"] == pytest.approx(offline.activation, abs=1e-4)
    assert row["mmacs_per_second"] == pytest.approx(offline.mmacs_per_second, abs=1e-3)
    assert 0.02 < row["activation"] < 0.98
    assert list(row["gates"].values()) == pytest.approx(
        offline.gates.reshape(-1, offline.gates.shape[-1]).mean(axis=0), abs=1e-4
    )


@pytest.mark.parametrize(
    ("name", "subtype"),
    [("x.wav", "PCM_24"), ("x.flac", "PCM_16"), ("x.ogg", "VORBIS"), ("x.opus", "OPUS"), ("x.mp3", "MPEG_LAYER_III")],
)
def test_same_encoding(run, name, subtype):
    audio.write(name, noise(48000), 48000, subtype)
    assert run(name, "-o", "out")[0] == 0
    out = audio.read(f"out/{name}")
    assert (out.wave.shape, out.subtype) == ((1, 48000), subtype)


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "GSM610"])
def test_telephone_codecs_become_pcm(run, subtype):
    save("x.wav", noise(8000), 8000, subtype)
    status, lines, _ = run("x.wav", "-o", "out")
    assert status == 0 and f"WAV {subtype} is written as WAV PCM_16" in lines[0]
    assert soundfile.info("out/x.wav").frames == soundfile.info("x.wav").frames


def test_a_file_is_what_is_in_it_not_what_its_suffix_says(run):
    soundfile.write("x.wav", noise(8000).T, 16000, format="FLAC")
    assert run("x.wav", "-o", "out")[0] == 0
    assert soundfile.info("out/x.wav").format == "FLAC"


@pytest.mark.parametrize(("samples", "rate"), [(1, 16000), (1, 44100), (100, 8000), (511, 16000), (1400, 44100)])
def test_shorter_than_a_window(run, samples, rate):
    save("x.wav", noise(samples), rate)
    status, lines, errors = run("x.wav", "-o", "out", "--report", "r.json")
    assert (status, errors) == (0, []) and "shorter than one window of 32 ms" in lines[0]
    assert audio.read("out/x.wav").wave.shape == (1, samples)
    report = json.loads(Path("r.json").read_text())["files"][0]
    assert report["frames"] >= 2 and 0 <= report["activation"] <= 1


def test_silence_stays_silent(run):
    save("x.wav", np.zeros((2, 30000)), 44100)
    status, lines, errors = run("x.wav", "-o", "out")
    assert (status, errors) == (0, []) and "; silent" in lines[0] and "clipped" not in lines[0]
    assert not audio.read("out/x.wav").wave.any()


def test_a_clipped_file_is_enhanced_and_remarked(run):
    save("x.wav", np.clip(noise(16000) * 30, -1, 1))
    save("loud.wav", np.sin(np.arange(16000) / 30)[None])
    status, lines, errors = run("x.wav", "loud.wav", "-o", "out")
    assert (status, errors) == (0, [])
    assert "the input is clipped" in lines[0] and "the input is clipped" not in lines[1]
    out = audio.read("out/x.wav").wave
    assert out.shape == (1, 16000) and np.abs(out).max() <= 1


def test_output_beyond_full_scale_is_limited_not_wrapped(run, weights, monkeypatch):
    save("x.wav", np.sin(np.arange(16000) / 30)[None])
    monkeypatch.setattr(streaming.Stream, "feed", lambda self, chunk, feed=streaming.Stream.feed: feed(self, 3 * chunk))
    lines = run("x.wav", "-o", "out")[1]
    assert "samples of the output were limited to full scale" in lines[0]
    stream = streaming.Stream(zoo.load(weights))
    loud = np.concatenate([stream.feed(audio.read("x.wav").wave[0]), stream.flush()])
    assert np.abs(loud).max() > 1.1
    np.testing.assert_allclose(audio.read("out/x.wav").wave[0], np.clip(loud, -1, 1), atol=1e-4)


def test_memory_does_not_grow_with_the_length(weights, tmp_path):
    code = f"""
import resource, sys
import numpy as np, soundfile
from dsn_lite import cli
second = np.random.default_rng(0).standard_normal(192000) * 0.1
peaks = []
for name, seconds in (("warm", 20), ("long", 100)):
    with soundfile.SoundFile(name + ".wav", "w", 192000, 1) as file:
        for _ in range(seconds):
            file.write(second)
    status = cli.main(["enhance", name + ".wav", "-o", "out", "--gates", name + ".png", "--model", {str(weights)!r}])
    assert status == 0
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20))
print(peaks[0], peaks[1])
"""
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    warm, long = map(float, shown.splitlines()[-1].split())
    # The samples of the long file alone are 77 MB as float32.
    assert long - warm < 40, shown
    assert soundfile.info(tmp_path / "out" / "long.wav").frames == 100 * 192000


def test_budget_and_policy(run):
    save("x.wav", noise(16000), subtype="FLOAT")
    shares = {}
    for name, options in {
        "closed": ("--policy", "closed"), "none": ("--budget", "0"), "low": ("--budget", "0.2"),
        "high": ("--budget", "0.8"), "all": ("--budget", "1"), "open": ("--policy", "open"),
    }.items():  # fmt: skip
        assert run("x.wav", "-o", name, "--report", "r.json", *options)[0] == 0
        report = json.loads(Path("r.json").read_text())
        shares[name] = report["files"][0]["activation"]
        assert f"{report['policy']} {report['budget']}" in {"learned 0.0", "learned 1.0", "learned 0.2", "learned 0.8",
                                                           "open None", "closed None"}  # fmt: skip
    assert shares["closed"] == shares["none"] == 0 and shares["open"] == shares["all"] == 1
    assert 0 < shares["low"] < shares["high"] < 1
    np.testing.assert_allclose(audio.read("all/x.wav").wave, audio.read("open/x.wav").wave, atol=1e-6)


# -------------------------------------------------------------------------------------------------------- bad input
def make_bad_files():
    """One of each kind, with what its line must say."""
    Path("bad").mkdir()
    Path("bad/bytes.wav").write_bytes(b"")
    save("bad/none.wav", np.zeros((1, 0)))
    wave = noise(20000)
    wave[0, 12345] = np.nan
    save("bad/nan.wav", wave, subtype="FLOAT")
    wave[0, 12345] = np.inf
    save("bad/inf.wav", wave, subtype="FLOAT")
    Path("bad/text.flac").write_text("not sound at all " * 50)
    return {
        "bytes.wav": "no bytes", "none.wav": "no samples", "nan.wav": "sample 12345 (0.772 s) of channel 1 is NaN",
        "inf.wav": "sample 12345 (0.772 s) of channel 1 is infinite", "text.flac": "not a sound file",
    }  # fmt: skip


def test_each_bad_file_costs_one_line_and_the_others_are_done(run):
    cures = make_bad_files()
    save("first.wav", noise(8000))
    save("zlast.wav", noise(8000))
    status, lines, errors = run("first.wav", "missing.wav", "bad", "zlast.wav", "-o", "out", "--report", "r.json")
    assert status == 2
    assert [line.split(":")[0] for line in lines] == ["out/first.wav", "out/zlast.wav"]
    assert len(errors) == len(cures) + 1
    for name, says in {**{f"bad/{name}": says for name, says in cures.items()}, "missing.wav": "no such file"}.items():
        (line,) = [line for line in errors if line.startswith(f"dsn-lite: {name}: ")]
        assert says in line and ";" in line
    assert [path for path in tree() if path.startswith("out")] == ["out/first.wav", "out/zlast.wav"]
    report = json.loads(Path("r.json").read_text())
    assert [row["output"] for row in report["files"]] == ["out/first.wav", "out/zlast.wav"]
    assert ["dsn-lite: " + line for line in report["errors"]] == errors
    assert report["totals"]["files"] == 2 and report["totals"]["errors"] == len(errors)
    assert report["totals"]["seconds"] == 1.0


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "opus"])
def test_what_is_there_of_a_file_that_was_cut_off_is_enhanced(run, suffix):
    audio.write(f"whole.{suffix}", noise(50000), 16000)
    content = Path(f"whole.{suffix}").read_bytes()
    Path(f"x.{suffix}").write_bytes(content[: 9 * len(content) // 10])
    status, lines, errors = run(f"x.{suffix}", "-o", "out", "--report", "r.json")
    assert (status, len(lines), len(errors)) == (2, 1, 1)
    assert (
        errors[0].startswith(f"dsn-lite: x.{suffix}: ") and "cut off" in errors[0] and "copy or record it" in errors[0]
    )
    with audio.Reader(f"x.{suffix}") as reader:
        there = reader.read().shape
    assert audio.read(f"out/x.{suffix}").wave.shape == there and 10_000 < there[1] < 50_000
    report = json.loads(Path("r.json").read_text())
    assert report["totals"]["files"] == 1 and ["dsn-lite: " + line for line in report["errors"]] == errors


def test_a_bad_file_leaves_the_earlier_result(run):
    save("x.wav", noise(8000))
    run("x.wav", "-o", "out")
    before = Path("out/x.wav").read_bytes()
    content = Path("x.wav").read_bytes()
    Path("x.wav").write_bytes(b"JUNK" + content[4:])
    assert run("x.wav", "-o", "out")[0] == 2
    assert Path("out/x.wav").read_bytes() == before
    assert tree() == ["out/x.wav", "x.wav"]


def test_a_full_disk_costs_one_line_and_loses_nothing(run, monkeypatch):
    for name in ("a.wav", "b.wav", "c.wav"):
        save(name, noise(30000))
    run("b.wav", "-o", "out")
    before = Path("out/b.wav").read_bytes()
    write, opened = soundfile.SoundFile.write, []

    def fills_up(file, data):
        if file not in opened:
            opened.append(file)
        if len(opened) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(soundfile.SoundFile, "write", fills_up)
    status, lines, errors = run("a.wav", "b.wav", "c.wav", "-o", "out")
    assert status == 2 and len(lines) == 2
    assert errors == [
        "dsn-lite: out/b.wav: cannot be written (No space left on device); free some space or choose another folder "
        "and run again"
    ]
    assert Path("out/b.wav").read_bytes() == before
    assert tree() == ["a.wav", "b.wav", "c.wav", "out/a.wav", "out/b.wav", "out/c.wav"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_report_that_cannot_be_written(run):
    save("x.wav", noise(8000))
    status, lines, errors = run("x.wav", "-o", "out", "--report", "/dev/full/r.json")
    assert status == 2 and len(errors) == 1 and "/dev/full/r.json: cannot be written" in errors[0]
    assert lines[0].startswith("out/x.wav") and tree() == ["out/x.wav", "x.wav"]


def test_a_picture_that_cannot_be_drawn_does_not_cost_the_sound(run):
    save("x.wav", noise(8000))
    Path("file").write_text("")
    status, lines, errors = run("x.wav", "-o", "out", "--gates", "file/g.png", "--report", "r.json")
    assert status == 2 and len(lines) == len(errors) == 1
    assert "file/g.png: cannot be written" in errors[0]
    report = json.loads(Path("r.json").read_text())
    assert (report["totals"]["files"], report["totals"]["errors"]) == (1, 1)
    assert tree() == ["file", "out/x.wav", "r.json", "x.wav"]


def test_wrong_checkpoints_are_one_line(run, weights):
    save("x.wav", noise(8000))
    Path("junk.safetensors").write_bytes(b"junk" * 100)
    Path("junk.json").write_text(weights.with_suffix(".json").read_text())
    Path("alone.safetensors").write_bytes(weights.read_bytes())
    Path("other.safetensors").write_bytes(weights.read_bytes())
    card = json.loads(weights.with_suffix(".json").read_text())
    card["network"] = Config.preset("base").to_dict()
    Path("other.json").write_text(json.dumps(card))
    for model in ("junk.safetensors", "alone.safetensors", "other.safetensors", "missing.safetensors", "no-such-name"):
        status, lines, errors = run("x.wav", "-o", "out", model=model)
        assert (status, lines, len(errors)) == (2, [], 1), errors
        assert Path(model).stem in errors[0]
    assert "known are" in errors[0]
    assert not Path("out").exists()


def test_a_fault_of_ours_does_not_cost_the_other_files(run, monkeypatch):
    save("a.wav", noise(8000))
    save("b.wav", noise(9000))
    feed = streaming.Stream.feed

    def faulty(self, chunk):
        if len(chunk) == 8000:
            raise KeyError("oops")
        return feed(self, chunk)

    monkeypatch.setattr(streaming.Stream, "feed", faulty)
    status, lines, errors = run("a.wav", "b.wav", "-o", "out")
    assert status == 2 and len(lines) == 1
    assert errors[0].startswith("Traceback")
    assert errors[-1] == "dsn-lite: a.wav: KeyError('oops') inside dsn-lite; please report it"
    assert tree() == ["a.wav", "b.wav", "out/b.wav"]


def test_interrupted_work_is_reported_and_leaves_no_rest(run, monkeypatch):
    save("a.wav", noise(8000))
    save("b.wav", noise(9000))
    feed = streaming.Stream.feed

    def interrupted(self, chunk):
        if len(chunk) == 9000:
            raise KeyboardInterrupt
        return feed(self, chunk)

    monkeypatch.setattr(streaming.Stream, "feed", interrupted)
    status, _, errors = run("a.wav", "b.wav", "-o", "out", "--report", "r.json")
    assert (status, errors) == (130, ["dsn-lite: interrupted"])
    assert tree() == ["a.wav", "b.wav", "out/a.wav", "r.json"]
    assert json.loads(Path("r.json").read_text())["totals"]["files"] == 1


# ------------------------------------------------------------------------------------------------- what goes where
def test_folders_keep_their_names_and_leave_out_what_is_no_sound(run):
    for name in ("in/a.wav", "in/deep/er/b.flac", "in/.hidden.wav", "in/.git/c.wav"):
        save(name, noise(4000))
    Path("in/notes.txt").write_text("x")
    assert run("in", "-o", "in/out")[0] == 0
    assert run("in", "-o", "in/out")[0] == 0  # the results of the first run are not enhanced again
    assert [path for path in tree() if path.startswith("in/out")] == ["in/out/a.wav", "in/out/deep/er/b.flac"]


def test_a_folder_without_sound_is_named(run):
    Path("empty").mkdir()
    save("a.wav", noise(4000))
    status, lines, errors = run("empty", "a.wav", "-o", "out")
    assert (status, len(lines)) == (2, 1)
    assert errors == ["dsn-lite: empty: no sound files in this folder; name files, or another folder"]


def test_one_file_can_get_another_name_and_format(run):
    save("a.wav", noise(4000))
    status, lines, _ = run("a.wav", "-o", "clean.flac")
    assert status == 0 and "WAV PCM_16 is written as FLAC PCM_16" in lines[0]
    assert audio.read("clean.flac").wave.shape == (1, 4000)
    assert run("clean.flac", "-o", "back.mp3")[0] == 0
    assert run("back.mp3", "-o", "again.wav")[0] == 0
    assert soundfile.info("again.wav").frames == 4000


def test_several_files_need_a_folder(run):
    save("a.wav", noise(4000))
    save("b.wav", noise(4000))
    for inputs in (("a.wav", "b.wav"), (".",)):
        status, _, errors = run(*inputs, "-o", "clean.wav")
        assert (status, len(errors)) == (2, 1) and "name a folder" in errors[0]
    Path("taken").write_text("x")
    status, _, errors = run("a.wav", "-o", "taken")
    assert (status, errors) == (2, ["dsn-lite: taken: is a file; name a folder for the results"])


def test_an_input_is_never_overwritten(run):
    save("in/a.wav", noise(4000))
    save("in/b.wav", noise(4000))
    Path("out").mkdir()
    os.link("in/a.wav", "out/a.wav")  # another name of the same file
    before = Path("in/a.wav").read_bytes()
    for output in ("in", "out", "in/../in"):
        status, lines, errors = run("in/a.wav", "-o", output)
        assert (status, lines) == (2, []), output
        assert len(errors) == 1 and "in/a.wav: would be overwritten" in errors[0]
    status, lines, errors = run("in", "-o", "out")
    assert (status, len(lines), len(errors)) == (2, 1, 1)
    assert run("in/a.wav", "-o", "new", "--report", "in/a.wav")[0] == 2
    assert run("in/a.wav", "-o", "in/a.wav")[0] == 2
    assert Path("in/a.wav").read_bytes() == before


def test_two_files_never_share_a_result(run):
    save("one/a.wav", noise(4000))
    save("two/a.wav", noise(5000))
    status, lines, errors = run("one/a.wav", "two/a.wav", "one/a.wav", "-o", "out")
    assert (status, len(lines), len(errors)) == (2, 1, 1)
    assert errors[0].startswith("dsn-lite: two/a.wav: out/a.wav is the result of one/a.wav already")
    assert audio.read("out/a.wav").wave.shape == (1, 4000)


def test_pictures(run):
    for name in ("a.wav", "b.wav"):
        save(name, noise(8000, channels=2))
    assert run("a.wav", "-o", "out", "--gates", "map.png")[0] == 0
    assert run("a.wav", "b.wav", "-o", "out", "--gates", "pictures/map.png")[0] == 0
    made = [path for path in tree() if path.endswith(".png")]
    assert made == ["map.png", "pictures/map-a.png", "pictures/map-b.png"]
    assert all(Path(path).read_bytes().startswith(b"\x89PNG") for path in made)
    assert enhance.picture_names(None, [Path("a.wav")]) == [None]


def test_a_picture_of_unknown_kind_is_refused_before_the_work(run):
    save("a.wav", noise(8000))
    status, lines, errors = run("a.wav", "-o", "out", "--gates", "map.txt")
    assert (status, lines, len(errors)) == (2, [], 1) and "map.txt: a picture is saved as" in errors[0]
    assert tree() == ["a.wav"]


# ------------------------------------------------------------------------------------------------ the command line
def test_help_and_version_do_not_wait_for_torch(capsys):
    code = """
import sys
from dsn_lite import cli
try:
    cli.main(["enhance", "--help"])
except SystemExit:
    pass
print([name for name in ("torch", "matplotlib", "soxr", "librosa") if name in sys.modules])
"""
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "examples:" in shown and "--budget" in shown
    assert shown.splitlines()[-1] == "[]"
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0 and capsys.readouterr().out == f"dsn-lite {dsn_lite.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["enhance"], ["enhance", "a.wav"], ["enhance", "a.wav", "-o", "x", "--budget", "2"],
     ["enhance", "a.wav", "-o", "x", "--budget", "nan"], ["enhance", "a.wav", "-o", "x", "--policy", "maybe"]],
)  # fmt: skip
def test_wrong_arguments_are_one_line(capsys, arguments):
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    lines = capsys.readouterr().err.splitlines()
    assert left.value.code == 2 and len(lines) == 1 and "--help" in lines[0]


def test_names_that_are_no_text_or_several_lines(run):
    name = os.fsdecode(b"caf\xe9\nline.wav")
    try:
        save("x.wav", noise(4000))
        os.rename("x.wav", name)
    except OSError:
        pytest.skip("this file system has no such names")
    assert run(name, "-o", "out", "--gates", "g.png", "--report", "r.json")[0] == 0
    Path(name).write_bytes(b"")
    status, _, errors = run(name, "-o", "out", "--report", "r.json")
    assert status == 2 and len(errors) == 1


def test_the_bar_tells_how_far_the_work_is(run, monkeypatch, capfd):
    class Shown(_batch.tqdm):
        def __init__(self, **options):
            super().__init__(**options | {"disable": False, "delay": 0, "mininterval": 0})

    monkeypatch.setattr(_batch, "tqdm", Shown)
    save("a.wav", noise(160_000))
    save("b.wav", noise(160_000))
    status, lines, errors = run("a.wav", "b.wav", "missing.wav", "-o", "out")
    shown = " ".join(errors)
    assert (status, len(lines)) == (2, 2)
    assert all(words in shown for words in (" 50%|", "file 1 of 3", " left", "100%|", "missing.wav: no such file"))


def test_models_and_macs(capsys, weights):
    assert cli.main(["macs", "--json", "--model", "tiny", "--model", str(weights)]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["tiny"]["open"] == counts[str(weights)]["open"] > counts["tiny"]["closed"] > 0
    assert cli.main(["macs"]) == 0
    table = capsys.readouterr().out
    assert all(f"{name}\n" in table for name in ("tiny", "base", "paper")) and "encoder 2" in table
    assert cli.main(["macs", "--model", "nope"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert cli.main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == zoo.available()
    assert cli.main(["models"]) == 0
    metrics = {"pesq": 2.34567, "mmacs_per_second": 71.23}
    cards = [{"name": "a-long-name", "steps": 1234, "metrics": metrics}, {"name": "b"}]
    lines = models.table(cards).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split() == ["a-long-name", "1234", "-", "71.2", "2.35", "-", "-", "-"]
    assert "train one" in models.table([])
