"""Enhance while it sounds: hop by hop from a source to a sink, with a meter of what the network spends."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np

from dsn_lite import audio
from dsn_lite.audio.spectral import HOP, SAMPLE_RATE
from dsn_lite.engine.stream import Stream
from dsn_lite.errors import InputError, one_line
from dsn_lite.network.macs import count
from dsn_lite.network.model import Network

_BARS = " ▁▂▃▄▅▆▇█"


class Files:
    """A sound file in, a sound file out, in hops as a microphone would give them.

    The output has 16 kHz, one channel (the mean of the input's) and the length of the input.
    """

    def __init__(self, source: str | Path, target: str | Path):
        with audio.Reader(source) as reader:
            wave = audio.resample(audio.to_mono(reader.read()), reader.sample_rate, SAMPLE_RATE)
        self.damage = reader.damage
        """That the source was cut off or damaged."""
        self._hops = iter(np.split(wave, range(HOP, len(wave), HOP)))
        self._target, self._written = target, []

    def read(self) -> np.ndarray | None:
        """The next samples, float32 [n]; None at the end."""
        return next(self._hops, None)

    def write(self, samples: np.ndarray) -> None:
        """Take enhanced samples, float32 [m]."""
        self._written.append(samples)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is None or kind is KeyboardInterrupt:
            audio.write(self._target, np.concatenate([np.zeros(0, np.float32), *self._written]), SAMPLE_RATE)


class SoundCard:
    """Microphone and loudspeaker through sounddevice, by number or part of a name; None is the system's choice."""

    def __init__(self, microphone: int | str | None = None, speaker: int | str | None = None):
        sounddevice = sound_library()
        try:
            self._stream = sounddevice.Stream(
                samplerate=SAMPLE_RATE, blocksize=HOP, channels=1, dtype="float32", latency="low",
                device=(microphone, speaker),
            )  # fmt: skip
        except (sounddevice.PortAudioError, ValueError) as error:
            cure = "plug one in, see --devices, or use --file IN --out OUT"
            raise InputError(f"no microphone or speaker ({one_line(error)}); {cure}") from None
        self.dropouts = 0
        """Blocks that came or went too late."""

    def __enter__(self) -> Self:
        self._stream.start()
        return self

    def __exit__(self, *_) -> None:
        self._stream.stop()
        self._stream.close()

    def read(self) -> np.ndarray:
        """The next samples, float32 [256]; waits for the microphone."""
        samples, is_late = self._stream.read(HOP)
        self.dropouts += bool(is_late)
        return np.nan_to_num(samples[:, 0])

    def write(self, samples: np.ndarray) -> None:
        """Play samples, float32 [m]."""
        self.dropouts += bool(self._stream.write(np.ascontiguousarray(samples[:, None])))


def sound_library():
    """The package sounddevice."""
    try:
        import sounddevice
    except ImportError:
        needed = "the package sounddevice: pip install 'dsn-lite[live]'"
    except OSError:
        needed = "PortAudio: apt install libportaudio2 (Linux)"
    else:
        return sounddevice
    raise InputError(f"live sound needs {needed}; or use --file IN --out OUT")


class Meter:
    """What the last quarter of a second cost, as one line.

    >>> from dsn_lite.network.config import Config
    >>> meter = Meter(Network(Config.preset("tiny")))
    >>> meter.add(np.ones((1, 8), np.uint8), 100e-6, 256)
    >>> meter.line()
    '████████   22.7 MMAC/s   100 % open   load  0.6 %'
    """

    def __init__(self, network: Network, frames: int = 16):
        self._counted = count(network)
        self._gates: deque[np.ndarray] = deque(maxlen=frames)
        self._seconds: deque[tuple[float, int]] = deque(maxlen=frames)
        self.frames, self.total_mmacs, self.total_seconds, self.samples = 0, 0.0, 0.0, 0

    def add(self, gates: np.ndarray, seconds: float, samples: int) -> None:
        """Note the gates [T, K] and the computing time of `samples` fed samples."""
        self._gates.extend(gates)
        self._seconds.append((seconds, samples))
        self.frames += len(gates)
        self.total_mmacs += float(self._counted.of_frames(gates).sum())
        self.total_seconds += seconds
        self.samples += samples

    def line(self) -> str:
        """Gates as bars (the share of frames they were open), MMAC/s, activation, computing time of sound's time."""
        if not self._gates:
            return ""
        gates = np.array(self._gates)
        rate, activation = self._counted.of_frames(gates).mean(), self._counted.activation(gates)
        bars = "".join(_BARS[round(share * 8)] for share in gates.mean(0))
        share = f"   {100 * activation:3.0f} % open" if self._counted.gates else ""
        return f"{bars}  {rate:5.1f} MMAC/s{share}   load {100 * self.load():4.1f} %"

    def load(self) -> float:
        """Real-time factor of the last frames: seconds of computing a second of sound."""
        samples = sum(count for _, count in self._seconds)
        return sum(seconds for seconds, _ in self._seconds) * SAMPLE_RATE / samples if samples else 0.0

    def summary(self) -> str:
        """One line about everything."""
        if not self.samples or not self.frames:
            return "nothing was heard"
        sound = self.samples / SAMPLE_RATE
        rate, load = self.total_mmacs / self.frames, self.total_seconds / sound
        return f"{sound:.1f} s of sound, {rate:.1f} MMAC/s, real-time factor {load:.4f}"


def loop(stream: Stream, device: Any, meter: Meter, show: Callable[[str], None] | None = None) -> None:
    """Read, enhance and write until the device ends; the rest inside the stream is flushed, also on an interruption.

    The device is one of :class:`Files` and :class:`SoundCard`, or has the same `read` and `write`. `show` gets the meter's
    line eight times a second.
    """
    shown = -1.0
    try:
        while (samples := device.read()) is not None:
            began = time.perf_counter()
            output = stream.feed(samples)
            meter.add(stream.take_gates(), time.perf_counter() - began, len(samples))
            if len(output):
                device.write(output)
            if show and began - shown > 0.125:
                shown = began
                show(meter.line())
    finally:
        output = stream.flush()
        meter.add(stream.take_gates(), 0.0, 0)
        if len(output):
            device.write(output)


def warm_up(stream: Stream) -> None:
    """Let a stream compile and load what it needs before the first sample arrives."""
    stream.feed(np.zeros(2 * HOP, np.float32))
    stream.reset()
