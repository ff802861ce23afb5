"""What each width costs, by the rule and in the terms of :mod:`dsn_lite.network.macs`.

The narrowest width is the static part; gate k of the thermometer is what the step up from width k adds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from dsn_lite.audio.spectral import FRAMES_PER_SECOND
from dsn_lite.network.macs import Count, LayerMacs
from dsn_lite.slimmable.choice import step_names


@dataclass(frozen=True)
class WidthCount(Count):
    """MACs of a slimmable network, layer by layer and step by step."""

    widths: tuple[float, ...]

    @property
    def width_mmacs(self) -> np.ndarray:
        """MMAC/s at each constant width, router included, [W]."""
        return self.closed + np.concatenate([[0.0], np.cumsum(self.gate_macs)]) * FRAMES_PER_SECOND / 1e6


def rows(
    name: str, macs: Callable[[float], int], widths: Sequence[float], *, positions: float = 1,
    modules: Sequence[nn.Module] = (),
) -> list[LayerMacs]:  # fmt: skip
    """Rows of the count of one layer that has `modules`: its narrowest width, then each step up.

    `macs` are those of one position at a width, such as ``SlimLinear(...).macs``; a frame of 16 ms has `positions` of them.

    >>> from dsn_lite.slimmable.layers import SlimLinear
    >>> layer = SlimLinear(8, 8)
    >>> [(row.name, row.static, row.dynamic) for row in rows("linear", layer.macs, (0.5, 1.0), modules=[layer])]
    [('linear', 16, 0), ('linear over 1/2', 0, 48)]
    """
    costs = [round(macs(width) * positions) for width in widths]
    steps = zip(step_names(tuple(widths)), costs, costs[1:], strict=False)
    return [
        whole(name, costs[0], *modules),
        *(LayerMacs(f"{name} {step}", 0, after - before, step, 0) for step, before, after in steps),
    ]


def whole(name: str, macs: int, *modules: nn.Module) -> LayerMacs:
    """The row of a layer that has one width."""
    return LayerMacs(name, macs, 0, None, sum(value.numel() for module in modules for value in module.parameters()))
