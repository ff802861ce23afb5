"""The curve of a training run, as a picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def training_curve(rows: list[dict], path: str | Path) -> None:
    """Draw the rows of a training log: loss, activation and how much each gate moves, against steps.

    Parameters
    ----------
    rows : list of dict, as in `log.jsonl`
    path : PNG to write
    """
    is_gated = any("gate_rate" in row for row in rows)
    figure = Figure(figsize=(8, 8 if is_gated else 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3 if is_gated else 1, 1, sharex=True, squeeze=False)[:, 0]

    def line(axis, name: str, label: str, **style) -> None:
        points = [(row["step"], row[name]) for row in rows if name in row]
        if points:
            axis.plot(*zip(*points, strict=True), label=label, **style)

    line(axes[0], "loss", "training", color="0.6")
    line(axes[0], "valid_open", "validation, all open", color="C0")
    line(axes[0], "valid_learned", "validation, learned gates", color="C1")
    line(axes[0], "valid_closed", "validation, all closed", color="C3")
    axes[0].set_ylabel("loss")
    axes[0].legend(fontsize=8)
    if is_gated:
        line(axes[1], "activation", "training", color="0.6")
        line(axes[1], "valid_activation", "validation", color="C1")
        axes[1].set_ylim(0, 1)
        axes[1].set_ylabel("activation")
        axes[1].legend(fontsize=8)
        steps = [row["step"] for row in rows if "gate_std_frames" in row]
        for gate in range(len(rows[-1]["gate_std_frames"])):
            axes[2].plot(steps, [row["gate_std_frames"][gate] for row in rows if "gate_std_frames" in row], lw=1)
        axes[2].set_ylabel("deviation of each gate\nover frames")
    axes[-1].set_xlabel("step")
    for axis in axes:
        axis.grid(alpha=0.3)
    partial = Path(path).with_suffix(".partial.png")
    figure.savefig(partial, dpi=110)
    partial.replace(path)
