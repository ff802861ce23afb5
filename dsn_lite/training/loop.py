"""The loop that every training runs in: resumable at any moment, the same for one process or several.

Everything random is drawn from (seed, step), so a step is a pure function of the weights before it and its number: a run
that was killed and resumed equals one that was not. Checkpoints are safetensors, written under another name and renamed.
One process, or several under ``torchrun``: each takes its slice of the same global batch. What is trained, on which items
and towards which objective is said by a task: :class:`~dsn_lite.training.enhancer.EnhancerTrainer`,
:class:`~dsn_lite.training.policies.PolicyTrainer` and those of the relatives.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce as sum_over_processes
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from dsn_lite.data import Corpus, Mixtures
from dsn_lite.errors import InputError, one_line
from dsn_lite.network import weights
from dsn_lite.training import run_files
from dsn_lite.training.plan import Plan
from dsn_lite.training.processes import one_thread, signals_noted, worker_errors
from dsn_lite.training.run_files import CHECKPOINT, LOG
from dsn_lite.training.soap import Soap

__all__ = ["CHECKPOINT", "LOG", "Loop", "Plan", "one_thread"]


class Loop:
    """A run: network, optimiser, moving average, data and log, in one folder. A task derives from it.

    Parameters
    ----------
    plan : of the kind PLAN
    corpus : Corpus
    folder : where checkpoints, log and the final weights go.
    device : "cpu" or "cuda"
    workers : processes that make mixtures.
    """

    PLAN: type[Plan]
    """The plan of the task."""
    NETWORK: Any
    """Class of the network that it trains."""
    PANELS: Mapping[str, Sequence[str]] = {"loss": ("loss", "valid_*")}
    """What the curve of a run shows; see :func:`dsn_lite.plots.curves.training_curve`."""

    def __init__(self, plan: Any, corpus: Corpus, folder: str | Path, *, device: str = "cpu", workers: int = 1):
        self.plan, self.corpus, self.folder = plan, corpus, Path(folder)
        self.device, self.workers = torch.device(device), workers
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if plan.batch % self.world:
            raise InputError(f"batch {plan.batch} cannot be shared by {self.world} processes; choose a multiple")
        self.network = self.begin().to(self.device)
        self.wrapped = nn.parallel.DistributedDataParallel(self.network) if self.world > 1 else self.network
        self.start_average()
        optimizer = {"adamw": torch.optim.AdamW, "soap": Soap}[plan.optimizer]
        self.optimiser = optimizer(self.groups(), lr=plan.lr, betas=(0.9, 0.99), weight_decay=plan.weight_decay)
        self.step = 0
        self.stopped_by: int | None = None
        self.seconds_spent = 0.0
        self.started = time.monotonic()

    # ---- what a task gives

    def begin(self) -> Any:
        """The network before the first step: untrained, or with the weights of ``start_from``."""
        plan = self.plan
        torch.manual_seed(plan.seed)
        network = self.NETWORK(plan.network)
        if plan.start_from:
            given = self.fitted(weights.read(plan.start_from, self.NETWORK))
            if given.config != plan.network:
                raise InputError(f"{plan.start_from}: weights of another shape; start from a network like this one")
            network.load_state_dict(given.state_dict())
            network.card = given.card  # with the calibration of its policy
        return network

    def fitted(self, given: Any) -> Any:
        """What a run begins with, of the network that ``start_from`` names: all of it, unless a task cuts something off."""
        return given

    def groups(self) -> list[dict]:
        """Parameter groups, each with the ``multiple`` of the learning rate that it takes; gradients are clipped apart."""
        return [{"params": list(self.network.parameters()), "multiple": 1.0}]

    def dataset(self, split: str, size: int | None) -> Dataset:
        """Items of a split, `size` of them or without end; those of validation are the same for every run."""
        return Mixtures(self.corpus, split, self.plan.seconds, self.plan.seed if split == "train" else 0, size=size)

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
        return iter(DataLoader(
            self.dataset("train", None), batch_sampler=self._indices(self.step), num_workers=self.workers,
            prefetch_factor=8 if self.workers else None, worker_init_fn=one_thread, pin_memory=self.device.type == "cuda",
        ))  # fmt: skip

    def _indices(self, step: int) -> Iterator[list[int]]:
        """Numbers of the mixtures of each step from `step` on."""
        batch, size = self.plan.batch, self.plan.num_mixtures
        for first in range(step * batch, self.plan.steps * batch, batch):
            numbers = range(first, first + batch)[self.own]
            yield [number % size for number in numbers] if size else list(numbers)

    def run(self, until: int | None = None) -> None:
        """Train up to the step `until`, or to the end, then write the final weights.

        A first SIGINT or SIGTERM lets the step end and saves; its number is then `stopped_by`.
        """
        plan, until = self.plan, self.plan.steps if until is None else until
        run_files.make_folder(self.folder)
        for split in ("train", "valid"):
            _ = self.dataset(split, 1)[0]  # what either lacks is to be known now, and not at the first validation
        if self.step == 0:
            self.prepare()
        bar = tqdm(
            total=plan.steps, initial=self.step, desc=self.folder.name, unit="step", disable=self.rank > 0,
            dynamic_ncols=True, smoothing=0.05,
        )  # fmt: skip
        with bar, worker_errors(), signals_noted(self.world == 1) as noted:
            batches = self._batches()
            since: list[dict] = []
            while self.step < until and not noted:
                values = self._train_step(next(batches))
                since.append(values)
                self.step += 1
                bar.update()
                if self.step % 10 == 0:
                    shown = ("loss", "activation", "mmacs")
                    bar.set_postfix({name: f"{values[name]:.3g}" for name in shown if name in values})
                is_last = self.step == plan.steps
                if self.step % plan.valid_every == 0 or is_last:
                    if self.rank == 0:
                        self._write_log(since)
                    since = []
                if self.step % plan.save_every == 0 or is_last or self.step == until:
                    self.save()
            if noted and self.step:
                self.save()
        self.stopped_by = noted[0] if noted and self.step < until else None
        if self.step == plan.steps and self.rank == 0:
            self.finish()

    def _train_step(self, batch: dict) -> dict:
        """One update; returns what the log keeps."""
        plan = self.plan
        generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + self.step)
        self.network.train()
        for group in self.optimiser.param_groups:
            group["lr"] = plan.lr_at(self.step) * group["multiple"]
        batch = {name: self._here(value) for name, value in batch.items()}
        total, values = self.objective(batch, generator)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        # Apart, so that a large gradient of the one does not shrink that of the other.
        norms = [nn.utils.clip_grad_norm_(g["params"], plan.max_grad_norm) for g in self.optimiser.param_groups]
        norm = torch.stack(norms).max()
        if not torch.isfinite(norm):
            raise InputError(f"step {self.step}: the gradient is not finite; lower `lr` and go on with --resume")
        self.optimiser.step()
        self._update_average()
        return {"gradient": norm.item(), **values}

    def _here(self, value: Any) -> Any:
        return value.to(self.device, non_blocking=True) if isinstance(value, Tensor) else value

    def over_processes(self, mean: Tensor) -> Tensor:
        """The mean over all processes of what each has of it, with its gradient."""
        return sum_over_processes(mean) / self.world if self.world > 1 else mean

    def eights(self, dataset: Any) -> Iterator[dict]:
        """The items of a data set that has an end, eight at a time, on the device of the run."""
        for first in range(0, len(dataset), 8):
            items = [dataset[i] for i in range(first, min(first + 8, len(dataset)))]
            yield {name: self._here(value) for name, value in default_collate(items).items()}

    def show(self, steps: Iterable, name: str) -> tqdm:
        """`steps` with a progress bar, in the first process."""
        return tqdm(steps, desc=f"{self.folder.name} {name}", disable=self.rank > 0, dynamic_ncols=True)

    def start_average(self) -> None:
        """Let the moving average begin with the present weights."""
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.plan.ema_decay, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    def averaged(self) -> Any:
        """A copy of the network with the averaged weights, for evaluation."""
        network = copy.deepcopy(self.network)
        network.load_state_dict(self.average)
        return network.eval()

    def _write_log(self, since: list[dict]) -> None:
        row: dict = {"step": self.step, "lr": self.plan.lr_at(self.step - 1)}
        for name in sorted({name for values in since for name in values}):
            row[name] = float(np.mean([values[name] for values in since if name in values]))
        elapsed = time.monotonic() - self.started
        self.seconds_spent += elapsed
        self.started = time.monotonic()
        row["seconds"] = round(self.seconds_spent, 1)
        row["audio_per_second"] = round(len(since) * self.plan.batch * self.plan.seconds / elapsed, 1)
        row["steps_per_second"] = round(len(since) / elapsed, 3)
        row.update(self.validate())
        self.started = time.monotonic()
        run_files.write_log(self.folder / LOG, [*run_files.read_log(self.folder / LOG), row])
        run_files.draw_curve(self.folder, self.PANELS)

    # ---- keeping

    def save(self) -> None:
        """Write the checkpoint: network, moving average, optimiser, step."""
        if self.rank:
            return
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
        notes = {
            "step": self.step, "seconds_spent": self.seconds_spent, "training": self.plan.to_dict(),
            "corpus": self.corpus.hash, "contents": self.corpus.cache.contents,
        }  # fmt: skip
        run_files.write_checkpoint(self.folder / CHECKPOINT, tensors, notes)

    def resume(self) -> None:
        """Take up the run where its checkpoint left it, with the learning rate, steps and the like of now."""
        path = self.folder / CHECKPOINT
        tensors, notes = run_files.read_checkpoint(path)
        changed = run_files.changed(path, notes, self.plan, self.corpus)
        try:
            self.network.load_state_dict(run_files.part(tensors, "network."))
            self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": run_files.optimiser_state(tensors)})
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{path}: not of this network ({one_line(error)[:120]}); start the run anew") from None
        self.average = {name: value.to(self.device) for name, value in run_files.part(tensors, "average.").items()}
        self.step, self.seconds_spent = notes["step"], notes["seconds_spent"]
        if self.rank == 0:
            if changed:
                print(f"from step {self.step} on: {changed}", file=sys.stderr)
            rows = run_files.read_log(self.folder / LOG)  # those after the checkpoint will be written again
            run_files.write_log(self.folder / LOG, [row for row in rows if row["step"] <= self.step])

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
