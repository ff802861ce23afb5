"""Types of arguments that are numbers; what does not fit is told with what is allowed."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def whole(least: int) -> Callable[[str], int]:
    """Type of an argument that is a whole number, `least` or more."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r} does not fit; give a whole number, {least} or more")
        return number

    return read


def number(least: float, most: float = math.inf) -> Callable[[str], float]:
    """Type of an argument that is a number from `least` to `most`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most or math.isinf(value):
            allowed = f"{least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"
            raise argparse.ArgumentTypeError(f"{text!r} does not fit; give a number, {allowed}")
        return value

    return read
