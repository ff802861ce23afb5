"""The bench: what it reports, that it measures what it says, and that its command writes it."""

import json

import networks
import numpy as np
import pytest
import soundfile

from dsn_lite import cli
from dsn_lite.engine import bench
from dsn_lite.errors import InputError
from dsn_lite.evaluation.provenance import provenance
from dsn_lite.network.macs import count
from dsn_lite.network.weights import save
from dsn_lite.plots import bench_figure


def test_command(random_network, tmp_path, capsys):
    pytest.importorskip("numba")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    save(random_network("tiny"), tmp_path / "net.safetensors")
    status = cli.main(
        ["bench", "--model", str(tmp_path / "net.safetensors"), "--seconds", "0.5", "--passes", "3",
         "--json", str(tmp_path / "b.json"), "--picture", str(tmp_path / "b.png")]
    )  # fmt: skip
    assert status == 0
    printed = capsys.readouterr().out
    assert "us/frame" in printed and "closed / open: time" in printed
    result = json.loads((tmp_path / "b.json").read_text())
    for name in ("open", "closed", "learned", "static"):
        assert 0 < result["us_per_frame"][name] < 1e5
        assert result["rtf"][name] == pytest.approx(result["us_per_frame"][name] / 16_000)
        low, high = result["quartiles_us"][name]
        assert low <= high
        assert result["mmacs_per_second"][name] > 0
    assert set(result["engines"]) == {"kernel", "onnx", "torch"} and result["engine"] == "kernel"
    assert 0 < result["ratio"]["closed"]["macs"] < 1 and len(result["frames"]) == 31
    assert set(result["provenance"]) >= {"command", "commit", "machine", "versions"}
    assert (tmp_path / "b.png").stat().st_size > 10_000


def test_the_network_of_layers():
    network = networks.random_network("tiny")
    result = bench.measure(network, engines=("torch",), seconds=0.3, passes=1)
    assert set(result["us_per_frame"]) == {"open", "closed", "learned", "static"}
    counted = count(network)
    assert result["ratio"]["closed"]["macs"] == pytest.approx(counted.closed / counted.open)
    assert counted.closed < result["mmacs_per_second"]["learned"] < counted.open and 0 < result["activation"] < 1
    static = bench.measure(networks.random_network("base, static"), engines=("torch",), seconds=0.1, passes=1)
    assert set(static["us_per_frame"]) == {"static"}


def test_recordings_of_ones_own(random_network, tmp_path):
    files = []
    for name, rate, seconds in (("a.wav", 16_000, 2), ("b.wav", 44_100, 2), ("short.wav", 16_000, 0.05)):
        files.append(tmp_path / name)
        soundfile.write(files[-1], np.full((round(rate * seconds), 2), 0.1), rate)
    wave = bench.excerpts(files, 1.5)
    assert len(wave) == 2 * 8000 + 800 and wave.dtype == np.float32
    result = bench.measure(random_network("tiny"), engines=("torch",), recordings=files, seconds=0.6, passes=1)
    assert result["method"]["recordings"] == 3 and result["method"]["frames"] == (2 * 3200 + 800) // 256
    with pytest.raises(InputError, match="missing.wav"):
        bench.measure(random_network("tiny"), engines=("torch",), recordings=[tmp_path / "missing.wav"])


def test_static_network_and_one_engine(random_network):
    result = bench.measure(random_network("tiny", "always"), engines=("torch",), seconds=0.2, passes=1)
    assert list(result["us_per_frame"]) == ["static"] and "ratio" not in result
    assert "static" in bench.table({**result, "provenance": provenance()})
    bench_figure(result)


def test_a_slow_moment_does_not_show():
    calls = iter(range(10_000))

    def step(t):
        if next(calls) == 150:
            np.linalg.svd(np.zeros((300, 300)))

    times = bench.clock({"a": (lambda: None, step)}, 5, 50)["a"]
    assert times.us < 500 and len(times.frame_us) == 50 and times.quartiles[0] <= times.us <= times.quartiles[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--model", "nobody"], "no network"), (["--picture", "b.txt"], "picture"), (["--engines", "warp"], "warp")],
)
def test_wrong_choices(arguments, message, capsys):
    arguments = arguments if "--model" in arguments else ["--model", "tiny", *arguments]
    assert cli.main(["bench", "--seconds", "0.1", "--passes", "1", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
