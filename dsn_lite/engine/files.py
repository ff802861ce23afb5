"""Enhance sound files of any length, rate and channel count, block by block in bounded memory.

A block goes through the whole chain before the next one is read: decode, resample to 16 kHz, network, resample back,
encode. Every step carries its state, so where a block ends leaves no trace.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from dsn_lite import audio
from dsn_lite.audio.spectral import SAMPLE_RATE, WINDOW
from dsn_lite.engine.stream import Stream
from dsn_lite.errors import InputError
from dsn_lite.network.macs import count
from dsn_lite.network.model import Network
from dsn_lite.plots import maps as figures


@dataclass
class Report:
    """What :func:`enhance_file` did; the names are those of the JSON report."""

    file: str
    output: str
    seconds: float
    sample_rate: int
    channels: int
    format: str
    subtype: str
    frames: int
    """Frames that the network ran, over all channels."""
    activation: float
    """MACs of the open dynamic parts / MACs of all dynamic parts, mean over the frames; 1 without gates."""
    mmacs_per_second: float
    """Mean cost of one channel."""
    gates: dict[str, float]
    """Share of the frames on which each gate was open."""
    real_time_factor: float
    """Seconds of work / seconds of sound, all channels, reading and writing included."""
    notes: list[str] = field(default_factory=list)
    faults: list[InputError] = field(default_factory=list)
    """What is wrong although the sound is there: the input was cut off, or there is no picture."""

    def to_json(self) -> dict:
        """Plain values; figures rounded to what they mean."""
        row = asdict(self)
        del row["faults"]
        for name in ("activation", "mmacs_per_second", "real_time_factor"):
            row[name] = round(row[name], 4)
        return row | {"gates": {name: round(rate, 4) for name, rate in self.gates.items()}}


def enhance_file(
    network: Network, path: str | Path, out_path: str | Path, *, budget: float | None = None, policy: str = "learned",
    gates_picture: str | Path | None = None, progress: Callable[[float], None] | None = None,
) -> Report:  # fmt: skip
    """Enhance one file: same length, rate and channels; same encoding if the suffix is the same.

    Parameters
    ----------
    network : Network
    path, out_path : str or Path
        `out_path` appears only when it is complete.
    budget : float or None
        Wanted activation, 0 to 1; None is the trained one.
    policy : "learned", "open" or "closed"
    gates_picture : str, Path or None
        Where to draw the gates of the first channel.
    progress : function or None
        Called with the share that is done, 0 to 1.
    """
    path, out_path = Path(path), Path(out_path)
    started = time.perf_counter()
    with audio.Reader(path) as reader:
        chain = _Chain(network, reader, budget=budget, policy=policy, is_drawn=gates_picture is not None)
        is_same = path.suffix.lower() == out_path.suffix.lower()
        with audio.writing(
            out_path, sample_rate=reader.sample_rate, channels=reader.channels,
            subtype=reader.subtype if is_same else audio.kept_subtype(reader.subtype),
            format=reader.format if is_same else None,
        ) as writer:  # fmt: skip
            # Four seconds, where the network is fastest, or less where that would be many numbers.
            size = max(4096, min(4 * reader.sample_rate, (1 << 21) // reader.channels))
            for block, following in itertools.pairwise(itertools.chain(reader.blocks(size), [None])):
                is_last = following is None
                enhanced = chain.feed(block, last=is_last)
                if is_last:  # the two changes of the rate round
                    enhanced = audio.fit(enhanced, reader.samples - writer.samples)
                writer.write(enhanced)
                if progress:
                    progress(reader.share)
    seconds = reader.samples / reader.sample_rate
    report = Report(
        file=str(path), output=str(out_path), seconds=round(seconds, 6), sample_rate=reader.sample_rate,
        channels=reader.channels, format=writer.format, subtype=writer.subtype, **chain.cost(),
        real_time_factor=(time.perf_counter() - started) / seconds, notes=chain.notes(reader, writer),
        faults=[reader.damage] if reader.damage else [],
    )  # fmt: skip
    if gates_picture is not None:
        try:
            chain.draw(gates_picture, f"{path.name}, {network.name}")
        except InputError as error:
            report.faults.append(error)
    return report


class _Chain:
    """Resampler, one stream a channel, resampler back, and what is to be remembered of it all."""

    def __init__(self, network: Network, reader: audio.Reader, *, budget: float | None, policy: str, is_drawn: bool):
        channels = reader.channels
        self._network, self._counted = network, count(network)
        self._down = audio.Resampler(reader.sample_rate, SAMPLE_RATE, channels)
        self._up = audio.Resampler(SAMPLE_RATE, reader.sample_rate, channels)
        self._streams = [Stream(network, budget=budget, policy=policy) for _ in range(channels)]
        self._gates: list[list[np.ndarray]] = [[] for _ in range(channels)]
        self._pictures = [figures.Spectrogram(), figures.Spectrogram()] if is_drawn else []
        self._reader, self._fed = reader, 0
        self._peak, self._flat = 0.0, 0

    def feed(self, block: np.ndarray, *, last: bool) -> np.ndarray:
        """Take [C, n] at the rate of the file, give what is ready of the enhanced, [C, m]."""
        self._inspect(block)
        narrow = self._down.feed(block, last=last)
        if last:
            samples = audio.resampled_length(self._reader.samples, self._reader.sample_rate, SAMPLE_RATE)
            narrow = audio.fit(narrow, samples - self._fed)
        self._fed += narrow.shape[1]
        rows = []
        for stream, gates, row in zip(self._streams, self._gates, narrow, strict=True):
            parts = [stream.feed(row)]
            gates.append(stream.take_gates())
            if last:
                parts.append(stream.flush())
                gates.append(stream.take_gates())
            rows.append(np.concatenate(parts))
        enhanced = np.stack(rows)
        for picture, wave in zip(self._pictures, (narrow, enhanced), strict=False):
            picture.feed(wave[0])
        return self._up.feed(enhanced, last=last)

    def _inspect(self, block: np.ndarray) -> None:
        loud = np.abs(block)
        self._peak = max(self._peak, float(loud.max()))
        # Three equal samples in a row near full scale: a wave that was cut off there, not one that turns there.
        flat = (block[:, 2:] == block[:, 1:-1]) & (block[:, 1:-1] == block[:, :-2]) & (loud[:, 2:] >= 0.98)
        self._flat += int(np.count_nonzero(flat))

    def cost(self) -> dict:
        """Figures of the report that come from the gates."""
        gates = np.concatenate([part for parts in self._gates for part in parts])
        rates = gates.mean(axis=0, dtype=np.float64)
        return {
            "frames": len(gates),
            "activation": self._counted.activation(rates),
            "mmacs_per_second": float(self._counted.of_frames(rates)),
            "gates": dict(zip(self._network.gate_names, rates.tolist(), strict=True)),
        }

    def notes(self, reader: audio.Reader, writer: audio.Writer) -> list[str]:
        """Remarks a user should read: what was odd about the input, and what could not be kept."""
        notes = [*reader.notes]
        if self._peak == 0:
            notes.append("silent")
        if reader.samples * SAMPLE_RATE < WINDOW * reader.sample_rate:
            notes.append(f"shorter than one window of {1000 * WINDOW / SAMPLE_RATE:.0f} ms")
        if self._flat:
            notes.append(f"the input is clipped ({self._flat} samples); what was cut off there is not restored")
        if writer.clipped:
            notes.append(f"{writer.clipped} samples of the output were limited to full scale")
        if reader.sample_rate > SAMPLE_RATE:
            notes.append(f"the network works at {SAMPLE_RATE // 1000} kHz: nothing is left above 8 kHz")
        if (writer.format, writer.subtype) != (reader.format, reader.subtype):
            notes.append(f"{reader.format} {reader.subtype} is written as {writer.format} {writer.subtype}")
        return notes

    def draw(self, path: str | Path, title: str) -> None:
        """Draw the gates of the first channel."""
        gates, channels = np.concatenate(self._gates[0]), len(self._gates)
        figures.gate_map(
            *self._pictures, gates, self._network.gate_names, self._counted.of_frames(gates),
            levels=(self._counted.closed, self._counted.open), path=path,
            title=title if channels == 1 else f"{title}, channel 1 of {channels}",
        )  # fmt: skip
