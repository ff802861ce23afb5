"""`dsn-lite train`: train a network from a configuration and a manifest."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dsn_lite.commands._options import add_command, whole
from dsn_lite.errors import InputError

if TYPE_CHECKING:
    from dsn_lite.data import Corpus
    from dsn_lite.training.loop import Loop, Plan
    from dsn_lite.training.stages import Stage

WEIGHTS = "model.safetensors"
"""What a stage that came to its end leaves in its folder."""

TASKS = {
    "enhance": "dsn_lite.training.enhancer:EnhancerTrainer",
    "policy": "dsn_lite.training.policies:PolicyTrainer",
    "slim-demucs": "dsn_lite.slimmable.demucs.train:DemucsTraining",
    "separate": "dsn_lite.slimmable.separator.train:SeparationTraining",
}
"""Module and class of what a configuration names as its ``task``; without one it is ``enhance``."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = add_command(
        subparsers, "train", run, help="train a network",
        description="Train a network from a YAML recipe on the mixtures of a manifest. Resumable at any moment.",
        epilog="several processes: torchrun --nproc-per-node 2 -m dsn_lite train RECIPE --data MANIFEST --out RUN",
    )  # fmt: skip
    parser.add_argument("config", metavar="RECIPE", help="YAML file; see recipes/")
    parser.add_argument("--data", required=True, metavar="MANIFEST", help="manifest.csv from `dsn-lite corpus`")
    parser.add_argument("--out", required=True, metavar="RUN", help="folder for checkpoints, log, curve and weights")
    parser.add_argument("--branch", metavar="NAME", help="a branch of the recipe: another end of the same first stages")
    parser.add_argument("--resume", action="store_true", help="go on where the run in RUN stopped, if there is one")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: cuda if there is one")
    parser.add_argument("--workers", type=whole(0), default=1, metavar="N", help="processes for mixtures (default 1)")
    parser.add_argument("--threads", type=whole(1), default=1, metavar="N", help="threads of the network (default 1)")
    parser.add_argument("--stop-at", type=whole(1), metavar="STEP", help="stop after this step of a stage")


def run(args: argparse.Namespace) -> int:
    """Carry out the command; returns the exit status."""
    import torch
    import torch.distributed as dist

    from dsn_lite.data import Corpus
    from dsn_lite.training.run_files import CHECKPOINT, make_folder

    stages = read_recipe(args.config, args.branch)
    folders = [Path(args.out) / stage.folder for stage, _, _ in stages]
    make_folder(Path(args.out))
    if not args.resume and (taken := [folder for folder in folders if (folder / CHECKPOINT).exists()]):
        raise InputError(f"{taken[0]}: holds a run already; add --resume to go on with it, or choose another folder")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine or this PyTorch has no CUDA; take cpu or auto")
    device = args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(args.threads)
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several:
        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        corpus, before = Corpus.open(args.data), None
        for (stage, plan, task), folder in zip(stages, folders, strict=True):
            if before is not None and plan.start_from is None:
                plan = replace(plan, start_from=str(before))
            before = folder / WEIGHTS
            if stage.name and before.exists():
                continue
            if code := _run_stage(task, plan, corpus, folder, device, args):
                return code
            if several:
                dist.barrier()  # until the first process has written the weights, the next stage cannot begin
            if not before.exists():  # it stopped where --stop-at said
                break
    finally:
        if several:
            dist.destroy_process_group()
    return 0


def _run_stage(
    task: Callable[..., Loop], plan: Plan, corpus: Corpus, folder: Path, device: str, args: argparse.Namespace
) -> int:
    """Run one stage, from its checkpoint if there is one; not 0 where it did not come to its end."""
    from dsn_lite.training.run_files import CHECKPOINT, LOG

    trainer = task(plan, corpus, folder, device=device, workers=args.workers)
    if (folder / CHECKPOINT).exists():
        trainer.resume()
    elif trainer.rank == 0:
        (folder / LOG).unlink(missing_ok=True)  # of a run that never reached its first checkpoint
    trainer.run(args.stop_at)
    if trainer.stopped_by:
        print(f"stopped at step {trainer.step}; go on with --resume", file=sys.stderr)
        return 128 + trainer.stopped_by
    return 0


def read_recipe(path: str | Path, branch: str | None = None) -> list[tuple[Stage, Plan, type[Loop]]]:
    """The stages in a YAML file, each with its plan and the class of the task that it names."""
    from dsn_lite.settings import read_yaml
    from dsn_lite.training.stages import stages_of

    found = []
    for stage in stages_of(read_yaml(path), branch, str(path)):
        values = dict(stage.values)
        name = values.pop("task", "enhance")
        if name not in TASKS:
            raise InputError(f"{path}: task: {name!r} does not fit; give one of {', '.join(TASKS)}")
        module, task = TASKS[name].split(":")
        task = getattr(importlib.import_module(module), task)
        source = f"{path}: {stage.name}" if stage.name else str(path)
        found.append((stage, task.PLAN.from_dict(values, source), task))
    return found
