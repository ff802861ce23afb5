"""Training a policy on a finished network, in one of three ways, on the same frozen weights.

``target``: one mean activation for all, gates by straight-through Gumbel-Softmax (Zhao, Yang and Madhu,
arXiv 2510.11395, without guidance). ``guided``: the same with a target for each utterance from the OVRL of its noisy
input (their metric guidance). ``benefit``, ours: the policy foretells what opening gains in each frame, from gates tried
at random, and opens where the gain exceeds a price for a MAC. The first two know one budget; the third knows a value, and
every budget is a price.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from dsn_lite.audio.spectral import istft, stft
from dsn_lite.data.corpus import Corpus
from dsn_lite.data.mixtures import Mixtures
from dsn_lite.errors import InputError
from dsn_lite.evaluation.benefit import gain
from dsn_lite.evaluation.statistics import spearman
from dsn_lite.network import gates as gating
from dsn_lite.network import weights
from dsn_lite.network.macs import count
from dsn_lite.network.model import Network, Output
from dsn_lite.settings import Amount, Positive, Share
from dsn_lite.training.guidance import Guidance
from dsn_lite.training.labels import read_labels
from dsn_lite.training.loop import Loop, Plan
from dsn_lite.training.losses import SpeechLoss, activation
from dsn_lite.training.patterns import spans


@dataclass(frozen=True, kw_only=True)
class PolicyConfig(Plan):
    """How a policy is taught; ``start_from`` names the finished network."""

    way: Literal["target", "guided", "benefit"]
    loss: SpeechLoss = field(default_factory=SpeechLoss)
    target: Share = 0.5
    """Mean activation: aimed at, or for ``benefit`` what the price is set for in the end."""
    slope: Positive = 0.45
    """Fall of the guided target, in activation per OVRL point."""
    activation_weight: Amount = 3.0
    balance_weight: Amount = 1.0
    """Weight of the penalty on gates whose rate over a batch leaves its bounds."""
    gumbel_fade: tuple[float, float] = (0.4, 0.8)
    """Between these shares of the run the noise fades, so that in the end the gates that are trained are those of use."""
    order: tuple[tuple[str, ...], ...] = ()
    """For ``benefit``: groups of gates, each opened only on top of those before it; empty for one group of all."""


class PolicyTrainer(Loop):
    """A run that teaches a policy; see :class:`dsn_lite.training.loop.Loop` for the parameters."""

    PLAN = PolicyConfig
    PANELS = {  # noqa: RUF012
        "loss": ("loss", "valid_open", "valid_learned", "valid_closed"),
        "activation": ("activation", "valid_activation"),
        "deviation of each gate\nover frames": ("gate_std_frames",),
    }

    def __init__(
        self, config: PolicyConfig, corpus: Corpus, folder: str | Path, *, device: str = "cpu", workers: int = 1
    ):
        if config.start_from is None:
            raise InputError("start_from is missing; a policy is taught on a finished network")
        self.config = config
        network = weights.read(config.start_from, Network)
        torch.manual_seed(config.seed)
        network.renew_policy()
        network.requires_grad_(False)
        for module in network.modules():
            if hasattr(module, "frozen"):
                module.frozen = True
        policy = list(network.policy.requires_grad_(True).parameters())
        super().__init__(
            config, network, corpus, folder, device=device, workers=workers, groups=[{"params": policy, "multiple": 1.0}]
        )
        self.counted = count(network)
        self.shares = torch.as_tensor(self.counted.gate_macs / self.counted.gate_macs.sum(), dtype=torch.float32)
        order = config.order or (tuple(network.gate_names),)
        self.groups = [[network.gate_names.index(name) for name in group] for group in order]
        self.targets = self._targets()
        self.valid = Mixtures(corpus, "valid", 4.0, 0, size=config.valid_items)

    def dataset(self, split: str, size: int | None) -> Mixtures:
        """Mixtures of a split; those of validation are the same for every run."""
        return Mixtures(self.corpus, split, self.config.seconds, self.config.seed if split == "train" else 0, size=size)

    def _targets(self) -> Tensor | None:
        """Target activation of every mixture; None where one serves all."""
        config = self.config
        if config.way != "guided":
            return None
        if config.num_mixtures is None:
            raise InputError("metric guidance needs a fixed number of labelled mixtures; set `num_mixtures:`")
        ovrl = read_labels(self.corpus, "train", config.seconds, config.seed, config.num_mixtures)
        self.guidance = Guidance.fit(ovrl, mean=config.target, slope=config.slope)
        return torch.as_tensor(self.guidance.target(ovrl), dtype=torch.float32)

    # ---- a step

    def objective(self, batch: dict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """What a step minimises, and what the log keeps."""
        if self.config.way == "benefit":
            return self._foretell(batch["noisy"], batch["clean"], generator)
        return self._decide(batch, generator)

    def _foretell(self, noisy: Tensor, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Squared error of the gain foretold for levels that were tried at random, span by span."""
        spectrum = stft(noisy)
        frames, count_levels = spectrum.shape[1], len(self.groups) + 1
        levels = spans(self.config.batch, frames, count_levels, generator)[self.own].to(self.device)  # [B, T]
        gates = torch.zeros(*levels.shape, len(self.shares), device=self.device)
        for i, group in enumerate(self.groups, start=1):
            gates[..., group] = (levels >= i).float()[..., None]
        output = self.wrapped(spectrum, lambda _: gates)
        gained = gain(output.spectrum, output.small, clean, self.config.loss) * frames
        foretold = self.values(output.margins).gather(-1, levels[..., None]).squeeze(-1)
        loss = functional.huber_loss(20 * foretold, 20 * gained, delta=10.0)
        explained = 1 - (foretold - gained).var() / gained.var().clamp_min(1e-12)
        return loss, {"loss": loss.item(), "gain": gained.mean().item(), "explained": explained.item()}

    def values(self, margins: Tensor) -> Tensor:
        """Gain foretold for each level [B, T, levels], nothing open first, from margins [B, T, K]: gains for a MAC."""
        steps = [margins[..., group].mean(-1) * self.shares[group].sum() for group in self.groups]
        return functional.pad(torch.stack(steps, -1).cumsum(-1), (1, 0))

    def _decide(self, batch: dict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Speech loss under sampled gates, distance of the activation to its target, and bounds on each gate's rate."""
        config, noisy, progress = self.config, batch["noisy"], self.step / self.config.steps
        spectrum = stft(noisy)
        shape = (config.batch, spectrum.shape[1], len(self.shares), 2)
        noise = gating.gumbel_noise(shape, generator=generator)[self.own].to(self.device)
        first, last = config.gumbel_fade
        noise = (noise[..., 1] - noise[..., 0]) * min(1.0, max(0.0, (last - progress) / (last - first)))
        output: Output = self.wrapped(spectrum, lambda margins: gating.straight_through((margins + noise).sigmoid()))
        windows = config.loss.windows
        loss = replace(config.loss, windows=(windows[self.step % len(windows)],))
        speech = loss(istft(output.spectrum, noisy.shape[-1]), batch["clean"]).mean()
        used, expected = (activation(g, self.shares) for g in (output.gates, output.margins.sigmoid()))
        if self.targets is None:  # met over the batch: each item alike would be no policy but a quota
            missed = (used.mean() - config.target).square() + (expected.mean() - config.target).square()
        else:
            target = self.targets[batch["index"]]
            missed = ((used - target).square() + (expected - target).square()).mean()
        rate = output.gates.mean((0, 1))
        opening = math.cos(math.pi / 2 * min(1.0, 3 * progress)) ** 2  # the bounds open over the first third
        low, high = max(opening * config.target, 0.05), min(1 - opening * (1 - config.target), 0.95)
        balance = ((low - rate).clamp_min(0).square() + (rate - high).clamp_min(0).square()).mean()
        total = speech + config.activation_weight * missed / 2 + config.balance_weight * balance
        values = {"loss": speech.item(), "activation": used.mean().item(), "missed": missed.item() / 2}
        return total, values

    # ---- looking

    @torch.no_grad()
    def validate(self) -> dict:
        """Loss on the fixed validation mixtures for every kind of gates, and how the policy's gates behave."""
        network, losses, found = self.averaged(), {"open": [], "closed": [], "learned": []}, []
        for first in range(0, self.config.valid_items, 8):
            items = [self.valid[i] for i in range(first, min(first + 8, self.config.valid_items))]
            noisy, clean = (torch.stack([item[name] for item in items]).to(self.device) for name in ("noisy", "clean"))
            spectrum = stft(noisy)
            learned = network(spectrum)
            answers = {"open": network(spectrum, torch.ones_like(learned.gates)).spectrum, "closed": learned.small}
            for name, answer in {**answers, "learned": learned.spectrum}.items():
                losses[name].append(self.config.loss(istft(answer, noisy.shape[-1]), clean))
            found.append((learned.gates, learned.margins, [item["snr"] for item in items]))
        gates, self.margins = (torch.cat([part[i] for part in found]) for i in (0, 1))
        used, snr = activation(gates, self.shares), [value for part in found for value in part[2]]
        return {
            **{f"valid_{name}": float(torch.cat(parts).mean()) for name, parts in losses.items()},
            "valid_activation": float(used.mean()),
            "rank_correlation_snr": spearman(used.tolist(), snr),
            "gate_rate": gates.mean((0, 1)).tolist(),
            "gate_std_frames": gates.std(1).mean(0).tolist(),
            "gate_std_utterances": gates.mean(1).std(0).tolist(),
        }

    def finish(self) -> None:
        """Set the price that the target activation asks for, then write weights and card with the calibration."""
        if self.config.way == "benefit":
            self._settle()
        super().finish()

    @torch.no_grad()
    def _settle(self) -> None:
        """Gates of one group get one margin, and zero becomes the price at which the target is spent on average."""
        for values in (self.average["policy.margins.weight"], self.average["policy.margins.bias"]):
            for group in self.groups:
                values[group] = values[group].mean(0, keepdim=True)
        self.validate()
        self.average["policy.margins.bias"] += shift_for(self.margins, self.shares, self.config.target)

    def card(self, network: Network) -> dict:
        """The calibration: the shift of the margins for each mean activation on the validation mixtures."""
        rows = [{"activation": a, "shift": shift_for(self.margins, self.shares, a)} for a in CALIBRATED]
        return {"way": self.config.way, "target": self.config.target, "calibration": rows}


CALIBRATED = tuple(round(0.05 * i, 2) for i in range(1, 20))


def shift_for(margins: Tensor, shares: Tensor, target: float) -> float:
    """The shift of margins [N, T, K] at which their mean activation, weighed by shares [K] of the MACs, is the target.

    >>> margins = torch.arange(100.0).reshape(1, 100, 1)
    >>> round(shift_for(margins, torch.ones(1), 0.25), 1)
    -74.5
    """
    values = margins.flatten(0, 1)
    order = values.flatten().argsort(descending=True)
    spent = shares.expand_as(values).flatten()[order].cumsum(0) / len(values)
    i = int((spent < target).sum())
    ranked = values.flatten()[order]
    return -float(ranked[i : i + 2].mean()) if i + 1 < len(ranked) else -float(ranked[-1])
