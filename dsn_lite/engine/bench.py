"""What the network costs on the clock: microseconds a frame of 16 ms, one thread, on this machine.

How it is measured: the same noisy speech is fed to every case hop by hop, as a microphone would. The cases take turns
in random order, `BLOCK` frames each, so that a busy or throttled moment hits all alike. Every frame is timed in every
pass. The time of a frame is the median over the passes, the time of a case the mean over its frames; the quartiles over
the passes are given beside it. The transforms, the framing and Python's own share are part of it.
"""

from __future__ import annotations

import gc
import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dsn_lite import audio, macs
from dsn_lite.audio import clips, noises
from dsn_lite.audio.spectral import FRAMES_PER_SECOND, HOP, SAMPLE_RATE
from dsn_lite.engine.stream import ENGINES, Stream
from dsn_lite.errors import InputError
from dsn_lite.evaluation.provenance import provenance
from dsn_lite.model import Network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLOCK = 25
"""Frames that a case runs before the next case's turn."""
FRAME_US = 1e6 / FRAMES_PER_SECOND
HOLDS = (1, 4, 16, 64)
"""Frames that the patterns of the burstiness table stay open or closed."""


def noisy_speech(seconds: float) -> np.ndarray:
    """Clips of the package in six kinds of noise at 0 to 20 dB, float32 [samples] at 16 kHz, the same every time.

    Examples
    --------
    >>> len(noisy_speech(2.0))
    32000
    """
    parts, length, samples = [], 0, round(seconds * SAMPLE_RATE)
    for index in range(1000):
        if length >= samples:
            break
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
        sound = audio.read(path)
        wave = audio.resample(audio.to_mono(sound.wave), sound.sample_rate, SAMPLE_RATE)
        first = max(0, (len(wave) - share) // 2)
        parts.append(wave[first : first + share])
    return np.concatenate(parts)


def bursts(frames: int, gates: int, hold: int, seed: int = 0) -> np.ndarray:
    """Gates [frames, K], all of them open on half of the frames, in runs of `hold` frames in random order.

    Examples
    --------
    >>> float(bursts(128, 10, 16).mean())
    0.5
    """
    runs = np.arange(-(-frames // hold)) % 2
    np.random.default_rng(seed).shuffle(runs)
    return np.repeat(runs, hold)[:frames, None].repeat(gates, axis=1).astype(np.uint8)


class Times:
    """Seconds [passes, frames] of one case."""

    def __init__(self, seconds: np.ndarray):
        first, middle, third = np.percentile(seconds * 1e6, (25, 50, 75), axis=0)
        self.frame_us = middle
        """Median of each frame, [frames]."""
        self.us = float(middle.mean())
        self.quartiles = [float(first.mean()), float(third.mean())]


def clock(runs: dict[str, list], passes: int, frames: int) -> dict[str, Times]:
    """Time cases in turn.

    Parameters
    ----------
    runs : for each case [start, step]: functions without argument that begins a pass, and of a frame's number
    passes, frames : how often, how long

    Examples
    --------
    >>> sorted(clock({"a": [lambda: None, lambda t: None]}, 3, 50)["a"].quartiles)[0] >= 0
    True
    """
    seconds = {name: np.empty((passes, frames)) for name in runs}
    collects, order = gc.isenabled(), np.random.default_rng(0)
    gc.disable()
    try:
        for number in range(-1, passes):  # the first pass warms up and is overwritten
            for start, _ in runs.values():
                start()
            for first in range(0, frames, BLOCK):
                # A fixed order would let the same case find another engine's data in the cache, every time.
                for name in order.permutation(list(runs)):
                    step, row = runs[name][1], seconds[name][number]
                    for t in range(first, min(first + BLOCK, frames)):
                        began = time.perf_counter()
                        step(t)
                        row[t] = time.perf_counter() - began
    finally:
        if collects:
            gc.enable()
    return {name: Times(values) for name, values in seconds.items()}


def _streaming(stream: Stream, wave: np.ndarray) -> list:
    """A case that feeds `wave` hop by hop."""
    hops = wave[: len(wave) // HOP * HOP].reshape(-1, HOP)
    return [stream.reset, lambda t: stream.feed(hops[t])]


def measure(
    network: Network,
    *,
    engines: tuple[str, ...] = ("kernel", "onnx", "torch"),
    peer_onnx: str | Path | None = None,
    peer_frame_ms: float = 16.0,
    recordings: Sequence[str | Path] = (),
    seconds: float = 10.0,
    passes: int = 15,
) -> dict:
    """Everything that `dsn-lite bench` reports, as plain values; see the module for the method.

    Parameters
    ----------
    network : Network
        Its static counterpart is the network of the same widths without gates.
    engines : those to compare; the first that is installed gives the main figures. PyTorch runs fewer passes.
    peer_onnx : a peer's streaming ONNX graph, one frame a run, its states as further inputs and outputs.
    peer_frame_ms : sound in one run of the peer.
    recordings : noisy speech to run on, an equal stretch of each; none: clips of the package in synthetic noise.
    seconds : length of the noisy speech.
    passes : how often each frame is timed.
    """
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    static = Network(network.config.static()).eval()
    counted = macs.count(network)
    wave = excerpts(recordings, seconds) if recordings else noisy_speech(seconds)
    frames = len(wave) // HOP
    if frames < 2 or passes < 1:
        raise InputError("too little to measure; use --seconds 0.1 or more and --passes 1 or more")
    used = _used_gates(network, wave)
    engines = tuple(name for name in engines if _is_there(name))
    cases: dict[str, list] = {}
    for engine in engines:
        of_engine = {
            "open": Stream(network, policy="open", engine=engine),
            "closed": Stream(network, policy="closed", engine=engine),
            "learned": Stream(network, engine=engine),
            "learned, given": Stream(network, policy=used, engine=engine),
            "static": Stream(static, engine=engine),
        }
        if engine == engines[0]:
            of_engine |= {
                f"hold {hold}": Stream(network, policy=bursts(frames + 1, len(network.gate_names), hold), engine=engine)
                for hold in HOLDS
            }
        if not network.gate_names:
            of_engine = {"static": Stream(network, engine=engine)}
        cases |= {f"{engine}: {name}": _streaming(stream, wave) for name, stream in of_engine.items()}
    peer = None
    if peer_onnx is not None:
        peer = _Peer(peer_onnx)
        cases["peer"] = [peer.reset, peer.step]
    slow = {name: case for name, case in cases.items() if name.startswith("torch:")}
    times = clock({name: case for name, case in cases.items() if name not in slow}, passes, frames)
    times |= clock(slow, max(1, passes // 5), min(frames, 250))
    result = {"model": network.name, "engine": engines[0], "threads": 1, "frame_ms": FRAME_US / 1e3}
    result |= _main_figures(times, engines[0], counted, used)
    if network.gate_names:
        result |= _gate_figures(times, engines[0], counted, used)
    result["engines"] = {
        engine: {name.split(": ")[1]: t.us for name, t in times.items() if name.startswith(f"{engine}:")}
        for engine in engines
    }
    if peer is not None:
        row = times["peer"]
        result["peer"] = {
            "file": Path(peer_onnx or "").name, "us_per_frame": row.us, "quartiles_us": row.quartiles,
            "frame_ms": peer_frame_ms, "rtf": row.us / 1e3 / peer_frame_ms, "nodes": peer.nodes,
        }  # fmt: skip
    result["method"] = {
        "seconds": seconds, "frames": frames, "passes": passes, "block": BLOCK, "recordings": len(recordings),
    }  # fmt: skip
    packages = ("numba", "numpy", "onnxruntime", "torch")
    return result | {"provenance": provenance(packages)}


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


def _main_figures(times: dict[str, Times], engine: str, counted: macs.Count, used: np.ndarray) -> dict:
    names = [n for n in ("open", "closed", "learned", "static") if f"{engine}: {n}" in times]
    rows = {name: times[f"{engine}: {name}"] for name in names}
    spent = {"open": counted.open, "closed": counted.closed, "static": counted.open - counted.policy}
    spent["learned"] = float(macs.frame_macs(counted, used).mean() * FRAMES_PER_SECOND / 1e6)
    return {
        "us_per_frame": {name: row.us for name, row in rows.items()},
        "quartiles_us": {name: row.quartiles for name, row in rows.items()},
        "rtf": {name: row.us / FRAME_US for name, row in rows.items()},
        "mmacs_per_second": {name: spent[name] for name in names},
    }


def _gate_figures(times: dict[str, Times], engine: str, counted: macs.Count, used: np.ndarray) -> dict:
    """What gates cost and what they save."""
    row = lambda name: times[f"{engine}: {name}"]
    spent = macs.frame_macs(counted, used[: len(row("learned").frame_us)]) * FRAMES_PER_SECOND / 1e6
    share = (spent.mean() - counted.closed) / (counted.open - counted.closed)
    return {
        "activation": float(share),
        "ratio": {
            name: {"time": row(name).us / row("open").us, "macs": value / counted.open}
            for name, value in (("closed", counted.closed), ("learned", float(spent.mean())))
        },
        "policy_us": row("learned").us - row("learned, given").us,
        "branch": row("open").us / row("static").us - 1,
        "burstiness": [{"hold": hold, "us_per_frame": row(f"hold {hold}").us} for hold in HOLDS],
        "frames": [
            {"mmacs_per_second": float(x), "us": float(y)}
            for x, y in zip(spent, row("learned").frame_us, strict=True)
        ],
    }


class _Peer:
    """A streaming ONNX graph of somebody else: one frame a run, outputs of a state's shape are fed back in order."""

    def __init__(self, path: str | Path):
        try:
            import onnxruntime
        except ImportError:
            raise InputError("--peer-onnx needs ONNX Runtime: pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has a dozen kinds
            raise InputError(f"{path}: not an ONNX graph that runs here ({' '.join(str(error).split())[:120]})") from None
        kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(double)": np.float64}
        self._inputs = {}
        for item in self.session.get_inputs():
            if item.type not in kinds:
                raise InputError(f"{path}: input {item.name} is {item.type}; only numbers can be made up")
            shape = [size if isinstance(size, int) else 1 for size in item.shape]
            self._inputs[item.name] = np.zeros(shape, kinds[item.type])
        first = next(iter(self._inputs))
        rng = np.random.default_rng(0)
        if self._inputs[first].dtype.kind == "f":
            self._inputs[first] = (0.1 * rng.standard_normal(self._inputs[first].shape)).astype(self._inputs[first].dtype)
        self._names = [item.name for item in self.session.get_outputs()]
        # Which output is which state: the first one left that has its shape.
        outputs = self.session.run(None, self._inputs)
        self._states, taken = [], set()
        for name in list(self._inputs)[1:]:
            for index in range(1, len(outputs)):
                if index not in taken and outputs[index].shape == self._inputs[name].shape:
                    self._states.append((name, index))
                    taken.add(index)
                    break
        self.nodes = _count_nodes(path)
        self.reset()

    def reset(self) -> None:
        self.feed = dict(self._inputs)

    def step(self, t: int) -> None:
        outputs = self.session.run(None, self.feed)
        for name, index in self._states:
            self.feed[name] = outputs[index]


def _count_nodes(path: str | Path) -> int | None:
    try:
        import onnx
    except ImportError:
        return None
    return len(onnx.load(str(path), load_external_data=False).graph.node)


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
    if peer := result.get("peer"):
        low, high = peer["quartiles_us"]
        nodes = f", {peer['nodes']} nodes" if peer["nodes"] else ""
        lines.append(f"{'peer':<14}{peer['us_per_frame']:>9.1f}{f'{low:.1f} .. {high:.1f}':>17}{peer['rtf']:>9.4f}"
                     f"{'':>9}  {peer['file']}{nodes}")  # fmt: skip
    if "ratio" in result:
        for name, ratio in result["ratio"].items():
            lines.append(f"{name} / open: time {ratio['time']:.3f}, MACs {ratio['macs']:.3f}")
        lines.append(f"activation {result['activation']:.3f}; the policy costs {result['policy_us']:.1f} us; "
                     f"open gates against no gates: {result['branch']:+.1%}")  # fmt: skip
        held = ", ".join(f"{row['hold']}: {row['us_per_frame']:.1f}" for row in result["burstiness"])
        lines.append(f"half of the frames open, in runs of so many frames: us/frame  {held}")
    lines.append(f"{'engine':<14}" + "".join(f"{name:>9}" for name in result["us_per_frame"]))
    for engine, row in result["engines"].items():
        lines.append(f"{engine:<14}" + "".join(f"{row[name]:>9.1f}" for name in result["us_per_frame"]))
    return "\n".join(lines)


def picture(result: dict) -> Figure:
    """Times of the cases, of single frames against their MACs, and of the engines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained", dpi=130)
    cases, frames, engines = figure.subplots(1, 3)
    names = list(result["us_per_frame"])
    values = [result["us_per_frame"][name] for name in names]
    if peer := result.get("peer"):
        names, values = [*names, "peer"], [*values, peer["rtf"] * FRAME_US]
    quartiles = [*(result["quartiles_us"][name] for name in result["us_per_frame"])]
    if peer:
        quartiles.append([q * result["frame_ms"] / peer["frame_ms"] for q in peer["quartiles_us"]])
    spread = np.abs(np.array(quartiles).T - values)
    cases.bar(names, values, yerr=spread, color=["#123a63" if name != "peer" else "#c4570a" for name in names], capsize=3)
    cases.set_ylabel("µs for 16 ms of sound")
    cases.set_title(f"{result['model']}, {result['engine']}", fontsize=10)
    if "frames" in result:
        x = [row["mmacs_per_second"] for row in result["frames"]]
        y = [row["us"] for row in result["frames"]]
        frames.plot(x, y, ".", ms=3, alpha=0.4, color="#123a63")
        both = [result["mmacs_per_second"][name] for name in ("closed", "open")]
        frames.plot(both, [result["us_per_frame"][name] for name in ("closed", "open")], "o-", color="#c4570a")
        frames.set_ylim(0, 1.3 * max(result["us_per_frame"].values()))
    frames.set_xlabel("MMAC/s of the frame")
    frames.set_ylabel("µs")
    frames.set_title("each frame, learned gates; line: closed to open", fontsize=10)
    width = 0.8 / len(result["us_per_frame"])
    for index, name in enumerate(result["us_per_frame"]):
        at = np.arange(len(result["engines"])) + index * width
        engines.bar(at, [row[name] for row in result["engines"].values()], width, label=name)
    engines.set_xticks(np.arange(len(result["engines"])) + 0.3, list(result["engines"]))
    engines.set_yscale("log")
    engines.legend(fontsize=7)
    engines.set_title("engines", fontsize=10)
    for axes in (cases, frames, engines):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
