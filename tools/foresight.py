"""What a policy should be taught: policies taught several things on one network, judged on mixtures and on streams.

    python tools/foresight.py MANIFEST --model checkpoints/enhancer/refine/model.safetensors --json results/foresight.json

The network is run once over training mixtures with everything open; what a policy may see, and what opening gained in
each frame, are kept. On that each policy is taught within a minute: how large the gain is; the same, but bounded, so that
large gains are all alike; or whether it exceeds each of five prices. And with more or less weight on the part of the
waveform. Then validation mixtures and validation streams are enhanced with the frames open that a policy puts first, at
one activation over each set: PESQ, SI-SDR, and its share, what its frames gain above chance, of what the best frames gain
above it. Beside them stand the best frames themselves, frames drawn at random, everything open and everything closed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from dsn_lite.audio.spectral import SAMPLE_RATE, stft
from dsn_lite.data import Corpus, Mixtures, ValidationStreams
from dsn_lite.evaluation import Terms, gain, pesq_wb, si_sdr
from dsn_lite.evaluation.provenance import provenance, report
from dsn_lite.network.model import Network
from dsn_lite.training.policies import LARGE
from dsn_lite.zoo import DEFAULT, load

ACTIVATIONS, SEED = (0.25, 0.45), 7
WEIGHTS = (0.05, 0.8)
"""Of the waveform's part of the gain; the first is that of the loss."""
KINDS = ("how large", "bounded", "whether")
OPENED = (0.2, 0.35, 0.5, 0.65, 0.8)
"""Shares of the frames whose gain exceeds each of the five prices."""
SPECTRAL, WAVEFORM = Terms(waveform=0.0), Terms(magnitude=0.0, complex=0.0, waveform=1.0)


class Kept(NamedTuple):
    """What is kept of N recordings."""

    features: Tensor
    """What the policy sees [N, T, P]."""
    parts: Tensor
    """What opening gained [N, T, 2]: the spectrum's part, and the waveform's for a weight of 1."""
    waves: list[tuple[np.ndarray, np.ndarray]]
    """Noisy and clean, where they are listened to."""

    def gain(self, weight: float) -> Tensor:
        """What opening gained [N, T]."""
        return self.parts[..., 0] + weight * self.parts[..., 1]


@torch.no_grad()
def keep(network: Network, mixtures: Mixtures, batch_size: int, *, waves: bool = False) -> Kept:
    """Run the network over mixtures with everything open."""
    seen: list[Tensor] = []
    plain = network.policy_features

    def features(x: Tensor, mask: Tensor, inputs: list[Tensor]) -> Tensor:
        seen.append(plain(x, mask, inputs).half())
        return seen[-1].float()

    network.policy_features = features  # type: ignore[method-assign]
    parts: list[Tensor] = []
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for batch in tqdm(DataLoader(mixtures, batch_size=batch_size, num_workers=1), unit="batch"):
        output, clean = network(stft(batch["noisy"]), torch.ones_like), batch["clean"]
        both = [gain(output.spectrum, output.small, clean, terms) for terms in (SPECTRAL, WAVEFORM)]
        parts.append(torch.stack(both, -1) * output.gates.shape[1])
        if waves:
            kept += zip(batch["noisy"].numpy(), clean.numpy(), strict=True)
    network.policy_features = plain  # type: ignore[method-assign]
    return Kept(torch.cat(seen), torch.cat(parts), kept)


