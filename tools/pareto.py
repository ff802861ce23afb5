"""Draw quality against MMAC/s on the fixed test set: one dynamic network at every budget, static networks, peers.

    dsn-lite evaluate PAIRS --budget 0.2 --json results/test-mgt-dsn-budget-0.2.json       and so on
    python tools/pareto.py                                                                 results/pareto.png
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
PANELS = (
    ("pesq", "pesq_wb", "PESQ"), ("si_sdr", "si_sdr_db", "SI-SDR, dB"), ("estoi", "estoi", "ESTOI"),
    ("ovrl", "dnsmos_ovrl", "DNSMOS OVRL"),
)  # fmt: skip
STATIC = ("static-only", "static-narrow", "static")
PEERS = {"gtcrn_dns3": "GTCRN", "ulunas": "UL-UNAS", "fastenhancer_t": "FastEnhancer-T", "dtln": "DTLN"}


def curve(results: Path, name: str) -> list[dict]:
    """Evaluations of one dynamic network, from all closed to all open, by what they cost."""
    paths = [results / f"test-{name}{suffix}.json" for suffix in ("", "-closed", "-open")]
    found = [json.loads(path.read_text()) for path in (*paths, *results.glob(f"test-{name}-budget-*.json"))]
    return sorted(found, key=lambda values: values["mmacs_per_second"])


def peers(results: Path) -> dict[str, dict]:
    """What published networks of this size score on the same pairs."""
    with (results / "peers.csv").open() as file:
        return {row["peer"]: row for row in csv.DictReader(file) if row["snr_db"] == "all" and row["peer"] in PEERS}


def draw(results: Path, path: Path) -> None:
    """One panel a metric; bars are 95 % bootstrap intervals over the files."""
    figure = Figure(figsize=(10, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    dynamic = curve(results, "mgt-dsn")
    learned = json.loads((results / "test-mgt-dsn.json").read_text())
    files = {name: results / f"test-{name}.json" for name in STATIC}
    static = [json.loads(file.read_text()) for file in files.values() if file.exists()]
    others = peers(results)
    for axis, (key, peer_key, label) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        for rows, style, text in ((dynamic, "o-C0", "mgt-dsn, by budget"), (static, "s--C1", "static networks")):
            low, high = zip(*(row[f"{key}_ci"] for row in rows), strict=True)
            cost, value = [row["mmacs_per_second"] for row in rows], [row[key] for row in rows]
            axis.plot(cost, value, style, ms=4, label=text)
            axis.fill_between(cost, low, high, color=style[-2:], alpha=0.08)
        axis.plot(learned["mmacs_per_second"], learned[key], "*C3", ms=12, label="mgt-dsn as trained")
        axis.axhline(learned["noisy"][key], color="0.6", lw=1, ls=":", label="noisy")
        for name, row in others.items():
            axis.plot(float(row["mmacs_per_second"]), float(row[peer_key]), "^", color="0.3", ms=5)
            axis.annotate(
                PEERS[name], (float(row["mmacs_per_second"]), float(row[peer_key])), fontsize=7, xytext=(4, 3),
                textcoords="offset points",
            )  # fmt: skip
        axis.set(xlabel="MMAC/s", ylabel=label)
        axis.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def main() -> int:
    """Draw; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    args = parser.parse_args()
    draw(args.results, args.results / "pareto.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
