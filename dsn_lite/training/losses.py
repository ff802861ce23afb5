"""What training minimises: distance to the clean speech, and distance of the activation to its target."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from dsn_lite.audio.spectral import compress, power, stft
from dsn_lite.errors import InputError
from dsn_lite.evaluation.benefit import REFERENCE_RMS, Terms
from dsn_lite.settings import Amount, Range
from dsn_lite.training.perceptual import perceptual_distance


@dataclass(frozen=True, kw_only=True)
class SpeechLoss(Terms):
    """Multi-resolution compressed spectral loss with a waveform term.

    For each window length, with ``|S|^c`` the compressed magnitude of the clean and ``|Y|^c`` of the enhanced signal:
    ``magnitude * mean((|Y|^c - |S|^c)^2) + complex * mean(|Y^c - S^c|^2)``, averaged over the window lengths (weights and
    lengths after FTF-Net, arXiv 2505.21057), plus ``waveform`` times the error-to-speech ratio in bel. Without the last
    term clips that are nearly clean get worse. And plus ``perceptual`` times the distance in loudness of
    :func:`~dsn_lite.training.perceptual.perceptual_distance`, near to PESQ: it hears what the other terms count little.

    >>> loss, clean = SpeechLoss(), torch.randn(2, 8000) * 0.1
    >>> near, far = loss(clean * 1.01, clean), loss(clean + 0.1 * torch.randn(2, 8000), clean)
    >>> near.shape, bool((near < far).all())
    (torch.Size([2]), True)
    """

    windows: tuple[Annotated[int, Range(ge=16, le=8192)], ...] = (320, 512, 768)
    waveform: Amount = 0.03
    perceptual: Amount = 0.0

    def __post_init__(self) -> None:
        if not self.windows:
            raise InputError("windows: none are given; give one length or more")

    def at_step(self, step: int) -> SpeechLoss:
        """The loss at one resolution, in turn: the same gradient on average for a third of the transforms."""
        return replace(self, windows=(self.windows[step % len(self.windows)],))

    def __call__(self, enhanced: Tensor, clean: Tensor) -> Tensor:
        """Loss [B] of enhanced [B, samples] against clean [B, samples].

        Several answers at once, [..., B, samples], share what is computed of the clean one; their losses are [..., B].
        """
        scale = REFERENCE_RMS / clean.square().mean(-1, keepdim=True).add(1e-8).sqrt()
        enhanced, clean = enhanced * scale, clean * scale
        total = enhanced.new_zeros(enhanced.shape[:-1])
        for length in self.windows:
            # The floor of the power keeps the gradient of |Y|^0.3 bounded where the spectrum is almost zero.
            estimate = compress(stft(enhanced, length), self.exponent, floor=1e-6)
            target = compress(stft(clean, length), self.exponent, floor=1e-6)
            magnitudes = power(estimate).add(1e-6).sqrt() - power(target).add(1e-6).sqrt()
            total = total + self.magnitude * magnitudes.square().mean((-2, -1))
            total = total + self.complex * power(estimate - target).mean((-2, -1))
        error = (enhanced - clean).square().sum(-1)
        ratio = error / clean.square().sum(-1).clamp_min(1e-8)
        total = total / len(self.windows) + self.waveform * torch.log10(ratio + self.best_ratio)
        return total + self.perceptual * perceptual_distance(enhanced, clean) if self.perceptual else total


def activation(gates: Tensor, weights: Tensor) -> Tensor:
    """Share [B] of the dynamic multiply-accumulates that the gates [B, T, K] open; `weights` [K] are MACs a frame.

    >>> activation(torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]), torch.tensor([3.0, 1.0]))
    tensor([0.8750])
    """
    return (gates * (weights / weights.sum())).sum(-1).mean(-1)


def activation_loss(gates: Tensor, weights: Tensor, target: Tensor) -> Tensor:
    """Squared distance [B] of the activation of gates [B, T, K] to the `target` [B] of each utterance."""
    return (activation(gates, weights) - target).square()


def usage_loss(rate: Tensor, low: float = 0.1, high: float = 0.9) -> Tensor:
    """Penalty (scalar) on a gate that is nearly always open or nearly always closed over a batch.

    A gate that has become constant gets no more gradient and stays so: the collapse of the policy. The penalty looks at
    the share `rate` [K] of open frames over a batch; it leaves single decisions as sharp as they like.

    >>> usage_loss(torch.full((3,), 0.5)).item(), usage_loss(torch.ones(3)).item() > 0
    (0.0, True)
    """
    return ((low - rate).clamp_min(0).square() + (rate - high).clamp_min(0).square()).mean()
