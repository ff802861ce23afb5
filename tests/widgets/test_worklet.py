"""What stands behind the microphone, run by node: the resampler, and the processor at the rates of sound devices."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from dsn_lite.audio.offset import blocked_hops
from dsn_lite.audio.spectral import HOP, istft, stft
from dsn_lite.network.config import Config

pytest.importorskip("anywidget", reason="anywidget is not installed")
from dsn_lite.widgets import table as tables
from dsn_lite.widgets.speak import SpeakToIt

HERE = Path(__file__).parent


def run(node: str, folder: Path, job: str, rate: int) -> dict:
    (folder / "worklet.js").write_text(SpeakToIt.worklet.default_value)
    command = [node, str(HERE / "run_worklet.js"), str(folder / "worklet.js"), str(folder), job, str(rate)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def tone(hertz: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate).astype("<f4")


def level(wave: np.ndarray, hertz: float, rate: int) -> float:
    """Amplitude of a tone in the middle of a wave."""
    middle = wave[len(wave) // 4 : 3 * len(wave) // 4].astype(np.float64)
    taper = np.hanning(len(middle))
    return 2 * abs(np.exp(-2j * np.pi * hertz / rate * np.arange(len(middle))) @ (middle * taper)) / taper.sum()


@pytest.mark.parametrize("rate", [48_000, 44_100])
def test_resampler_passes_speech_and_folds_nothing(node, tmp_path, rate):
    for hertz in (0.0, 300.0, 3_000.0, 6_500.0):
        wave = tone(hertz, rate) if hertz else np.full(rate // 2, 0.5, "<f4")
        wave.tofile(tmp_path / "samples.bin")
        delay = run(node, tmp_path, "resample", rate)["delay"]
        down, up = (np.fromfile(tmp_path / f"{name}.bin", "<f4") for name in ("down", "up"))
        assert abs(len(down) - len(wave) * 16_000 / rate) < 60
        if not hertz:
            np.testing.assert_allclose(down[len(down) // 2 :], 0.5, atol=1e-5)
            np.testing.assert_allclose(up[len(up) // 2 :], 0.5, atol=1e-5)
            continue
        assert level(down, hertz, 16_000) == pytest.approx(1, abs=0.02)
        assert level(up, hertz, rate) == pytest.approx(1, abs=0.03)
        # Output sample n of the way there and back is input sample n: what waits in the filters comes later, not shifted.
        inside = slice(len(up) // 4, len(up) // 2)
        assert np.abs(up[inside] - wave[inside]).max() < 0.03 and delay < 0.004 * rate
    wave = tone(10_000.0, rate)  # above 8 kHz: would be heard at 6 kHz
    wave.tofile(tmp_path / "samples.bin")
    run(node, tmp_path, "resample", rate)
    assert level(np.fromfile(tmp_path / "down.bin", "<f4"), 6_000, 16_000) < 1e-3


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_live_is_the_network_and_never_late(node, random_enhancer, tmp_path, rate):
    network = random_enhancer(Config.preset("tiny"), seed=4)
    packed = tables.pack(network)
    (tmp_path / "table.json").write_text(json.dumps(packed.header))
    (tmp_path / "weights.bin").write_bytes(packed.weights)
    (tmp_path / "products.wasm").write_bytes(tables.products())
    time = np.arange(2 * rate) / rate
    wave = 0.1 * np.sin(2 * np.pi * 700 * time) * (np.sin(9 * time) > 0)
    wave += 0.03 * np.random.default_rng(0).standard_normal(len(time))
    wave.astype("<f4").tofile(tmp_path / "samples.bin")
    account = run(node, tmp_path, "speak", rate)
    assert account["underruns"] == 0
    assert account["waiting"] < 4 * HOP * rate / 16_000  # no delay builds up
    noisy, enhanced, heard = (np.fromfile(tmp_path / f"{name}.bin", "<f4") for name in ("noisy", "enhanced", "heard"))
    gates = np.fromfile(tmp_path / "gates.bin", "<f4").reshape(account["frames"], -1)
    with torch.inference_mode():
        hops = blocked_hops(noisy, account["frames"]).reshape(-1)
        output = network(stft(torch.from_numpy(hops))[None])
    np.testing.assert_array_equal(gates, output.gates[0, : len(gates)].numpy())
    expected = istft(output.spectrum[0], len(hops)).numpy()
    np.testing.assert_allclose(enhanced[HOP:], expected[:-HOP], atol=1e-4 * np.abs(expected).max())
    assert np.abs(heard[rate // 2 :]).max() > 0.5 * np.abs(expected).max()


def test_live_gates_can_be_drawn(node, random_enhancer, tmp_path):
    packed = tables.pack(random_enhancer(Config.preset("tiny"), seed=4))
    (tmp_path / "table.json").write_text(json.dumps(packed.header))
    (tmp_path / "weights.bin").write_bytes(packed.weights)
    (tmp_path / "products.wasm").write_bytes(tables.products())
    (0.1 * np.random.default_rng(0).standard_normal(64_000)).astype("<f4").tofile(tmp_path / "samples.bin")
    account = run(node, tmp_path, "random", 16_000)
    gates = np.fromfile(tmp_path / "gates.bin", "<f4").reshape(account["frames"], -1)
    assert account["underruns"] == 0 and abs(gates.mean() - 0.3) < 0.06 and gates.std(0).min() > 0.2
