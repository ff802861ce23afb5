"""What every chapter of the book needs and none should define: players, pictures, the check of checks, results.

>>> from dsn_lite import book
>>> clean, noisy = book.noisy("owl", "rain", snr_db=5)
>>> clean.shape == noisy.shape
True
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from dsn_lite import audio
from dsn_lite.audio import clips, noises

if TYPE_CHECKING:
    from IPython.display import HTML
    from matplotlib.axes import Axes

    from dsn_lite.data import Corpus

RATE = 16_000
"""Samples a second, everywhere in the book."""
BLUE, RUST = "#12508a", "#b54708"
"""The two colours of the book's pictures."""
_WINDOW, _HOP = 512, 256
_RESULTS = Path(__file__).parent.parent / "results"


def begin(seed: int = 0) -> None:
    """Make a chapter the same each time it runs: one thread, one seed, one style of pictures."""
    import matplotlib.pyplot as plt
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    plt.rcParams.update({
        "savefig.dpi": 80,  # keeps the page small
        "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    })  # fmt: skip


def noisy(clip: str, noise: str, snr_db: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A clip of the package, clean and with one of its noises, float32 [samples] each."""
    clean = clips.load(clip)
    return clean, audio.mix_at_snr(clean, noises.synthesise(noise, len(clean) / RATE, seed), snr_db)


def players(waves: Mapping[str, Any] | None = None, /, *, rate: int = RATE, shared: bool = True, **named: Any) -> HTML:
    """A player for each wave [samples], by name, side by side.

    All have one gain, so that levels can be compared; `shared=False` makes each as loud as it can be.
    """
    from IPython.display import HTML, Audio

    sounds = {label: np.asarray(wave) for label, wave in {**(waves or {}), **named}.items()}
    peaks = {label: float(np.abs(wave).max()) for label, wave in sounds.items()}
    items = []
    for label, wave in sounds.items():
        peak = (max(peaks.values()) if shared else peaks[label]) + 1e-9
        player = Audio(0.95 * wave / peak, rate=rate, normalize=False)
        title = label.replace("_", " ") if label in named else label
        items.append(f"<div>{title}<br>{player._repr_html_()}</div>")
    grid = "display:grid; grid-template-columns:repeat(auto-fit, minmax(15rem, 1fr)); gap:0.7em"
    return HTML(f"<div style='{grid}'>{''.join(items)}</div>")


def spectrogram(
    axes: Axes, sound: Any, title: str = "", *, mel: bool = False, span: float = 70.0, top: float | None = None
) -> None:
    """Draw a spectrogram by librosa, in dB below the loudest, over seconds and kHz.

    Parameters
    ----------
    axes : of matplotlib
    sound : wave [samples] at 16 kHz, or a spectrum [T, F] with F = 257, complex or its magnitude
    title : written above
    mel : 64 mel bands in place of bins: spaced as we hear pitch
    span : dB from the darkest to the brightest
    top : the brightest in dB; None: the 99.9th percentile
    """
    import librosa

    sound = np.asarray(sound)
    if sound.ndim == 1:
        window = np.sin(np.pi * np.arange(_WINDOW) / _WINDOW)  # square-root Hann, as the network's
        sound = np.pad(sound.astype(np.float32), (0, -len(sound) % _HOP))  # as many frames as the network's
        sound = librosa.stft(sound, n_fft=_WINDOW, hop_length=_HOP, window=window).T
    power = np.square(np.abs(sound)).T  # [F, T]
    if mel:
        power = librosa.feature.melspectrogram(S=power, sr=RATE, n_mels=64, fmax=RATE / 2)
    level = librosa.power_to_db(power, amin=1e-12, top_db=None)
    top = float(np.percentile(level, 99.9)) if top is None else top
    scale = {"y_axis": "mel", "fmax": RATE / 2} if mel else {"y_axis": "linear"}
    librosa.display.specshow(
        level, sr=RATE, hop_length=_HOP, x_axis="time", ax=axes, cmap="magma", vmin=top - span, vmax=top, **scale
    )
    if mel:
        axes.set_yticks([0, 500, 1000, 2000, 4000, 8000])
        axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda hertz, _: f"{hertz / 1000:g}")
    place = axes.get_subplotspec()
    is_above = place and not place.is_last_row() and len(axes.get_shared_x_axes().get_siblings(axes)) > 1
    is_right = place and not place.is_first_col() and len(axes.get_shared_y_axes().get_siblings(axes)) > 1
    axes.set(title=title, xlabel="" if is_above else "seconds", ylabel="" if is_right else "kHz")


def lanes(axes: Axes, gates: Any, names: list[str] | None = None) -> None:
    """Draw gates [T, K] as K lanes over seconds, dark where they are open."""
    gates = np.asarray(gates, dtype=float)
    frames, count = gates.shape
    edges = (-0.5 * _HOP / RATE, (frames - 0.5) * _HOP / RATE)  # frame t is centred on its middle sample
    axes.imshow(gates.T, aspect="auto", cmap="Blues", vmin=0, vmax=1.2, extent=(*edges, count, 0), interpolation="nearest")
    axes.hlines(range(1, count), *edges, color="w", lw=2)
    axes.set_yticks(np.arange(count) + 0.5, names or [""] * count)
    axes.tick_params(axis="y", length=0)


def catches(check: Callable[..., Any], suspects: Mapping[str, Any]) -> None:
    """Show that a check is one: it must raise AssertionError for every suspect, {name: argument or tuple of them}.

    >>> def check(x):
    ...     assert x > 0, "too small"
    >>> catches(check, {"nothing": 0, "less": -1})
    nothing  caught: too small
    less     caught: too small
    """
    width = max(map(len, suspects)) + 1
    for name, suspect in suspects.items():
        try:
            check(*suspect) if type(suspect) is tuple else check(suspect)
        except AssertionError as reason:
            print(f"{name:<{width}} caught: {reason}")
        else:
            raise RuntimeError(f"{name} was not caught")


def results(name: str) -> Any:
    """A file of the project's results/: JSON as it is, .jsonl and .csv as lists of rows; None where it is not here.

    It is not where the package alone was installed; the chapters then say so and go on.
    """
    path = _RESULTS / name
    if not path.exists():
        print(f"results/{name} is not here")
        return None
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def runs(pairs: str) -> dict[str, dict]:
    """The evaluations of results/ on a set of pairs, "test" or "streams", by network or network-policy; empty: not here."""
    from dsn_lite.evaluation import read_runs

    path = _RESULTS / f"{pairs}.jsonl"
    if not path.exists():
        print(f"results/{pairs}.jsonl is not here")
        return {}
    return read_runs(path)


def tiny_corpus(folder: str | Path, rooms: int = 10) -> Corpus:
    """A corpus in a folder: a clip and a noise to train with, one of each to validate with, and few rooms."""
    from dsn_lite.data import Corpus, Entry, write_manifest

    folder, entries = Path(folder), []
    for kind, name, split in (
        ("speech", "owl", "train"), ("speech", "boat", "valid"), ("noise", "rain", "train"), ("noise", "fan", "valid"),
    ):  # fmt: skip
        wave = clips.load(name) if kind == "speech" else noises.synthesise(name, 5, seed=1)
        path = folder / f"{name}.wav"
        audio.write(path, wave, RATE)
        entries.append(Entry(str(path), kind, split, "mine", name, seconds=len(wave) / RATE, licence="MIT"))
    write_manifest(entries, folder / "manifest.csv")
    with contextlib.redirect_stderr(io.StringIO()):  # the bars of what is made on the first use
        return Corpus.open(folder / "manifest.csv", folder / "cache", rooms)


def microseconds(cases: Mapping[str, Callable[[], Any]], rounds: int = 60) -> dict[str, float]:
    """Lower quartile of the time of each case, a function without arguments; they run in turn, so that all share the noise.

    >>> microseconds({"nothing": lambda: None}, rounds=5)["nothing"] < 1e4
    True
    """
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(-2, rounds):  # two rounds to warm up
        for name, case in cases.items():
            start = perf_counter_ns()
            case()
            if number >= 0:
                times[name].append((perf_counter_ns() - start) / 1e3)
    return {name: float(np.percentile(row, 25)) for name, row in times.items()}
