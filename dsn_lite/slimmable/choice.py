"""The decision among W widths: a gate with more than two answers.

As in :mod:`dsn_lite.network.gates` a choice is sampled in training, by Gumbel noise on the logits, forward as a hard
one-hot and backward as the softmax (Jang et al., arXiv 1611.01144), and in evaluation it is the largest logit. Widths are
nested, so a choice among W of them is also a *thermometer* of K = W - 1 gates, "over 1/8", "over 1/4", ...: the view in
which counter, evaluation and figures take it.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn import functional

from dsn_lite.errors import InputError
from dsn_lite.network.gates import gumbel_noise


def sample(logits: Tensor, temperature: float = 1.0, noise: Tensor | None = None) -> Tensor:
    """Sampled choices [..., W], exactly one 1 and the rest 0, with the gradient of the softmax of the noisy logits.

    Parameters
    ----------
    logits : Tensor [..., W]
    temperature : float, above 0; see :func:`dsn_lite.network.gates.sample`.
    noise : Tensor [..., W], Gumbel noise to use; None draws it.

    Examples
    --------
    >>> logits = torch.tensor([[0.0, 2.0, 1.0]], requires_grad=True)
    >>> choice = sample(logits, noise=torch.zeros(1, 3))
    >>> choice.tolist()
    [[0.0, 1.0, 0.0]]
    >>> (choice * torch.tensor([1.0, 2.0, 4.0])).sum().backward(); logits.grad.sign().tolist()
    [[-1.0, -1.0, 1.0]]
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    noise = gumbel_noise(logits.shape, device=logits.device) if noise is None else noise
    soft = ((logits + noise) / temperature).softmax(-1)
    hard = functional.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)
    # The difference is exactly zero in the forward pass, so the choice is exactly 0 or 1.
    return hard + (soft - soft.detach())


def decide(logits: Tensor, shift: float = 0.0, costs: Tensor | None = None) -> Tensor:
    """Deterministic one-hot choices [..., W] for evaluation: the largest of ``logits + shift * costs``.

    Parameters
    ----------
    logits : Tensor [..., W]
    shift : a positive one moves choices to the costly end, a negative one to the cheap end, and infinity to the last.
    costs : Tensor [W], rising; needed for a shift.

    Examples
    --------
    >>> logits, costs = torch.tensor([0.0, 1.0, 0.5]), torch.tensor([0.25, 0.5, 1.0])
    >>> [decide(logits, shift, costs).tolist() for shift in (0.0, 2.0, -math.inf)]
    [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    if math.isinf(shift):
        index = torch.full(logits.shape[:-1], logits.shape[-1] - 1 if shift > 0 else 0, device=logits.device)
    else:
        index = (logits if shift == 0 else logits + shift * costs).argmax(-1)
    return functional.one_hot(index, logits.shape[-1]).to(logits.dtype)


def thermometer(choice: Tensor) -> Tensor:
    """Nested gates [..., K = W - 1] of one-hot choices [..., W]: gate k is 1 where the width is above the k-th.

    >>> thermometer(torch.eye(3)).tolist()
    [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]
    """
    return choice.flip(-1).cumsum(-1).flip(-1)[..., 1:]


def from_thermometer(gates: Tensor) -> Tensor:
    """One-hot choices [..., W] of gates [..., K]: a gate counts only where all before it are open.

    >>> from_thermometer(torch.tensor([[0.0, 1.0], [1.0, 1.0]])).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    index = (gates != 0).long().cumprod(-1).sum(-1)
    return functional.one_hot(index, gates.shape[-1] + 1).to(gates.dtype)


def check_widths(widths: tuple[float, ...]) -> None:
    """Refuse what cannot be the widths of a network."""
    if len(widths) < 2 or list(widths) != sorted(set(widths)) or widths[-1] != 1:
        raise InputError(f"widths: {list(widths)} does not fit; give two or more rising factors, the last of them 1")


def sandwich(widths: tuple[float, ...], generator: torch.Generator) -> list[float]:
    """The widths of a step: the widest, the narrowest and one between (Yu and Huang, arXiv 1903.05134)."""
    used = [widths[-1], widths[0]]
    if len(widths) > 2:
        used.append(widths[1 + int(torch.randint(len(widths) - 2, (), generator=generator))])
    return used


def step_names(widths: tuple[float, ...]) -> list[str]:
    """Names of the K = W - 1 gates of the thermometer.

    >>> step_names((0.125, 0.25, 0.5, 1.0))
    ['over 1/8', 'over 1/4', 'over 1/2']
    """
    return [f"over {Fraction(width).limit_denominator(1000)}" for width in widths[:-1]]
