"""`dsn-lite models`: which trained networks there are."""

from __future__ import annotations

import argparse

_COLUMNS = (
    ("activation", "act.", 3), ("mmacs_per_second", "MMAC/s", 1), ("pesq", "PESQ", 2), ("estoi", "ESTOI", 3),
    ("si_sdr", "SI-SDR", 2), ("ovrl", "OVRL", 2),
)  # fmt: skip
"""Names in `metrics` of a card, as `dsn-lite evaluate` gives them; headings; decimals."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "models",
        help="list the trained networks",
        description="List the trained networks that ship with the package, and what their cards say of them.",
    )
    parser.add_argument("--json", action="store_true", help="print the cards")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out the command; returns the exit status."""
    import json

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
    lines = [f"{'name':<{wide}}{'steps':>10}" + "".join(f"{heading:>{_width(heading)}}" for _, heading, _ in _COLUMNS)]
    for card in cards:
        metrics = card.get("metrics", {})
        figures = (f"{_figure(metrics.get(key), places):>{_width(heading)}}" for key, heading, places in _COLUMNS)
        lines.append(f"{card['name']:<{wide}}{card.get('steps', '-'):>10}" + "".join(figures))
    return "\n".join(lines)


def _width(heading: str) -> int:
    return max(7, len(heading) + 2)


def _figure(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:.{places}f}"
