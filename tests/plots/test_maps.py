"""The gate map and its spectrograms."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from dsn_lite.audio.spectral import frame_count, stft
from dsn_lite.errors import InputError
from dsn_lite.plots import maps as figures

NAMES = ["encoder 2", "time groups", "decoder 2"]
LEVELS = (40.0, 100.0)


def example(seconds=2.0, lanes=3):
    rng = np.random.default_rng(0)
    wave = (rng.standard_normal(int(16000 * seconds)) * 0.1).astype(np.float32)
    gates = rng.integers(0, 2, (frame_count(len(wave)), lanes))
    return wave, gates, 40.0 + gates @ np.array([10.0, 20.0, 30.0])[:lanes]


def draw(**options):
    wave, gates, mmacs = example()
    return figures.gate_map(wave, wave / 2, gates, NAMES, mmacs, **({"levels": LEVELS} | options))


@pytest.mark.parametrize("samples", [1, 255, 256, 257, 16000, 70001])
def test_the_spectrogram_is_the_networks_own(samples):
    wave = np.random.default_rng(1).standard_normal(samples).astype(np.float32)
    spectrogram = figures.Spectrogram()
    for start in range(0, samples, 999):
        spectrogram.feed(wave[start : start + 999])
    expected = stft(torch.from_numpy(wave)).abs().square().numpy().T
    assert spectrogram.merged == 1
    np.testing.assert_allclose(10 ** (spectrogram.decibels() / 10), expected / 512 + 1e-12, rtol=1e-2, atol=1e-6)


def test_a_long_spectrogram_stays_small_and_keeps_its_power():
    wave = np.random.default_rng(2).standard_normal(16000 * 60).astype(np.float32)
    wave[: 16000 * 20] *= 0.1
    short, long = figures.Spectrogram(columns=10_000), figures.Spectrogram(columns=300)
    for start in range(0, len(wave), 5000):
        short.feed(wave[start : start + 5000])
        long.feed(wave[start : start + 5000])
    fine, coarse = 10 ** (short.decibels() / 10), 10 ** (long.decibels() / 10)
    assert long.merged == 16 and coarse.shape[1] == -(-fine.shape[1] // 16)
    whole = fine.shape[1] // 16 * 16
    np.testing.assert_allclose(coarse[:, : whole // 16], fine[:, :whole].reshape(257, -1, 16).mean(2), rtol=0.02)


def test_reading_a_spectrogram_does_not_end_it():
    wave = np.random.default_rng(3).standard_normal(10_000).astype(np.float32)
    watched, other = figures.Spectrogram(), figures.Spectrogram()
    watched.feed(wave[:5000])
    watched.decibels()
    watched.feed(wave[5000:])
    other.feed(wave)
    np.testing.assert_array_equal(watched.decibels(), other.decibels())


def test_the_map_shows_what_was_open():
    wave, gates, mmacs = example()
    figure = figures.gate_map(wave, wave / 2, gates, NAMES, mmacs, levels=LEVELS, snr=-5.0, title="a.wav")
    noisy, enhanced, _, lanes, cost = figure.axes
    assert [text.get_text() for text in lanes.get_yticklabels()] == NAMES
    np.testing.assert_array_equal(lanes.images[0].get_array(), gates.T)
    assert [text.get_text() for text in lanes.texts] == [f"{rate:.0%}" for rate in gates.mean(axis=0)]
    assert noisy.images[0].get_clim() == enhanced.images[0].get_clim()
    assert noisy.get_title(loc="left") == "a.wav, \N{MINUS SIGN}5 dB SNR"
    activation = (mmacs.mean() - 40) / 60
    assert noisy.get_title(loc="right") == f"activation {activation:.0%}: {mmacs.mean():.1f} of 100.0 MMAC/s"
    assert {text.get_text() for text in cost.texts} == {"all closed 40", "all open 100"}
    assert {line.get_ydata()[0] for line in cost.lines[1:]} == set(LEVELS)
    assert lanes.get_xlim() == noisy.get_xlim() == cost.get_xlim() == pytest.approx((0, 2.0))


def test_the_running_cost_is_a_mean_over_half_a_second():
    wave, gates, _ = example()
    mmacs = np.full(len(gates), 40.0)
    mmacs[60] = 100.0
    line = figures.gate_map(wave, wave, gates, NAMES, mmacs, levels=LEVELS).axes[-1].lines[0]
    values = line.get_ydata()
    assert values.max() == pytest.approx(40 + 60 / 31) and np.count_nonzero(values > 40.1) == 31


def test_long_recordings_show_shares():
    wave, gates, mmacs = example(seconds=150.0)
    figure = figures.gate_map(wave, wave / 2, gates, NAMES, mmacs, levels=LEVELS)
    lanes = figure.axes[3]
    image = lanes.images[0].get_array()
    assert image.shape[1] <= figures.COLUMNS
    np.testing.assert_allclose(image[:, 0], gates[:10].mean(axis=0))
    assert "the darker, the longer" in lanes.get_title(loc="left")
    assert "minutes" in figure.axes[-1].get_xlabel()


def test_other_rates_channels_silence_and_no_gates(tmp_path):
    wave, gates, mmacs = example()
    double = np.stack([np.repeat(wave, 2)] * 2)
    figure = figures.gate_map(double, double, gates, NAMES, mmacs, 32000, path=tmp_path / "a.png")
    assert figure.axes[0].images[0].get_array().shape == (257, len(gates))
    figures.gate_map(wave * 0, wave * 0, gates * 0, NAMES, mmacs, path=tmp_path / "b.png")
    still = figures.gate_map(wave, wave, gates[:, :0], [], mmacs * 0 + 50, levels=(50.0, 50.0))
    assert len(still.axes) == 4
    assert still.axes[0].get_title(loc="right") == "no gates: 50.0 MMAC/s"
    figures.gate_map(wave[:1], wave[:1], gates[:2], NAMES, mmacs[:2], levels=LEVELS, path=tmp_path / "c.png")


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_saving(tmp_path, suffix, start):
    path = tmp_path / "new" / f"gates{suffix}"
    draw(path=path)
    assert path.read_bytes().startswith(start)
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_saved_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gates\.txt: a picture is saved as \.png"):
        draw(path=tmp_path / "gates.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"gates\.png: cannot be written"):
        draw(path=tmp_path / "file" / "gates.png")


@pytest.mark.parametrize("title", ["a $x^ file$.wav", "caf\udce9\nline.wav", "\u97f3.wav", "l" * 300])
def test_any_file_name_can_be_a_title(tmp_path, title, recwarn):
    draw(path=tmp_path / "a.png", title=title)
    assert not recwarn.list
    shown = draw(title=title).axes[0].get_title(loc="left")
    assert len(shown) <= 60 and "\n" not in shown


def test_a_notebook_can_show_it():
    assert draw()._repr_png_().startswith(b"\x89PNG")


def test_pyplot_and_torch_are_left_alone():
    code = """
import sys
import numpy as np
from dsn_lite.plots import maps as figures
before = "matplotlib" in sys.modules
figures.gate_map(np.ones(1000), np.ones(1000), np.ones((5, 1)), ["a"], np.ones(5))
print(before, "torch" in sys.modules, "matplotlib.pyplot" in sys.modules)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "False False False"
