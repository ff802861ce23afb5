"""The live loop: a file through it, a fake sound card, the meter, and the errors of a machine without sound."""

import sys
import types

import numpy as np
import pytest

from dsn_lite import audio, cli
from dsn_lite.engine import live
from dsn_lite.engine.stream import Stream
from dsn_lite.network.weights import save


@pytest.fixture
def weights(random_network, tmp_path):
    path = tmp_path / "net.safetensors"
    save(random_network("tiny"), path)
    return str(path)


def noise(samples: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_a_file_through_the_loop_is_the_offline_result(random_network, weights, tmp_path, capsys, engine):
    wave = noise(20_001)
    audio.write(tmp_path / "in.wav", wave, 16_000, "FLOAT")
    arguments = ["live", "--model", weights, "--engine", engine, "--file", str(tmp_path / "in.wav")]
    assert cli.main([*arguments, "--out", str(tmp_path / "out.wav")]) == 0
    assert "MMAC/s" in capsys.readouterr().out
    output = audio.read(tmp_path / "out.wav")
    expected = random_network("tiny").enhance(wave, 16_000).wave
    assert output.sample_rate == 16_000 and output.wave.shape == (1, 20_001)
    assert np.abs(output.wave[0] - np.clip(expected, -1, 1)).max() < 1e-4  # 16 bits


def test_other_rates_and_channels(weights, tmp_path):
    audio.write(tmp_path / "in.wav", np.stack([noise(44_100), noise(44_100)]), 44_100)
    arguments = ["live", "--model", weights, "--policy", "closed", "--file", str(tmp_path / "in.wav")]
    assert cli.main([*arguments, "--out", str(tmp_path / "out.wav")]) == 0
    assert audio.read(tmp_path / "out.wav").wave.shape == (1, 16_000)


def test_file_and_out_belong_together(capsys):
    assert cli.main(["live", "--file", "a.wav"]) == 2
    assert "belong together" in capsys.readouterr().err


def test_without_sounddevice(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert cli.main(["live"]) == 2
    error = capsys.readouterr().err
    assert "pip install" in error and error.count("\n") == 1


class FakeStream:
    """A sound card that hears noise for a second and then the user's Ctrl-C."""

    def __init__(self, **options):
        assert options["samplerate"] == 16_000 and options["channels"] == 1
        self.wave, self.at, self.played = noise(16_000), 0, []
        FakeStream.last = self

    def start(self):
        self.is_running = True

    def stop(self):
        self.is_running = False

    def close(self):
        self.is_closed = True

    def read(self, count):
        if self.at >= 15_000:
            raise KeyboardInterrupt
        self.at += count
        return self.wave[self.at - count : self.at, None], self.at == count

    def write(self, samples):
        assert self.is_running
        self.played.append(samples[:, 0])
        return False


@pytest.fixture
def sound_card(monkeypatch):
    library = types.ModuleType("sounddevice")
    library.PortAudioError = type("PortAudioError", (Exception,), {})
    library.Stream = FakeStream
    library.query_devices = lambda: "0 a microphone"
    monkeypatch.setitem(sys.modules, "sounddevice", library)
    return library


def test_microphone_to_speaker(sound_card, random_network, weights, capsys):
    assert cli.main(["live", "--model", weights]) == 0
    card = FakeStream.last
    assert card.is_closed and not card.is_running
    played = np.concatenate(card.played)
    expected = random_network("tiny").enhance(card.wave[: card.at], 16_000).wave
    assert played.shape == expected.shape and np.abs(played - expected).max() < 1e-5
    assert "1 blocks came too late" in capsys.readouterr().out


def test_no_device(sound_card, weights, capsys):
    def fail(**_):
        raise sound_card.PortAudioError("Error querying device -1")

    sound_card.Stream = fail
    assert cli.main(["live", "--model", weights]) == 2
    error = capsys.readouterr().err
    assert "no microphone or speaker" in error and error.count("\n") == 1
    assert cli.main(["live", "--devices"]) == 0
    assert "a microphone" in capsys.readouterr().out


def test_meter(random_network):
    network = random_network("tiny")
    stream, meter, lines = Stream(network), live.Meter(network), []

    class Noise:
        left = 40

        def read(self):
            self.left -= 1
            return noise(256) if self.left >= 0 else None

        def write(self, samples):
            pass

    live.loop(stream, Noise(), meter, lines.append)
    assert lines and all(" MMAC/s" in line for line in lines if line)
    assert meter.frames == 41 and meter.samples == 40 * 256
    assert 0 < meter.load() < 100 and "real-time factor" in meter.summary()
    assert live.Meter(network).line() == "" and live.Meter(network).summary() == "nothing was heard"
    static = live.Meter(random_network("tiny", "always"))
    static.add(np.ones((2, 0), np.uint8), 1e-4, 512)
    assert "open" not in static.line()
