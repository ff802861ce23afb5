"""Try a change of the recipe in a run of a few minutes, and append what came of it to results/comparisons.jsonl.

    python tools/compare.py MANIFEST "SOAP, learning rate 5e-3" optimizer=soap lr=0.005
    python tools/compare.py MANIFEST "waveform term .15, from the trunk" loss.waveform=0.15 start_from=trunk.safetensors

Each KEY=VALUE changes the stage `trunk` of recipes/enhancer.yaml, which is shortened to 400 steps with a learning rate that
falls from the 160th on. Compare rows of one commit and of as many steps alone: the seed and so the mixtures are the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch
import yaml

from dsn_lite.audio.files import replacing
from dsn_lite.data import Corpus
from dsn_lite.evaluation.provenance import provenance
from dsn_lite.training.enhancer import EnhancerConfig, EnhancerTrainer
from dsn_lite.training.run_files import LOG, read_log
from dsn_lite.training.stages import stages_of

ROOT = Path(__file__).resolve().parent.parent
SHORT = {"steps": 400, "warmup_steps": 100, "ema_decay": 0.98, "falls_from": 0.4, "valid_items": 36}
LEFT_OUT = ("step", "lr", "gradient", "audio_per_second")


def changed(values: dict, change: str) -> dict:
    """Values of a stage with one KEY=VALUE in them; a dot leads into a table.

    >>> changed({"lr": 0.1, "loss": {"waveform": 0.05}}, "loss.waveform=0.15")
    {'lr': 0.1, 'loss': {'waveform': 0.15}}
    """
    key, equals, text = change.partition("=")
    if not equals:
        raise SystemExit(f"{change!r} is no change; give KEY=VALUE")
    first, dot, rest = key.partition(".")
    if dot:
        return {**values, first: changed(values.get(first, {}), f"{rest}={text}")}
    return {**values, first: yaml.safe_load(text)}


def main() -> int:
    """Run and append the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("tried", help="what is tried, in words")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "comparisons.jsonl")
    args = parser.parse_args()
    torch.set_num_threads(1)
    values = {**stages_of(yaml.safe_load((ROOT / "recipes" / "enhancer.yaml").read_text()))[0].values, **SHORT}
    for change in args.changes:
        values = changed(values, change)
    config = EnhancerConfig.from_dict({**values, "valid_every": values["steps"], "save_every": values["steps"]})
    corpus = Corpus.open(args.manifest)
    with tempfile.TemporaryDirectory() as folder:
        EnhancerTrainer(config, corpus, folder).run()
        found = read_log(Path(folder) / LOG)[-1]
    row = {
        "tried": args.tried, "steps": config.steps, "seed": config.seed,
        **{key: round(value, 4) for key, value in found.items() if key not in LEFT_OUT},
        "data_hash": corpus.hash, **provenance(("torch",)),
    }  # fmt: skip
    before = args.out.read_text() if args.out.exists() else ""
    with replacing(args.out) as temporary:
        temporary.write_text(before + json.dumps(row) + "\n")
    print(json.dumps(row, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
