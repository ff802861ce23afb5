"""Do the gates mean something? What they answer to on recordings whose speech and noise are known apart.

    python tools/meaning.py PAIRS mgt-dsn dsn --json results/meaning.json

The noise of a pair is noisy minus clean. A frame has speech where the clean signal is within 35 dB of its loud frames (95th
percentile), and a burst where the noise is 6 dB above its own median over the recording. That makes four kinds of frames.
Also: rank correlations with their intervals, and how far each activation is from the target that the guidance sets.
Draws the same as a picture beside the JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from dsn_lite import audio
from dsn_lite.audio.spectral import SAMPLE_RATE
from dsn_lite.evaluation import frame_levels, gate_shares, mean_ci, pairs, spearman
from dsn_lite.evaluation.provenance import provenance
from dsn_lite.evaluation.statistics import BOOTSTRAP
from dsn_lite.training.guidance import Guidance
from dsn_lite.zoo import load

KINDS = ("silence", "noise burst", "speech", "speech in a burst")
SPEECH_DB, BURST_DB = 35.0, 6.0


def frame_kinds(clean: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Kind [T] of each frame, an index into KINDS."""
    levels, disturbance = frame_levels(clean), frame_levels(noise)
    is_speech = levels > np.percentile(levels, 95) - SPEECH_DB
    is_burst = disturbance > np.median(disturbance) + BURST_DB
    return 2 * is_speech + is_burst


def interval(values: list[tuple[float, float]]) -> dict:
    """Rank correlation of pairs of numbers, and its 95 % bootstrap interval over the files."""
    x, y = np.array(values).T
    generator = np.random.default_rng(0)
    drawn = (generator.integers(0, len(x), len(x)) for _ in range(BOOTSTRAP))
    again = [value for value in (spearman(x[i], y[i]) for i in drawn) if value is not None]
    return {"rank": spearman(x, y), "ci": [round(float(v), 4) for v in np.percentile(again, (2.5, 97.5))]}


def measure(name: str, folder: Path, results: Path) -> dict:
    """What one network's gates do on the pairs of a folder."""
    network = load(name, kinds=("enhancer",))
    shares = gate_shares(network)
    scored = json.loads((results / f"test-{name}.json").read_text())
    files = {row["file"]: row for row in scored["per_file"]}
    means: dict[str, list] = {kind: [] for kind in KINDS}
    rates: dict[str, list] = {kind: [] for kind in KINDS}
    for pair in tqdm(pairs(folder)[0], desc=name):
        clean, noisy = (audio.read(path).wave.mean(axis=0) for path in (pair.clean, pair.noisy))  # all are at 16 kHz
        gates = network.enhance(noisy, SAMPLE_RATE).gates
        kinds = frame_kinds(clean, noisy - clean)
        for index, kind in enumerate(KINDS):
            of_kind = gates[: len(kinds)][kinds == index]
            if len(of_kind) >= 10:
                rates[kind].append(of_kind.mean(axis=0))
                means[kind].append(float(of_kind.mean(axis=0) @ shares))
    rows = list(files.values())
    result: dict = {"kinds": {}, "gates": {}}
    for kind in KINDS:
        mean, ci, _ = mean_ci(means[kind])
        result["kinds"][kind] = {"activation": mean, "ci": ci, "files": len(means[kind])}
    for index, gate in enumerate(network.gate_names):
        result["gates"][gate] = {kind: round(float(np.mean([r[index] for r in rates[kind]])), 4) for kind in KINDS}
    result["with_snr"] = interval([(row["snr_db"], row["activation"]) for row in rows])
    result["with_ovrl"] = interval([(row["noisy"]["ovrl"], row["activation"]) for row in rows])
    result["within_snr"] = {
        f"{snr:g}": interval([(r["noisy"]["ovrl"], r["activation"]) for r in rows if r["snr_db"] == snr])
        for snr in sorted({row["snr_db"] for row in rows})
    }
    guidance = network.card.get("guidance")
    if guidance:
        target = Guidance(**guidance).target(np.array([row["noisy"]["ovrl"] for row in rows]))
        missed = np.array([row["activation"] for row in rows]) - target
        result["target"] = {
            "mean_target": round(float(target.mean()), 4), "mean_activation": scored["activation"],
            "missed": round(float(np.abs(missed).mean()), 4), "bias": round(float(missed.mean()), 4),
            "by_snr": {
                f"{snr:g}": round(float(missed[[r["snr_db"] == snr for r in rows]].mean()), 4)
                for snr in sorted({row["snr_db"] for row in rows})
            },
        }  # fmt: skip
    return result


def picture(found: dict, path: Path) -> None:
    """Activation by kind of frame, one panel a network, and below it each gate's rate."""
    figure = Figure(figsize=(9, 3.2 * len(found)), layout="constrained")
    FigureCanvasAgg(figure)
    for row, (name, values) in zip(figure.subplots(len(found), 2, squeeze=False), found.items(), strict=True):
        kinds = values["kinds"]
        heights = [kinds[kind]["activation"] for kind in KINDS]
        errors = np.abs(np.array([kinds[kind]["ci"] for kind in KINDS]).T - heights)
        row[0].bar(KINDS, heights, yerr=errors, color=["0.7", "C3", "C0", "C4"], capsize=3)
        row[0].set(ylim=(0, 1), ylabel="activation", title=f"{name}: what is spent on which frames")
        row[0].tick_params(axis="x", labelsize=8)
        table = np.array([[rates[kind] for kind in KINDS] for rates in values["gates"].values()])
        image = row[1].imshow(table, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        row[1].set_xticks(range(len(KINDS)), KINDS, fontsize=8)
        row[1].set_yticks(range(len(table)), list(values["gates"]), fontsize=8)
        row[1].set_title("share of open frames, gate by gate")
        for (y, x), value in np.ndenumerate(table):
            row[1].text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=7, color="w" if value > 0.6 else "k")
        figure.colorbar(image, ax=row[1])
    figure.savefig(path, dpi=110)


def main() -> int:
    """Measure, write the JSON and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("models", nargs="+", help="networks whose results/test-NAME.json is there")
    parser.add_argument("--json", type=Path, default=Path("results/meaning.json"))
    args = parser.parse_args()
    found = {name: measure(name, args.pairs, args.json.parent) for name in args.models}
    record = {
        "rule": " ".join(__doc__.split("\n\n")[2].split()), "kinds": list(KINDS), "models": found, **provenance(("torch",))
    }
    args.json.write_text(json.dumps(record, indent=1) + "\n")
    picture(found, args.json.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
