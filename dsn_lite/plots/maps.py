"""Pictures of what the network did.

Drawn with matplotlib's object interface (no pyplot, no global state), imported only when something is drawn.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dsn_lite import audio
from dsn_lite.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 1000
"""Columns that fit into the width of a picture; of a longer recording each column is the mean of several frames."""
SUFFIXES = (".png", ".svg", ".pdf")
RATE, WINDOW, HOP = 16_000, 512, 256  # as dsn_lite.audio.spectral, which would import torch
FRAMES_PER_SECOND = RATE / HOP

_INK, _QUIET, _PAPER = "#1b2430", "#6b7785", "#ffffff"
_OPEN, _CLOSED = "#123a63", "#e6ebf1"
_LINE, _LEVEL = "#123a63", "#c4570a"


class Spectrogram:
    """Power spectrogram of a 16 kHz signal of any length, in bounded memory.

    Frame t is the network's frame t. Whenever there are more than `columns` columns, neighbours are averaged in pairs.

    >>> spectrogram = Spectrogram()
    >>> spectrogram.feed(np.zeros(16_000, dtype="float32"))
    >>> spectrogram.decibels().shape
    (257, 64)
    """

    def __init__(self, *, columns: int = 2 * COLUMNS):
        self._columns = columns
        self._window = np.sin(np.pi * np.arange(WINDOW) / WINDOW).astype(np.float32)  # square-root Hann
        self._tail = np.zeros(HOP, dtype=np.float32)
        self._power = np.zeros((0, WINDOW // 2 + 1), dtype=np.float32)  # whole columns, sums of `merged` frames
        self._rest = self._power  # frames that do not fill a column yet
        self.merged = 1
        """Frames a column."""

    def feed(self, wave: np.ndarray) -> None:
        """Append samples, float32 [n]."""
        for start in range(0, len(wave), audio.BLOCK):
            samples = np.concatenate([self._tail, wave[start : start + audio.BLOCK]])
            frames = max(0, len(samples) // HOP - 1)
            self._tail = samples[frames * HOP :]
            if frames:
                self._append(samples[: (frames + 1) * HOP])

    def _append(self, samples: np.ndarray) -> None:
        windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP] * self._window
        power = np.concatenate([self._rest, np.square(np.abs(np.fft.rfft(windows))).astype(np.float32)])
        whole = len(power) // self.merged
        sums = power[: whole * self.merged].reshape(whole, self.merged, power.shape[1]).sum(axis=1)
        self._power, self._rest = np.concatenate([self._power, sums]), power[whole * self.merged :]
        while len(self._power) > self._columns:
            if len(self._power) % 2:  # the odd column goes back; its sum counts as so many equal frames
                self._rest = np.concatenate([np.tile(self._power[-1:] / self.merged, (self.merged, 1)), self._rest])
            pairs = len(self._power) // 2
            self._power = self._power[: 2 * pairs].reshape(pairs, 2, self._power.shape[1]).sum(axis=1)
            self.merged *= 2

    def decibels(self) -> np.ndarray:
        """Level in dB [F, columns] of all samples so far, the last frame filled with zeros."""
        padding = -len(self._tail) % HOP + HOP
        final = Spectrogram(columns=self._columns)
        final.__dict__.update(self.__dict__)
        final.feed(np.zeros(padding, dtype=np.float32))
        power = final._power / final.merged
        if len(final._rest):
            power = np.concatenate([power, final._rest.mean(axis=0, keepdims=True)])
        return 10 * np.log10(power.T / WINDOW + 1e-12)


def gate_map(
    noisy: np.ndarray | Spectrogram, enhanced: np.ndarray | Spectrogram, gates: np.ndarray, gate_names: list[str],
    frame_mmacs: np.ndarray, sample_rate: int = RATE, *, levels: tuple[float, float] | None = None,
    snr: float | None = None, title: str = "", path: str | Path | None = None,
) -> Figure:  # fmt: skip
    """Draw noisy and enhanced spectrogram over the gates and the running cost.

    Parameters
    ----------
    noisy, enhanced : float array [samples] or [C, samples], of which the first channel is drawn; or Spectrogram
    gates : array [T, K] of 0 and 1
    gate_names : list of K str
    frame_mmacs : array [T], what each frame costs, in MMAC/s if all frames were like it
    sample_rate : of the arrays, in Hz
    levels : (closed, open) MMAC/s with everything closed and with everything open, drawn as lines; or None
    snr : signal-to-noise ratio in dB, for the title; or None
    title : what was enhanced, by what
    path : where to save, .png, .svg or .pdf; written under a temporary name and renamed

    Returns
    -------
    matplotlib.figure.Figure
        Shows itself as the last line of a notebook cell.

    Examples
    --------
    >>> wave = np.random.default_rng(0).standard_normal(16_000)
    >>> figure = gate_map(wave, wave / 2, np.ones((64, 2)), ["conv", "gru"], np.full(64, 90.0), levels=(45.0, 90.0))
    >>> len(figure.axes)
    5
    """
    from matplotlib.figure import Figure

    gates = np.asarray(gates, dtype=np.float32)
    mmacs = np.asarray(frame_mmacs, dtype=np.float64)
    seconds, lanes = len(mmacs) / FRAMES_PER_SECOND, len(gate_names)
    heights = [1.6, 1.6, 0.24 * lanes, 1.3] if lanes else [1.6, 1.6, 1.3]
    figure = Figure(figsize=(10.5, sum(heights) + 1.7), dpi=130, facecolor=_PAPER)
    figure.set_layout_engine("constrained", h_pad=0.05, hspace=0.02, w_pad=0.08)
    grid = figure.add_gridspec(len(heights), 2, width_ratios=[1, 0.016], height_ratios=heights)
    sounds = _draw_sounds(figure, grid, [_spectrogram(wave, sample_rate).decibels() for wave in (noisy, enhanced)], seconds)
    upper = list(sounds)
    if lanes:
        upper.append(figure.add_subplot(grid[2, 0], sharex=sounds[0]))
        _draw_lanes(upper[-1], gates, gate_names, seconds)
    lowest = figure.add_subplot(grid[-1, 0], sharex=sounds[0])
    _draw_cost(lowest, mmacs, levels, seconds)
    _draw_time(lowest, seconds)
    for axes in upper:
        axes.tick_params(axis="x", labelbottom=False, bottom=False)
    for axes in figure.axes:
        axes.tick_params(colors=_INK, labelsize=9)
    style = {"fontsize": 11, "color": _INK, "pad": 8}
    sounds[0].set_title(_headline(title, snr), loc="left", fontweight="bold", parse_math=False, **style)
    sounds[0].set_title(_figures(mmacs, levels, lanes), loc="right", **style)
    figure._repr_png_ = lambda: _png(figure)  # type: ignore[attr-defined]  # notebooks show it, without pyplot too
    if path is not None:
        save(figure, path)
    return figure


def _draw_sounds(figure: Figure, grid, images: list[np.ndarray], seconds: float) -> list:
    """The noisy and the enhanced spectrogram in dB, each [F, columns], and their bar of colours."""
    top = max(float(np.percentile(images[0], 99.9)), -60.0)
    both: list = []
    for row, (name, image) in enumerate(zip(("noisy", "enhanced"), images, strict=True)):
        axes = figure.add_subplot(grid[row, 0], sharex=both[0] if both else None)
        drawn = axes.imshow(
            image, origin="lower", aspect="auto", cmap="magma", vmin=top - 70, vmax=top,
            extent=_extent(seconds, 0, RATE / 2000),
        )  # fmt: skip
        axes.set_ylabel(f"{name}\nkHz", color=_INK)
        axes.set_yticks([0, 2, 4, 6, 8])
        both.append(axes)
    bar = figure.colorbar(drawn, cax=figure.add_subplot(grid[:2, 1]))
    bar.set_label("dB", color=_INK)
    bar.outline.set_visible(False)
    return both


def _draw_time(axes, seconds: float) -> None:
    """The common axis of time: seconds, or minutes of what is long."""
    from matplotlib.ticker import MultipleLocator

    axes.set_xlim(0, max(seconds - 1 / FRAMES_PER_SECOND, 1 / FRAMES_PER_SECOND))
    axes.set_xlabel("minutes : seconds" if seconds >= 120 else "seconds", color=_INK)
    if seconds >= 120:
        steps = (15, 30, 60, 120, 300, 600, 900, 1800)
        axes.xaxis.set_major_formatter(lambda second, _: f"{int(second // 60)}:{int(second % 60):02d}")
        axes.xaxis.set_major_locator(MultipleLocator(next((step for step in steps if seconds / step <= 12), 3600)))


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    _render(figure, buffer, "png")
    return buffer.getvalue()


def _render(figure: Figure, target: Path | io.BytesIO, format: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a title in a script that the font lacks
        figure.savefig(target, format=format)


def save(figure: Figure, path: str | Path) -> None:
    """Save a figure under a temporary name, then rename; the suffix gives the format: .png, .svg or .pdf."""
    check_name(path)
    with audio.replacing(path) as temporary:
        _render(figure, temporary, Path(path).suffix[1:].lower())


def check_name(path: str | Path) -> None:
    """Refuse a name that no picture can have."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: a picture is saved as {', '.join(SUFFIXES)}; name it so")


