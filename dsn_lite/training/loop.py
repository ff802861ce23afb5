"""The loop that every training runs in: resumable at any moment, the same for one process or several.

Everything random is drawn from (seed, step), so a step is a pure function of the weights before it and its number: a run
that was killed and resumed equals one that was not. Checkpoints are safetensors, written under another name and renamed.
One process, or several under ``torchrun``: each takes its slice of the same global batch. What is trained, on which items
and towards which objective is said by a task: :class:`~dsn_lite.training.former.Trainer` and those of the relatives.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from dsn_lite.audio.files import replacing
from dsn_lite.data import Corpus
from dsn_lite.errors import InputError
from dsn_lite.network import weights

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"


def build(kind: type, values: dict, source: str = "configuration") -> Any:
    """A dataclass from plain values, with an error that names what it does not know.

    Raises
    ------
    InputError
        When `values` holds a name that is not a field.

    Examples
    --------
    >>> build(Plan, {"steps": 3}).batch
    8
    """
    known = {item.name for item in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise InputError(f"{source}: unknown option {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    return kind(**values)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What decides a run, whatever is trained; a task adds its own.

    Examples
    --------
    >>> plan = Plan(steps=1000, rate=1e-3, warmup=100)
    >>> plan.rate_at(49), round(plan.rate_at(999), 6)
    (0.0005, 1e-05)
    """

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
    valid_items: int = 48
    valid_every: int = 250
    save_every: int = 100

    @classmethod
    def from_dict(cls, values: dict, source: str = "configuration") -> Self:
        """The plan from plain values."""
        return build(cls, values, source)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)

    def rate_at(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then half a cosine down to a hundredth."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.rate * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)


def read_yaml(path: str | Path) -> dict:
    """The values of a YAML training configuration.

    Raises
    ------
    InputError
        When the file is missing or not YAML, or lacks what every training needs.
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
    return values


class Loop:
    """A run: network, optimiser, moving average, data and log, in one folder. A task derives from it.

    Parameters
    ----------
    plan : Plan
    network : Module
    corpus : Corpus
    folder : where checkpoints, log and the final weights go.
    device : "cpu" or "cuda"
    workers : processes that make mixtures.
    groups : parameter groups of the optimiser, each with the ``multiple`` of the learning rate that it takes; the norm of
        the gradient is clipped in each apart. None: one for all.
    """

    PLAN: type[Plan]
    """The plan of the task."""
    PANELS: Mapping[str, Sequence[str]] = {"loss": ("loss", "valid_*")}
    """What the curve of a run shows; see :func:`dsn_lite.plots.curves.training_curve`."""

    def __init__(
        self, plan: Plan, network: nn.Module, corpus: Corpus, folder: str | Path, *, device: str = "cpu",
        workers: int = 1, groups: list[dict] | None = None,
    ):  # fmt: skip
        self.plan, self.corpus, self.folder = plan, corpus, Path(folder)
        self.device, self.workers = torch.device(device), workers
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if plan.batch % self.world:
            raise InputError(f"batch {plan.batch} cannot be shared by {self.world} processes; choose a multiple")
        self.network = network.to(self.device)
        self.wrapped = nn.parallel.DistributedDataParallel(network) if self.world > 1 else network
        self.start_average()
        groups = groups or [{"params": list(network.parameters()), "multiple": 1.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.99), weight_decay=plan.decay)
        self.step = 0
        self.seconds_spent = 0.0
        self.started = time.monotonic()

    # ---- what a task gives

    def dataset(self, split: str, size: int | None) -> Dataset:
        """Items of a split, dictionaries of tensors; `size` of them, or without end."""
        raise NotImplementedError

    def objective(self, batch: dict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """What a step minimises, a scalar, and the values that the log keeps, ``loss`` among them.

        What is random is drawn from `generator`, for the global batch, and sliced by ``own``: the number of processes does
        not change the run.
        """
        raise NotImplementedError

    def validate(self) -> dict:
        """Figures of the averaged network on the fixed validation items."""
        raise NotImplementedError

    def card(self, network: Any) -> dict:
        """What the task adds to the card of the final weights."""
        return {}

    def prepare(self) -> None:
        """Done once, before the first step."""

    # ---- the loop

    @property
    def own(self) -> slice:
        """Items of the global batch that this process takes."""
        share = self.plan.batch // self.world
        return slice(self.rank * share, (self.rank + 1) * share)

    def _batches(self) -> Iterator[dict]:
        """Batches of this process, from the present step to the last."""
        plan, indices = self.plan, []
        for step in range(self.step, plan.steps):
            every = range(step * plan.batch, (step + 1) * plan.batch)[self.own]
            indices.append([i % plan.items for i in every] if plan.items else list(every))
        return iter(
            DataLoader(
                self.dataset("train", None), batch_sampler=indices, num_workers=self.workers, persistent_workers=False,
                prefetch_factor=8 if self.workers else None, worker_init_fn=one_thread,
                pin_memory=self.device.type == "cuda",
            )
        )

    def run(self, until: int | None = None) -> None:
        """Train up to the step `until`, or to the end, then write the final weights."""
        plan, until = self.plan, self.plan.steps if until is None else until
        self.folder.mkdir(parents=True, exist_ok=True)
        batches = self._batches()
        if self.step == 0:
            self.prepare()
        bar = tqdm(
            total=plan.steps, initial=self.step, desc=self.folder.name, unit="step", disable=self.rank > 0,
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
            is_last = self.step == plan.steps
            if self.step % plan.valid_every == 0 or is_last:
                if self.rank == 0:
                    self._write_log(since)
                since = []
            if self.step % plan.save_every == 0 or is_last or self.step == until:
                self.save()
        bar.close()
        if self.step == plan.steps and self.rank == 0:
            self.finish()

    def _train_step(self, batch: dict) -> dict:
        """One update; returns what the log keeps."""
        plan = self.plan
        generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + self.step)
        self.network.train()
        for group in self.optimiser.param_groups:
            group["lr"] = plan.rate_at(self.step) * group["multiple"]
        batch = {name: self._here(value) for name, value in batch.items()}
        total, values = self.objective(batch, generator)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        # Apart, so that a large gradient of the one does not shrink that of the other.
        norms = [nn.utils.clip_grad_norm_(g["params"], plan.clip) for g in self.optimiser.param_groups]
        norm = torch.stack(norms).max()
        if not torch.isfinite(norm):
            raise FloatingPointError(f"step {self.step}: the gradient is not finite; lower `rate` and resume")
        self.optimiser.step()
        self._update_average()
        return {"gradient": norm.item(), **values}

    def _here(self, value: Any) -> Any:
        return value.to(self.device, non_blocking=True) if isinstance(value, Tensor) else value

    def show(self, steps: Iterable, name: str) -> tqdm:
        """`steps` with a progress bar, in the first process."""
        return tqdm(steps, desc=f"{self.folder.name} {name}", disable=self.rank > 0, dynamic_ncols=True)

    def start_average(self) -> None:
        """Let the moving average begin with the present weights."""
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.plan.average, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    def averaged(self) -> Any:
        """A copy of the network with the averaged weights, for evaluation."""
        network = copy.deepcopy(self.network)
        network.load_state_dict(self.average)
        return network.eval()

    def _write_log(self, since: list[dict]) -> None:
        names = {name for values in since for name in values}
        row: dict = {"step": self.step, "rate": self.plan.rate_at(self.step - 1)}
        for name in sorted(names):
            row[name] = float(np.mean([values[name] for values in since if name in values]))
        elapsed = time.monotonic() - self.started
        self.seconds_spent += elapsed
        self.started = time.monotonic()
        row["seconds"] = round(self.seconds_spent, 1)
        row["audio_per_second"] = round(len(since) * self.plan.batch * self.plan.seconds / elapsed, 1)
        row["steps_per_second"] = round(len(since) / elapsed, 3)
        row.update(self.validate())
        self.started = time.monotonic()
        with (self.folder / LOG).open("a") as file:
            file.write(json.dumps(row) + "\n")
        draw_curve(self.folder, self.PANELS)

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
            "step": self.step, "seconds_spent": self.seconds_spent, "training": self.plan.to_dict(),
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
        if notes["training"] != json.loads(json.dumps(self.plan.to_dict())):
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
        network = self.averaged()
        card = {
            "training": self.plan.to_dict(),
            "corpus": self.corpus.hash,
            "steps": self.step,
            "hours_of_mixtures": round(self.step * self.plan.batch * self.plan.seconds / 3600, 1),
            "seconds_spent": round(self.seconds_spent),
            "processes": self.world,
            "device": self.device.type,
            "validation": self.validate(),
            **self.card(network),
        }
        weights.save(network, self.folder / "model.safetensors", card)


def one_thread(worker: int) -> None:
    """Keep a process that makes mixtures to one thread."""
    torch.set_num_threads(1)


def draw_curve(folder: Path, panels: Mapping[str, Sequence[str]]) -> None:
    """Draw the log of a run as `curve.png`, where matplotlib is installed."""
    try:
        from dsn_lite.plots.curves import training_curve
    except ImportError:  # a bare training machine
        return
    rows = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    training_curve(rows, panels, folder / "curve.png")
