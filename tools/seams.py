"""What does a router lose where the width changes? Routed DEMUCS on validation mixtures, segment by segment.

    python tools/seams.py MANIFEST slim-demucs --json results/seams.json

For each target, means over all segments of the loss that the router is taught by, compared at what the router spends:

- ``constant``: a constant width of the same MACs, interpolated between two.
- ``chosen``: each segment with the loss that it has where the *whole* mixture runs at the width chosen for it. Below
  ``constant`` the choices are good.
- ``routed``: what the routed network makes of it. What it has above ``chosen`` is lost at the seams.
- ``best_segments``, ``best_mixtures``: as ``chosen``, with the choices of somebody who knows the losses, for each segment
  or once for each mixture.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dsn_lite.data import Corpus, Mixtures
from dsn_lite.evaluation.provenance import provenance, report
from dsn_lite.slimmable.choice import decide
from dsn_lite.slimmable.demucs.network import SlimDemucs
from dsn_lite.slimmable.demucs.train import SHOWN, DemucsPlan, price_of, teaching_losses
from dsn_lite.training.losses import SpeechLoss
from dsn_lite.zoo import load


@torch.no_grad()
def collect(network: SlimDemucs, mixtures: Mixtures, loss: SpeechLoss) -> tuple[torch.Tensor, dict[float, torch.Tensor]]:
    """Losses [N, S, W + targets] at each constant width, then routed at each target; and the choices [N, S, W]."""
    losses, choices = [], {target: [] for target in SHOWN}
    for first in tqdm(range(0, len(mixtures), 8), desc="mixtures"):
        items = [mixtures[i] for i in range(first, min(first + 8, len(mixtures)))]
        noisy, clean = (torch.stack([item[name] for item in items]) for name in ("noisy", "clean"))
        for target in SHOWN:
            choices[target].append(decide(network.route(noisy, target)))
        waves = [network(noisy, width) for width in network.widths]
        waves += [network(noisy, choices[target][-1]) for target in SHOWN]
        losses.append(teaching_losses(waves, clean, loss))
    return torch.cat(losses), {target: torch.cat(parts) for target, parts in choices.items()}


def compare(network: SlimDemucs, losses: torch.Tensor, choices: dict[float, torch.Tensor]) -> dict:
    """The five means for each target."""
    count = len(network.widths)
    widths, costs = losses[..., :count], torch.as_tensor(network.count().width_mmacs / network.count().open).float()
    found = {}
    for index, (target, choice) in enumerate(choices.items()):
        spent = float((choice @ costs).mean())
        values = {
            "share_of_macs": spent,
            "constant": float(np.interp(spent, costs.numpy(), widths.mean((0, 1)).numpy())),
            "chosen": float((widths * choice).sum(-1).mean()),
            "routed": float(losses[..., count + index].mean()),
            "changes_a_second": float((choice[:, 1:] != choice[:, :-1]).any(-1).float().mean() * 16_000 / 2048),
        }
        for name, known in (("best_segments", widths), ("best_mixtures", widths.mean(1))):
            best = (known + price_of(known, costs, spent) * costs).argmin(-1, keepdim=True)
            values[name] = float(known.gather(-1, best).mean())
        found[f"{target:g}"] = {name: round(value, 5) for name, value in values.items()}
    return found


def main() -> int:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("model", nargs="?", default="slim-demucs")
    parser.add_argument("--items", type=int, default=96)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    corpus = Corpus.open(args.manifest)
    network = load(args.model, kinds=(SlimDemucs.KIND,))
    loss = DemucsPlan.from_dict(network.card["training"]).loss
    mixtures = Mixtures(corpus, "valid", args.seconds, seed=0, size=args.items)
    losses, choices = collect(network, mixtures, loss)
    result = {
        "model": network.name, "targets": compare(network, losses, choices), "items": args.items, "seconds": args.seconds,
        "data_hash": corpus.hash, "seed": 0, **provenance(("torch", "numpy")),
    }  # fmt: skip
    report(result, args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
