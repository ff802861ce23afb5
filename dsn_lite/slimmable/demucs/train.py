"""Training of the slimmable DEMUCS: first every width, then the router and the widths together.

First the sandwich rule (Yu and Huang, arXiv 1903.05134): in each step the widest, the narrowest and one width between, each
for the whole batch. Then the router chooses for every segment, end to end: the speech loss reaches it through what each
width would have made of each layer, and one target utilisation a step, drawn for the whole batch, is what it is to meet
over the batch, so that it has to distribute. One constant width a step keeps the widths good meanwhile.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from dsn_lite.data import Corpus
from dsn_lite.errors import InputError
from dsn_lite.network import gates as gating
from dsn_lite.settings import Amount, Count, Positive, Range, Share, Whole
from dsn_lite.slimmable import choice as choosing
from dsn_lite.slimmable.demucs.network import DemucsConfig, SlimDemucs
from dsn_lite.slimmable.demucs.stream import SEGMENT, TARGETS
from dsn_lite.slimmable.demucs.teaching import price_of, recent_mean, teaching_losses
from dsn_lite.training.loop import Loop, Plan, one_thread
from dsn_lite.training.losses import SpeechLoss

SHOWN = (0.1, 0.25, 0.5, 0.75)
"""Targets that the log and the validation show."""


@dataclass(frozen=True, kw_only=True)
class DemucsPlan(Plan):
    """Everything that decides a run; shares are of the whole run, 0..1."""

    network: DemucsConfig = field(default_factory=DemucsConfig)
    loss: SpeechLoss = field(default_factory=SpeechLoss)
    router_from: Share = 0.5
    """When the router begins to choose."""
    full_pressure: Share = 0.2
    """Share of the router's time after which the weight of the target has risen to its full value."""
    noise_fades: tuple[Amount, Amount] = (0.2, 0.7)
    """Between these shares of the router's time the Gumbel noise fades from 1 to 0: a router that tosses coins meets its
    target in training and fails in use, where nothing is tossed."""
    temperature: tuple[Positive, Positive] = (1.0, 0.5)
    """Temperature when the router begins and at the end."""
    weight: Amount = 3.0
    """Weight of the squared distance of the batch's utilisation from its target."""
    measure: Literal["width", "macs"] = "width"
    """What utilisation is: the mean width, or the mean share of the widest width's MACs."""
    spread: Amount = 0.01
    """Weight of the guard against collapse: how far the mean of the choices is from using all widths alike. It fades with
    the noise."""
    teach_items: Whole = 0
    """Mixtures on which a router that chooses from the first step on is taught before; 0 for none. See
    :meth:`DemucsTraining.teach_router`."""
    teach_steps: Count = 800
    teach_memory: Annotated[float, Range(ge=0, lt=1)] = 0.85
    """Weight of the past, a segment older, in what the taught router goes by. A change of the width costs quality at the
    seam, which the losses at constant widths do not show, so that it should not follow every segment."""
    router_rate: Amount = 1.0
    """Learning rate of the router, as a multiple."""

    def __post_init__(self) -> None:
        if self.noise_fades[0] >= self.noise_fades[1]:
            raise InputError(f"noise_fades: {list(self.noise_fades)} does not fit; the first must be less than the second")


