"""Every command: nothing of the user's is overwritten, each output has a name of its own, what is not done is said."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dsn_lite
from dsn_lite import audio, cli, zoo
from dsn_lite.commands._files import Outputs, find, picture_names
from dsn_lite.errors import InputError

ROOT = Path(dsn_lite.__file__).parents[1]
SOUND = (np.random.default_rng(0).standard_normal(8000) * 0.1).astype(np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory, random_network, random_separator, random_demucs):
    """Files of weights by name: gated, static, separator, demucs; and one that holds NaN."""
    folder = tmp_path_factory.mktemp("weights")
    made = {
        "gated": random_network(), "static": random_network(parts="absent"), "separator": random_separator(),
        "demucs": random_demucs(),
    }  # fmt: skip
    for name, network in made.items():
        zoo.save(network, folder / f"{name}.safetensors")
    broken = random_network()
    with torch.no_grad():
        next(broken.parameters()).view(-1)[0] = torch.nan
    zoo.save(broken, folder / "broken.safetensors")
    return {name: folder / f"{name}.safetensors" for name in [*made, "broken"]}


@pytest.fixture
def run(models, tmp_path, monkeypatch, capfd):
    """Run a command line in an empty folder: (exit status, lines of stdout, lines of stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(command, *arguments, model="gated"):
        options = ["--model", str(models[model])] if model else []
        status = cli.main([command, *map(str, arguments), *options])
        shown = capfd.readouterr()
        return status, shown.out.splitlines(), shown.err.splitlines()

    return run


def save(name, wave=SOUND, rate=16_000, **options):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(name, wave, rate, **options)
    return Path(name)


def tree():
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


# ------------------------------------------------------------------------------------- nothing of the user's replaced
def test_no_command_replaces_what_it_reads(run, models):
    save("mine.wav")
    os.link("mine.wav", "hard.wav")
    os.symlink("mine.wav", "soft.wav")
    for name in ("clean/a.flac", "noisy/a.flac"):
        save(f"pairs/{name}")
    Path("pairs/pairs.csv").write_text("file,snr_db\na.flac,5\n")
    weights = str(models["gated"])
    before = {path: Path(path).read_bytes() for path in [*tree(), *map(str, models["gated"].parent.iterdir())]}
    card = str(models["gated"].with_suffix(".json"))
    for line in f"""
        enhance mine.wav -o mine.wav
        enhance mine.wav -o .
        enhance mine.wav -o hard.wav
        enhance soft.wav -o mine.wav
        enhance mine.wav -o out --report mine.wav
        enhance mine.wav -o out --report {weights}
        enhance mine.wav -o {card}
        live --file mine.wav --out mine.wav
        live --file mine.wav --out soft.wav
        live --file hard.wav --out ./mine.wav
        live --file mine.wav --out {weights}
        bench --recordings mine.wav --json mine.wav
        bench --recordings mine.wav --json hard.wav
        bench --recordings mine.wav --picture mine.wav
        bench --json {weights}
        bench --json {card}
        evaluate pairs --json pairs/pairs.csv
        evaluate pairs --json pairs/noisy/a.flac
        evaluate pairs --json {weights}
        export -o {weights}
        export -o {card}
    """.strip().splitlines():
        status, lines, errors = run(*line.split())
        assert (status, lines, len(errors)) == (2, [], 1), (line, errors)
        assert any(words in errors[0] for words in ("would be overwritten", "is a file", "a picture is saved as")), errors
    save("mine-1.wav")
    before["mine-1.wav"] = Path("mine-1.wav").read_bytes()
    status, lines, errors = run("separate", "mine.wav", "mine-1.wav", "-o", ".", model="separator")
    assert status == 2 and "would be overwritten" in errors[0] and len(errors) == 1
    assert {path: Path(path).read_bytes() for path in before} == before
    status, _, errors = run("corpus", ".", "-o", "mine.wav", model=None)
    assert status == 2 and len(errors) == 1 and "name a .csv file" in errors[0]
    assert {path: Path(path).read_bytes() for path in before} == before


def test_results_may_be_written_again(run):
    save("pairs/clean/a.flac")
    save("pairs/noisy/a.flac")
    save("a.wav")
    for _ in range(2):
        assert run("enhance", "a.wav", "-o", "out", "--report", "out/r.json", "--gates", "out/g.png")[0] == 0
        assert run("live", "--file", "a.wav", "--out", "b.wav")[0] == 0
    outputs = Outputs(["a.wav"])
    assert outputs.claim("pairs/r.json", "--json") == Path("pairs/r.json")
    assert outputs.claim("pairs/r.json", "--json") == Path("pairs/r.json")  # the same result


def test_no_two_results_share_a_name(run):
    for name in ("one/a.wav", "two/a.wav", "b.wav"):
        save(name)
    status, lines, errors = run("enhance", "one/a.wav", "two/a.wav", "-o", "out")
    assert (status, len(lines), len(errors)) == (2, 1, 1) and "is the result of one/a.wav already" in errors[0]
    for arguments in (
        ("--report", "out/b.wav"), ("--gates", "x.png", "--report", "x.png"), ("--gates", "x.png", "--report", "./x.png"),
    ):  # fmt: skip
        status, lines, errors = run("enhance", "b.wav", "-o", "out", *arguments)
        assert (status, lines, len(errors)) == (2, [], 1) and "already; rename one or run twice" in errors[0]
    status, _, errors = run("bench", "--json", "x.png", "--picture", "x.png")
    assert status == 2 and "--picture: x.png is the result of --json already" in errors[0]
    status, _, errors = run("separate", "b.wav", "-o", "out", "--report", "out/b-1.wav", model="separator")
    assert status == 2 and "out/b-1.wav is the result of b.wav already" in errors[0]


def test_inputs_that_differ_in_a_folder_have_pictures_of_their_own(run):
    names = ["in/a-b.wav", "in/a/b.wav", "in/a/b.flac", "in/a-b-wav.wav", "in/A/b.wav", "in/a-b-2.wav"]
    for name in names:
        save(name)
    status, lines, errors = run("enhance", "in", "-o", "out", "--gates", "maps/g.png")
    assert (status, errors, len(lines)) == (0, [], 6)
    pictures = [path for path in tree() if path.endswith(".png")]
    assert len(pictures) == 6 and len({path.casefold() for path in pictures}) == 6
    assert len([path for path in tree() if path.startswith("out")]) == 6


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.builds(lambda parts, suffix: Path("/".join(parts)).with_suffix(suffix),
                  st.lists(st.sampled_from(["a", "b", "a-b", "B", "a-wav", "b-2", "2", "a.b"]), min_size=1, max_size=3),
                  st.sampled_from([".wav", ".flac", ".WAV", ""])),
        min_size=1, max_size=12, unique=True,
    )
)  # fmt: skip
def test_any_names_have_pictures_of_their_own(names):
    pictures = picture_names("maps/g.png", names)
    assert len({str(path).casefold() for path in pictures}) == len(names)
    assert all(path.suffix == ".png" and path.parent == Path("maps") for path in pictures)


