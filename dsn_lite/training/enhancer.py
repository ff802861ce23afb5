"""Training the enhancer: the small answer and the refined one come from one pass and are both taught in every step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from dsn_lite.audio.spectral import istft, stft
from dsn_lite.data.mixtures import Mixtures, PlainMixtures
from dsn_lite.network.config import Config
from dsn_lite.network.cut import small_alone, without_gates
from dsn_lite.network.model import Network
from dsn_lite.settings import CHANGEABLE, Amount, Share
from dsn_lite.training.loop import Loop, Plan
from dsn_lite.training.losses import SpeechLoss
from dsn_lite.training.patterns import Mix, draw


@dataclass(frozen=True, kw_only=True)
class EnhancerConfig(Plan):
    """Everything that decides a run of the enhancer.

    >>> config = EnhancerConfig(network=Config.preset("tiny"), steps=1000)
    >>> config.falls_from, config.patterns.open
    (0.7, 0.5)
    """

    network: Config
    loss: SpeechLoss = field(default_factory=SpeechLoss)
    patterns: Mix = field(default_factory=lambda: Mix(open=0.5, closed=0.0, random=0.5))
    """Gates of the items of a batch. None need be closed, as the small answer is taught in every step."""
    budgets: tuple[Share, Share] | None = None
    """Between which activations each item whose gates the policy chooses asks for its own; None: what was taught."""
    small: Amount = 0.5
    """Weight of the loss of the small answer."""
    only_refinement: bool = False
    """Whether the small network and the policy stay as they are, and with them the gates that a policy chose."""
    freeze_norms: bool = False
    """Whether norms keep their running statistics and learn only scale and shift."""
    falls_from: Annotated[Share, CHANGEABLE] = 0.7
    plain_sources: tuple[str, ...] = ()
    """Data sets whose validation noises are reported apart; see :class:`dsn_lite.data.mixtures.PlainMixtures`."""


class EnhancerTrainer(Loop):
    """A run of the enhancer; see :class:`dsn_lite.training.loop.Loop` for the parameters."""

    PLAN, NETWORK = EnhancerConfig, Network
    PANELS = {  # noqa: RUF012
        "loss": ("loss", "small", "valid_open", "valid_small"),
        "SI-SDR, dB": ("open_*", "small_*"),
    }

    def begin(self) -> Network:
        """See ``Loop.begin``; the policy learns by itself, later."""
        network = super().begin()
        for module in network.modules():
            if hasattr(module, "frozen"):
                module.frozen = self.plan.freeze_norms
        if network.policy is not None:
            network.policy.requires_grad_(False)
        if self.plan.only_refinement:
            for name, value in network.named_parameters():
                value.requires_grad_(".dynamic" in name)
        return network

    def fitted(self, given: Network) -> Network:
        """See ``Loop.fitted``; rivals go on from the trunk too, with everything always on or with its small network."""
        if self.plan.network == given.config.static():
            return without_gates(given)
        return small_alone(given) if self.plan.network == given.config.static_only() else given

    def objective(self, batch: dict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Loss of the refined answer under the step's gates, and of the small answer."""
        plan, noisy, clean = self.plan, batch["noisy"], batch["clean"]
        spectrum = stft(noisy)
        gates = None
        if self.network.gate_names:
            # Drawn for the global batch and sliced, so that the number of processes does not change the run.
            drawn = draw(plan.patterns, plan.batch, spectrum.shape[1], len(self.network.gate_names), generator)
            pattern, by_policy = (value[self.own].to(self.device) for value in drawn)
            gates = pattern
            if plan.patterns.policy:
                shift = self._shifts(generator)[self.own].to(self.device)[:, None, None]
                gates = lambda margins: torch.where(
                    by_policy[:, None, None], (margins + shift > 0).to(pattern), pattern
                ).detach()
        output, loss = self.wrapped(spectrum, gates), plan.loss.at_step(self.step)
        answers = [output.spectrum] if gates is None else [output.spectrum, output.small]
        losses = loss(istft(torch.stack(answers), noisy.shape[-1]), clean).mean(-1)
        values = dict(zip(("loss", "small"), losses.tolist(), strict=False))
        return losses[0] + plan.small * losses[1:].sum(), values

    def _shifts(self, generator: torch.Generator) -> Tensor:
        """What is added to the margins in each item [B] of the global batch, for the activation that it asks for."""
        if self.plan.budgets is None:
            return torch.zeros(self.plan.batch)
        low, high = self.plan.budgets
        asked = low + (high - low) * torch.rand(self.plan.batch, generator=generator)
        return torch.tensor([self.network.budget_shift(float(budget)) for budget in asked])

    @torch.no_grad()
    def validate(self) -> dict:
        """Loss and SI-SDR of the averaged network on the fixed validation mixtures, all open and all closed."""
        plan, network, values = self.plan, self.averaged(), {}
        sets = {"valid": Mixtures(self.corpus, "valid", 4.0, 0, size=plan.valid_items)}
        sets |= {source: PlainMixtures(self.corpus, source, plan.valid_items) for source in plan.plain_sources}
        for name, dataset in sets.items():
            found: dict[str, list[Tensor]] = {}
            for batch in self.eights(dataset):
                spectrum, clean = stft(batch["noisy"]), batch["clean"]
                output = network(spectrum, spectrum.real.new_ones(*spectrum.shape[:2], len(network.gate_names)))
                answers = {"open": output.spectrum, "small": output.small}
                for kind in answers if network.gate_names else ("open",):
                    wave = istft(answers[kind], clean.shape[-1])
                    if name == "valid":
                        found.setdefault(f"valid_{kind}", []).append(plan.loss(wave, clean))
                    found.setdefault(f"{kind}_{name}", []).append(si_sdr(wave, clean))
            values |= {key: float(torch.cat(parts).mean()) for key, parts in found.items()}
        return values


def si_sdr(estimate: Tensor, clean: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio [B] in dB (Le Roux et al., 2019) of estimates [B, samples].

    >>> clean = torch.tensor([[1.0, 0.0, -1.0, 0.0]])
    >>> round(float(si_sdr(2 * clean + torch.tensor([[0.0, 0.2, 0.0, -0.2]]), clean)))
    20
    """
    scale = (estimate * clean).sum(-1, keepdim=True) / clean.square().sum(-1, keepdim=True).clamp_min(1e-12)
    target = scale * clean
    return 10 * torch.log10(target.square().sum(-1) / (estimate - target).square().sum(-1).clamp_min(1e-12))
