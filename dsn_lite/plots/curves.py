"""The curve of a training run, and the times of a bench, as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dsn_lite.audio.files import replacing


def training_curve(rows: list[dict], panels: Mapping[str, Sequence[str]], path: str | Path) -> None:
    """Draw the rows of a training log against steps.

    Parameters
    ----------
    rows : list of dict, as in `log.jsonl`
    panels : label of the axis of each panel, and patterns of the names that it shows, such as ``valid_*``; a list of
        numbers is drawn as one thin line each. A panel without a line is left out.
    path : PNG to write
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown = {}
    for label, patterns in panels.items():
        found = [name for pattern in patterns for name in names if fnmatch(name, pattern)]
        if found:
            shown[label] = list(dict.fromkeys(found))
    figure = Figure(figsize=(8, 1.4 + 2.6 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (label, found) in zip(
        figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0], shown.items(), strict=True
    ):
        for name in found:
            steps = [row["step"] for row in rows if name in row]
            values = [row[name] for row in rows if name in row]
            if isinstance(values[0], list):
                axis.plot(steps, values, lw=1)
            else:
                is_valid = name.startswith("valid_")
                kind = "validation" if is_valid else "training"
                title = f"{kind}, {name.removeprefix('valid_').replace('_', ' ')}"
                axis.plot(steps, values, label=title, color=None if is_valid else "0.6")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    figure.axes[-1].set_xlabel("step")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def bench_figure(result: dict) -> Figure:
    """A bench: times of the cases, of single frames against their MACs, and of the engines."""
    figure = Figure(figsize=(11, 3.6), layout="constrained", dpi=130)
    cases, frames, engines = figure.subplots(1, 3)
    times = result["us_per_frame"]
    spread = np.abs(np.array([result["quartiles_us"][name] for name in times]).T - list(times.values()))
    cases.bar(list(times), list(times.values()), yerr=spread, color="#123a63", capsize=3)
    cases.set_ylabel("µs for 16 ms of sound")
    cases.set_title(f"{result['model']}, {result['engine']}", fontsize=10)
    if "frames" in result:
        x = [row["mmacs_per_second"] for row in result["frames"]]
        y = [row["us"] for row in result["frames"]]
        frames.plot(x, y, ".", ms=3, alpha=0.4, color="#123a63")
        both = [result["mmacs_per_second"][name] for name in ("closed", "open")]
        frames.plot(both, [times[name] for name in ("closed", "open")], "o-", color="#c4570a")
        frames.set_ylim(0, 1.3 * max(times.values()))
    frames.set_xlabel("MMAC/s of the frame")
    frames.set_ylabel("µs")
    frames.set_title("each frame, learned gates; line: closed to open", fontsize=10)
    width = 0.8 / len(times)
    for index, name in enumerate(times):
        at = np.arange(len(result["engines"])) + index * width
        engines.bar(at, [row[name] for row in result["engines"].values()], width, label=name)
    engines.set_xticks(np.arange(len(result["engines"])) + 0.3, list(result["engines"]))
    engines.set_yscale("log")
    engines.legend(fontsize=7)
    engines.set_title("engines", fontsize=10)
    for axes in (cases, frames, engines):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