@pytest.mark.parametrize(
    ("name", "subtype"),
    [("x.wav", "DOUBLE"), ("x.wav", "FLOAT"), ("x.wav", "PCM_24"), ("x.aiff", "DOUBLE"), ("x.flac", "PCM_24")],
)
def test_the_encoding_is_kept(run, name, subtype):
    save(name, subtype=subtype)
    assert run("separate", name, "-o", "out", model="separator")[0] == 0
    assert {soundfile.info(f"out/x-{number}.wav").subtype for number in (1, 2)} == {subtype}
    assert run("enhance", name, "-o", "out.wav")[0] == 0
    assert soundfile.info("out.wav").subtype == subtype
    assert run("enhance", name, "-o", "out")[0] == 0
    assert soundfile.info(f"out/{name}").subtype == subtype


# ---------------------------------------------------------------------------------------------- what is not done is said
def test_sound_in_a_folder_that_cannot_be_read_is_named(run):
    for name in ("in/a.wav", "in/deep/b.flac"):
        save(name)
    for name in ("in/c.m4a", "in/deep/d.WMA", "in/e.webm", "in/.hidden.m4a", "in/notes.txt", "in/cover.jpg"):
        Path(name).write_bytes(b"something")
    for command, model, count in (("enhance", "gated", 2), ("separate", "separator", 2)):
        status, lines, errors = run(command, "in", "-o", f"{command}-out", "--report", f"{command}.json", model=model)
        assert (status, len(lines), len(errors)) == (2, count, 3)
        for name, kind in (("in/c.m4a", "m4a"), ("in/deep/d.WMA", "WMA"), ("in/e.webm", "webm")):
            assert f"dsn-lite: {name}: {kind} cannot be read; convert it to WAV or FLAC, for example with ffmpeg" in errors
        assert ["dsn-lite: " + line for line in json.loads(Path(f"{command}.json").read_text())["errors"]] == errors
    Path("only").mkdir()
    Path("only/x.m4a").write_bytes(b"something")
    assert run("enhance", "only", "-o", "out") == (2, [], [
        "dsn-lite: only/x.m4a: m4a cannot be read; convert it to WAV or FLAC, for example with ffmpeg"
    ])  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_linked_folders_are_followed_but_not_in_circles(run):
    save("store/far/b.wav")
    save("in/a.wav")
    os.symlink(Path("store").resolve(), "in/link")
    os.symlink(Path("in").resolve(), "in/circle")
    os.symlink(Path("in").resolve(), "store/back")
    os.symlink(Path("store/far/b.wav").resolve(), "in/file.wav")
    os.symlink("nowhere.wav", "in/gone.wav")
    status, _, errors = run("enhance", "in", "-o", "out")
    assert status == 2 and len(errors) == 1 and errors[0].startswith("dsn-lite: in/gone.wav: no such file")
    assert [path for path in tree() if path.startswith("out")] == ["out/a.wav", "out/file.wav", "out/link/far/b.wav"]
    assert find(["in"], Path("in/link"))[0].keys() == {Path("in/a.wav"), Path("in/file.wav"), Path("in/gone.wav")}


