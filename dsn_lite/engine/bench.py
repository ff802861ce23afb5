"""What the network costs on the clock: microseconds a frame of 16 ms, one thread, on this machine.

How it is measured: the same noisy speech is fed to every case hop by hop, as a microphone would. The cases take turns
in random order, `BLOCK` frames each, so that a busy or throttled moment hits all alike. Every frame is timed in every
pass. The time of a frame is the median over the passes, the time of a case the mean over its frames; the quartiles over
the passes are given beside it. The transforms, the framing and Python's own share are part of it. A file comes in longer
pieces, so that Python counts for little: `file_us_per_frame` is the same, fed `BLOCK` frames at once.
"""

from __future__ import annotations

import gc
import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dsn_lite import audio
from dsn_lite.audio import clips, noises
from dsn_lite.audio.spectral import FRAMES_PER_SECOND, HOP, SAMPLE_RATE
from dsn_lite.engine.engines import ENGINES
from dsn_lite.engine.stream import Stream
from dsn_lite.errors import InputError
from dsn_lite.network.macs import Count, count
from dsn_lite.network.model import Network

BLOCK = 25
"""Frames that a case runs before the next case's turn."""
FRAME_US = 1e6 / FRAMES_PER_SECOND


def noisy_speech(seconds: float) -> np.ndarray:
    """Clips of the package in six kinds of noise at 0 to 20 dB, float32 [samples] at 16 kHz, the same every time.

    >>> len(noisy_speech(2.0))
    32000
    """
    parts, length, samples = [], 0, round(seconds * SAMPLE_RATE)
    while not parts or length < samples:
        index = len(parts)
        speech = clips.load(clips.names()[index % len(clips.names())])
        kind = noises.NAMES[index % len(noises.NAMES)]
        noise = noises.synthesise(kind, len(speech) / SAMPLE_RATE, seed=index)
        parts.append(audio.mix_at_snr(speech, noise, float((index * 5) % 25)))
        length += len(speech)
    return np.concatenate(parts)[:samples]


