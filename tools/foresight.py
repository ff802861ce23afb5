"""How much of what opening gains can be foretold: policies of several sizes, inputs and losses on the shipped network.

    python tools/foresight.py MANIFEST --json results/foresight.json

The network is run once over training and validation mixtures with everything open; what a policy may see and what opening
gained in each frame are kept. On that each policy is taught within a minute. Its share: what its frames gain above chance,
of what the ceiling's frames gain above it, at one activation, on validation mixtures.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from dsn_lite.audio.spectral import stft
from dsn_lite.data import Corpus, Mixtures
from dsn_lite.evaluation import gain
from dsn_lite.evaluation.provenance import provenance, report
from dsn_lite.network import weights
from dsn_lite.network.model import Network
from dsn_lite.network.policy import erb_pooling
from dsn_lite.training.losses import SpeechLoss
from dsn_lite.training.policies import OPENED, surprise
from dsn_lite.zoo import DEFAULT

ACTIVATION, SECONDS, SEED = 0.45, 4.0, 7
REGIONS = 4
"""Stretches of bands over which the middle is averaged for the finer input."""


class Kept(NamedTuple):
    """What is kept of N mixtures."""

    coarse: Tensor
    """What the shipped policy sees [N, T, P]."""
    fine: Tensor
    """32 bands of input and small answer, and the middle in four regions [N, T, Q]."""
    gain: Tensor
    """What opening gained [N, T]."""
    margin: Tensor
    """What the shipped policy foretold [N, T]."""


class Variant(NamedTuple):
    """One policy to teach."""

    name: str
    fine: bool = False
    width: int = 32
    loss: str = "whether"


VARIANTS = (
    Variant("a new one of the shipped size"),
    Variant("taught how large the gain is", loss="gain"),
    Variant("finer input", fine=True),
    Variant("finer input, three times as wide", fine=True, width=96),
)


@torch.no_grad()
def keep(network: Network, corpus: Corpus, split: str, items: int) -> Kept:
    """Run the network over so many mixtures of a split."""
    seen: dict[str, Tensor] = {}
    pooling, plain = erb_pooling(32), network.policy_features

    def features(x: Tensor, mask: Tensor, inputs: list[Tensor]) -> Tensor:
        magnitude = x[..., 2]
        answer = magnitude * mask.square().sum(-1).sqrt()
        middle = next(each for each, layer in zip(inputs, network.layers, strict=True) if layer.kind == "up")
        regions = middle.unflatten(2, (REGIONS, -1)).mean(3).flatten(2)
        seen["coarse"] = plain(x, mask, inputs)
        seen["fine"] = torch.cat([magnitude @ pooling, answer @ pooling, regions], -1)
        return seen["coarse"]

    network.policy_features = features  # type: ignore[method-assign]
    rows: list[tuple[Tensor, ...]] = []
    batches = DataLoader(Mixtures(corpus, split, SECONDS, SEED, size=items), batch_size=8, num_workers=1)
    for batch in tqdm(batches, desc=split, unit="batch"):
        output = network(stft(batch["noisy"]), torch.ones_like)
        gained = gain(output.spectrum, output.small, batch["clean"], SpeechLoss()) * output.gates.shape[1]
        rows.append((seen["coarse"].half(), seen["fine"].half(), gained, output.margins.mean(-1)))
    network.policy_features = plain  # type: ignore[method-assign]
    return Kept(*(torch.cat(parts) for parts in zip(*rows, strict=True)))


class Judge(nn.Module):
    """Normalised features [B, T, P] to what opening is worth [B, T]."""

    def __init__(self, features: Tensor, width: int):
        super().__init__()
        self.mean, self.deviation = features.mean((0, 1)), features.std((0, 1)) + 1e-5
        self.recurrent, self.out = nn.GRU(features.shape[-1], width, batch_first=True), nn.Linear(width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        return self.out(self.recurrent((features - self.mean) / self.deviation)[0]).squeeze(-1)


def teach(variant: Variant, kept: Kept, steps: int) -> nn.Module:
    """A judge that was taught for so many steps of 32 mixtures."""
    torch.manual_seed(SEED)
    features = (kept.fine if variant.fine else kept.coarse).float()
    prices = kept.gain.flatten()[::7].quantile(1 - torch.tensor(OPENED))
    judge = Judge(features, variant.width)
    optimiser = torch.optim.AdamW(judge.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps, pct_start=0.05)
    for _ in range(steps):
        picks = torch.randint(len(features), (32,))
        told, gained = judge(features[picks]), kept.gain[picks]
        if variant.loss == "whether":
            loss = surprise(told, gained, prices).mean()
        else:
            loss = functional.huber_loss(told, 20 * gained, delta=10.0)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return judge.eval()


def share(told: Tensor, gained: Tensor) -> float:
    """What the frames that are told to be worth most gain above chance, over what the best frames gain above it."""
    count, chance = int(ACTIVATION * gained.numel()), ACTIVATION * gained.mean()

    def of_frames(score: Tensor) -> Tensor:
        return gained.flatten()[score.flatten().topk(count).indices].sum() / gained.numel() - chance

    return float(of_frames(told) / of_frames(gained))


def main() -> int:
    """Teach and judge every variant, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("--items", type=int, default=2400, help="training mixtures of 4 s")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    corpus, network = Corpus.open(args.manifest), weights.read(DEFAULT, Network).eval()
    train, valid = keep(network, corpus, "train", args.items), keep(network, corpus, "valid", max(8, args.items // 8))
    shares = {"ships": share(valid.margin, valid.gain)}
    for variant in VARIANTS:
        judge = teach(variant, train, args.steps)
        with torch.no_grad():
            told = judge((valid.fine if variant.fine else valid.coarse).float())
        shares[variant.name] = share(told, valid.gain)
        print(f"{variant.name}: {shares[variant.name]:.3f}", file=sys.stderr)
    said = {"model": DEFAULT, "activation": ACTIVATION, "items": args.items, "steps": args.steps, "seed": SEED}
    result = {"share": {name: round(value, 4) for name, value in shares.items()}, **said, "data_hash": corpus.hash}
    report({**result, **provenance(("torch", "numpy"))}, args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