def test_a_folder_that_cannot_be_read_is_named(run, monkeypatch):
    save("in/a.wav")
    save("in/closed/b.wav")
    scandir = os.scandir

    def closed(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    status, lines, errors = run("enhance", "in", "-o", "out")
    assert (status, len(lines), len(errors)) == (2, 1, 1)
    assert errors[0].startswith("dsn-lite: in/closed: this folder cannot be read (Permission denied)")


@pytest.mark.parametrize("name", ["clean.m4a", "clean.MP4", "clean.wma", "clean.mp2"])
def test_an_output_that_cannot_be_written_is_one_line(run, name):
    save("a.wav")
    suffix = name[6:].lower()
    for command, *arguments in (
        ("enhance", "a.wav", "-o", name), ("live", "--file", "a.wav", "--out", name),
    ):  # fmt: skip
        status, lines, errors = run(command, *arguments)
        assert (status, lines, len(errors)) == (2, [], 1)
        assert f"{name}: {suffix} cannot be written; name a .wav, .flac, .ogg, .opus or .mp3 file" in errors[0]
    status, _, errors = run("separate", "a.wav", "-o", name, model="separator")
    assert status == 2 and "name a folder" in errors[0]
    with pytest.raises(InputError, match="cannot be written; name a .wav"):
        audio.write(name, SOUND, 16_000)
    assert tree() == ["a.wav"] and not Path(name).exists()
    Path(name).mkdir()  # a folder may be called anything
    assert run("enhance", "a.wav", "-o", name)[0] == 0 and Path(name, "a.wav").exists()


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="this system has no /dev/stdin")
@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_sound_from_standard_input(tmp_path, models, kind):
    stored = io.BytesIO()
    soundfile.write(stored, SOUND, 16_000, format="WAV", subtype="FLOAT")
    (tmp_path / "a.wav").write_bytes(stored.getvalue())
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def enhance(source, *arguments):
        given = {"input": stored.getvalue()} if kind == "pipe" else {"stdin": open(tmp_path / "a.wav", "rb")}  # noqa: SIM115
        command = [sys.executable, "-m", "dsn_lite", "enhance", source, *arguments, "--model", str(models["gated"])]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False, **given)
        assert (done.returncode, done.stderr) == (0, b""), done.stderr

    enhance("a.wav", "-o", "expected.wav")
    enhance("/dev/stdin", "-o", "out")
    enhance("/dev/stdin", "-o", "named.wav")
    expected = audio.read(tmp_path / "expected.wav")
    for name in ("out/stdin.wav", "named.wav"):
        found = audio.read(tmp_path / name)
        np.testing.assert_array_equal(found.wave, expected.wave)
        assert found.subtype == "FLOAT"


