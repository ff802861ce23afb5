"""Measure training throughput: seconds of audio and steps a second, with the mixtures made on the way.

    python tools/throughput.py MANIFEST --json results/throughput.json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from dsn_lite.training.former import Trainer, Training

from dsn_lite.data import Corpus
from dsn_lite.evaluation.provenance import provenance, report

NETWORKS = {"static": {"preset": "base", "parts": "always"}, "gated": {"preset": "base"}}


def measure(corpus: Corpus, network: dict, steps: int) -> dict:
    """Median over `steps` steps of 8 mixtures of 4 s, after three steps that do not count."""
    training = Training.from_dict({"network": network, "steps": steps + 3, "gating": {"policy_from": 0.0}})
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(training, corpus, folder, workers=1)
        batches = trainer._batches()
        times = []
        for _ in range(steps + 3):
            start = time.perf_counter()
            trainer._train_step(next(batches))
            trainer.step += 1
            times.append(time.perf_counter() - start)
        del batches
    median = float(np.median(times[3:]))
    audio = training.batch * training.seconds
    return {
        "audio_seconds_per_second": round(audio / median, 2), "steps_per_second": round(1 / median, 3),
        "step_seconds_quartiles": [round(float(value), 3) for value in np.percentile(times[3:], [25, 75])],
        "batch": training.batch, "seconds": training.seconds, "parameters": trainer.counted.parameters,
    }  # fmt: skip


def main() -> int:
    """Measure both networks and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    corpus = Corpus.open(args.manifest)
    result = {name: measure(corpus, network, args.steps) for name, network in NETWORKS.items()}
    result |= {"threads": 1, "workers": 1, "seed": 1, "data_hash": corpus.hash, **provenance(("torch", "numpy"))}
    report(result, args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