class Judge(nn.Module):
    """Normalised features [B, T, P] to what opening is worth [B, T]; of the size of the policy that ships."""

    def __init__(self, features: Tensor, width: int = 32):
        super().__init__()
        self.mean, self.deviation = features.mean((0, 1)), features.std((0, 1)) + 1e-5
        self.recurrent, self.out = nn.GRU(features.shape[-1], width, batch_first=True), nn.Linear(width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        return self.out(self.recurrent((features - self.mean) / self.deviation)[0]).squeeze(-1)


def surprise(told: Tensor, gained: Tensor, prices: Tensor) -> Tensor:
    """Cross entropy of foretelling whether a gain [B, T] exceeds each price [5]: ordinal regression with proportional odds
    (McCullagh, 1980). How large a large gain is counts nothing, on which side of a price it lies counts all.
    """
    odds = told[..., None] + torch.tensor(OPENED).logit()
    return functional.binary_cross_entropy_with_logits(odds, (gained[..., None] > prices).float())


def teach(kind: str, kept: Kept, weight: float, steps: int) -> nn.Module:
    """A judge that was taught one of ``KINDS`` for so many steps of 32 mixtures."""
    torch.manual_seed(SEED)
    features, gained = kept.features.float(), kept.gain(weight)
    sample = gained.flatten()[::7]
    prices, size, usual = sample.quantile(1 - torch.tensor(OPENED)), sample.std(), sample.abs().quantile(0.75)

    def missed(told: Tensor, found: Tensor) -> Tensor:
        if kind == "whether":
            return surprise(told, found, prices)
        if kind == "bounded":
            return functional.mse_loss(told, (found / usual).tanh())
        return functional.huber_loss(told, found / size, delta=LARGE)

    judge = Judge(features)
    optimiser = torch.optim.AdamW(judge.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps, pct_start=0.05)
    for _ in tqdm(range(steps), unit="step", leave=False):
        picks = torch.randint(len(features), (32,))
        loss = missed(judge(features[picks]), gained[picks])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return judge.eval()


def share(told: Tensor, gained: Tensor, activation: float) -> float:
    """What the frames that are told to be worth most gain above chance, over what the best frames gain above it."""
    count, chance = int(activation * gained.numel()), activation * gained.mean()

    def of_frames(score: Tensor) -> Tensor:
        return gained.flatten()[score.flatten().topk(count).indices].sum() / gained.numel() - chance

    return float(of_frames(told) / of_frames(gained))


def listen(network: Network, kept: Kept, told: Tensor, activation: float) -> dict[str, float]:
    """Mean scores with the frames open that are told to be worth most; the threshold is one for all."""
    count = int(activation * told.numel())
    opened = torch.zeros(told.numel(), dtype=torch.bool)
    opened[told.flatten().topk(count).indices] = True
    opened = opened.view_as(told)
    scores = []
    for (noisy, clean), frames in zip(kept.waves, opened.numpy(), strict=True):
        gates = np.repeat(frames[:, None], len(network.gate_names), 1).astype(np.float32)
        wave = network.enhance(noisy, SAMPLE_RATE, policy=gates).wave
        scores.append((pesq_wb(clean, wave), si_sdr(clean, wave)))
    pesq, ratio = np.nanmean(scores, 0)
    return {"pesq": round(float(pesq), 3), "si_sdr": round(float(ratio), 2)}


def judged(network: Network, kept: Kept, told: Callable[[Kept], Tensor]) -> dict[str, dict]:
    """Scores of one policy at each activation."""
    with torch.no_grad():
        score = told(kept)
    return {
        f"{activation:g}": {
            "share": round(share(score, kept.gain(WEIGHTS[0]), activation), 4), **listen(network, kept, score, activation)
        }
        for activation in ACTIVATIONS
    }  # fmt: skip


def main() -> int:
    """Teach and judge every variant, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("--model", default=DEFAULT, help="name or file of a network with gates (default: %(default)s)")
    parser.add_argument("--items", type=int, default=2400, help="training mixtures of 4 s")
    parser.add_argument("--streams", type=int, default=32, help="validation streams of 30 s; mixtures are twice as many")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    corpus, network = Corpus.open(args.manifest), load(args.model)
    train = keep(network, Mixtures(corpus, "train", 4.0, SEED, size=args.items), 8)
    sets = {
        "mixtures": keep(network, Mixtures(corpus, "valid", 4.0, SEED, size=2 * args.streams), 8, waves=True),
        "streams": keep(network, ValidationStreams(corpus, args.streams), 1, waves=True),
    }
    told: dict[str, Callable[[Kept], Tensor]] = {
        "the best frames": lambda kept: kept.gain(WEIGHTS[0]),
        "at random": lambda kept: torch.rand(kept.parts.shape[:2], generator=torch.Generator().manual_seed(SEED)),
    }
    for weight in WEIGHTS:
        for kind in KINDS:
            judge = teach(kind, train, weight, args.steps)
            told[f"{kind}, waveform {weight:g}"] = lambda kept, judge=judge: judge(kept.features.float())
    found: dict[str, dict] = {}
    for name, kept in sets.items():
        everything = torch.ones(kept.parts.shape[:2])
        found[name] = {"open": listen(network, kept, everything, 1.0), "closed": listen(network, kept, everything, 0.0)}
        for policy, function in told.items():
            found[name][policy] = judged(network, kept, function)
            print(f"{name}, {policy}: {found[name][policy]}", file=sys.stderr)
    said = {"model": network.name, "items": args.items, "steps": args.steps, "recordings": args.streams, "seed": SEED}
    report({**found, **said, "data_hash": corpus.hash, **provenance(("torch", "numpy"))}, args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