def excerpts(recordings: Sequence[str | Path], seconds: float) -> np.ndarray:
    """An equal stretch from the middle of each recording, one after the other, float32 [samples] at 16 kHz."""
    share, parts = round(seconds * SAMPLE_RATE / len(recordings)), []
    for path in recordings:
        sound = audio.read(path, strict=True)
        wave = audio.resample(audio.to_mono(sound.wave), sound.sample_rate, SAMPLE_RATE)
        first = max(0, (len(wave) - share) // 2)
        parts.append(wave[first : first + share])
    return np.concatenate(parts)


class Times:
    """Seconds [passes, frames] of one case."""

    def __init__(self, seconds: np.ndarray):
        first, middle, third = np.percentile(seconds * 1e6, (25, 50, 75), axis=0)
        self.frame_us = middle
        """Median of each frame, [frames]."""
        self.us = float(middle.mean())
        self.quartiles = [float(first.mean()), float(third.mean())]


def clock(runs: dict, passes: int, frames: int) -> dict:
    """Time cases in turn, for each (start, step): functions without argument that begins a pass, and of a frame's number.

    >>> sorted(clock({"a": (lambda: None, lambda t: None)}, 3, 50)["a"].quartiles)[0] >= 0
    True
    """
    seconds = {name: np.empty((passes, frames)) for name in runs}
    collects, order, names = gc.isenabled(), np.random.default_rng(0), list(runs)
    gc.disable()
    try:
        for number in range(-1, passes):  # the first pass warms up and is overwritten
            for start, _ in runs.values():
                start()
            for first in range(0, frames, BLOCK):
                # A fixed order would let the same case find another engine's data in the cache, every time.
                for index in order.permutation(len(names)):
                    step, row = runs[names[index]][1], seconds[names[index]][number]
                    for t in range(first, min(first + BLOCK, frames)):
                        began = time.perf_counter()
                        step(t)
                        row[t] = time.perf_counter() - began
    finally:
        if collects:
            gc.enable()
    return {name: Times(values) for name, values in seconds.items()}


def measure(
    network: Network, *, engines: Sequence[str] = ("kernel", "onnx", "torch"), recordings: Sequence[str | Path] = (),
    seconds: float = 10.0, passes: int = 15,
) -> dict:  # fmt: skip
    """Everything that `dsn-lite bench` reports, as plain values; see the module for the method.

    Parameters
    ----------
    network : Network
        Its static counterpart is the network of the same widths without gates.
    engines : those to compare; the first that is installed gives the main figures. PyTorch runs fewer passes.
    recordings : noisy speech to run on, an equal stretch of each; none: clips of the package in synthetic noise.
    seconds : length of the noisy speech.
    passes : how often each frame is timed.
    """
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    wave = excerpts(recordings, seconds) if recordings else noisy_speech(seconds)
    frames = len(wave) // HOP
    if frames < 2 or passes < 1:
        raise InputError("too little to measure; use --seconds 0.1 or more and --passes 1 or more")
    hops = wave[: frames * HOP].reshape(-1, HOP)
    used, counted = _used_gates(network, wave), count(network)
    streams = _cases(network, [name for name in engines if _is_there(name)], used)
    runs = {case: (stream.reset, lambda t, stream=stream: stream.feed(hops[t])) for case, stream in streams.items()}
    times = clock({case: run for case, run in runs.items() if case[0] != "torch"}, passes, frames)
    slow = {case: run for case, run in runs.items() if case[0] == "torch"}
    times |= clock(slow, max(1, passes // 5), min(frames, 250))
    first = next(iter(runs))[0]
    by_engine: dict[str, dict[str, Times]] = {}
    for engine, name in runs:
        by_engine.setdefault(engine, {})[name] = times[engine, name]
    main = _main_figures(by_engine[first], counted, counted.of_frames(used))
    return {
        "model": network.name, "engine": first, "threads": 1, "frame_ms": FRAME_US / 1e3,
        **main,
        "file_us_per_frame": _in_blocks({name: streams[first, name] for name in main["us_per_frame"]}, hops, passes),
        **(_gate_figures(by_engine[first], counted, counted.of_frames(used)) if network.gate_names else {}),
        "engines": {engine: {name: row.us for name, row in rows.items()} for engine, rows in by_engine.items()},
        "method": {
            "seconds": seconds, "frames": frames, "passes": passes, "block": BLOCK, "recordings": len(recordings),
        },
    }  # fmt: skip


def _in_blocks(streams: dict[str, Stream], hops: np.ndarray, passes: int) -> dict[str, float]:
    """Microseconds a frame of each stream [name] that is fed hops [T, HOP] in blocks, as a file is."""
    blocks = [hops[first : first + BLOCK].reshape(-1) for first in range(0, len(hops), BLOCK)]
    runs = {name: (stream.reset, lambda t, stream=stream: stream.feed(blocks[t])) for name, stream in streams.items()}
    frames = len(hops) / len(blocks)
    return {name: row.us / frames for name, row in clock(runs, passes, len(blocks)).items()}


def _cases(network: Network, engines: Sequence[str], used: np.ndarray) -> dict[tuple[str, str], Stream]:
    """A stream for each engine and each way of setting the gates; `used` [T, K] are those that the policy decides."""
    static = type(network)(network.config.static()).eval()
    policies = {"open": "open", "closed": "closed", "learned": "learned", "learned, given": used}
    cases = {}
    for engine in engines:
        for name, policy in policies.items() if network.gate_names else ():
            cases[engine, name] = Stream(network, policy=policy, engine=engine)
        cases[engine, "static"] = Stream(static if network.gate_names else network, engine=engine)
    return cases


def _used_gates(network: Network, wave: np.ndarray) -> np.ndarray:
    """The policy's gates [T, K] for a signal."""
    stream = Stream(network)
    stream.feed(wave)
    gates = stream.take_gates()
    stream.flush()
    return np.concatenate([gates, stream.take_gates()])


def _is_there(engine: str) -> bool:
    if engine not in ENGINES:
        raise InputError(f"engine is {engine!r}; choose from {', '.join(ENGINES)}")
    needed = {"kernel": ("numba",), "onnx": ("onnx", "onnxruntime")}.get(engine, ())
    return all(importlib.util.find_spec(name) for name in needed)


def _main_figures(times: dict[str, Times], counted: Count, spending: np.ndarray) -> dict:
    """Times and costs of each way of setting the gates."""
    spent = {"open": counted.open, "closed": counted.closed, "learned": float(spending.mean())}
    spent["static"] = counted.open - counted.policy
    rows = {name: times[name] for name in spent if name in times}
    return {
        "us_per_frame": {name: row.us for name, row in rows.items()},
        "quartiles_us": {name: row.quartiles for name, row in rows.items()},
        "rtf": {name: row.us / FRAME_US for name, row in rows.items()},
        "mmacs_per_second": {name: spent[name] for name in rows},
    }


def _gate_figures(times: dict[str, Times], counted: Count, spending: np.ndarray) -> dict:
    """What gates cost and what they save."""
    us = {name: row.us for name, row in times.items()}
    spent = spending[: len(times["learned"].frame_us)]
    share = (spent.mean() - counted.closed) / (counted.open - counted.closed)
    return {
        "activation": float(share),
        "ratio": {
            name: {"time": us[name] / us["open"], "macs": value / counted.open}
            for name, value in (("closed", counted.closed), ("learned", float(spent.mean())))
        },
        "policy_us": us["learned"] - us["learned, given"],
        "branch": us["open"] / us["static"] - 1,
        "frames": [
            {"mmacs_per_second": float(x), "us": float(y)}
            for x, y in zip(spent, times["learned"].frame_us, strict=True)
        ],
    }


def table(result: dict) -> str:
    """The same for people."""
    lines = [
        f"{result['model']} on {result['provenance']['machine']['processor']}, one thread, frames of 16 ms, "
        f"engine {result['engine']}",
        f"{'':<14}{'us/frame':>9}{'quartiles':>17}{'RTF':>9}{'MMAC/s':>9}",
    ]
    for name, us in result["us_per_frame"].items():
        low, high = result["quartiles_us"][name]
        lines.append(
            f"{name:<14}{us:>9.1f}{f'{low:.1f} .. {high:.1f}':>17}{result['rtf'][name]:>9.4f}"
            f"{result['mmacs_per_second'][name]:>9.1f}"
        )
    if "ratio" in result:
        file = result["file_us_per_frame"]
        for name, ratio in result["ratio"].items():
            lines.append(f"{name} / open: time {ratio['time']:.3f}, in a file {file[name] / file['open']:.3f}, "
                         f"MACs {ratio['macs']:.3f}")  # fmt: skip
        lines.append(f"activation {result['activation']:.3f}; the policy costs {result['policy_us']:.1f} us; "
                     f"open gates against no gates: {result['branch']:+.1%}")  # fmt: skip
    lines.append(f"{'engine':<14}" + "".join(f"{name:>9}" for name in result["us_per_frame"]))
    for engine, row in result["engines"].items():
        lines.append(f"{engine:<14}" + "".join(f"{row[name]:>9.1f}" for name in result["us_per_frame"]))
    return "\n".join(lines)
