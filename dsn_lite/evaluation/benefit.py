"""What opening gains, frame by frame: the label of the policy that foretells it, and the ceiling beside every policy.

The small answer and the refined answer come from one pass. So for each frame it is known afterwards by how much the loss of
the refined answer lies below that of the small one. Summed over frames the gains are the fall of the training loss at one
resolution, but for the logarithm of its waveform term, which is linearised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dsn_lite.audio.spectral import compress, power, stft
from dsn_lite.settings import Amount, Positive, Range

REFERENCE_RMS = 0.05
"""The clean signal is scaled to this RMS before it is compared, so that loud and quiet items weigh the same."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What counts how much when an answer is compared with the clean speech; the losses of training add to it."""

    exponent: Annotated[float, Range(gt=0, le=1)] = 0.3
    """Magnitudes are compared to this power."""
    magnitude: Amount = 0.7
    complex: Amount = 0.3
    waveform: Amount = 0.05
    best_ratio: Positive = 1e-4
    """Error-to-speech power ratio below which the waveform term no longer rewards (1e-4: 40 dB)."""


def frame_losses(spectrum: Tensor, target: Tensor, loss: Terms) -> tuple[Tensor, Tensor]:
    """Spectral loss and squared error, [B, T] each, of spectra [B, T, F] against clean ones [B, T, F]."""
    near, far = (compress(s, loss.exponent, floor=1e-6) for s in (spectrum, target))
    magnitudes = power(near).add(1e-6).sqrt() - power(far).add(1e-6).sqrt()
    spectral = loss.magnitude * magnitudes.square().mean(-1) + loss.complex * power(near - far).mean(-1)
    return spectral, power(spectrum - target).sum(-1)


@torch.no_grad()
def gain(refined: Tensor, small: Tensor, clean: Tensor, loss: Terms = Terms()) -> Tensor:
    """Fall of the loss [B, T] in each frame when the refined spectrum [B, T, F] takes the place of the small one.

    Parameters
    ----------
    refined, small : Tensor, complex [B, T, F]
        The two answers of :class:`dsn_lite.network.model.Output`.
    clean : Tensor [B, samples]
    loss : the weights of magnitude, complex and waveform term.

    Examples
    --------
    >>> clean, noise = torch.randn(1, 4096), torch.randn(1, 4096)
    >>> near, far = (stft(clean + size * noise) for size in (0.1, 0.5))
    >>> bool((gain(near, far, clean) > 0).all())
    True
    """
    scale = REFERENCE_RMS / clean.square().mean(-1).add(1e-8).sqrt()[:, None, None]
    target = stft(clean) * scale
    (refined_spectral, refined_error), (small_spectral, small_error) = (
        frame_losses(spectrum * scale, target, loss) for spectrum in (refined, small)
    )
    speech = power(target).sum((1, 2))
    ratios = [error.sum(1) / speech.clamp_min(1e-8) + loss.best_ratio for error in (refined_error, small_error)]
    # log(a) - log(b) = (a - b) / logarithmic mean of a and b: exact in the sum over frames.
    difference = ratios[1] - ratios[0]
    mean = torch.where(difference.abs() < 1e-6 * ratios[0], ratios[0], difference / (ratios[1] / ratios[0]).log())
    waveform = (small_error - refined_error) / (speech.clamp_min(1e-8) * mean)[:, None] / torch.log(torch.tensor(10.0))
    return (small_spectral - refined_spectral) / refined.shape[1] + loss.waveform * waveform
