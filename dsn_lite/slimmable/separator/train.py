"""Training of a separator: first every width, then the gating module that chooses among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dsn_lite.audio.spectral import HOP
from dsn_lite.errors import InputError
from dsn_lite.network.gates import anneal, gumbel_noise
from dsn_lite.settings import CHANGEABLE, Amount, Positive, Range, Share
from dsn_lite.slimmable import choice as choosing
from dsn_lite.slimmable.separator.loss import (
    chunk_quality,
    complexity_loss,
    complexity_weight,
    match,
    separation_loss,
)
from dsn_lite.slimmable.separator.mixtures import CELLS, OVERLAPS, TALKING, PairMixtures, chunk_talkers
from dsn_lite.slimmable.separator.network import Separator
from dsn_lite.slimmable.separator.parts import SeparatorConfig
from dsn_lite.training.loop import Loop, Plan
from dsn_lite.training.losses import usage_loss


@dataclass(frozen=True, kw_only=True)
class SeparationPlan(Plan):
    """Everything that decides the training of a separator; shares are of the whole run, 0..1.

    >>> SeparationPlan.from_dict({"network": {"hidden": 64}, "steps": 10}).network.hidden
    64
    """

    network: SeparatorConfig
    seconds: Annotated[float, Range(ge=0.5, le=600)] = 3.0
    lr: Annotated[Positive, CHANGEABLE] = 1e-3
    max_grad_norm: Positive = 5.0
    gate_from: Share = 0.6
    """When the gating module begins to choose. Before, each step takes the widest, the narrowest and one width between
    (the sandwich rule of Yu and Huang, arXiv 1903.05134)."""
    full_pressure_from: Share = 0.75
    """When the weight of the complexity loss has risen to its full value."""
    pressure: Amount = 3.0
    """Weight of the complexity loss, in dB of SI-SDR for the full width on every chunk."""
    pivot: float = 10.0
    """Quality of a chunk in dB at which half of the price is charged; see :mod:`dsn_lite.slimmable.separator.loss`."""
    softness: Positive = 3.0
    keep: Amount = 0.5
    """Weight of the pass at one constant width that keeps the widths good while the gating module chooses."""
    temperature: tuple[Positive, Positive] = (2.0, 0.5)
    """Temperature when the gating module begins and at the end."""
    noise_fades: tuple[Amount, Amount] = (0.2, 0.7)
    """Between these shares of the gating module's time the Gumbel noise fades from 1 to 0: coins are not a policy."""
    usage_weight: Amount = 3.0
    """Weight of the guard against collapse: of widths that less than 2 % or more than 90 % of a batch's chunks take."""
    gating_rate: Amount = 1.0
    """Learning rate of the gating module, as a multiple."""
    fresh_gating: bool = False
    """Whether the gating module begins anew where the run starts from other weights: one that has collapsed to a width
    gets no gradient that would bring it back."""

    def __post_init__(self) -> None:
        if self.noise_fades[0] >= self.noise_fades[1]:
            raise InputError(f"noise_fades: {list(self.noise_fades)} does not fit; the first must be less than the second")


