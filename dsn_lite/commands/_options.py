"""What the parsers of several commands share: their form, options, and types of numbers that tell what is allowed."""

from __future__ import annotations

import argparse
import math
import textwrap
from collections.abc import Callable
from contextlib import suppress
from typing import Any


def add_command(
    subparsers: argparse._SubParsersAction, name: str, run: Callable, *, help: str, description: str, epilog: str = ""
) -> argparse.ArgumentParser:
    """The parser of a command, which `run(args) -> exit status` carries out; lines of the epilog stay as they are."""
    parser = subparsers.add_parser(
        name, help=help, description=textwrap.fill(description), epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(run=run)
    return parser


def add_model(parser: argparse.ArgumentParser, default: str = "benefit", more: str = "") -> None:
    """``--model``: a trained network, or what `more` tells of."""
    told = f"see dsn-lite models, or a .safetensors file{more} (default: %(default)s)"
    parser.add_argument("--model", metavar="NAME", default=default, help=told)


def add_gates(parser: argparse.ArgumentParser) -> None:
    """``--budget`` and ``--policy`` of a network with gates."""
    add_budget(parser, "the switchable computation")
    decides = "who decides: the network, or everything always open or closed (default: learned)"
    parser.add_argument("--policy", choices=("learned", "open", "closed"), default="learned", help=decides)


def add_budget(parser: argparse.ArgumentParser, whole: str) -> None:
    """``--budget``, a share of `whole`."""
    told = f"wanted share of {whole}, 0 to 1 (default: as trained)"
    parser.add_argument("--budget", type=number(0, 1), metavar="B", help=told)


def add_files(parser: argparse.ArgumentParser, output: str) -> None:
    """Sound files, where their results go, and ``--report``."""
    parser.add_argument("inputs", nargs="+", metavar="FILE", help="sound files (wav, flac, ogg, mp3, ...) or folders")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help=output)
    parser.add_argument("--report", metavar="JSON", help="write what was used, cost and speed of each file")


PRESETS = ", or a preset with random weights (tiny, base, paper)"
"""For :func:`add_model`, where :func:`load_or_make` makes the network."""


def load_or_make(name: str, **options):
    """A trained network, or one with random weights where `name` is that of a preset."""
    from dsn_lite import zoo
    from dsn_lite.network.config import PRESETS, Config
    from dsn_lite.network.model import Network

    if name not in PRESETS:
        return zoo.load(name, **options)
    network = Network(Config.preset(name)).eval()
    network.name = f"{name} (random weights)"
    return network


def whole(least: int) -> Callable[[str], int]:
    """Type of an argument that is a whole number, `least` or more."""
    return _within(int, least, math.inf, f"a whole number, {least} or more")


def number(least: float, most: float) -> Callable[[str], float]:
    """Type of an argument that is a number from `least` to `most`."""
    return _within(float, least, most, f"a number, from {least:g} to {most:g}")


def _within(kind: Callable[[str], float], least: float, most: float, allowed: str) -> Callable[[str], Any]:
    def read(text: str) -> float:
        with suppress(ValueError):
            if least <= (value := kind(text)) <= most:
                return value
        raise argparse.ArgumentTypeError(f"{text!r} does not fit; give {allowed}")

    return read