def test_there_is_no_file_of_that_name(run):
    status, _, errors = run("enhance", "-", "-o", "out")
    assert status == 2 and errors == ["dsn-lite: -: no such file; check the name; the pipe is /dev/stdin"]


@pytest.mark.parametrize("options", [["--budget", "0.3"], ["--budget", "1"], ["--policy", "closed"], ["--policy", "open"]])
def test_what_a_network_without_gates_cannot_do_is_said_before_the_work(run, options):
    save("a.wav")
    save("b.wav")
    for command, *arguments in (("enhance", "a.wav", "b.wav", "-o", "out"), ("live", "--file", "a.wav", "--out", "x.wav")):
        status, lines, errors = run(command, *arguments, *options, model="static")
        assert (status, lines, len(errors)) == (2, [], 1), errors
        assert "has no gates" in errors[0] and "leave" in errors[0]
    assert tree() == ["a.wav", "b.wav"]
    assert run("enhance", "a.wav", "-o", "out", "--gates", "g.png", model="static")[0] == 0


def test_weights_that_hold_nan_write_nothing(run, models):
    save("a.wav")
    Path("pairs").mkdir()
    save("pairs/clean/a.wav")
    save("pairs/noisy/a.wav")
    before = tree()
    for command, *arguments in (
        ("enhance", "a.wav", "-o", "out"), ("live", "--file", "a.wav", "--out", "x.wav"), ("export", "-o", "x.onnx"),
        ("bench", "--seconds", "0.2"), ("evaluate", "pairs"), ("macs",),
    ):  # fmt: skip
        status, lines, errors = run(command, *arguments, model="broken")
        assert (status, lines, len(errors)) == (2, [], 1)
        assert errors[0].startswith(f"dsn-lite: {models['broken']}: these weights hold NaN or infinity")
    assert tree() == before


def test_a_separator_is_no_enhancer(run):
    save("pairs/clean/a.wav")
    save("pairs/noisy/a.wav")
    save("a.wav")
    for command, *arguments in (
        ("evaluate", "pairs"), ("enhance", "a.wav", "-o", "out"), ("live", "--file", "a.wav", "--out", "x.wav"),
        ("bench", "--seconds", "0.2"), ("export", "-o", "x.onnx"),
    ):  # fmt: skip
        status, lines, errors = run(command, *arguments, model="separator")
        assert (status, lines, len(errors)) == (2, [], 1)
        assert "holds a network of the kind separator; what is needed here is enhancer" in errors[0]


def test_a_file_that_was_cut_off_is_separated_and_played_as_far_as_it_goes(run):
    content = save("whole.wav", subtype="FLOAT").read_bytes()
    Path("a.wav").write_bytes(content[: len(content) // 2])
    save("b.wav")
    status, lines, errors = run("separate", "a.wav", "b.wav", "-o", "out", "--report", "r.json", model="separator")
    assert (status, len(lines), len(errors)) == (2, 2, 1) and "a.wav: cut off" in errors[0]
    assert 3900 < soundfile.info("out/a-1.wav").frames == soundfile.info("out/a-2.wav").frames <= 4000
    assert ["dsn-lite: " + line for line in json.loads(Path("r.json").read_text())["errors"]] == errors
    status, lines, errors = run("live", "--file", "a.wav", "--out", "x.wav")
    assert status == 2 and len(errors) == 1 and "a.wav: cut off" in errors[0]
    assert soundfile.info("x.wav").frames == soundfile.info("out/a-1.wav").frames
    status, lines, errors = run("bench", "--recordings", "a.wav", "--seconds", "0.1")
    assert (status, lines, len(errors)) == (2, [], 1) and "a.wav: cut off" in errors[0]
