"""`dsn-lite train`: train a network from a configuration and a manifest."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

TASKS = {
    "enhance": "dsn_lite.training.former:Trainer",
    "slim-demucs": "dsn_lite.slimmable.demucs.train:DemucsTraining",
    "separate": "dsn_lite.slimmable.separator.train:SeparationTraining",
}
"""Module and class of what a configuration names as its ``task``; without one it is ``enhance``."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "train",
        help="train a network",
        description="Train a network from a YAML configuration on the mixtures of a manifest. Resumable at any moment.",
        epilog="several processes: torchrun --nproc-per-node 2 -m dsn_lite train CONFIG --data MANIFEST --out RUN",
    )
    parser.add_argument("config", metavar="CONFIG", help="YAML file; see configs/")
    parser.add_argument("--data", required=True, metavar="MANIFEST", help="manifest.csv from `dsn-lite corpus`")
    parser.add_argument("--out", required=True, metavar="RUN", help="folder for checkpoints, log, curve and weights")
    parser.add_argument("--resume", action="store_true", help="go on where the run in RUN stopped, if there is one")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: cuda if there is one")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that make mixtures (default 1)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of the network (default 1)")
    parser.add_argument("--stop-at", type=int, metavar="STEP", help="stop after this step; resume later")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the command; returns the exit status."""
    from pathlib import Path

    import torch
    import torch.distributed as dist

    from dsn_lite.data import Corpus
    from dsn_lite.errors import InputError
    from dsn_lite.training.loop import CHECKPOINT, LOG, read_yaml

    values, folder = read_yaml(args.config), Path(args.out)
    name = values.pop("task", "enhance")
    if name not in TASKS:
        raise InputError(f"{args.config}: no task {name!r}; choose one of {', '.join(TASKS)}")
    module, task = TASKS[name].split(":")
    task = getattr(importlib.import_module(module), task)
    plan = task.PLAN.from_dict(values, str(args.config))
    is_started = (folder / CHECKPOINT).exists()
    if is_started and not args.resume:
        raise InputError(f"{folder}: holds a run already; add --resume to go on with it, or choose another folder")
    device = args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(args.threads)
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several:
        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        trainer = task(plan, Corpus.open(args.data), folder, device=device, workers=args.workers)
        if is_started:
            trainer.resume()
        elif (folder / LOG).exists() and trainer.rank == 0:
            (folder / LOG).unlink()  # of a run that never reached its first checkpoint
        try:
            trainer.run(args.stop_at)
        except KeyboardInterrupt:
            trainer.save()
            print(f"stopped at step {trainer.step}; go on with --resume", file=sys.stderr)
            return 130
    finally:
        if several:
            dist.destroy_process_group()
    return 0
