"""A decision that can be trained: the straight-through Gumbel-Softmax gate.

Each gate has two logits, (closed, open). In training a gate is sampled: Gumbel noise is added to both logits, and the
larger one wins (Jang et al., arXiv 1611.01144). The forward pass uses that hard 0 or 1; the backward pass uses the
gradient of the softmax of the same noisy logits at a temperature. In evaluation nothing is sampled: a gate is open when
its open logit is the larger one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

CLOSED, OPEN = 0, 1


def gumbel_noise(shape: Sequence[int], *, generator: torch.Generator | None = None, device=None) -> Tensor:
    """Standard Gumbel samples ``-log(-log(u))``, u uniform in (0, 1)."""
    uniform = torch.rand(*shape, generator=generator, device=device)
    tiny = torch.finfo(uniform.dtype).tiny
    exponential = uniform.clamp_min(tiny).log().neg().clamp_min(tiny)
    return -exponential.log()


def sample(logits: Tensor, temperature: float, noise: Tensor | None = None) -> Tensor:
    """Sampled gates [...], exactly 0 or 1; their gradient with respect to `logits` is that of the soft gate.

    Parameters
    ----------
    logits : Tensor [..., 2]
        (closed, open) of each gate.
    temperature : float, above 0
        High: soft gradients for all; low: large gradients for undecided gates, none for the others.
    noise : Tensor [..., 2] or None
        Gumbel noise to use; None draws it. Training draws its own, so that a resumed run repeats it.

    Examples
    --------
    >>> logits = torch.zeros(5, 2, requires_grad=True)
    >>> gates = sample(logits, temperature=1.0)
    >>> sorted(set(gates.tolist()) | {0.0, 1.0})
    [0.0, 1.0]
    >>> gates.sum().backward(); bool((logits.grad[:, OPEN] > 0).all())
    True
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    noise = gumbel_noise(logits.shape, device=logits.device) if noise is None else noise
    soft = ((logits + noise) / temperature).softmax(-1)[..., OPEN]
    return straight_through(soft)


def straight_through(soft: Tensor) -> Tensor:
    """Hard gate ``soft > 0.5`` in the forward pass, identity on `soft` in the backward pass; any shape."""
    hard = (soft > 0.5).to(soft.dtype)
    # The difference is exactly zero in the forward pass, so the gate is exactly 0 or 1.
    return hard + (soft - soft.detach())


def decide(logits: Tensor, shift: float = 0.0) -> Tensor:
    """Deterministic gates [...] of 0 and 1 for evaluation; `shift` is added to each open logit.

    >>> logits = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    >>> decide(logits).tolist(), decide(logits, shift=2.0).tolist(), decide(logits, shift=-math.inf).tolist()
    ([1.0, 0.0], [1.0, 1.0], [0.0, 0.0])
    """
    return (margin(logits) + shift > 0).to(logits.dtype)


def margin(logits: Tensor) -> Tensor:
    """Open minus closed logit [...]: the log-odds of an open gate."""
    return logits[..., OPEN] - logits[..., CLOSED]


def probability(logits: Tensor, shift: float = 0.0) -> Tensor:
    """Probability [...] that a sampled gate is open."""
    return torch.sigmoid(margin(logits) + shift)


def anneal(start: float, end: float, progress: float) -> float:
    """Temperature after a share `progress` (0..1) of the training: geometric from `start` to `end`.

    >>> anneal(2.0, 0.5, 0.5)
    1.0
    """
    return start * math.pow(end / start, min(max(progress, 0.0), 1.0))
