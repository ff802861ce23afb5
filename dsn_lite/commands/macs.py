"""`dsn-lite macs`: multiply-accumulates a second, layer by layer."""

from __future__ import annotations

import argparse
import json

from dsn_lite.commands._options import add_command, load_or_make


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = add_command(
        subparsers, "macs", run, help="count multiply-accumulates, layer by layer",
        description="Count multiply-accumulates a second (MMAC/s) with every gate open and every gate closed.",
        epilog="examples:\n  dsn-lite macs\n  dsn-lite macs --model base\n  dsn-lite macs --model benefit --json",
    )  # fmt: skip
    told = "preset (tiny, base, paper), trained network or .safetensors file; may be repeated (default: the presets)"
    parser.add_argument("--model", action="append", metavar="NAME", help=told)
    parser.add_argument("--json", action="store_true", help="print JSON, by name")


def run(args: argparse.Namespace) -> int:
    """Carry out the command; returns the exit status."""
    from dsn_lite.evaluation.provenance import provenance
    from dsn_lite.network.config import PRESETS
    from dsn_lite.network.macs import count

    counts = {name: count(load_or_make(name)) for name in args.model or PRESETS}
    if args.json:
        made = provenance(("torch",))
        print(json.dumps({name: {**counted.to_json(), **made} for name, counted in counts.items()}, indent=1))
    else:
        print("\n\n".join(f"{name}\n{counted.table()}" for name, counted in counts.items()))
        print(f"\n{next(iter(counts.values())).to_json()['rule']}")
    return 0
