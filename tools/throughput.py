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

from dsn_lite.data import Corpus
from dsn_lite.evaluation.provenance import provenance, report
from dsn_lite.network import weights
from dsn_lite.network.config import Config
from dsn_lite.network.macs import count
from dsn_lite.network.model import Network
from dsn_lite.training.enhancer import EnhancerConfig, EnhancerTrainer
from dsn_lite.training.loop import Loop
from dsn_lite.training.policies import PolicyConfig, PolicyTrainer

WARM_UP = 3
"""Steps that do not count."""
NETWORKS = {"gated": {}, "static": {"gated": False, "policy_width": 0}}
WAYS = {"policy": "benefit"}


def measure(trainer: Loop) -> dict:
    """Median over the steps of a run that has not begun, but for the first ones."""
    batches, times = trainer._batches(), []
    while trainer.step < trainer.plan.steps:
        start = time.perf_counter()
        trainer._train_step(next(batches))
        trainer.step += 1
        times.append(time.perf_counter() - start)
    del batches
    median = float(np.median(times[WARM_UP:]))
    audio = trainer.plan.batch * trainer.plan.seconds
    return {
        "audio_seconds_per_second": round(audio / median, 2), "steps_per_second": round(1 / median, 3),
        "step_seconds_quartiles": [round(float(value), 3) for value in np.percentile(times[WARM_UP:], [25, 75])],
        "batch": trainer.plan.batch, "seconds": trainer.plan.seconds, "parameters": count(trainer.network).parameters,
    }  # fmt: skip


def trainers(corpus: Corpus, folder: Path, preset: str = "base", workers: int = 1, **common):
    """Name and trainer of each run: the enhancer with gates and without, then a policy on untrained weights."""
    for name, changes in NETWORKS.items():
        plan = EnhancerConfig.from_dict({"network": {"preset": preset, **changes}, **common})
        yield name, EnhancerTrainer(plan, corpus, folder / name, workers=workers)
    weights.save(Network(Config.preset(preset)), folder / "trunk.safetensors")
    for name, way in WAYS.items():
        plan = PolicyConfig.from_dict({"way": way, "start_from": str(folder / "trunk.safetensors"), **common})
        yield name, PolicyTrainer(plan, corpus, folder / name, workers=workers)


def main() -> int:
    """Measure every run and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    corpus = Corpus.open(args.manifest)
    common = {"steps": args.steps + WARM_UP, "batch": 8, "seconds": 2.0, "optimizer": "soap"}
    with tempfile.TemporaryDirectory() as folder:
        result = {name: measure(trainer) for name, trainer in trainers(corpus, Path(folder), **common)}
    result |= {"threads": 1, "workers": 1, "seed": 1, "data_hash": corpus.hash, **provenance(("torch", "numpy"))}
    report(result, args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
