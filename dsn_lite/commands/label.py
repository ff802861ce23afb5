"""`dsn-lite label`: OVRL of the noisy training mixtures, for metric guidance."""

from __future__ import annotations

import argparse

from dsn_lite.commands._options import add_command, number, whole


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = add_command(
        subparsers, "label", run, help="score training mixtures with DNSMOS OVRL",
        description="Score the first ITEMS training mixtures with DNSMOS OVRL. Scores are kept; a stopped call goes on.",
    )  # fmt: skip
    parser.add_argument("manifest", metavar="MANIFEST", help="manifest.csv from `dsn-lite corpus`")
    parser.add_argument("--items", type=whole(1), default=4000, metavar="N", help="mixtures to score (default 4000)")
    told = "length of a mixture, 4 or more (default 4)"
    parser.add_argument("--seconds", type=number(4, 600), default=4.0, help=told)
    parser.add_argument("--seed", type=whole(0), default=1, help="seed of the training run (default 1)")


def run(args: argparse.Namespace) -> int:
    """Carry out the command; returns the exit status."""
    from dsn_lite.data import Corpus
    from dsn_lite.training.labels import make_labels

    ovrl = make_labels(Corpus.open(args.manifest), "train", args.seconds, args.seed, args.items)
    print(f"{len(ovrl)} mixtures, OVRL {ovrl.mean():.2f} on average, {ovrl.min():.2f} to {ovrl.max():.2f}")
    return 0
