"""Compare the routed DEMUCS with its own constant widths at equal MACs, from the evaluations under results/.

    python tools/demucs.py             results/slim-demucs.json and slim-demucs.png, from results/test.jsonl

The rival of a routed target is a constant width of the same mean MACs. Between two widths its score on a file is
interpolated between theirs at that cost, as if one of them were taken at random for each file. Differences are paired over
files.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dsn_lite.evaluation import METRICS, mean_ci, read_runs
from dsn_lite.evaluation.provenance import provenance
from dsn_lite.slimmable.separator.evaluate import interpolated

RESULTS = Path(__file__).resolve().parent.parent / "results"
SHOWN = (("pesq", "PESQ"), ("si_sdr", "SI-SDR, dB"), ("stoi", "STOI"), ("ovrl", "DNSMOS OVRL"))


def read(kind: str) -> dict[float, dict]:
    """Evaluations by width or by target, rising."""
    before = f"slim-demucs-{kind}-"
    runs = read_runs(RESULTS / "test.jsonl")
    return dict(sorted((float(name.removeprefix(before)), runs[name]) for name in runs if name.startswith(before)))


def column(values: dict, key: str) -> np.ndarray:
    """A column of the rows by file, NaN where it is missing."""
    return np.array([np.nan if row[key] is None else row[key] for row in values["per_file"]], dtype=float)


def compare(widths: dict[float, dict], routed: dict[float, dict]) -> dict:
    """Means of everything, and routed minus constant width at equal MACs."""
    costs = np.array([values["mmacs_per_second"] for values in widths.values()])
    summary: dict = {"widths": {}, "targets": {}}
    for name, group in (("widths", widths), ("targets", routed)):
        for key, values in group.items():
            row = {metric: values[metric] for metric in (*METRICS, "mmacs_per_second", "utilisation")}
            row["macs_per_sample"] = round(values["mmacs_per_second"] * 1e6 / 16_000, 1)
            row["share_of_macs"] = round(values["mmacs_per_second"] / costs[-1], 4)
            summary[name][f"{key:g}"] = row
    for key, values in routed.items():
        found = {}
        for metric in METRICS:
            static = np.stack([column(each, metric) for each in widths.values()])
            rival = interpolated(static, costs, values["mmacs_per_second"])
            difference, interval, _ = mean_ci(column(values, metric) - rival)
            found[metric] = {"difference": difference, "ci": interval}
        summary["targets"][f"{key:g}"]["over_static"] = found
        summary["targets"][f"{key:g}"]["as_good_as"] = {
            metric: equal_quality(widths, values, metric, costs) for metric, _ in SHOWN
        }
    return summary


def equal_quality(widths: dict[float, dict], values: dict, metric: str, costs: np.ndarray) -> float | None:
    """MACs of the routed network / those of a constant width of the same mean quality; None where no width reaches it."""
    quality = np.maximum.accumulate([each[metric] for each in widths.values()])
    if not quality[0] <= values[metric] <= quality[-1]:
        return None
    return round(values["mmacs_per_second"] / float(np.interp(values[metric], quality, costs)), 4)


def draw(widths: dict[float, dict], routed: dict[float, dict], path: Path) -> None:
    """Quality against MMAC/s; bars are 95 % bootstrap intervals over the files."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (metric, label) in zip(figure.subplots(2, 2).flat, SHOWN, strict=True):
        for group, style, title in ((widths, "s--C1", "constant widths"), (routed, "o-C0", "routed, by target")):
            cost = [values["mmacs_per_second"] for values in group.values()]
            mean = np.array([values[metric] for values in group.values()])
            low, high = np.array([values[f"{metric}_ci"] for values in group.values()]).T
            axis.errorbar(cost, mean, yerr=[mean - low, high - mean], fmt=style, capsize=2, elinewidth=0.7, label=title)
            for x, y, name in zip(cost, mean, group, strict=True):
                axis.annotate(f"{name:g}", (x, y), fontsize=7, xytext=(4, 4), textcoords="offset points")
        axis.axhline(next(iter(widths.values()))["noisy"][metric], color="0.6", ls=":", lw=1, label="noisy")
        axis.set(xlabel="MMAC/s", ylabel=label, xscale="log")
        axis.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> int:
    """Compare, write, draw."""
    widths, routed = read("width"), read("budget")
    if len(widths) < 2 or not routed:
        print("results/ lacks evaluations of slim-demucs; see the top of this file", file=sys.stderr)
        return 2
    record = {**compare(widths, routed), **provenance(("numpy",))}
    (RESULTS / "slim-demucs.json").write_text(json.dumps(record, indent=1) + "\n")
    draw(widths, routed, RESULTS / "slim-demucs.png")
    for name, row in record["targets"].items():
        parts = [f"{metric} {row['over_static'][metric]['difference']:+.3f} {row['over_static'][metric]['ci']}"
                 for metric in ("pesq", "si_sdr", "ovrl")]  # fmt: skip
        cost = f"{row['mmacs_per_second']:.1f} MMAC/s, utilisation {row['utilisation']:.3f}"
        print(f"target {name}: {cost}; " + "; ".join(parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
