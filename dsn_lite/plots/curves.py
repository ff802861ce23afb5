"""The curve of a training run, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


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
    partial = Path(path).with_suffix(".partial.png")
    figure.savefig(partial, dpi=110)
    partial.replace(path)
