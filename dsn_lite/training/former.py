"""Training the enhancer: the static network, the DSN and the metric-guided DSN are one task of the loop."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.distributed.nn.functional import all_reduce as sum_over_processes
from torch.utils.data import DataLoader

from dsn_lite.audio.spectral import compress, frame_count, istft, stft
from dsn_lite.config import Config
from dsn_lite.data import Corpus, Mixtures
from dsn_lite.errors import InputError
from dsn_lite.evaluation.statistics import spearman
from dsn_lite.macs import count
from dsn_lite.model import Network
from dsn_lite.network import gates as gating
from dsn_lite.network import weights
from dsn_lite.pruning import can_prune, prune
from dsn_lite.settings import Amount, Count, Positive, Share
from dsn_lite.training.guidance import Guidance
from dsn_lite.training.labels import read_labels
from dsn_lite.training.loop import CHECKPOINT, LOG, Loop, Plan, one_thread
from dsn_lite.training.losses import SpeechLoss, activation, usage_loss
from dsn_lite.training.patterns import Mix, draw

__all__ = ["CHECKPOINT", "LOG", "Gating", "Trainer", "Training"]


@dataclass(frozen=True, kw_only=True)
class Gating:
    """How the gates are trained; shares and positions are of the whole run, 0..1."""

    mix_before: Mix = Mix(open=0.25, closed=0.15, random=0.6)
    """Kinds of items before the policy chooses."""
    mix_after: Mix = Mix(open=0.125, closed=0.125, random=0.125)
    """Kinds of items afterwards."""
    policy_steps: Count = 900
    """Steps in which a guided policy learns to hear quality before all else, alone, on 32 mixtures a step."""
    policy_from: Share = 0.3
    """When the policy begins to choose."""
    full_pressure_from: Share = 0.45
    """When the weight of the activation loss has risen to its full value."""
    temperature: tuple[Positive, Positive] = (1.0, 0.5)
    """Temperature when the policy begins and at the end."""
    noise_fades: tuple[Amount, Amount] = (0.2, 0.7)
    """Between these shares of the policy's time the Gumbel noise fades from 1 to 0, so that in the end the gates that are
    trained are the gates that evaluation takes. Without it a policy can meet its target by tossing coins: undecided logits
    with noise open half of the frames, and without noise all or none."""
    weight: Amount = 3.0
    """Weight of the activation loss. Before the policy chooses, it learns to meet the target in expectation."""
    usage_weight: Amount = 1.0
    """Weight of the penalty on gates that are constant over the batch."""
    target: Share = 0.45
    """Mean activation aimed at."""
    guided: bool = False
    """Whether the target follows the OVRL of each utterance (MGT) or is the same for all."""
    slope: Amount = 0.45
    """Fall of the guided target, in activation per OVRL point."""
    policy_rate: Amount = 0.5
    """Learning rate of the policy, as a multiple. At 0 it is left alone and chooses as it does; no gradient passes through
    the gates then, closed parts are not computed, and a step takes less time."""
    network_rate: Amount = 1.0
    """Learning rate of all but the policy, as a multiple. At 0 the policy learns alone, on the network as it is."""
    fresh_policy: bool = False
    """Whether the policy begins anew where the run starts from other weights."""

    def __post_init__(self) -> None:
        if self.noise_fades[0] >= self.noise_fades[1]:
            raise InputError(f"noise_fades: {list(self.noise_fades)} does not fit; the first must be less than the second")


@dataclass(frozen=True, kw_only=True)
class Training(Plan):
    """Everything that decides a run of the enhancer."""

    network: Config
    gating: Gating = field(default_factory=Gating)
    loss: SpeechLoss = field(default_factory=SpeechLoss)


class Trainer(Loop):
    """A run of the enhancer; see :class:`dsn_lite.training.loop.Loop` for the parameters."""

    PLAN = Training
    PANELS = {  # noqa: RUF012
        "loss": ("loss", "valid_open", "valid_learned", "valid_closed"),
        "activation": ("activation", "valid_activation"),
        "deviation of each gate\nover frames": ("gate_std_frames",),
    }

    def __init__(
        self, training: Training, corpus: Corpus, folder: str | Path, *, device: str = "cpu", workers: int = 1
    ):
        self.training = training
        torch.manual_seed(training.seed)
        network = Network(training.network)
        if training.start_from:
            _start_from(network, training.start_from, fresh_policy=training.gating.fresh_policy)
        self.is_gated = training.network.parts == "gated"
        policy = [value for name, value in network.named_parameters() if name.startswith("policy.")]
        others = [value for name, value in network.named_parameters() if not name.startswith("policy.")]
        rates = (1.0, 0.0) if not self.is_gated else (training.gating.network_rate, training.gating.policy_rate)
        pairs = zip((others, policy), rates, strict=True)
        groups: list[dict] = [{"params": given, "multiple": rate} for given, rate in pairs if given]
        for group in groups:
            for value in group["params"]:
                value.requires_grad_(group["multiple"] > 0)
        super().__init__(training, network, corpus, folder, device=device, workers=workers, groups=groups)
        self.loss = training.loss
        self.counted = count(self.network)
        self.weights = torch.as_tensor(self.counted.gate_macs, dtype=torch.float32, device=self.device)
        self.targets = self._targets()

    # ---- data

    def dataset(self, split: str, size: int | None) -> Mixtures:
        """Mixtures of a split; those of validation are the same for every run."""
        seed = self.training.seed if split == "train" else 0
        return Mixtures(self.corpus, split, self.training.seconds, seed, size=size)

    def _targets(self) -> Tensor | None:
        """Target activation of every mixture [items]; None where one target serves all."""
        training = self.training
        if not (self.is_gated and training.gating.guided):
            return None
        if training.num_mixtures is None:
            raise InputError("metric guidance needs a fixed number of labelled mixtures; set `num_mixtures:`")
        ovrl = read_labels(self.corpus, "train", training.seconds, training.seed, training.num_mixtures)
        self.guidance = Guidance.fit(ovrl, mean=training.gating.target, slope=training.gating.slope)
        return torch.as_tensor(self.guidance.target(ovrl), dtype=torch.float32, device=self.device)

    def prepare(self) -> None:
        """Teach a guided policy before the first step."""
        if self.targets is not None:
            self.teach_policy()

    # ---- a step

    def objective(self, batch: dict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Speech loss of a step, plus what the gates add to it."""
        noisy, clean = batch["noisy"], batch["clean"]
        spectrum = stft(noisy)
        values: dict[str, float] = {}
        if self.is_gated:
            output, extra = self._gated_forward(spectrum, batch["index"], generator, values)
        else:
            output, extra = self.wrapped(spectrum), 0.0
        speech = self.loss(istft(output.spectrum, noisy.shape[-1]), clean).mean()
        return speech + extra, {"loss": speech.item(), **values}

    def _gated_forward(self, spectrum: Tensor, index: Tensor, generator: torch.Generator, values: dict):
        """Forward pass with the step's kinds of items, and what the gates add to the loss."""
        plan, progress = self.training.gating, self.step / self.training.steps
        chooses = progress >= plan.policy_from
        frames, gates = spectrum.shape[1], len(self.weights)
        # Drawn for the global batch and sliced, so that the number of processes does not change the run.
        mix = plan.mix_after if chooses else plan.mix_before
        pattern, all_chosen = draw(mix, self.training.batch, frames, gates, generator)
        noise = gating.gumbel_noise((self.training.batch, frames, gates, 2), generator=generator)
        pattern, chosen, noise = (value[self.own].to(self.device) for value in (pattern, all_chosen, noise))
        since = max(0.0, (progress - plan.policy_from) / max(1 - plan.policy_from, 1e-9))
        first, last = plan.noise_fades
        noise = noise * min(1.0, max(0.0, (last - since) / (last - first)))
        self.network.temperature = gating.anneal(*plan.temperature, since)
        output = self.wrapped(spectrum, pattern, noise=noise, chosen=chosen)
        probabilities = gating.probability(output.logits)
        target = torch.full_like(probabilities[:, 0, 0], plan.target)
        if self.targets is not None:
            target = self.targets[index.to(self.device)]
        expected = activation(probabilities, self.weights)
        if not chooses:
            return output, plan.weight * (expected - target).square().mean()
        # Over the items that the policy chose, of all processes; each process has the loss of its slice times their number,
        # because gradients are averaged.
        total = max(int(all_chosen.sum()), 1)
        used, is_chosen = activation(output.gates, self.weights), chosen.float()
        # The expected activation has a gradient without the noise of the sampled one; the sampled one is what is spent.
        off = (used - target).square() + (expected - target).square()
        missed = (off / 2 * is_chosen).sum() * self.world / total
        # Of the gates and not of their probabilities: a gate that is open with a tenth of a chance never opens in use.
        rate = (output.gates.mean(1) * is_chosen[:, None]).sum(0)
        if self.world > 1:
            rate = sum_over_processes(rate)
        if all_chosen.any():
            values["missed"] = float(missed.detach())
        if chosen.any():
            values["activation"] = float((used.detach() * is_chosen).sum() / is_chosen.sum())
            values["mmacs"] = self.counted.closed + values["activation"] * (self.counted.open - self.counted.closed)
        ramp = max(plan.full_pressure_from - plan.policy_from, 1e-9)
        pressure = plan.weight * min(1.0, 0.2 + 0.8 * (progress - plan.policy_from) / ramp)
        return output, pressure * missed + plan.usage_weight * usage_loss(rate / total)

    def teach_policy(self) -> None:
        """Let a guided policy learn to hear quality: its expected activation is to meet the target of each mixture.

        It sees nothing but pooled magnitudes, so it can learn this alone, from features that are computed once, in about
        a minute. Afterwards its gates move with the signal from the first step on, and the speech loss has something to
        distribute instead of coins to toss.
        """
        training, policy, plan = self.training, self.network.policy, self.training.gating
        loader = DataLoader(
            self.dataset("train", None), batch_size=32, sampler=range(len(self.targets)), num_workers=self.workers,
            worker_init_fn=one_thread,
        )  # fmt: skip
        with torch.no_grad():
            waves = (batch["noisy"].to(self.device) for batch in self.show(loader, "pooling"))
            pooled = [policy.features(_magnitude(wave)) for wave in waves]
        features = torch.cat(pooled)
        optimiser = torch.optim.AdamW(policy.parameters(), betas=(0.9, 0.99))
        generator = torch.Generator().manual_seed(training.seed)
        for step in self.show(range(plan.policy_steps), "policy"):
            for group in optimiser.param_groups:
                group["lr"] = 3e-3 * min(1.0, (step + 1) / 100) * (1 - step / plan.policy_steps)
            item = torch.randint(len(features), (32,), generator=generator).to(self.device)
            logits, _ = policy.decide(features[item])
            expected = activation(gating.probability(logits), self.weights)
            optimiser.zero_grad()
            (expected - self.targets[item]).square().mean().backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), training.max_grad_norm)
            optimiser.step()
        self.network.zero_grad()
        self.start_average()

    # ---- looking

    @torch.no_grad()
    def validate(self) -> dict:
        """Loss on the fixed validation mixtures, for every kind of gates, and how the policy's gates behave."""
        training = self.training
        dataset = self.dataset("valid", training.valid_items)
        network, values = self.averaged(), {}
        snr, used, rates, spread, losses = [], [], [], [], {}
        for first in range(0, training.valid_items, 8):
            items = [dataset[i] for i in range(first, min(first + 8, training.valid_items))]
            noisy = torch.stack([item["noisy"] for item in items]).to(self.device)
            clean = torch.stack([item["clean"] for item in items]).to(self.device)
            spectrum = stft(noisy)
            frames = frame_count(noisy.shape[-1])
            kinds: dict[str, Tensor | None] = {"open": None}
            if self.is_gated:
                full = torch.ones(len(items), frames, len(self.weights), device=self.device)
                kinds = {"open": full, "closed": 0 * full, "learned": None}
            for name, gates in kinds.items():
                output = network(spectrum, gates)
                losses.setdefault(name, []).append(self.loss(istft(output.spectrum, noisy.shape[-1]), clean).cpu())
            snr += [float(item["snr"]) for item in items]
            if self.is_gated:
                used.append(activation(output.gates, self.weights).cpu())
                rates.append(output.gates.mean(1).cpu())
                spread.append(output.gates.std(1).cpu())
        values.update({f"valid_{name}": float(torch.cat(parts).mean()) for name, parts in losses.items()})
        if self.is_gated:
            rate, activations = torch.cat(rates), torch.cat(used).numpy()
            values["valid_activation"] = float(activations.mean())
            values["gate_rate"] = [round(float(value), 4) for value in rate.mean(0)]
            values["gate_std_frames"] = [round(float(value), 4) for value in torch.cat(spread).mean(0)]
            values["gate_std_utterances"] = [round(float(value), 4) for value in rate.std(0)]
            values["rank_correlation_snr"] = spearman(snr, activations.tolist())
        return values

    def card(self, network: Network) -> dict:
        """Calibration of the budget, and the guidance."""
        if not self.is_gated:
            return {}
        guidance = {} if self.targets is None else {"guidance": asdict(self.guidance)}
        return {"calibration": self.calibrate(network), **guidance}

    @torch.no_grad()
    def calibrate(self, network: Network) -> list[dict]:
        """Activation on the validation mixtures at logit shifts from -8 to 8, strictly rising; see `budget_shift`."""
        dataset = self.dataset("valid", self.training.valid_items)
        noisy = torch.stack([dataset[i]["noisy"] for i in range(len(dataset))]).to(self.device)
        logits, _ = network.policy(_magnitude(noisy))
        rows: list[dict] = []
        for shift in np.linspace(-8, 8, 65):
            used = float(activation(gating.decide(logits, float(shift)), self.weights).mean())
            if not rows or used > rows[-1]["activation"] + 1e-4:
                rows.append({"shift": float(shift), "activation": round(used, 5)})
        return rows


def _start_from(network: Network, source: str, *, fresh_policy: bool = False) -> None:
    """Take the weights of another network of the same shape; a policy of another width is taught anew.

    A static-only network takes what is left of a larger one.
    """
    given = weights.read(source, Network)
    if can_prune(given.config, network.config):
        given = prune(given, network.config)
    elif _without_policy(given.config) != _without_policy(network.config):
        raise InputError(f"{source}: weights of another shape; start from a network of this preset")
    tensors, shapes = given.state_dict(), {name: value.shape for name, value in network.state_dict().items()}
    kept = {n: v for n, v in tensors.items() if shapes.get(n) == v.shape and not (fresh_policy and n.startswith("policy."))}
    network.load_state_dict(kept, strict=False)


def _without_policy(config: Config) -> dict:
    return {**config.to_dict(), "parts": "", "policy_bands": 0, "policy_width": 0}


def _magnitude(wave: Tensor) -> Tensor:
    """What the policy sees, [B, T, F], of signals [B, samples]."""
    return compress(stft(wave)).abs()
