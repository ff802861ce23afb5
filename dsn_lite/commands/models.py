"""`dsn-lite models`: which trained networks there are."""

from __future__ import annotations

import argparse
import json

from dsn_lite.commands._options import add_command

_COLUMNS = (
    ("activation", "act.", 3, 7), ("mmacs_per_second", "MMAC/s", 1, 8), ("pesq", "PESQ", 2, 7), ("estoi", "ESTOI", 3, 7),
    ("si_sdr", "SI-SDR", 2, 8), ("ovrl", "OVRL", 2, 7),
)  # fmt: skip
"""Names in `metrics` of a card, as `dsn-lite evaluate` gives them; headings; decimals; width."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = add_command(
        subparsers, "models", run, help="list the trained networks",
        description="List the trained networks that ship with the package, and what their cards say of them.",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the cards")


def run(args: argparse.Namespace) -> int:
    """Carry out the command; returns the exit status."""
    from dsn_lite import zoo

    cards = zoo.available()
    print(json.dumps(cards, indent=1) if args.json else table(cards))
    return 0


def table(cards: list[dict]) -> str:
    """Lines of text: one network each, with the figures of its card that are there.

    >>> print(table([{"name": "dsn", "steps": 10, "metrics": {"pesq": 2.1}}]))
    name       steps   act.  MMAC/s   PESQ  ESTOI  SI-SDR   OVRL
    dsn           10      -       -   2.10      -       -      -
    """
    if not cards:
        return "no networks are shipped; train one (dsn-lite train) and give its .safetensors file to --model"
    wide = max(6, *(len(card["name"]) for card in cards))
    lines = [f"{'name':<{wide}}{'steps':>10}" + "".join(f"{heading:>{width}}" for _, heading, _, width in _COLUMNS)]
    for card in cards:
        figures = f"{card['name']:<{wide}}{card.get('steps', '-'):>10}"
        for key, _, places, width in _COLUMNS:
            value = card.get("metrics", {}).get(key)
            figures += f"{'-' if value is None else f'{value:.{places}f}':>{width}}"
        lines.append(figures)
    return "\n".join(lines)
