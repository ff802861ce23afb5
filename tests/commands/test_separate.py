"""`dsn-lite separate` and `tools/separation.py`, as a user meets them."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dsn_lite import cli, zoo
from dsn_lite.commands import separate
from dsn_lite.errors import InputError
from dsn_lite.network.weights import save as save_weights
from dsn_lite.slimmable.separator.evaluate import draw_separation, evaluate_separation, improvement, interpolated

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def weights(random_separator, tmp_path_factory):
    """A separator with random weights and a calibration."""
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    rows = [{"shift": -30.0, "activation": 0.0}, {"shift": 30.0, "activation": 1.0}]
    save_weights(random_separator(), path, {"calibration": rows})
    return path


@pytest.fixture
def run(weights, tmp_path, monkeypatch, capfd):
    """Run the command in an empty folder: (exit status, lines of stdout, lines of stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, model=weights):
        status = cli.main(["separate", *map(str, arguments), "--model", str(model)])
        shown = capfd.readouterr()
        return status, shown.out.splitlines(), shown.err.splitlines()

    return run


def save(name, samples=12_000, channels=1, rate=16_000, **options):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    wave = 0.1 * np.random.default_rng(0).standard_normal((samples, channels))
    soundfile.write(name, wave, rate, **options)


def test_two_files_for_each(run):
    save("in/both.wav", channels=2, rate=44_100, subtype="PCM_24")
    save("in/deep/other.flac", rate=8000)
    status, out, err = run("in", "-o", "out", "--report", "out/report.json")
    assert (status, err) == (0, []) and len(out) == 2
    names = sorted(str(path.relative_to("out")) for path in Path("out").rglob("*.wav"))
    assert names == ["both-1.wav", "both-2.wav", "deep/other-1.wav", "deep/other-2.wav"]
    info = soundfile.info("out/both-2.wav")
    assert (info.samplerate, info.channels, info.frames, info.subtype) == (44_100, 1, 12_000, "PCM_24")
    report = json.loads(Path("out/report.json").read_text())
    assert report["errors"] == [] and [row["file"] for row in report["files"]] == ["in/both.wav", "in/deep/other.flac"]
    for row in report["files"]:
        assert sum(row["widths"].values()) == pytest.approx(1, abs=1e-3)
        assert row["mmacs_per_second"] > 0 and row["real_time_factor"] > 0


def test_the_files_hold_what_separate_gives(run, weights):
    save("both.wav", subtype="FLOAT")
    assert run("both.wav", "-o", ".")[0] == 0
    wave = soundfile.read("both.wav", dtype="float32")[0]
    expected = zoo.load(weights).separate(wave, 16_000).waves
    for number in (1, 2):
        assert np.allclose(soundfile.read(f"both-{number}.wav")[0], expected[number - 1], atol=1e-6)


def test_budget_and_policy(run, random_separator):
    save("both.wav")
    used = []
    for option in (["--policy", "closed"], ["--budget", "0.4"], ["--policy", "open"]):
        assert run("both.wav", "-o", "out", *option, "--report", "r.json")[0] == 0
        used.append(json.loads(Path("r.json").read_text())["files"][0]["mmacs_per_second"])
    counted = random_separator().count()
    assert used[0] == pytest.approx(counted.closed, abs=1e-3) and used[2] == pytest.approx(counted.open, abs=1e-3)
    assert used[0] <= used[1] <= used[2]
    assert run("both.wav", "-o", "out", "--policy", "0.25")[0] == 0


def test_bad_files_cost_a_line_and_the_others_are_done(run):
    save("good.wav")
    Path("bad.wav").write_text("no sound")
    status, out, err = run("bad.wav", "good.wav", "missing.wav", "-o", "out")
    assert status == 2 and len(out) == 1 and len(err) == 2
    assert all(line.startswith("dsn-lite: ") for line in err)
    assert sorted(path.name for path in Path("out").iterdir()) == ["good-1.wav", "good-2.wav"]


def test_an_interruption_keeps_the_report(run, monkeypatch):
    save("a.wav")
    save("b.wav")
    separate_file = separate.separate_file

    def interrupted(network, path, *rest, **options):
        if path.name == "b.wav":
            raise KeyboardInterrupt
        return separate_file(network, path, *rest, **options)

    monkeypatch.setattr(separate, "separate_file", interrupted)
    assert run("a.wav", "b.wav", "-o", "out", "--report", "r.json")[0] == 130
    assert [row["file"] for row in json.loads(Path("r.json").read_text())["files"]] == ["a.wav"]


