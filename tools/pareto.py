"""Draw quality against MMAC/s: one dynamic network at every budget, its rivals of equal cost, static networks, peers.

    python tools/pareto.py             results/pareto.png, from results/test.jsonl, streams.jsonl and peers.csv
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tables import RESULTS, SETS, peers, runs

from dsn_lite.zoo import DEFAULT

PANELS = (("pesq", "PESQ"), ("si_sdr", "SI-SDR, dB"), ("estoi", "ESTOI"), ("ovrl", "DNSMOS OVRL"))
STATIC = ("static-only", "static-narrow", "static")
RIVALS = {"other": ("v", "gates of another recording"), "shifted": (">", "two seconds late"), "energy": ("x", "by energy"),
          "known": ("*", "gain known afterwards")}  # fmt: skip
"""Those that are near enough to be told apart; random and frozen gates are far below."""
KNOWN = ("GTCRN", "UL-UNAS", "FastEnhancer-T")


def draw(path: Path) -> None:
    """One row a set, one panel a metric; the band is the 95 % bootstrap interval over the recordings."""
    figure = Figure(figsize=(13, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    for row, pairs in zip(figure.subplots(len(SETS), len(PANELS)), SETS, strict=True):
        done = runs(pairs)
        curve = [done[name] for name in done if name == DEFAULT or name.startswith(f"{DEFAULT}-budget")]
        curve += [done[name] for name in (f"{DEFAULT}-closed", f"{DEFAULT}-open") if name in done]
        curve.sort(key=lambda values: values["mmacs_per_second"])
        static = [done[name] for name in STATIC if name in done]
        for axis, (key, label) in zip(row, PANELS, strict=True):
            for all_rows, style, text in ((curve, "o-C0", f"{DEFAULT}, by budget"), (static, "D--C1", "static networks")):
                if rows := [each for each in all_rows if each[key] is not None]:  # DNSMOS did not rate them all
                    cost, value = ([each[name] for each in rows] for name in ("mmacs_per_second", key))
                    axis.plot(cost, value, style, ms=4, label=text)
                    axis.fill_between(cost, *zip(*(each[f"{key}_ci"] for each in rows), strict=True), color=style[-2:],
                                      alpha=0.08)  # fmt: skip
            for ending, (marker, text) in RIVALS.items():
                values = done.get(f"{DEFAULT}-{ending}")
                if values and values[key] is not None:
                    axis.plot(values["mmacs_per_second"], values[key], marker, color="C3", ms=6, label=text)
            if pairs == "test":
                for name in KNOWN:
                    at = peers()[name]["mmacs_per_second"], peers()[name][key]
                    axis.plot(*at, "^", color="0.3", ms=5)
                    axis.annotate(name, at, fontsize=7, xytext=(4, 3), textcoords="offset points")
            axis.set(xlabel="MMAC/s", ylabel=label, title=f"{pairs}: {SETS[pairs]}" if key == PANELS[0][0] else "")
            axis.margins(0.12)
            axis.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    draw(RESULTS / "pareto.png")
    sys.exit(0)
