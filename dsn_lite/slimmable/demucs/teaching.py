"""What a router is taught by: what each segment would lose at each width, and the price at which it should narrow."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from dsn_lite.audio.spectral import compress, power, stft
from dsn_lite.slimmable.demucs.stream import SEGMENT
from dsn_lite.training.losses import REFERENCE_RMS, SpeechLoss


def segment_losses(enhanced: Tensor, clean: Tensor, window: int = 512, exponent: float = 0.3) -> Tensor:
    """Compressed spectral loss [B, S] of each segment of 2048 samples; waves [B, samples], scaled item by item."""
    scale = REFERENCE_RMS / clean.square().mean(-1, keepdim=True).add(1e-8).sqrt()
    spectra = [compress(stft(wave * scale, window), exponent, floor=1e-6) for wave in (enhanced, clean)]
    magnitudes = power(spectra[0]).add(1e-6).sqrt() - power(spectra[1]).add(1e-6).sqrt()
    frames = (0.7 * magnitudes.square() + 0.3 * power(spectra[0] - spectra[1])).mean(-1)  # [B, T]
    per_segment = SEGMENT // (window // 2)
    frames = frames[:, : math.ceil(clean.shape[-1] / SEGMENT) * per_segment]
    missing = -frames.shape[1] % per_segment
    return functional.pad(frames, (0, missing)).unflatten(1, (-1, per_segment)).mean(-1)


def waveform_losses(enhanced: list[Tensor], clean: Tensor, best_ratio: float = 1e-4) -> Tensor:
    """What each segment has in the waveform term of the loss at each of W widths, [B, S, W]; waves [B, samples].

    The term is the logarithm of an error summed over the whole item. To first order it changes by the change of a segment's
    error over the error of all: where speech is loud a wide segment gains more than where it is soft.

    >>> clean = torch.randn(1, 4096)
    >>> bad = clean + torch.tensor([[0.1, 0.3]]).repeat_interleave(2048, -1)
    >>> found = waveform_losses([bad, 0.5 * bad + 0.5 * clean], clean)[0]
    >>> bool(found[1, 0] - found[1, 1] > 8 * (found[0, 0] - found[0, 1]))  # the second segment has nine times the error
    True
    """
    missing = -clean.shape[-1] % SEGMENT
    squares = torch.stack([functional.pad(wave - clean, (0, missing)).square() for wave in enhanced], -1)
    errors = squares.unflatten(1, (-1, SEGMENT)).sum(2)
    total = errors.sum(1).mean(-1) + best_ratio * clean.square().sum(-1) + 1e-8
    return errors.shape[1] * errors / (math.log(10) * total[:, None, None])


def teaching_losses(enhanced: list[Tensor], clean: Tensor, loss: SpeechLoss) -> Tensor:
    """What a router is taught by: the loss [B, S, W] of each segment in each of W enhanced waves [B, samples]."""
    spectral = torch.stack([segment_losses(wave, clean) for wave in enhanced], -1)
    return spectral + loss.waveform * waveform_losses(enhanced, clean, loss.best_ratio)


def recent_mean(values: Tensor, memory: float) -> Tensor:
    """Mean [B, S, W] over this segment and those before, each weighing `memory` times as much as the next.

    >>> recent_mean(torch.tensor([[[3.0], [0.0], [0.0]]]), 0.5).flatten()
    tensor([3.0000, 1.0000, 0.4286])
    """
    age = torch.arange(values.shape[1], device=values.device)
    weights = torch.tril(memory ** (age[:, None] - age).clamp_min(0).to(values.dtype))  # [now, then]
    return torch.einsum("ts,bsw->btw", weights / weights.sum(-1, keepdim=True), values)


def price_of(losses: Tensor, costs: Tensor, target: float) -> float:
    """Price at which choosing the least of loss + price * cost spends a mean of `target`; losses [..., W], costs [W]."""
    low, high = 0.0, 1e4
    for _ in range(60):
        middle = (low + high) / 2
        used = float(costs[(losses + middle * costs).argmin(-1)].mean())
        low, high = (middle, high) if used > target else (low, middle)
    return (low + high) / 2