class SeparationTraining(Loop):
    """A run that trains a :class:`Separator`; made as a :class:`~dsn_lite.training.loop.Loop`."""

    PLAN, NETWORK = SeparationPlan, Separator
    PANELS: ClassVar = {
        "negative SI-SDR, dB": ("loss", "loss_narrowest", "loss_constant"),
        "SI-SDR improvement, dB": ("valid_learned", "valid_0*", "valid_1"),
        "by overlap, dB": ("valid_*_overlap_*",),
        "utilisation": ("utilisation", "valid_utilisation"),
        "share of each width": ("width_rate",),
    }
    plan: SeparationPlan
    network: Separator

    def begin(self) -> Separator:
        """See :meth:`~dsn_lite.training.loop.Loop.begin`."""
        network = super().begin()
        if self.plan.fresh_gating:
            torch.manual_seed(self.plan.seed)
            network.gating = Separator(self.plan.network).gating
        return network

    def groups(self) -> list[dict]:
        """The gating module apart."""
        others = [value for name, value in self.network.named_parameters() if not name.startswith("gating.")]
        gating = list(self.network.gating.parameters())
        return [{"params": others, "multiple": 1.0}, {"params": gating, "multiple": self.plan.gating_rate}]

    def dataset(self, split: str, size: int | None) -> PairMixtures:
        """Mixtures of two talkers; those of validation do not depend on the seed of the run."""
        return PairMixtures(self.corpus, split, self.plan.seconds, self.plan.seed if split == "train" else 0, size)

    def objective(self, batch: dict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Mean negative SI-SDR in dB of the passes of this step, and the price of the chosen widths."""
        progress = self.step / self.plan.steps
        return (self._choose if progress >= self.plan.gate_from else self._sandwich)(batch, generator)

    def _sandwich(self, batch: dict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Widest, narrowest and one width between."""
        output = self.wrapped(batch["mixture"], choosing.sandwich(self.plan.network.widths, generator))
        losses = [separation_loss(waves, batch["sources"], batch["mixture"])[0].mean() for waves in output.waves]
        values = {"loss": losses[0].item(), "loss_narrowest": losses[1].item()}
        # The gating module has no part in this yet; several processes want a gradient, if only zero, for every weight.
        return torch.stack(losses).mean() + 0 * output.logits.sum(), values

    def _choose(self, batch: dict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The widths that the gating module chooses, and one constant width."""
        plan, network = self.plan, self.network
        mixture, sources = batch["mixture"], batch["sources"]
        widths, chunks = plan.network.widths, network.chunks(mixture.shape[-1])
        progress = self.step / plan.steps
        since = (progress - plan.gate_from) / max(1 - plan.gate_from, 1e-9)
        noise = gumbel_noise((plan.batch, chunks, len(widths)), generator=generator)[self.own].to(mixture.device)
        fade_from, fade_to = plan.noise_fades
        noise = noise * min(1.0, max(0.0, (fade_to - since) / (fade_to - fade_from)))
        network.temperature = anneal(*plan.temperature, since)
        # The widest half of the time: it is what the others are compared with.
        draws = torch.randint(2 * len(widths), (), generator=generator)
        constant = widths[min(int(draws), len(widths) - 1)]
        output = self.wrapped(mixture, [None, constant], noise=noise)
        losses, found = separation_loss(output.waves[0], sources, mixture)
        kept = separation_loss(output.waves[1], sources, mixture)[0].mean()
        choice = output.choices[0]
        quality, silent = chunk_quality(output.waves[0], sources, found, plan.network.chunk * HOP)
        weight = complexity_weight(quality, silent, plan.pivot, plan.softness)
        # The last chunk may hold nothing but the end of the last frame.
        weight = functional.pad(weight, (0, chunks - weight.shape[1]), value=1.0)
        price = complexity_loss(choice, network.costs, weight)
        rate = self.over_processes(choice.mean((0, 1)))
        ramp = max(plan.full_pressure_from - plan.gate_from, 1e-9)
        pressure = plan.pressure * min(1.0, 0.2 + 0.8 * (progress - plan.gate_from) / ramp)
        total = losses.mean() + plan.keep * kept + pressure * price
        total = total + plan.usage_weight * usage_loss(rate, low=0.02) * len(widths)
        values = {
            "loss": losses.mean().item(),
            "loss_constant": kept.item(),
            "price": price.item(),
            "utilisation": float(rate.detach() @ torch.tensor(widths, device=rate.device)),
            "mmacs": float((rate.detach() @ network.costs) * network.count().open),
        }
        return total, values

    # ---- looking

    @torch.no_grad()
    def validate(self) -> dict:
        """SI-SDR improvement in dB at each width and for the chosen widths, and what was chosen where."""
        network, plan = self.averaged(), self.plan
        passes = {**{f"{width:g}": width for width in plan.network.widths}, "learned": None}
        gained: dict[str, list[Tensor]] = {name: [] for name in passes}
        picked, talkers = [], []
        for batch in self.eights(self.dataset("valid", plan.valid_items)):
            mixture, sources = batch["mixture"], batch["sources"]
            output = network(mixture, list(passes.values()))
            start = match(mixture[:, None].expand(-1, 2, -1), sources, mixture).ratio
            for parts, waves in zip(gained.values(), output.waves, strict=True):
                parts.append((match(waves, sources, mixture).ratio - start).mean(-1).cpu())
            picked.append(output.choices[-1].argmax(-1).cpu())
            talkers.append(chunk_talkers(batch["activity"].cpu().numpy(), output.logits.shape[1], plan.network.chunk))
        widths = np.array(plan.network.widths)
        chosen, kind = widths[torch.cat(picked).numpy()], np.concatenate(talkers)
        gains = {name: torch.cat(parts).numpy() for name, parts in gained.items()}
        values: dict = {f"valid_{name}": float(gain.mean()) for name, gain in gains.items()}
        of_item = np.array([CELLS[i % len(CELLS)][0] for i in range(len(chosen))])
        for overlap in OVERLAPS:
            for name in ("1", "learned"):
                values[f"valid_{name}_overlap_{overlap:g}"] = float(gains[name][of_item == overlap].mean())
        values["valid_utilisation"] = float(chosen.mean())
        values["valid_mmacs"] = float(network.count().width_mmacs[torch.cat(picked).numpy()].mean())
        values["utilisation_by_talkers"] = {
            name: float(chosen[kind == number].mean()) for number, name in enumerate(TALKING) if (kind == number).any()
        }
        values["width_rate"] = [round(float((chosen == width).mean()), 4) for width in widths]
        values["width_std_chunks"] = float(chosen.std(1).mean())
        values["width_std_items"] = float(chosen.mean(1).std())
        return values

    def card(self, network: Separator) -> dict:
        """Calibration of the budget."""
        return {"calibration": self.calibrate(network)}

    @torch.no_grad()
    def calibrate(self, network: Separator) -> list[dict]:
        """Activation on the validation mixtures at several shifts of the logits, strictly rising; see `budget_shift`."""
        items = self.eights(self.dataset("valid", self.plan.valid_items))
        logits = torch.cat([network(batch["mixture"], ()).logits for batch in items])
        counted, rows = network.count(), []
        for shift in np.linspace(-40, 40, 161):
            one_hot = choosing.decide(logits, float(shift), network.costs)
            mmacs = float((one_hot.cpu().numpy() @ counted.width_mmacs).mean())
            used = (mmacs - counted.closed) / (counted.open - counted.closed)
            if not rows or used > rows[-1]["activation"] + 1e-4:
                rows.append({"shift": float(shift), "activation": round(used, 5)})
        return rows

