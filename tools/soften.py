"""Measure on the validation split how much of the input a network should keep; see `Network.soften`, `SlimDemucs.soften`.

    python tools/soften.py MANIFEST RUN ... --json results/soften.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from dsn_lite.audio.spectral import SAMPLE_RATE
from dsn_lite.data import Corpus, Mixtures
from dsn_lite.evaluation.metrics import pesq_wb, si_sdr
from dsn_lite.evaluation.provenance import provenance, report
from dsn_lite.zoo import load

SHARES = (0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)


def measure(network: nn.Module, mixtures: Mixtures, share: float, policy: str) -> dict:
    """Mean PESQ and SI-SDR in dB over the mixtures, with this share."""
    network.soften(share)
    scores = []
    for item in tqdm(mixtures, desc=f"share {share}", leave=False):
        enhanced = network.enhance(item["noisy"].numpy(), SAMPLE_RATE, policy=policy).wave
        clean = item["clean"].numpy()
        scores.append((pesq_wb(clean, enhanced), si_sdr(clean, enhanced)))
    means = np.mean(scores, axis=0)
    return {"share": share, "pesq": round(float(means[0]), 3), "si_sdr": round(float(means[1]), 3)}


def main() -> int:
    """Measure every run and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--items", type=int, default=96)
    parser.add_argument("--policy", default="learned", choices=("learned", "open"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    corpus = Corpus.open(args.manifest)
    mixtures = Mixtures(corpus, "valid", 4.0, seed=0, size=args.items)
    result: dict = {
        run.name: [measure(load(run / "model.safetensors"), mixtures, share, args.policy) for share in SHARES]
        for run in args.runs
    }
    result |= {"items": args.items, "policy": args.policy, "seed": 0, "data_hash": corpus.hash}
    result |= provenance(("torch", "numpy", "pesq"))
    report(result, args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
