"""The parts of the slimmable DEMUCS: its two kinds of level, the mixture of widths for training, and the router."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dsn_lite.audio.spectral import BINS, HOP, WINDOW, power, stft
from dsn_lite.network.policy import erb_pooling
from dsn_lite.slimmable.demucs.stream import SEGMENT_FRAMES
from dsn_lite.slimmable.layers import SlimConv1d, SlimConvTranspose1d, SlimNorm

KERNEL, STRIDE = 8, 4


class State(NamedTuple):
    """What the network remembers between runs; channels that were not active are zero."""

    convolutions: tuple[Tensor, ...]
    """The last positions before each convolution, [B, C, 4] a level."""
    transposed: tuple[Tensor, ...]
    """The last position before each transposed convolution, [B, C, 1], deepest level first."""
    recurrent: Tensor
    """State of the GRU, [layers, B, C]."""


class Mix(torch.autograd.Function):
    """``y = sum over w of choice[w] * y_w``, each y_w [B, n_w, T] filled up with zeros to the widest."""

    @staticmethod
    def forward(ctx, choice: Tensor, *candidates: Tensor) -> Tensor:
        """Mix candidates [B, n_w, T] by the choice [B, S, W] of their S segments."""
        batch, segments, _ = choice.shape
        mixed = candidates[-1].new_zeros(batch, candidates[-1].shape[1], segments, candidates[-1].shape[-1] // segments)
        for index, candidate in enumerate(candidates):
            mixed[:, : candidate.shape[1]].addcmul_(
                candidate.view(batch, -1, *mixed.shape[2:]), choice[:, None, :, index, None]
            )
        ctx.save_for_backward(choice, *candidates)
        return mixed.flatten(2)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, ...]:
        """Each candidate has the gradient where it is chosen; the choice has that of every candidate."""
        choice, *candidates = ctx.saved_tensors
        gradient = gradient.unflatten(-1, (choice.shape[1], -1))
        own, back = [], []
        for index, candidate in enumerate(candidates):
            part = gradient[:, : candidate.shape[1]]
            own.append(torch.einsum("bcsp,bcsp->bs", part, candidate.view(part.shape)))
            back.append((part * choice[:, None, :, index, None]).flatten(2))
        return torch.stack(own, -1), *back


class Encoder(nn.Module):
    """Normalisation from the third level on, convolution, ReLU, 1x1 convolution, gated linear unit."""

    def __init__(self, inputs: int, outputs: int, *, normalised: bool):
        super().__init__()
        self.norm = SlimNorm(inputs, axis=1) if normalised else nn.Identity()
        self.convolution = SlimConv1d(inputs, outputs, KERNEL, stride=STRIDE, full_in=True)
        self.mixing = SlimConv1d(outputs, outputs, 1, parts=2, full_out=True)
        _keep_power(self.convolution, inputs * KERNEL, 2.0)
        _keep_power(self.mixing, outputs, 4.0)

    def forward(self, x: Tensor, width: float, past: Tensor | None) -> Tensor:
        """Map x [B, C in, T], already normalised, to [B, C out, T / 4]; `past` came before it."""
        return functional.glu(self.mixing(self.convolution(x, width, past).relu(), width), 1)

    def macs(self, width: float) -> int:
        """Multiply-accumulates of one output position."""
        return self.convolution.macs(width) + self.mixing.macs(width)


class Decoder(nn.Module):
    """1x1 convolution, gated linear unit, transposed convolution, and ReLU except at the end."""

    def __init__(self, inputs: int, outputs: int, *, last: bool):
        super().__init__()
        self.last = last
        self.mixing = SlimConv1d(inputs, inputs, 1, parts=2, full_in=True)
        self.convolution = SlimConvTranspose1d(inputs, outputs, KERNEL, stride=STRIDE, full_out=True)
        _keep_power(self.mixing, inputs, 4.0)
        _keep_power(self.convolution, inputs * KERNEL // STRIDE, 1e-4 if last else 1.0)

    def mix(self, x: Tensor, width: float) -> Tensor:
        """Map x [B, C, T] to the active inner channels [B, n, T]: the part without memory."""
        return functional.glu(self.mixing(x, width), 1)

    def expand(self, x: Tensor, width: float, past: Tensor | None) -> Tensor:
        """Map inner channels [B, n or more, T] to [B, C out, 4 T]."""
        y = self.convolution(x, width, past)
        return y if self.last else y.relu()

    def macs(self, width: float) -> int:
        """Multiply-accumulates of one input position."""
        return self.mixing.macs(width) + self.convolution.macs(width)


def _keep_power(layer: nn.Module, fan_in: int, gain: float) -> None:
    """Weights that multiply the power by `gain` at full width, and no bias."""
    nn.init.normal_(layer.weight, std=math.sqrt(gain / fan_in))
    nn.init.zeros_(layer.bias)


def begin_as_bands(encoder: Encoder, below: Decoder, decoder: Decoder) -> None:
    """Let the outermost level begin as a bank of bands whose gates are almost shut.

    The first eight channels are the cosine transform of the newest four samples, each band with either sign because of the
    ReLU, and the decoder turns them back; the gated linear unit in front of it lets 5 % through. Learning which band to
    subtract when then takes some hundred steps; from random weights it takes thousands to hear a wave at all.
    """
    bands = STRIDE
    k, n = torch.arange(bands)[:, None], torch.arange(bands)
    cosines = torch.cos(math.pi / bands * (n + 0.5) * k) * math.sqrt(2 / bands)
    cosines[0] /= math.sqrt(2)
    signed = torch.stack([cosines, -cosines], 1).flatten(0, 1)  # band 0, its negative, band 1, ...
    with torch.no_grad():
        count = min(len(signed), encoder.convolution.outputs)
        signed = signed[:count]
        encoder.convolution.weight[:count].zero_()[:, 0, -bands:] = signed
        below.convolution.weight *= 0.1  # what comes from the deeper levels must not drown them
        for mixing in (encoder.mixing, decoder.mixing):
            mixing.weight *= 0.2
            mixing.weight[range(count), range(count), 0] += 1.0
        encoder.mixing.bias[encoder.mixing.outputs :] = 3.0
        decoder.mixing.bias[decoder.mixing.outputs :] = -3.0
        decoder.convolution.weight[:count].zero_()[:, 0, :bands] = signed


class Router(nn.Module):
    """From what a segment sounds like, and the utilisation aimed at, to a logit for each width.

    It sees the log energies of the pooled bands of the segment's short spectra, their mean and their maximum, and runs a
    GRU over the segments. The target is one more input, so that one router serves every budget. It looks at the segment
    that it decides on, which is what makes the network wait for one: 2048 samples, 128 ms.

    Parameters
    ----------
    widths : how many widths there are, W.
    bands, width : pooled bands, state size.

    Examples
    --------
    >>> router = Router(4, bands=16, width=8)
    >>> logits, state = router(torch.randn(2, 4096), torch.tensor([0.1, 0.5]))
    >>> logits.shape, state[1].shape
    (torch.Size([2, 2, 4]), torch.Size([2, 8]))
    """

    def __init__(self, widths: int, *, bands: int, width: int):
        super().__init__()
        self.bands, self.width = bands, width
        self.register_buffer("pooling", erb_pooling(bands, BINS), persistent=False)
        self.read = nn.Linear(2 * bands + 2, width)
        self.recurrent = nn.GRU(width, width, batch_first=True)
        self.logits = nn.Linear(width + 2, widths)

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        """The hop of samples before the first, [B, 256], and the zero state, [B, width]."""
        zero = self.read.weight.new_zeros
        return zero(batch, HOP), zero(batch, self.width)

    def forward(
        self, wave: Tensor, target: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Logits [B, S, W] and new state from the levelled wave [B, samples], whole frames, and the targets [B]."""
        past, hidden = self.initial_state(wave.shape[0]) if state is None else state
        pooled = self.features(torch.cat([past, wave], -1))
        wanted = torch.stack([target, target.log()], -1)[:, None].expand(-1, pooled.shape[1], -1)
        x = functional.relu(self.read(torch.cat([pooled, wanted], -1)))
        x, last = self.recurrent(x, hidden.unsqueeze(0))
        # The target once more: what it asks for in the mean need not pass through the memory.
        return self.logits(torch.cat([x, wanted], -1)), (wave[:, -HOP:], last.squeeze(0))

    def features(self, wave: Tensor) -> Tensor:
        """Mean and maximum [B, S, 2 * bands] over each segment of a wave [B, samples] that begins a hop before it."""
        spectrum = stft(wave)[:, 1:-1]  # the first frame lies before the wave, the last one goes beyond it
        energies = torch.log10(power(spectrum) @ self.pooling / (WINDOW / 2) + 1e-5) / 2
        missing = -energies.shape[1] % SEGMENT_FRAMES  # the last segment may be short of frames
        total, highest = (
            functional.pad(energies, (0, 0, 0, missing), value=value).unflatten(1, (-1, SEGMENT_FRAMES))
            for value in (0.0, -math.inf)
        )
        counts = energies.new_full((total.shape[1], 1), SEGMENT_FRAMES)
        counts[-1] -= missing
        return torch.cat([total.sum(2) / counts, highest.amax(2)], -1)

    def macs(self) -> int:
        """Multiply-accumulates of one segment; the spectra and their fixed pooling are not counted."""
        return self.width * (self.read.in_features + 6 * self.width) + self.logits.weight.numel()


def tail(past: Tensor, x: Tensor) -> Tensor:
    """The last positions, as many as `past` [B, C, n] has, of past and x [B, fewer C, T], filled up with zeros."""
    n = past.shape[-1]
    recent = functional.pad(x[..., -n:], (0, 0, 0, past.shape[1] - x.shape[1]))
    return recent if x.shape[-1] >= n else torch.cat([past, recent], -1)[..., -n:]
