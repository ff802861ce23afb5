"""The shape of a network: a small network that always runs, and what refines its answer. Presets and variants."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

from dsn_lite.errors import InputError
from dsn_lite.settings import Range, build, check, plain

Width = Annotated[int, Range(ge=1, le=4096)]
Widths = tuple[Width, Annotated[int, Range(ge=0, le=4096)]]
"""(static, dynamic): how much of something always runs, and how much stands behind a gate."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Widths of a network. Each pair is (static, dynamic): the part that always runs, the part behind a gate.

    Parameters
    ----------
    channels : output channels of each convolution down, outermost first; the last is the width of the middle.
    strides : frequency stride of each convolution; 256 bins end in ``256 / product`` bands.
    kernels : frequency taps of each convolution, odd.
    blocks : (1, n) middle blocks: the first has both parts, n of them have a dynamic part. Those behind the first are
        dynamic alone, with one gate each.
    heads, head_width : attention heads of a middle block, channels of one head.
    hidden : hidden units of its fully connected pair.
    groups, group_width : groups of its GRU, state size of one group.
    policy_bands, policy_width : bands that the policy sees, and the state of its GRU; a width of 0 is no policy.
    gated : whether the dynamic parts have gates (the dynamic network) or always run (the static one).

    Examples
    --------
    >>> Config.preset("base").static().gated
    False
    """

    channels: tuple[Widths, ...]
    strides: tuple[Width, ...] = (2, 2, 2)
    kernels: tuple[Width, ...] = (5, 3, 3)
    blocks: Width = 2
    heads: Widths
    head_width: Widths
    hidden: Widths
    groups: Widths
    group_width: Widths
    policy_bands: Width = 16
    policy_width: Annotated[int, Range(ge=0, le=4096)] = 48
    gated: bool = True

    def __post_init__(self) -> None:
        check(self)
        for name in ("strides", "kernels"):
            value, count = getattr(self, name), len(self.channels)
            if len(value) != count:
                raise InputError(f"{name}: {list(value)} does not fit; give {count}, one for each convolution")
        if len(self.channels) < 2:
            raise InputError(f"channels: {plain(self.channels)} does not fit; give at least two convolutions")
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise InputError(f"kernels: {plain(self.kernels)} does not fit; give odd numbers: every band has a centre")
        if 256 % self.stride:
            raise InputError(f"strides: {plain(self.strides)} does not fit; their product must divide 256 bins")
        pairs = (*self.channels, self.heads, self.head_width, self.hidden, self.groups, self.group_width)
        if len({dynamic > 0 for _, dynamic in pairs}) > 1:
            fault = f"channels: {plain(self.channels)} does not fit the other widths"
            raise InputError(f"{fault}; either every pair has a dynamic part or none has")

    @property
    def stride(self) -> int:
        """Bins of one band in the middle."""
        return math.prod(self.strides)

    @property
    def is_dynamic(self) -> bool:
        """Whether there is anything beside the small network."""
        return self.channels[-1][1] > 0

    @staticmethod
    def preset(name: str) -> Config:
        """One of the presets `tiny`, `base`, `paper`."""
        try:
            return PRESETS[name]
        except (KeyError, TypeError):
            raise InputError(f"no preset {name!r}; choose one of {', '.join(PRESETS)}") from None

    @staticmethod
    def expand(values: dict) -> dict:
        """Plain values in place of ``{"preset": name, ...}``, with the changes to the preset."""
        return {**Config.preset(values.pop("preset")).to_dict(), **values} if "preset" in values else values

    @staticmethod
    def from_dict(values: dict, source: str = "network") -> Config:
        """Configuration from :meth:`to_dict`, or from ``{"preset": name, ...}`` with changes to a preset."""
        return build(Config, values, source)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return plain(self)

    def static(self) -> Config:
        """The same network with everything always running and no policy."""
        return replace(self, gated=False, policy_width=0)

    def static_only(self) -> Config:
        """The small network alone: what all gates closed compute."""
        none = {name: (getattr(self, name)[0], 0) for name in ("heads", "head_width", "hidden", "groups", "group_width")}
        channels = tuple((static, 0) for static, _ in self.channels)
        return replace(self, channels=channels, blocks=1, gated=False, policy_width=0, **none)


PRESETS = {
    "tiny": Config(
        channels=((4, 4), (4, 8), (8, 12)), heads=(1, 1), head_width=(4, 8), hidden=(12, 24), groups=(1, 2),
        group_width=(8, 8), policy_bands=12, policy_width=24,
    ),
    "base": Config(
        channels=((8, 8), (8, 12), (12, 20)), heads=(2, 2), head_width=(4, 8), hidden=(24, 40), groups=(2, 2),
        group_width=(8, 16),
    ),
    "paper": Config(
        channels=((12, 20), (16, 32), (24, 48)), heads=(2, 4), head_width=(8, 8), hidden=(48, 96), groups=(2, 4),
        group_width=(16, 24), policy_bands=24, policy_width=96,
    ),
}  # fmt: skip