class DemucsTraining(Loop):
    """A run of the slimmable DEMUCS; parameters as for :class:`dsn_lite.training.loop.Loop`."""

    PLAN, NETWORK = DemucsPlan, SlimDemucs
    plan: DemucsPlan
    network: SlimDemucs

    def __init__(
        self, plan: DemucsPlan, corpus: Corpus, folder: str | Path, *, device: str = "cpu", workers: int = 1
    ):
        super().__init__(plan, corpus, folder, device=device, workers=workers)
        costs = self.network.count().width_mmacs
        self.macs_share = torch.as_tensor(costs / costs[-1], dtype=torch.float32, device=self.device)
        self.widths = torch.tensor(self.network.widths, device=self.device)
        self.prices = self.macs_share if plan.measure == "macs" else self.widths

    def groups(self) -> list[dict]:
        """The router apart, and without decay, which would wear it away before its time comes."""
        others = [value for name, value in self.network.named_parameters() if not name.startswith("router.")]
        router = {"multiple": self.plan.router_rate, "weight_decay": 0.0}
        return [{"params": others, "multiple": 1.0}, {"params": list(self.network.router.parameters()), **router}]

    def prepare(self) -> None:
        """Teach the router where it chooses from the first step on."""
        if self.plan.teach_items and not self.plan.router_from:
            self.teach_router()

    def teach_router(self) -> None:
        """Let the router learn what each width is worth, from the widths as they are.

        Every mixture is run once at each constant width. A second router, that is thrown away, learns to foretell from the
        noisy sound the loss of each segment at each width. For a target there is a price lambda at which choosing the least
        of ``foretold loss + lambda * cost`` spends just the target, and the router learns these choices. Left to itself it
        meets the target with hardly ever the pattern that is worth it; by the true losses, which cannot all be heard
        beforehand, it would miss the target.
        """
        plan, network = self.plan, self.network.eval()
        wave, losses = self._losses_of_widths()
        low, high = TARGETS
        targets = [low * (high / low) ** (i / 9) for i in range(10)]
        generator = torch.Generator().manual_seed(plan.seed)
        teacher = copy.deepcopy(network.router)

        def learn(router: nn.Module, title: str, wrong: Callable[[Tensor, int], Tensor]) -> None:
            optimiser = torch.optim.AdamW(router.parameters(), betas=(0.9, 0.99))
            for step in self.show(range(plan.teach_steps), title):
                for group in optimiser.param_groups:
                    group["lr"] = 3e-3 * min(1.0, (step + 1) / 50) * (1 - step / plan.teach_steps)
                item = torch.randint(len(wave), (32,), generator=generator).to(self.device)
                total = wrong(item, int(torch.randint(len(targets), (), generator=generator)))
                optimiser.zero_grad()
                total.backward()
                nn.utils.clip_grad_norm_(router.parameters(), 1.0)
                optimiser.step()

        def foretold(item: Tensor | slice) -> Tensor:
            return network.route(wave[item], TARGETS[0], teacher)

        learn(teacher, "what widths are worth", lambda item, _: (foretold(item) - losses[item]).square().mean())
        with torch.no_grad():
            values = torch.cat([foretold(slice(first, first + 64)) for first in range(0, len(wave), 64)])
            values = recent_mean(values, plan.teach_memory)
        chosen = [(values + price_of(values, self.prices, target) * self.prices).argmin(-1) for target in targets]

        def disagreement(item: Tensor, number: int) -> Tensor:
            logits = network.route(wave[item], targets[number])
            return functional.cross_entropy(logits.flatten(0, 1), chosen[number][item].flatten())

        learn(network.router, "router", disagreement)
        self.network.zero_grad()
        self.start_average()

    @torch.no_grad()
    def _losses_of_widths(self) -> tuple[Tensor, Tensor]:
        """Mixtures [N, samples] and their losses [N, S, W] at each constant width.

        Those of a segment have the mean 0 over the widths; the widest gains 1 in the mean over the segments.
        """
        plan, network = self.plan, self.network
        dataset = self.dataset("train", plan.teach_items)
        loader = DataLoader(dataset, batch_size=8, num_workers=self.workers, worker_init_fn=one_thread)
        waves, found = [], []
        for batch in self.show(loader, "widths"):
            noisy, clean = batch["noisy"].to(self.device), batch["clean"].to(self.device)
            found.append(teaching_losses([network(noisy, u) for u in network.widths], clean, plan.loss))
            waves.append(noisy)
        losses = torch.cat(found)
        losses = losses - losses.mean(-1, keepdim=True)
        return torch.cat(waves), losses / (losses[..., 0] - losses[..., -1]).abs().mean()

    def objective(self, batch: dict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Speech loss of the step's widths, and from `router_from` on of the routed batch with its target."""
        if self.step < self.plan.router_from * self.plan.steps:
            return self._sandwich(batch["noisy"], batch["clean"], generator)
        return self._route(batch["noisy"], batch["clean"], generator)

    def _sandwich(self, noisy: Tensor, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        losses, values = [], {}
        for width in choosing.sandwich(self.network.widths, generator):
            losses.append(self.plan.loss(self.wrapped(noisy, width), clean).mean())
            values[f"loss_{width:g}"] = losses[-1].item()
        total = torch.stack(losses).mean()
        # Several processes need a gradient for every parameter, if only of zero; one does the same, to be their equal.
        total = total + 0 * sum(parameter.sum() for parameter in self.network.router.parameters())
        return total, {"loss": total.item(), **values}

    def _route(self, noisy: Tensor, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        plan, network = self.plan, self.network
        since = (self.step / plan.steps - plan.router_from) / max(1e-9, 1 - plan.router_from)
        fading = 1 - min(1.0, max(0.0, (since - plan.noise_fades[0]) / (plan.noise_fades[1] - plan.noise_fades[0])))
        low, high = TARGETS
        # As the widths do, targets spread evenly by their logarithm.
        target = low * (high / low) ** float(torch.rand((), generator=generator))
        segments = math.ceil(noisy.shape[-1] / SEGMENT)
        noise = gating.gumbel_noise((plan.batch, segments, len(network.widths)), generator=generator)
        kept = network.widths[int(torch.randint(len(network.widths), (), generator=generator))]

        logits = network.route(noisy, target)
        temperature = gating.anneal(*plan.temperature, since)
        choice = choosing.sample(logits, temperature, noise[self.own].to(self.device) * fading)
        routed = plan.loss(self.wrapped(noisy, choice), clean).mean()
        constant = plan.loss(self.wrapped(noisy, kept), clean).mean()
        probabilities = logits.softmax(-1)
        # Of the hard choices, which are what is spent, and of the probabilities, whose gradient has no noise.
        usage = self.over_processes(torch.stack([choice, probabilities]).mean((1, 2)))  # [2, W]
        missed = ((usage @ self.prices) - target).square().mean()
        mean = usage[1].clamp_min(1e-6)
        uneven = math.log(len(mean)) + (mean * mean.log()).sum()
        pressure = plan.weight * min(1.0, 0.2 + 0.8 * since / max(plan.full_pressure, 1e-9))
        total = (routed + constant) / 2 + pressure * missed + plan.spread * fading * uneven
        reached = float(usage[0].detach() @ self.prices)
        nearest = min(SHOWN, key=lambda shown: abs(math.log(shown / target)))
        values = {
            "loss": routed.item(), f"loss_{kept:g}": constant.item(), "missed": missed.item(),
            "target": target, "utilisation": reached, f"utilisation_at_{nearest:g}": reached,
            "decided": probabilities.detach().amax(-1).mean().item(),
        }  # fmt: skip
        return total, values

    @torch.no_grad()
    def validate(self) -> dict:
        """Loss at each width and at each of four targets, and how the router's widths behave.

        Where the deviations of the width, over segments and over items, are near zero the router has collapsed to one.
        """
        plan, network, losses, chosen = self.plan, self.averaged(), {}, {}
        for batch in self.eights(self.dataset("valid", plan.valid_items)):
            noisy, clean = batch["noisy"], batch["clean"]
            for width in network.widths:
                losses.setdefault(f"valid_{width:g}", []).append(plan.loss(network(noisy, width), clean))
            for target in SHOWN if self.step > plan.router_from * plan.steps else ():
                choice = choosing.decide(network.route(noisy, target))
                losses.setdefault(f"valid_at_{target:g}", []).append(plan.loss(network(noisy, choice), clean))
                chosen.setdefault(target, []).append(choice)
        values = {name: float(torch.cat(parts).mean()) for name, parts in losses.items()}
        for target, parts in chosen.items():
            choice = torch.cat(parts)
            width = choice @ self.widths  # [items, segments]
            values[f"utilisation_valid_at_{target:g}"] = float(width.mean())
            values[f"share_of_macs_at_{target:g}"] = float((choice @ self.macs_share).mean())
            values[f"std_segments_at_{target:g}"] = float(width.std(1).mean())
            values[f"std_items_at_{target:g}"] = float(width.mean(1).std())
        return values

    def card(self, network: nn.Module) -> dict:
        """What utilisation the router was asked for, and what each width costs."""
        costs = zip(network.widths, network.count().width_mmacs, strict=True)
        return {
            "measure": self.plan.measure,
            "mmacs_per_second": {f"{width:g}": round(float(cost), 3) for width, cost in costs},
        }
