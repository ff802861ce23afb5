"""Training: one loop for the static network, the DSN and the metric-guided DSN.

Everything random is drawn from (seed, step), so a step is a pure function of the weights before it and its number: a run
that was killed and resumed equals one that was not. Checkpoints are safetensors, written under another name and renamed.
One process, or several under ``torchrun``: each takes its slice of the same global batch.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save as serialise
from torch import Tensor
from torch.distributed.nn.functional import all_reduce as sum_over_processes
from torch.utils.data import DataLoader
from tqdm import tqdm

from dsn_lite import gates as gating
from dsn_lite.audio import replacing
from dsn_lite.config import Config
from dsn_lite.corpus import Corpus, Mixtures
from dsn_lite.errors import InputError
from dsn_lite.guidance import Guidance
from dsn_lite.labels import read_labels
from dsn_lite.losses import SpeechLoss, activation, usage_loss
from dsn_lite.macs import count
from dsn_lite.model import Network
from dsn_lite.patterns import Mix, draw
from dsn_lite.spectral import compress, frame_count, istft, stft

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"


@dataclass(frozen=True, kw_only=True)
class Gating:
    """How the gates are trained; shares and positions are of the whole run, 0..1."""

    mix_before: Mix = Mix(open=0.25, closed=0.15, random=0.6)
    """Kinds of items before the policy chooses."""
    mix_after: Mix = Mix(open=0.125, closed=0.125, random=0.125)
    """Kinds of items afterwards."""
    policy_steps: int = 900
    """Steps in which a guided policy learns to hear quality before all else, alone, on 32 mixtures a step."""
    policy_from: float = 0.3
    """When the policy begins to choose."""
    full_pressure_from: float = 0.45
    """When the weight of the activation loss has risen to its full value."""
    temperature: tuple[float, float] = (1.0, 0.5)
    """Temperature when the policy begins and at the end."""
    noise_fades: tuple[float, float] = (0.2, 0.7)
    """Between these shares of the policy's time the Gumbel noise fades from 1 to 0, so that in the end the gates that are
    trained are the gates that evaluation takes. Without it a policy can meet its target by tossing coins: undecided logits
    with noise open half of the frames, and without noise all or none."""
    weight: float = 3.0
    """Weight of the activation loss. Before the policy chooses, it learns to meet the target in expectation."""
    usage_weight: float = 1.0
    """Weight of the penalty on gates that are constant over the batch."""
    target: float = 0.45
    """Mean activation aimed at."""
    guided: bool = False
    """Whether the target follows the OVRL of each utterance (MGT) or is the same for all."""
    slope: float = 0.45
    """Fall of the guided target, in activation per OVRL point."""
    policy_rate: float = 0.5
    """Learning rate of the policy, as a multiple. At 0 it is left alone and chooses as it does; no gradient passes through
    the gates then, closed parts are not computed, and a step takes less time."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Everything that decides a run; read from a YAML file by :meth:`read`."""

    network: Config
    steps: int
    batch: int = 8
    """Items of a step, over all processes."""
    seconds: float = 4.0
    items: int | None = None
    """Number of different mixtures before they repeat; None: never."""
    seed: int = 1
    rate: float = 2e-3
    warmup: int = 200
    decay: float = 0.01
    """Weight decay."""
    clip: float = 0.3
    """Largest gradient norm."""
    average: float = 0.999
    """Decay of the exponential moving average of the weights, which is what ships."""
    start_from: str | None = None
    """Weights to start from: a name or a .safetensors file."""
    gating: Gating = field(default_factory=Gating)
    loss: SpeechLoss = field(default_factory=SpeechLoss)
    valid_items: int = 48
    valid_every: int = 250
    save_every: int = 100

    @staticmethod
    def read(path: str | Path) -> Training:
        """Training configuration from a YAML file.

        Raises
        ------
        InputError
            When the file is missing or not YAML, or names an unknown option.
        """
        import yaml

        try:
            values = yaml.safe_load(Path(path).read_text())
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); give a YAML training configuration") from None
        except yaml.YAMLError as error:
            raise InputError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
        if not isinstance(values, dict) or "network" not in values or "steps" not in values:
            raise InputError(f"{path}: needs at least `network:` and `steps:`; see configs/ for examples")
        return Training.from_dict(values, str(path))

    @staticmethod
    def from_dict(values: dict, source: str = "configuration") -> Training:
        """Training configuration from plain values."""
        values = dict(values)
        values["network"] = Config.from_dict(values["network"])
        gate_values = dict(values.pop("gating", {}))
        for name in ("mix_before", "mix_after"):
            if name in gate_values:
                gate_values[name] = Mix(**gate_values[name])
        loss_values = dict(values.pop("loss", {}))
        for given, name in ((gate_values, "temperature"), (gate_values, "noise_fades"), (loss_values, "windows")):
            if name in given:
                given[name] = tuple(given[name])
        for given, kind in ((values, Training), (gate_values, Gating), (loss_values, SpeechLoss)):
            known = {item.name for item in fields(kind)}
            if unknown := sorted(set(given) - known):
                raise InputError(f"{source}: unknown option {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        return Training(**values, gating=Gating(**gate_values), loss=SpeechLoss(**loss_values))

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        values = asdict(self)
        values["network"] = self.network.to_dict()
        return values

    def rate_at(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then half a cosine down to a hundredth."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.rate * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)


class Trainer:
    """A run: network, optimiser, moving average, data and log, in one folder.

    Parameters
    ----------
    training : Training
    corpus : Corpus
    folder : where checkpoints, log and the final weights go.
    device : "cpu" or "cuda"
    workers : processes that make mixtures.
    """

    def __init__(
        self, training: Training, corpus: Corpus, folder: str | Path, *, device: str = "cpu", workers: int = 1
    ):
        self.training, self.corpus, self.folder = training, corpus, Path(folder)
        self.device, self.workers = torch.device(device), workers
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if training.batch % self.world:
            raise InputError(f"batch {training.batch} cannot be shared by {self.world} processes; choose a multiple")
        torch.manual_seed(training.seed)
        self.network = Network(training.network)
        if training.start_from:
            from dsn_lite.registry import load

            given, own = load(training.start_from), self.network
            if _without_policy(given.config) != _without_policy(training.network):
                raise InputError(f"{training.start_from}: weights of another shape; start from a network of this preset")
            # A static network has no policy, and one of another width is taught anew.
            tensors, shapes = given.state_dict(), {name: value.shape for name, value in own.state_dict().items()}
            own.load_state_dict({n: v for n, v in tensors.items() if shapes.get(n) == v.shape}, strict=False)
        self.network.to(self.device)
        if training.network.parts == "gated" and not training.gating.policy_rate:
            self.network.policy.requires_grad_(False)
        self.wrapped = torch.nn.parallel.DistributedDataParallel(self.network) if self.world > 1 else self.network
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        policy = [value for name, value in self.network.named_parameters() if name.startswith("policy.")]
        others = [value for name, value in self.network.named_parameters() if not name.startswith("policy.")]
        groups = [{"params": others, "multiple": 1.0}]
        if policy:
            groups.append({"params": policy, "multiple": training.gating.policy_rate})
        self.optimiser = torch.optim.AdamW(groups, lr=training.rate, betas=(0.9, 0.99), weight_decay=training.decay)
        self.loss = training.loss
        self.counted = count(self.network)
        self.weights = torch.as_tensor(self.counted.gate_macs, dtype=torch.float32, device=self.device)
        self.is_gated = training.network.parts == "gated"
        self.targets = self._targets()
        self.step = 0
        self.seconds_spent = 0.0
        self.started = time.monotonic()

    # ---- data

    def _targets(self) -> Tensor | None:
        """Target activation of every mixture [items]; None where one target serves all."""
        training = self.training
        if not (self.is_gated and training.gating.guided):
            return None
        if training.items is None:
            raise InputError("metric guidance needs a fixed number of labelled mixtures; set `items:`")
        ovrl = read_labels(self.corpus, "train", training.seconds, training.seed, training.items)
        self.guidance = Guidance.fit(ovrl, mean=training.gating.target, slope=training.gating.slope)
        return torch.as_tensor(self.guidance.target(ovrl), dtype=torch.float32, device=self.device)

    def _batches(self) -> Iterator[dict]:
        """Batches of this process, from the present step to the last."""
        training = self.training
        dataset = Mixtures(self.corpus, "train", training.seconds, training.seed)
        own = training.batch // self.world
        indices = []
        for step in range(self.step, training.steps):
            first = step * training.batch + self.rank * own
            every = range(first, first + own)
            indices.append([i % training.items for i in every] if training.items else list(every))
        return iter(
            DataLoader(
                dataset, batch_sampler=indices, num_workers=self.workers, persistent_workers=False,
                prefetch_factor=8 if self.workers else None, worker_init_fn=_one_thread,
                pin_memory=self.device.type == "cuda",
            )
        )

    # ---- the loop

    def run(self, until: int | None = None) -> None:
        """Train up to the step `until`, or to the end, then write the final weights."""
        training, until = self.training, self.training.steps if until is None else until
        self.folder.mkdir(parents=True, exist_ok=True)
        batches = self._batches()
        if self.step == 0 and self.targets is not None:
            self.teach_policy()
        bar = tqdm(
            total=training.steps, initial=self.step, desc=self.folder.name, unit="step", disable=self.rank > 0,
            dynamic_ncols=True, smoothing=0.05,
        )  # fmt: skip
        since: list[dict] = []
        while self.step < until:
            values = self._train_step(next(batches))
            since.append(values)
            self.step += 1
            bar.update()
            if self.step % 10 == 0:
                bar.set_postfix({name: f"{values[name]:.3g}" for name in ("loss", "activation", "mmacs") if name in values})
            is_last = self.step == training.steps
            if self.step % training.valid_every == 0 or is_last:
                if self.rank == 0:
                    self._write_log(since)
                since = []
            if self.step % training.save_every == 0 or is_last or self.step == until:
                self.save()
        bar.close()
        if self.step == training.steps and self.rank == 0:
            self.finish()

    def _train_step(self, batch: dict) -> dict:
        """One update; returns what the log keeps."""
        training = self.training
        noisy = batch["noisy"].to(self.device, non_blocking=True)
        clean = batch["clean"].to(self.device, non_blocking=True)
        generator = torch.Generator().manual_seed(training.seed * 1_000_003 + self.step)
        self.network.train()
        for group in self.optimiser.param_groups:
            group["lr"] = training.rate_at(self.step) * group["multiple"]
        spectrum = stft(noisy)
        values = {}
        if self.is_gated:
            output, extra = self._gated_forward(spectrum, batch["index"], generator, values)
        else:
            output, extra = self.wrapped(spectrum), 0.0
        speech = self.loss(istft(output.spectrum, noisy.shape[-1]), clean).mean()
        total = speech + extra
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        # Apart, so that a large gradient of the one does not shrink that of the other.
        norms = [torch.nn.utils.clip_grad_norm_(g["params"], training.clip) for g in self.optimiser.param_groups]
        norm = torch.stack(norms).max()
        if not torch.isfinite(norm):
            raise FloatingPointError(f"step {self.step}: the gradient is not finite; lower `rate` and resume")
        self.optimiser.step()
        self._update_average()
        return {"loss": speech.item(), "gradient": norm.item(), **values}

    def _gated_forward(self, spectrum: Tensor, index: Tensor, generator: torch.Generator, values: dict):
        """Forward pass with the step's kinds of items, and what the gates add to the loss."""
        plan, progress = self.training.gating, self.step / self.training.steps
        chooses = progress >= plan.policy_from
        frames, gates = spectrum.shape[1], len(self.weights)
        # Drawn for the global batch and sliced, so that the number of processes does not change the run.
        mix = plan.mix_after if chooses else plan.mix_before
        pattern, all_chosen = draw(mix, self.training.batch, frames, gates, generator)
        noise = gating.gumbel_noise((self.training.batch, frames, gates, 2), generator=generator)
        own = slice(self.rank * len(spectrum), (self.rank + 1) * len(spectrum))
        pattern, chosen, noise = (value[own].to(self.device) for value in (pattern, all_chosen, noise))
        since = max(0.0, (progress - plan.policy_from) / (1 - plan.policy_from))
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
        dataset = Mixtures(self.corpus, "train", training.seconds, training.seed)
        loader = DataLoader(
            dataset, batch_size=32, sampler=range(len(self.targets)), num_workers=self.workers,
            worker_init_fn=_one_thread,
        )  # fmt: skip
        with torch.no_grad():
            waves = (batch["noisy"].to(self.device) for batch in self._show(loader, "pooling"))
            pooled = [policy.features(_magnitude(wave)) for wave in waves]
        features = torch.cat(pooled)
        optimiser = torch.optim.AdamW(policy.parameters(), betas=(0.9, 0.99))
        generator = torch.Generator().manual_seed(training.seed)
        for step in self._show(range(plan.policy_steps), "policy"):
            for group in optimiser.param_groups:
                group["lr"] = 3e-3 * min(1.0, (step + 1) / 100) * (1 - step / plan.policy_steps)
            item = torch.randint(len(features), (32,), generator=generator).to(self.device)
            logits, _ = policy.decide(features[item])
            expected = activation(gating.probability(logits), self.weights)
            optimiser.zero_grad()
            (expected - self.targets[item]).square().mean().backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), training.clip)
            optimiser.step()
        self.network.zero_grad()
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}

    def _show(self, steps, name: str):
        return tqdm(steps, desc=f"{self.folder.name} {name}", disable=self.rank > 0, dynamic_ncols=True)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.training.average, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    # ---- looking

    def averaged(self) -> Network:
        """A copy of the network with the averaged weights, for evaluation."""
        network = Network(self.training.network).to(self.device)
        network.load_state_dict(self.average)
        return network.eval()

    @torch.no_grad()
    def validate(self) -> dict:
        """Loss on the fixed validation mixtures, for every kind of gates, and how the policy's gates behave."""
        training = self.training
        dataset = Mixtures(self.corpus, "valid", training.seconds, seed=0, size=training.valid_items)
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
            values["rank_correlation_snr"] = _rank_correlation(np.array(snr), activations)
        return values

    def _write_log(self, since: list[dict]) -> None:
        names = {name for values in since for name in values}
        row: dict = {"step": self.step, "rate": self.training.rate_at(self.step - 1)}
        for name in sorted(names):
            row[name] = float(np.mean([values[name] for values in since if name in values]))
        elapsed = time.monotonic() - self.started
        self.seconds_spent += elapsed
        self.started = time.monotonic()
        row["seconds"] = round(self.seconds_spent, 1)
        row["audio_per_second"] = round(len(since) * self.training.batch * self.training.seconds / elapsed, 1)
        row["steps_per_second"] = round(len(since) / elapsed, 3)
        row.update(self.validate())
        self.started = time.monotonic()
        with (self.folder / LOG).open("a") as file:
            file.write(json.dumps(row) + "\n")
        draw_curve(self.folder)

    # ---- keeping

    def save(self) -> None:
        """Write the checkpoint atomically: network, moving average, optimiser, step."""
        if self.rank:
            return
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
        notes = {
            "step": self.step, "seconds_spent": self.seconds_spent, "training": self.training.to_dict(),
            "corpus": self.corpus.hash,
        }  # fmt: skip
        own = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        with replacing(self.folder / CHECKPOINT) as temporary:
            temporary.write_bytes(serialise(own, {"notes": json.dumps(notes)}))

    def resume(self) -> None:
        """Take up the run where its checkpoint left it.

        Raises
        ------
        InputError
            When the checkpoint belongs to another configuration or corpus, or cannot be read.
        """
        path = self.folder / CHECKPOINT
        try:
            with safe_open(path, "pt") as file:
                notes = json.loads(file.metadata()["notes"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except Exception as error:
            raise InputError(f"{path}: cannot be read ({error}); start the run anew without --resume") from None
        if notes["training"] != json.loads(json.dumps(self.training.to_dict())):
            raise InputError(f"{path}: made with another configuration; resume with the one it was started with")
        if notes["corpus"] != self.corpus.hash:
            raise InputError(f"{path}: made from another corpus; resume with the manifest it was started with")

        def part(prefix: str) -> dict[str, Tensor]:
            return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}

        self.network.load_state_dict(part("network."))
        self.average = {name: value.to(self.device) for name, value in part("average.").items()}
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in part("optimiser.").items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = value
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})
        self.step, self.seconds_spent = notes["step"], notes["seconds_spent"]
        log = self.folder / LOG
        if self.rank == 0 and log.exists():  # lines after the checkpoint will be written again
            rows = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= self.step]
            log.write_text("".join(line + "\n" for line in rows))

    def finish(self) -> None:
        """Write the averaged weights and their card into the run's folder."""
        from dsn_lite.registry import save

        network = self.averaged()
        card = {
            "training": self.training.to_dict(),
            "corpus": self.corpus.hash,
            "steps": self.step,
            "hours_of_mixtures": round(self.step * self.training.batch * self.training.seconds / 3600, 1),
            "seconds_spent": round(self.seconds_spent),
            "processes": self.world,
            "device": self.device.type,
            "validation": self.validate(),
        }
        if self.is_gated:
            card["calibration"] = self.calibrate(network)
            if self.targets is not None:
                card["guidance"] = asdict(self.guidance)
        save(network, self.folder / "model.safetensors", card)

    @torch.no_grad()
    def calibrate(self, network: Network) -> list[dict]:
        """Activation on the validation mixtures at logit shifts from -8 to 8, strictly rising; see `budget_shift`."""
        dataset = Mixtures(self.corpus, "valid", self.training.seconds, seed=0, size=self.training.valid_items)
        noisy = torch.stack([dataset[i]["noisy"] for i in range(len(dataset))]).to(self.device)
        logits, _ = network.policy(_magnitude(noisy))
        rows: list[dict] = []
        for shift in np.linspace(-8, 8, 65):
            used = float(activation(gating.decide(logits, float(shift)), self.weights).mean())
            if not rows or used > rows[-1]["activation"] + 1e-4:
                rows.append({"shift": float(shift), "activation": round(used, 5)})
        return rows


def _without_policy(config: Config) -> dict:
    return {**config.to_dict(), "parts": "", "policy_bands": 0, "policy_width": 0}


def _magnitude(wave: Tensor) -> Tensor:
    """What the policy sees, [B, T, F], of signals [B, samples]."""
    return compress(stft(wave)).abs()


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation; zero where one of them is constant."""
    ranks = [np.argsort(np.argsort(values)).astype(float) for values in (a, b)]
    if np.ptp(b) == 0 or np.ptp(a) == 0:
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def draw_curve(folder: Path) -> None:
    """Draw the log of a run as `curve.png`, where matplotlib is installed."""
    try:
        from dsn_lite.curve import training_curve
    except ImportError:  # a bare training machine
        return
    rows = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    training_curve(rows, folder / "curve.png")
