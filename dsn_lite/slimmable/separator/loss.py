"""What a separator is trained to do: match each talker in the better order, and not compute where it is not needed.

**Permutation-invariant SI-SDR.** Which output takes which talker is free: of both orders the one with the larger mean
counts (Kolbæk et al., 2017, arXiv 1703.06284). With both signals of zero mean and ``t = <e, s> / <s, s> * s`` the ratio of
an estimate e to a talker s is ``10 log10(|t|^2 / (|e - t|^2 + c |t|^2))``: the scale-invariant SDR of Le Roux et al.
(2019), which nears but never passes the cap of 30 dB (c = 0.001): what is nearly perfect no longer draws on the weights.
A silent talker has no ratio: its output is asked to stay far below the mixture m,
``10 log10(|m|^2 / (|e|^2 + c |m|^2))``.

**Signal-dependent complexity** (the idea is that of Elminshawi et al., arXiv 2507.06179: charge for computing by how well
the segment is reconstructed; the form is ours). With q the ratio in dB of a chunk's talkers to what is wrong with them::

    weight = 1 / (1 + exp(-(q - pivot) / softness)),  1 where the chunk is silent
    loss   = mean over chunks of  weight * cost of the chosen width

The weight takes no gradient. A chunk that is already well reconstructed, most often one of silence or of one talker, pays
nearly the full price of its width; a difficult one pays little, and may be as wide as it helps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

CAP = 1e-3
"""Share c of the talker's power that counts as error at least: 30 dB."""
SILENT = 1e-3
"""Share of the mean power of an item's chunks below which a chunk is silent: 30 dB."""
_TINY = 1e-8


class Match(NamedTuple):
    """Estimates and talkers, paired."""

    ratio: Tensor
    """SI-SDR in dB [B, 2] of each talker in the better order; see the module for silent talkers."""
    order: Tensor
    """Output that takes talker k, long [B, 2]."""
    gain: Tensor
    """What that output is to be multiplied by, [B, 2], to come closest to its talker."""


def match(estimates: Tensor, sources: Tensor, mixture: Tensor) -> Match:
    """Pair outputs with talkers: estimates and sources [B, 2, samples], mixture [B, samples].

    >>> sources = torch.randn(1, 2, 4000)
    >>> found = match(0.5 * sources.flip(1), sources, sources.sum(1))
    >>> found.order.tolist(), found.ratio.round().tolist(), found.gain.round().tolist()
    ([[1, 0]], [[30.0, 30.0]], [[2.0, 2.0]])
    """
    e, s, m = (wave - wave.mean(-1, keepdim=True) for wave in (estimates, sources, mixture))
    product = torch.einsum("bin,bkn->bik", e, s)
    of_e, of_s, of_m = e.square().sum(-1)[:, :, None], s.square().sum(-1)[:, None], m.square().sum(-1)[:, None, None]
    target = product.square() / of_s.clamp_min(_TINY)
    spoken = (target + _TINY) / ((of_e - target).clamp_min(0) + CAP * target + _TINY)
    silent = (of_m + _TINY) / (of_e + CAP * of_m + _TINY)
    is_silent = of_s <= 1e-6 * of_m + _TINY
    ratios = 10 * torch.where(is_silent, silent, spoken).log10()  # [B, output, talker]
    straight = ratios.diagonal(dim1=1, dim2=2)
    crossed = ratios.flip(1).diagonal(dim1=1, dim2=2)
    is_crossed = (crossed.sum(-1) > straight.sum(-1))[:, None]
    order = torch.where(is_crossed, torch.tensor([1, 0], device=e.device), torch.tensor([0, 1], device=e.device))
    gains = (product / of_e.clamp_min(_TINY)).gather(1, order[:, None]).squeeze(1)
    return Match(torch.where(is_crossed, crossed, straight), order, gains)


def separation_loss(estimates: Tensor, sources: Tensor, mixture: Tensor) -> tuple[Tensor, Match]:
    """Negative mean SI-SDR in dB [B] of the better order, and the match.

    >>> sources = torch.randn(2, 2, 4000)
    >>> loss, _ = separation_loss(sources, sources, sources.sum(1))
    >>> loss.shape, bool((loss < -29).all())
    (torch.Size([2]), True)
    """
    found = match(estimates, sources, mixture)
    return -found.ratio.mean(-1), found


@torch.no_grad()
def chunk_quality(estimates: Tensor, sources: Tensor, found: Match, samples: int) -> tuple[Tensor, Tensor]:
    """Ratio in dB [B, S] of the talkers of each chunk of `samples` to what is wrong with them, and which chunks are silent.

    Estimates are taken in the order and at the gains of `found`; the ratio is held within -30 and 30 dB.

    >>> sources = torch.cat([torch.randn(1, 2, 100), torch.zeros(1, 2, 100)], -1)
    >>> estimates = sources + torch.tensor([0.1, 0.0]).repeat_interleave(100)
    >>> quality, silent = chunk_quality(estimates, sources, match(estimates, sources, sources.sum(1)), 100)
    >>> quality.shape, silent.tolist()
    (torch.Size([1, 2]), [[False, True]])
    """
    ordered = estimates.gather(1, found.order[..., None].expand_as(estimates)) * found.gain[..., None]
    missing = -sources.shape[-1] % samples

    def powers(waves: Tensor) -> Tensor:
        return functional.pad(waves, (0, missing)).unflatten(-1, (-1, samples)).square().sum((1, 3))

    signal, error = powers(sources), powers(sources - ordered)
    mean = signal.mean(-1, keepdim=True)
    quality = 10 * ((signal + _TINY) / (error + _TINY)).log10().clamp(-3, 3)
    return quality, signal <= SILENT * mean + _TINY


def complexity_weight(quality: Tensor, silent: Tensor, pivot: float = 10.0, softness: float = 3.0) -> Tensor:
    """Weight 0..1 of the cost of each chunk; equation in the module.

    >>> complexity_weight(torch.tensor([0.0, 10.0, 20.0, 0.0]), torch.tensor([False, False, False, True])).round(decimals=2)
    tensor([0.0300, 0.5000, 0.9700, 1.0000])
    """
    return torch.where(silent, torch.ones_like(quality), torch.sigmoid((quality - pivot) / softness))


def complexity_loss(choice: Tensor, costs: Tensor, weight: Tensor) -> Tensor:
    """Mean over chunks (scalar) of weight [B, S] times the cost share [W] of the chosen width, one-hot [B, S, W].

    >>> complexity_loss(torch.eye(2)[None], torch.tensor([0.25, 1.0]), torch.tensor([[1.0, 0.5]]))
    tensor(0.3750)
    """
    return (weight * (choice @ costs)).mean()
