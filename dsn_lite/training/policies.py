"""Training a policy on a finished network, in one of three ways, on the same frozen weights.

``target``: one mean activation for all, gates by straight-through Gumbel-Softmax (Zhao, Yang and Madhu,
arXiv 2510.11395, without guidance). ``guided``: the same with a target for each utterance from the OVRL of its noisy
input (their metric guidance). ``benefit``, ours: the policy foretells how much opening gains in each frame, from gates
tried at random, and opens where that exceeds a price. The first two know one budget; the third knows a value, and every
budget is a price.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
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
    """Mean activation: aimed at, but for ``benefit``, and what the price is set for in the end."""
    slope: Positive = 0.45
    """Fall of the guided target, in activation per OVRL point."""
    activation_weight: Amount = 3.0
    balance_weight: Amount = 1.0
    """Weight of the penalty on gates whose rate over a batch leaves its bounds."""
    gumbel_fade: tuple[float, float] = (0.4, 0.8)
    """Between these shares of the run the noise fades, so that in the end the gates that are trained are those of use."""
    bound: tuple[tuple[str, ...], ...] = ()
    """Groups of gates that open together, a gate that none names alone; empty for one of all, as ``benefit`` has it."""

    def __post_init__(self) -> None:
        if self.way == "benefit" and self.bound:
            raise InputError("bound: way benefit decides for all gates at once; leave it out")


class PolicyTrainer(Loop):
    """A run that teaches a policy; see :class:`dsn_lite.training.loop.Loop` for the parameters."""

    PLAN, NETWORK = PolicyConfig, Network
    PANELS = {  # noqa: RUF012
        "loss": ("loss", "valid_open", "valid_learned", "valid_closed"),
        "activation": ("activation", "valid_activation"),
        "deviation of each gate\nover frames": ("gate_std_frames",),
    }

    def __init__(
        self, plan: PolicyConfig, corpus: Corpus, folder: str | Path, *, device: str = "cpu", workers: int = 1
    ):
        super().__init__(plan, corpus, folder, device=device, workers=workers)
        gate_macs, names = count(self.network).gate_macs, self.network.gate_names
        self.shares = torch.as_tensor(gate_macs / gate_macs.sum(), dtype=torch.float32, device=self.device)
        self.groups_of_gates = groups_of(names, plan.bound)
        self.group_of = [next(i for i, g in enumerate(self.groups_of_gates) if gate in g) for gate in range(len(names))]
        members = functional.one_hot(torch.tensor(self.group_of)).float().to(self.device)  # [K, groups]
        self.binding = members @ (members / members.sum(0)).T  # margins [..., K] times this: the mean over the group
        self.targets = self._targets()
        self.unit = self._unit() if plan.way == "benefit" else None

    def begin(self) -> Network:
        """The finished network, frozen, with a new policy."""
        if self.plan.start_from is None:
            raise InputError("start_from is missing; a policy is taught on a finished network")
        network = weights.read(self.plan.start_from, Network)
        torch.manual_seed(self.plan.seed)
        network.renew_policy()
        network.requires_grad_(False)
        network.policy.requires_grad_(True)
        for module in network.modules():
            if hasattr(module, "frozen"):
                module.frozen = True
        return network

    def groups(self) -> list[dict]:
        """The policy alone."""
        return [{"params": list(self.network.policy.parameters()), "multiple": 1.0}]

    def _targets(self) -> Tensor | None:
        """Target activation of every mixture; None where one serves all."""
        plan = self.plan
        if plan.way != "guided":
            return None
        if plan.num_mixtures is None:
            raise InputError("metric guidance needs a fixed number of labelled mixtures; set `num_mixtures:`")
        ovrl = read_labels(self.corpus, "train", plan.seconds, plan.seed, plan.num_mixtures)
        self.guidance = Guidance.fit(ovrl, mean=plan.target, slope=plan.slope)
        return torch.as_tensor(self.guidance.target(ovrl), dtype=torch.float32, device=self.device)

    # ---- a step

    def objective(self, batch: dict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """What a step minimises, and what the log keeps."""
        if self.plan.way == "benefit":
            return self._foretell(batch["noisy"], batch["clean"], generator)
        return self._decide(batch, generator)

    @torch.no_grad()
    def _unit(self) -> Tensor:
        """Standard deviation of the gain over frames of fixed mixtures with everything open: a margin of 1 foretells it."""
        found = []
        for batch in self.eights(Mixtures(self.corpus, "train", 4.0, 0, size=self.plan.valid_items)):
            output = self.network(stft(batch["noisy"]), torch.ones_like)
            found.append(self._gained(output, batch["clean"]).flatten())
        return torch.cat(found).std()

    def _gained(self, output: Output, clean: Tensor) -> Tensor:
        """What opening gained [B, T], in units of the loss of a whole item."""
        return gain(output.spectrum, output.small, clean, self.plan.loss) * output.gates.shape[1]

    def _foretell(self, noisy: Tensor, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Error of foretelling how much opening gained, where it was tried, span by span."""
        spectrum = stft(noisy)
        tried = spans(self.plan.batch, spectrum.shape[1], generator)[self.own].to(self.device)  # [B, T]
        output = self.wrapped(spectrum, lambda margins: tried[..., None].expand_as(margins))
        gained = self._gained(output, clean)
        told, wanted = output.margins.mean(-1), gained / self.unit
        loss = (functional.huber_loss(told, wanted, reduction="none", delta=LARGE) * tried).mean()
        mean = (wanted * tried).sum() / tried.sum().clamp_min(1)
        missed, spread = (((wanted - guess).square() * tried).sum() for guess in (told, mean))
        explained = 1 - (missed / spread.clamp_min(1e-12)).item()
        return loss, {"loss": loss.item(), "gain": (gained * tried).mean().item(), "explained": explained}

    def _decide(self, batch: dict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Speech loss under sampled gates, distance of the activation to its target, and bounds on each gate's rate."""
        plan, noisy, progress = self.plan, batch["noisy"], self.step / self.plan.steps
        spectrum = stft(noisy)
        shape = (plan.batch, spectrum.shape[1], len(self.groups_of_gates), 2)
        noise = gating.gumbel_noise(shape, generator=generator)[self.own].to(self.device)
        first, last = plan.gumbel_fade
        noise = (noise[..., 1] - noise[..., 0]) * min(1.0, max(0.0, (last - progress) / (last - first)))
        noise = noise[..., self.group_of]
        output: Output = self.wrapped(
            spectrum, lambda margins: gating.straight_through((margins @ self.binding + noise).sigmoid())
        )
        speech = plan.loss.at_step(self.step)(istft(output.spectrum, noisy.shape[-1]), batch["clean"]).mean()
        used, expected = (activation(g, self.shares) for g in (output.gates, (output.margins @ self.binding).sigmoid()))
        if self.targets is None:  # met over the batch: each item alike would be no policy but a quota
            missed = (used.mean() - plan.target).square() + (expected.mean() - plan.target).square()
        else:
            target = self.targets[batch["index"]]
            missed = ((used - target).square() + (expected - target).square()).mean()
        rate = output.gates.mean((0, 1))
        opening = math.cos(math.pi / 2 * min(1.0, 3 * progress)) ** 2  # the bounds open over the first third
        low, high = max(opening * plan.target, 0.05), min(1 - opening * (1 - plan.target), 0.95)
        balance = ((low - rate).clamp_min(0).square() + (rate - high).clamp_min(0).square()).mean()
        total = speech + plan.activation_weight * missed / 2 + plan.balance_weight * balance
        values = {"loss": speech.item(), "activation": used.mean().item(), "missed": missed.item() / 2}
        return total, values

    def averaged(self) -> Network:
        """The network with the averaged weights, in which the gates of a group have one margin."""
        network = super().averaged()
        with torch.no_grad():
            for values in (network.policy.margins.weight, network.policy.margins.bias):
                for group in self.groups_of_gates:
                    values[group] = values[group].mean(0, keepdim=True)
        return network

    # ---- looking

    @torch.no_grad()
    def validate(self) -> dict:
        """Loss on the fixed validation mixtures for every kind of gates, and how the policy's gates behave."""
        network, losses, found = self.averaged(), {"open": [], "closed": [], "learned": []}, []
        for batch in self.eights(Mixtures(self.corpus, "valid", 4.0, 0, size=self.plan.valid_items)):
            spectrum, clean = stft(batch["noisy"]), batch["clean"]
            learned = network(spectrum)
            answers = {"open": network(spectrum, torch.ones_like(learned.gates)).spectrum, "closed": learned.small}
            for name, answer in {**answers, "learned": learned.spectrum}.items():
                losses[name].append(self.plan.loss(istft(answer, clean.shape[-1]), clean))
            found.append((learned.gates, learned.margins, batch["snr"]))
        gates, self.margins, snr = (torch.cat(parts) for parts in zip(*found, strict=True))
        used = activation(gates, self.shares)
        return {
            **{f"valid_{name}": float(torch.cat(parts).mean()) for name, parts in losses.items()},
            "valid_activation": float(used.mean()),
            "rank_correlation_snr": spearman(used.tolist(), snr.tolist()),
            "gate_rate": gates.mean((0, 1)).tolist(),
            "gate_std_frames": gates.std(1).mean(0).tolist(),
            "gate_std_utterances": gates.mean(1).std(0).tolist(),
        }

    def finish(self) -> None:
        """Set the price that the target activation asks for, then write weights and card with the calibration.

        A policy that was taught to meet its target is near it; how near depends on where its last steps left it.
        """
        self._settle()
        super().finish()

    @torch.no_grad()
    def _settle(self) -> None:
        """Let zero be the price at which the target is spent on average."""
        self.validate()
        self.average["policy.margins.bias"] += shift_for(self.margins, self.shares, self.plan.target)

    def card(self, network: Network) -> dict:
        """The calibration: the shift of the margins for each mean activation on the validation mixtures."""
        rows = [{"activation": a, "shift": shift_for(self.margins, self.shares, a)} for a in CALIBRATED]
        return {"way": self.plan.way, "target": self.plan.target, "calibration": rows}


def groups_of(names: Sequence[str], bound: Sequence[Sequence[str]]) -> list[list[int]]:
    """Numbers of the gates that decide together, from their names: those of `bound`, the others alone; without it all.

    >>> groups_of(["heads", "groups", "middle 2"], [["heads", "middle 2"]]), groups_of(["heads", "groups"], [])
    ([[0, 2], [1]], [[0, 1]])
    """
    named = [name for group in bound for name in group]
    for name in named:
        if name not in names:
            raise InputError(f"bound: no gate {name!r}; known are {', '.join(names)}")
        if named.count(name) > 1:
            raise InputError(f"bound: gate {name!r} stands there twice; name it once")
    alone = [[name] for name in names if name not in named] if named else [names]
    return [[names.index(name) for name in group] for group in (*bound, *alone) if group]


LARGE = 4.0
"""Error of a foretold gain, in standard deviations of the gain, from which it counts no longer squared: few frames gain
many times what others do, and they would rule the rest."""

CALIBRATED = tuple(round(0.05 * i, 2) for i in range(1, 20))


def shift_for(margins: Tensor, shares: Tensor, target: float) -> float:
    """The shift of margins [N, T, K] at which their mean activation, weighed by shares [K] of the MACs, is the target."""
    values = margins.flatten(0, 1)
    ranked, order = values.flatten().sort(descending=True)
    spent = shares.expand_as(values).flatten()[order].cumsum(0) / len(values)
    i = min(int((spent < target).sum()), len(ranked) - 1)
    return -float(ranked[i : i + 2].mean())
