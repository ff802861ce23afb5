"""What decides a training, whatever is trained: the fields that every configuration has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from dsn_lite.settings import CHANGEABLE, Amount, Count, Positive, Range, Share, Whole, build, plain, read_yaml


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What decides a run, whatever is trained; a task adds its own. What is CHANGEABLE may change in a resume.

    The learning rate may stay flat after the warm-up, so that a run can be made longer while it lasts.

    >>> plan = Plan(steps=1000, lr=1e-3, warmup_steps=100, falls_from=0.5)
    >>> plan.lr_at(49), plan.lr_at(400), round(plan.lr_at(750), 6), round(plan.lr_at(999), 6)
    (0.0005, 0.001, 0.000505, 1e-05)
    """

    RENAMED: ClassVar[dict[str, str]] = {
        "rate": "lr", "average": "ema_decay", "clip": "max_grad_norm", "decay": "weight_decay", "items": "num_mixtures",
        "warmup": "warmup_steps",
    }  # fmt: skip

    steps: Annotated[Count, CHANGEABLE]
    batch: Count = 8
    """Items of a step, over all processes."""
    seconds: Annotated[float, Range(ge=0.5, le=600)] = 4.0
    num_mixtures: Count | None = None
    """Number of different mixtures before they repeat; None: never."""
    seed: Annotated[int, Range(ge=0, le=2**40)] = 1
    lr: Annotated[Positive, CHANGEABLE] = 2e-3
    """Learning rate after the warm-up."""
    warmup_steps: Annotated[Whole, CHANGEABLE] = 200
    falls_from: Annotated[Share, CHANGEABLE] = 0.0
    """Share of the run from which on the learning rate falls."""
    optimizer: Literal["adamw", "soap"] = "adamw"
    """What makes steps of gradients; see :mod:`dsn_lite.training.soap`."""
    weight_decay: Amount = 0.01
    max_grad_norm: Positive = 0.3
    ema_decay: Share = 0.999
    """Decay of the exponential moving average of the weights, which is what ships."""
    start_from: str | None = None
    """Weights to start from: a name or a .safetensors file."""
    valid_items: Annotated[Count, CHANGEABLE] = 48
    valid_every: Annotated[Count, CHANGEABLE] = 250
    save_every: Annotated[Count, CHANGEABLE] = 100

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """The plan in a YAML file."""
        return cls.from_dict(read_yaml(path), str(path))

    @classmethod
    def from_dict(cls, values: dict, source: str = "configuration") -> Self:
        """The plan from plain values."""
        return build(cls, values, source)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return plain(self)

    def lr_at(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, flat, then half a cosine down to a hundredth."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        start = max(self.warmup_steps, self.falls_from * self.steps)
        progress = max(0.0, (step - start) / max(1.0, self.steps - start))
        return self.lr * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)
