"""The shape of a network: presets, and the static, static-only and narrow variants of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from dsn_lite.errors import InputError
from dsn_lite.settings import Range, build, check, plain

Parts = Literal["gated", "always", "absent"]

# What has a static and a dynamic part has a width of 2 at least.
Two = Annotated[int, Range(ge=2, le=4096)]
One = Annotated[int, Range(ge=1, le=4096)]
Between = Annotated[float, Range(gt=0, lt=1)]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Widths of a network.

    Every width of a layer with a dynamic part is the full one; `share` of it is dynamic.

    Parameters
    ----------
    channels : output channels of the three encoder convolutions; the last is C, the width of the bottleneck.
    heads, head_width : attention heads in a frequency block, channels of one head.
    hidden : hidden units of each fully connected pair.
    groups, group_width : groups of the GRU, state size of one group.
    policy_bands, policy_width : pooled bands and GRU state of the policy.
    share : dynamic share of each width (0.5: half of the heads, channels and hidden units).
    group_share : dynamic share of the GRU's groups, the costliest part and the one that remembers for itself.
    parts : "gated", a policy opens and closes the dynamic parts (the DSN); "always", they always run and there is no
        policy (the static network); "absent", they are left out (the static-only network).

    Examples
    --------
    >>> Config.preset("base").static().parts
    'always'
    """

    channels: tuple[Two, Two, Two]
    heads: Two
    head_width: One
    hidden: Two
    groups: Two
    group_width: One
    policy_bands: Two
    policy_width: One
    share: Between = 0.5
    group_share: Between = 0.75
    parts: Parts = "gated"

    def __post_init__(self) -> None:
        check(self)

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
        """The same network with everything always running."""
        return replace(self, parts="always")

    def static_only(self) -> Config:
        """The same network without its dynamic parts: what all gates closed compute."""
        return replace(self, parts="absent")

    def scaled(self, factor: float) -> Config:
        """All widths multiplied by `factor` and rounded; numbers of heads and groups stay."""

        def scale(width: int) -> int:
            return max(2, round(width * factor))

        return replace(
            self,
            channels=tuple(scale(width) for width in self.channels),
            head_width=scale(self.head_width),
            hidden=scale(self.hidden),
            group_width=scale(self.group_width),
        )

    def dynamic(self, width: int, share: float | None = None) -> int:
        """Dynamic part of `width`; `share` in place of the usual one."""
        return min(width - 1, max(1, round(width * (self.share if share is None else share))))


PRESETS = {
    "tiny": Config(
        channels=(8, 12, 16), heads=4, head_width=4, hidden=32, groups=4, group_width=8,
        policy_bands=24, policy_width=24,
    ),
    "base": Config(
        channels=(16, 24, 32), heads=4, head_width=8, hidden=48, groups=4, group_width=16,
        policy_bands=24, policy_width=32,
    ),
    "paper": Config(
        channels=(32, 48, 64), heads=4, head_width=16, hidden=96, groups=4, group_width=24,
        policy_bands=32, policy_width=96,
    ),
}  # fmt: skip
