"""Do the gates mean something? What they answer to on recordings whose speech and noise are known apart.

    python tools/meaning.py PAIRS benefit mgt-dsn --json results/meaning-test.json

The noise of a pair is noisy minus clean. A frame has speech where the clean signal is within 35 dB of its loud frames (95th
percentile), and a burst where the noise is 6 dB above its own median over the recording. That makes four kinds of frames.
Also: rank correlations of the activation with the SNR and the OVRL of the input, and a linear probe: a least-squares sum of
the gates, fitted on every other recording, that is to tell speech from the rest on the others (area under the ROC curve).
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
from scipy.stats import rankdata
from tqdm import tqdm

from dsn_lite import audio
from dsn_lite.audio.spectral import SAMPLE_RATE
from dsn_lite.evaluation import dnsmos, frame_levels, gate_shares, mean_ci, pairs, spearman
from dsn_lite.evaluation.provenance import provenance
from dsn_lite.evaluation.statistics import BOOTSTRAP
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


def probe(fitted: list[tuple[np.ndarray, np.ndarray]], tried: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Area under the ROC curve of a linear probe that finds speech in gates; each item is gates [T, K] and speech [T].

    >>> rng = np.random.default_rng(0)
    >>> speech = [rng.random(500) < 0.5 for _ in range(4)]
    >>> items = [(np.stack([s, rng.random(500) < 0.5], 1).astype(float), s) for s in speech]
    >>> probe(items[:2], items[2:])
    1.0
    """
    gates, speech = (np.concatenate([item[i] for item in fitted]).astype(float) for i in (0, 1))
    weights, *_ = np.linalg.lstsq(np.column_stack([gates, np.ones(len(gates))]), speech, rcond=None)
    gates, speech = (np.concatenate([item[i] for item in tried]) for i in (0, 1))
    ranks = rankdata(gates @ weights[:-1])
    positive = int(speech.sum())
    area = (ranks[speech.astype(bool)].sum() - positive * (positive + 1) / 2) / (positive * (len(speech) - positive))
    return round(float(area), 4)


def measure(name: str, folder: Path) -> dict:
    """What one network's gates do on the pairs of a folder."""
    network = load(name, kinds=("enhancer",))
    shares = gate_shares(network)
    rows = []
    heard: list[tuple[np.ndarray, np.ndarray]] = []
    means: dict[str, list] = {kind: [] for kind in KINDS}
    rates: dict[str, list] = {kind: [] for kind in KINDS}
    for pair in tqdm(pairs(folder)[0], desc=name):
        clean, noisy = (audio.read(path).wave.mean(axis=0) for path in (pair.clean, pair.noisy))  # all are at 16 kHz
        result = network.enhance(noisy, SAMPLE_RATE)
        gates, kinds = result.gates, frame_kinds(clean, noisy - clean)
        heard.append((gates[: len(kinds)], kinds >= 2))
        rows.append((pair.snr_db, dnsmos.score(noisy)["ovrl"][0], result.activation))
        for index, kind in enumerate(KINDS):
            of_kind = gates[: len(kinds)][kinds == index]
            if len(of_kind) >= 10:
                rates[kind].append(of_kind.mean(axis=0))
                means[kind].append(float(of_kind.mean(axis=0) @ shares))
    found: dict = {"kinds": {}, "gates": {}, "probe_auc": probe(heard[::2], heard[1::2])}
    for kind in KINDS:
        mean, ci, _ = mean_ci(means[kind])
        found["kinds"][kind] = {"activation": mean, "ci": ci, "files": len(means[kind])}
    for index, gate in enumerate(network.gate_names):
        found["gates"][gate] = {kind: round(float(np.mean([r[index] for r in rates[kind]])), 4) for kind in KINDS}
    found["with_snr"] = interval([(snr, activation) for snr, _, activation in rows])
    found["with_ovrl"] = interval([(ovrl, activation) for _, ovrl, activation in rows])
    return found


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
    parser.add_argument("models", nargs="+", help="networks with gates")
    parser.add_argument("--json", type=Path, default=Path("results/meaning-test.json"))
    args = parser.parse_args()
    found = {name: measure(name, args.pairs) for name in args.models}
    record = {
        "rule": " ".join(__doc__.split("\n\n")[2].split()), "kinds": list(KINDS), "models": found, **provenance(("torch",))
    }
    args.json.write_text(json.dumps(record, indent=1) + "\n")
    picture(found, args.json.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