def _spectrogram(wave: np.ndarray | Spectrogram, sample_rate: int) -> Spectrogram:
    if isinstance(wave, Spectrogram):
        return wave
    spectrogram = Spectrogram()
    first = np.atleast_2d(np.asarray(wave, dtype=np.float32))[0]
    spectrogram.feed(audio.resample(first, sample_rate, RATE))
    return spectrogram


def _extent(seconds: float, bottom: float, top: float) -> tuple[float, float, float, float]:
    """Edges of an image of frames: frame t is centred on its middle sample, t * HOP."""
    half = 0.5 / FRAMES_PER_SECOND
    return (-half, seconds - half, bottom, top)


def _columns(frames: np.ndarray) -> np.ndarray:
    """Means over equal runs of frames, [T, ...] -> [at most COLUMNS, ...]; the last run may be shorter."""
    run = max(1, -(-len(frames) // COLUMNS))
    starts = np.arange(0, len(frames), run)
    counts = np.diff(np.append(starts, len(frames)))
    return np.add.reduceat(frames, starts) / counts.reshape(-1, *[1] * (frames.ndim - 1))


def _draw_lanes(axes, gates: np.ndarray, names: list[str], seconds: float) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    ramp = LinearSegmentedColormap.from_list("gate", [_CLOSED, _OPEN])
    lanes, image = len(names), _columns(gates)
    axes.imshow(
        image.T, aspect="auto", cmap=ramp, vmin=0, vmax=1, extent=_extent(seconds, lanes, 0),
        interpolation="nearest",  # anything else would mix a lane with its neighbours
    )  # fmt: skip
    axes.hlines(range(1, lanes), -1, seconds, color=_PAPER, lw=2.5)
    axes.set_yticks(np.arange(lanes) + 0.5, names)
    axes.set_ylim(lanes, 0)
    axes.tick_params(axis="y", length=0)
    for lane, rate in enumerate(gates.mean(axis=0) if len(gates) else np.zeros(lanes)):
        axes.annotate(
            f"{rate:.0%}", (1, lane + 0.5), xycoords=("axes fraction", "data"), xytext=(5, 0),
            textcoords="offset points", va="center", fontsize=9, color=_INK,
        )  # fmt: skip
    what = "dark: open" if len(image) == len(gates) else "the darker, the longer open"
    axes.set_title(f"gates ({what}; right: share of frames open)", fontsize=9, color=_QUIET, loc="left", pad=3)
    for side in axes.spines.values():
        side.set_visible(False)


def _draw_cost(axes, mmacs: np.ndarray, levels: tuple[float, float] | None, seconds: float) -> None:
    span = max(0.5, round(seconds / 300))
    width = min(len(mmacs), round(span * FRAMES_PER_SECOND))
    running = np.convolve(mmacs, np.ones(width), "same") / np.convolve(np.ones(len(mmacs)), np.ones(width), "same")
    running = _columns(running)
    times = (np.arange(len(running)) + 0.5) * seconds / max(1, len(running)) - 0.5 / FRAMES_PER_SECOND
    axes.plot(times, running, color=_LINE, lw=1.6)
    axes.fill_between(times, running, color=_LINE, alpha=0.12, lw=0)
    lines = dict(zip(levels or (), ("all closed", "all open"), strict=False))  # equal levels: one line
    for value, name in lines.items():
        axes.axhline(value, color=_LEVEL, lw=1.2, ls=(0, (5, 3)))
        axes.annotate(
            f"{name} {value:.0f}", (1, value), xycoords=("axes fraction", "data"), xytext=(-4, 2),
            textcoords="offset points", ha="right", va="bottom", fontsize=9, color=_LEVEL,
        )  # fmt: skip
    axes.set_ylim(0, 1.3 * max([*(levels or ()), float(running.max(initial=0)), 1e-9]))
    axes.set_ylabel("MMAC/s", color=_INK)
    axes.set_title(f"running cost (mean over {span:g} s)", fontsize=9, color=_QUIET, loc="left", pad=3)
    axes.spines[["top", "right"]].set_visible(False)


def _headline(title: str, snr: float | None) -> str:
    title = " ".join(title.encode("utf-8", "replace").decode().split())  # names of files may be no text
    if len(title) > 60:  # the name and the end, which tells more, of a long path
        title = f"{title[:20]}...{title[-37:]}"
    return ", ".join(filter(None, [title, "" if snr is None else f"{snr:g} dB SNR".replace("-", "\N{MINUS SIGN}")]))


def _figures(mmacs: np.ndarray, levels: tuple[float, float] | None, lanes: int) -> str:
    mean = float(mmacs.mean()) if len(mmacs) else 0.0
    if not levels:
        return f"{mean:.1f} MMAC/s"
    closed, full = levels
    if not lanes or full <= closed:
        return f"no gates: {mean:.1f} MMAC/s"
    return f"activation {(mean - closed) / (full - closed):.0%}: {mean:.1f} of {full:.1f} MMAC/s"