def test_nothing_is_written_over_an_input_or_another_result(run):
    save("a.wav")
    save("a-1.wav", samples=5000)
    before = Path("a-1.wav").read_bytes()
    status, _, err = run("a.wav", "a-1.wav", "-o", ".")
    assert status == 2 and "would be overwritten" in err[0]
    assert Path("a-1.wav").read_bytes() == before
    save("x/a.flac")
    status, out, err = run("a.wav", "x/a.flac", "-o", "out")
    assert status == 2 and len(out) == 1 and "is the result of" in err[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "out.wav"], "two results"),
        (["-o", "out", "--policy", "0.3"], "choose one of"),
        (["-o", "out", "--budget", "0.5", "--policy", "open"], "leave it out"),
    ],
)
def test_bad_options_are_one_clear_line(run, options, words):
    save("both.wav")
    status, out, err = run("both.wav", *options)
    assert status == 2 and out == [] and len(err) == 1 and words in err[0]


def test_another_kind_of_network_is_refused(run):
    save("both.wav")
    status, _, err = run("both.wav", "-o", "out", model="mgt-dsn")
    assert status == 2 and "kind" in err[0]


# ---------------------------------------------------------------------------------------------------- the test list
@pytest.fixture(scope="module")
def results(few_pairs, weights):
    """Evaluation of the random separator."""
    return evaluate_separation(zoo.load(weights), few_pairs, each=2, budgets=[0.4])


def test_evaluation_is_deterministic_and_adds_up(results, few_pairs, weights):
    assert evaluate_separation(zoo.load(weights), few_pairs, each=2, budgets=[0.4]) == results
    json.dumps(results, allow_nan=False)
    assert set(results["policies"]) == {"0.125", "0.25", "0.5", "1", "learned", "learned-0.4", "shuffled"}
    assert len(results["per_file"]) == 12
    for name, policy in results["policies"].items():
        gains = [row[name]["improvement"] for row in results["per_file"]]
        assert policy["groups"]["all"]["improvement"] == pytest.approx(np.mean(gains), abs=1e-4)
        low, high = policy["groups"]["all"]["improvement_ci"]
        assert low <= policy["groups"]["all"]["improvement"] <= high
        for overlap in (1, 0.5, 0.25):
            parts = [policy["groups"][f"overlap {overlap:g} {kind}"]["improvement"] for kind in ("clean", "noisy")]
            assert policy["groups"][f"overlap {overlap:g}"]["improvement"] == pytest.approx(np.mean(parts), abs=1e-4)
    learned = results["policies"]["learned"]["groups"]["all"]
    full = [row["learned"]["improvement"] - row["1"]["improvement"] for row in results["per_file"]]
    assert learned["over_full"] == pytest.approx(np.mean(full), abs=1e-4)
    for row in results["per_file"]:  # the last chunk may be shorter
        assert row["shuffled"]["mmacs_per_second"] == pytest.approx(row["learned"]["mmacs_per_second"], rel=0.1)
    widths, mmacs = results["widths"], results["width_mmacs"]
    for width, cost in zip(widths, mmacs, strict=True):
        policy = results["policies"][f"{width:g}"]
        assert policy["mmacs_per_second"] == pytest.approx(cost, abs=1e-3)
        assert {row["utilisation"] for row in policy["by_talkers"].values()} == {width}


def test_improvement_is_that_of_the_better_order():
    rng = np.random.default_rng(0)
    sources = rng.standard_normal((2, 5000))
    mixture, estimates = sources.sum(0), sources + 0.1 * rng.standard_normal((2, 5000))
    assert improvement(estimates, sources, mixture) == improvement(estimates[::-1], sources, mixture)
    assert improvement(np.stack([mixture, mixture]), sources, mixture) == pytest.approx(0)
    assert improvement(estimates, sources, mixture) == pytest.approx(20, abs=1)


def test_interpolation_between_static_widths():
    static, costs = np.array([[1.0], [2.0], [4.0]]), np.array([10.0, 20.0, 40.0])
    found = [float(interpolated(static, costs, cost)[0]) for cost in (5, 10, 15, 20, 30, 40, 50)]
    assert found == pytest.approx([1, 1, 1.5, 2, 3, 4, 4])


def test_the_tool_writes_table_json_and_picture(few_pairs, weights, tmp_path, monkeypatch, capsys, results):
    spec = importlib.util.spec_from_file_location("separation_tool", ROOT / "tools/separation.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    arguments = [str(few_pairs), "--model", str(weights), "--each", "1", "--budgets", "0.4"]
    outputs = ["--json", str(tmp_path / "r.json"), "--picture", str(tmp_path / "r.png")]
    monkeypatch.setattr("sys.argv", ["separation.py", *arguments, *outputs])
    assert tool.main() == 0
    written = json.loads((tmp_path / "r.json").read_text())
    assert {"command", "commit", "policies", "per_file", "data_hash"} <= set(written)
    assert (tmp_path / "r.png").stat().st_size > 10_000
    assert "learned over_static overlap 0.5" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["separation.py", str(tmp_path / "nowhere"), "--model", str(weights)])
    assert tool.main() == 2
    with pytest.raises(InputError, match="picture"):
        draw_separation(results, tmp_path / "r.txt")
    with pytest.raises(InputError, match="at least 1"):
        evaluate_separation(zoo.load(weights), few_pairs, each=0)
