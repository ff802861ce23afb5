"""The dynamically slimmable network: causal U-Net, frequency - time - frequency bottleneck, gates, complex mask.

After Zhao, Yang and Madhu (arXiv 2510.11395) and their FTF-Net lineage (arXiv 2505.21057): three strided convolutions each
way, attention along the bands and a grouped GRU along time in between, each followed by a fully connected pair, a complex
mask on the power-compressed spectrum. The layers are ours where the papers say nothing: see the book, Part II.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dsn_lite.audio.spectral import BINS, compress, decompress, power
from dsn_lite.blocks import DynamicAttention, DynamicConv, DynamicConvTranspose, DynamicFeedForward, DynamicGRU
from dsn_lite.blocks.frames import gate_slice, is_training_gate
from dsn_lite.config import Config
from dsn_lite.errors import InputError
from dsn_lite.network import gates as gating
from dsn_lite.policy import Policy

GATES = (
    "encoder 2", "encoder 3",
    "frequency 1 heads", "frequency 1 hidden",
    "time groups", "time hidden",
    "frequency 2 heads", "frequency 2 hidden",
    "decoder 3", "decoder 2",
)  # fmt: skip
"""Names of the K = 10 gates, in the order of the gating vector and of the computation."""


class State(NamedTuple):
    """What the network remembers between frames: [B, ...] tensors, of constant size."""

    encoder: Tensor
    recurrent: Tensor
    policy: Tensor | None


class Output(NamedTuple):
    """Result of one forward pass."""

    spectrum: Tensor
    """Enhanced spectrum, complex [B, T, F], not compressed."""
    gates: Tensor
    """Gates used, [B, T, K]."""
    logits: Tensor | None
    """Logits of the policy [B, T, K, 2]; None where the policy did not run."""
    state: State


class Network(nn.Module):
    """Noisy spectrum in, enhanced spectrum out, with a gate vector for every frame.

    Parameters
    ----------
    config : Config

    Examples
    --------
    >>> network = Network(Config.preset("tiny")).eval()
    >>> output = network(torch.randn(1, 20, 257, dtype=torch.complex64))
    >>> output.spectrum.shape, output.gates.shape
    (torch.Size([1, 20, 257]), torch.Size([1, 20, 10]))
    """

    KIND = "enhancer"

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.name = "untrained"
        self.card: dict = {}
        self.temperature = 1.0
        """Temperature of the sampled gates in training; see :func:`dsn_lite.network.gates.sample`."""
        wide = config.channels
        self.encoder_1 = DynamicConv(2, static=wide[0], kernel=(2, 5))
        self.encoder_2 = DynamicConv(wide[0], **self._split(wide[1]))
        self.encoder_3 = DynamicConv(wide[1], **self._split(wide[2]))
        self.bands = self.encoder_3.out_bands(self.encoder_2.out_bands(self.encoder_1.out_bands(BINS)))
        self.band_embedding = nn.Parameter(torch.zeros(self.bands, wide[2]))
        self.frequency_1 = FrequencyBlock(self)
        self.time = TimeBlock(self)
        self.frequency_2 = FrequencyBlock(self)
        self.decoder_3 = DynamicConvTranspose(wide[2], **self._split(wide[1]))
        self.decoder_2 = DynamicConvTranspose(wide[1], **self._split(wide[0]))
        self.decoder_1 = DynamicConvTranspose(wide[0], static=2, kernel=5)
        self.slopes = nn.ParameterList(nn.Parameter(torch.full((n,), 0.1)) for n in (*wide, wide[1], wide[0]))
        # The untrained network is the identity: a mask of one.
        nn.init.normal_(self.decoder_1.conv.weight, std=1e-3)
        with torch.no_grad():
            self.decoder_1.conv.bias.copy_(torch.tensor([1.0, 0.0]))
        nn.init.normal_(self.band_embedding, std=0.1)
        if config.parts == "gated":
            self.policy = Policy(len(GATES), bands=config.policy_bands, width=config.policy_width)

    @classmethod
    def from_card(cls, card: dict) -> Network:
        """An untrained network of the shape that a card holds under ``network``."""
        return cls(Config.from_dict(card["network"]))

    @property
    def gate_names(self) -> list[str]:
        """Names of the K gates; empty for a static network."""
        return list(GATES) if self.config.parts == "gated" else []

    def _split(self, width: int, *, keep_shape: bool = True, share: float | None = None) -> dict[str, int]:
        """Static, dynamic and absent part of a width, as keyword arguments of a block."""
        dynamic = self.config.dynamic(width, share)
        if self.config.parts == "absent":
            return {"static": width - dynamic, **({"absent": dynamic} if keep_shape else {})}
        return {"static": width - dynamic, "dynamic": dynamic}

    def initial_state(self, batch: int) -> State:
        """State before the first frame."""
        return State(
            self.encoder_1.initial_state(batch, BINS),
            self.time.gru.initial_state(batch, self.bands),
            self.policy.initial_state(batch) if self.config.parts == "gated" else None,
        )

    def forward(
        self, spectrum: Tensor, gates: Tensor | None = None, state: State | None = None, *,
        shift: float = 0.0, noise: Tensor | None = None, chosen: Tensor | None = None,
    ) -> Output:  # fmt: skip
        """Enhance the frames of a spectrum.

        Parameters
        ----------
        spectrum : Tensor, complex [B, T, F]
            From :func:`dsn_lite.audio.spectral.stft`, at 16 kHz.
        gates : Tensor [B, T, K] or None
            Gates to use; None asks the policy, which samples in training mode and decides in evaluation mode. A static
            network takes none.
        state : State or None
            Where an earlier call stopped; None starts anew.
        shift : added to each open logit; see :meth:`budget_shift`.
        noise : Tensor [B, T, K, 2], Gumbel noise for the sampled gates; None draws it.
        chosen : Tensor [B] of bool or None
            With `gates`: the items whose gates the policy chooses all the same (training mixes both kinds in a batch).
        """
        if gates is not None and gates.shape[-1] != len(self.gate_names):
            raise ValueError(f"gates for {gates.shape[-1]} parts; this network has {len(self.gate_names)} to open")
        if state is None:
            state = self.initial_state(spectrum.shape[0])
        compressed = compress(spectrum)
        logits, policy_state = None, state.policy
        if self.config.parts == "gated" and (gates is None or chosen is not None):
            magnitude = power(compressed).add(1e-12).sqrt()
            logits, policy_state = self.policy(magnitude, state.policy)
            own = self._gates(logits, shift, noise)
            gates = own if gates is None else torch.where(chosen[:, None, None], own, gates)
        mask, encoder_state, recurrent_state = self._mask(torch.view_as_real(compressed), gates, state)
        enhanced = decompress(torch.view_as_complex(mask.contiguous()) * compressed)
        if gates is None:
            gates = enhanced.real.new_ones(*spectrum.shape[:2], 0)
        return Output(enhanced, gates, logits, State(encoder_state, recurrent_state, policy_state))

    def _gates(self, logits: Tensor, shift: float, noise: Tensor | None) -> Tensor:
        if self.training:
            return gating.sample(logits, self.temperature, noise)
        return gating.decide(logits, shift)

    def _mask(self, x: Tensor, gates: Tensor | None, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """Complex mask [B, T, F, 2] of the compressed spectrum x [B, T, F, 2], and the new states."""
        gate = gates.unbind(-1) if self.gate_names and gates is not None else [None] * len(GATES)
        x, encoder_state = self.encoder_1(x, state=state.encoder)
        skip_1 = x = self._activate(x, 0)
        skip_2 = x = self._convolve(self.encoder_2, x, gate[0], 1)
        x = self._convolve(self.encoder_3, x, gate[1], 2) + self.band_embedding
        x = self.frequency_1(x, gate[2], gate[3])
        x, recurrent_state = self.time(x, gate[4], gate[5], state.recurrent)
        x = self.frequency_2(x, gate[6], gate[7])
        x = self._convolve(self.decoder_3, x, gate[8], 3) + skip_2
        x = self._convolve(self.decoder_2, x, gate[9], 4) + skip_1
        return self.decoder_1(x), encoder_state, recurrent_state

    def _convolve(self, block: DynamicConv | DynamicConvTranspose, x: Tensor, gate: Tensor | None, index: int) -> Tensor:
        """A convolution without memory, and its PReLU.

        In training the gate comes behind the PReLU. That is the same sound, for PReLU leaves a closed slice at zero, but
        another gradient: what opening would add, and not the slope at zero times what it would add before the PReLU.
        """
        trained = gate if is_training_gate(gate) else None
        y = block(x, None if trained is not None else gate)
        y = self._activate(y[0] if isinstance(y, tuple) else y, index)
        return y if trained is None else gate_slice(y, trained, block.static)

    def _activate(self, x: Tensor, index: int) -> Tensor:
        """PReLU with one slope a channel on x [B, T, F, C]; zero stays zero, so a closed slice stays closed."""
        # Where channels come last, the gradient of the library's PReLU takes three times as long. At zero, where a closed
        # slice lies, both have the slope for their derivative: the gate's gradient passes.
        return torch.lerp(functional.relu(x), x, self.slopes[index])

    def soften(self, share: float) -> None:
        """Blend the mask with a mask of one, for good: ``M' = (1 - share) M + share``.

        The mask acts on magnitudes to the power 0.3, so a share of 0.25 limits attenuation to 40 dB. It costs nothing: the
        last layer has no activation, and its weights take the blend in. A network trained on little noise is too sure of
        itself on noises it has not heard; what share helps is measured on the validation split (``tools/soften.py``).

        Examples
        --------
        >>> network, spectrum = Network(Config.preset("tiny")).eval(), torch.randn(1, 9, 257, dtype=torch.complex64)
        >>> network.soften(1.0)
        >>> bool(torch.allclose(network(spectrum).spectrum, spectrum, atol=1e-4))
        True
        """
        if not 0 <= share <= 1:
            raise InputError(f"share {share}: must lie between 0 (the mask as learnt) and 1 (the input as it is)")
        with torch.no_grad():
            for values in self.decoder_1.parameters():
                values *= 1 - share
            self.decoder_1.conv.bias[0] += share

    def enhance(self, wave, sample_rate: int, *, budget: float | None = None, policy="learned"):
        """Enhance a signal of any rate.

        Parameters
        ----------
        wave : array or tensor, [samples] or [channels, samples]
            Channels are enhanced one by one.
        sample_rate : in Hz; other rates than 16 kHz are resampled there and back, what lies above 8 kHz is lost.
        budget : wanted mean activation 0..1; None is the trained operating point. See :meth:`budget_shift`.
        policy : "learned", "open", "closed", or gates [T, K] of 0 and 1

        Returns
        -------
        dsn_lite.enhancement.Result
            wave (as the input), gates [T, K], frame_mmacs [T], activation, mmacs_per_second

        Raises
        ------
        dsn_lite.errors.InputError
            Empty signal, NaN or infinite samples, wrong shape.

        Examples
        --------
        >>> result = Network(Config.preset("tiny")).eval().enhance(np.zeros(8000, np.float32), 16_000)
        >>> result.wave.shape, result.gates.shape
        ((8000,), (33, 10))
        """
        from dsn_lite.enhancement import enhance  # it is built on this module

        return enhance(self, wave, sample_rate, budget=budget, policy=policy)

    def budget_shift(self, budget: float | None) -> float:
        """Logit shift for a wanted mean activation `budget` in 0..1; None is the trained operating point.

        0 closes and 1 opens everything. In between the shift comes from the calibration in the model's card: the
        activation measured on the validation mixtures at each of several shifts. A single clip will differ from it.
        Without a calibration the shift is ``log(budget / (1 - budget))``.
        """
        if budget is None:
            return 0.0
        if not 0 <= budget <= 1:
            raise InputError(f"budget is {budget}; it must lie between 0 (closed) and 1 (open)")
        if budget in (0, 1):
            return math.inf if budget else -math.inf
        table = self.card.get("calibration")
        if not table:
            return math.log(budget / (1 - budget))
        return float(np.interp(budget, [row["activation"] for row in table], [row["shift"] for row in table]))


def _normalise(x: Tensor) -> Tensor:
    """Layer normalisation over the channels, without weights: the next layer has its own."""
    return functional.layer_norm(x, x.shape[-1:])


class FrequencyBlock(nn.Module):
    """Attention along the bands of one frame and a fully connected pair, both residual."""

    def __init__(self, network: Network):
        super().__init__()
        config, channels = network.config, network.config.channels[2]
        self.attention = DynamicAttention(
            channels, head_width=config.head_width, **network._split(config.heads, keep_shape=False)
        )
        self.feed_forward = DynamicFeedForward(channels, **network._split(config.hidden, keep_shape=False))

    def forward(self, x: Tensor, heads: Tensor | None, hidden: Tensor | None) -> Tensor:
        """Map x [B, T, F, C] to the same shape; `heads` and `hidden` are gates [B, T]."""
        x = x + self.attention(_normalise(x), heads)
        return x + self.feed_forward(_normalise(x), hidden)


class TimeBlock(nn.Module):
    """Grouped GRU along time in each band and a fully connected pair, both residual."""

    def __init__(self, network: Network):
        super().__init__()
        config, channels = network.config, network.config.channels[2]
        self.gru = DynamicGRU(
            channels,
            group_width=config.group_width,
            **network._split(config.groups, keep_shape=False, share=config.group_share),
        )
        self.feed_forward = DynamicFeedForward(channels, **network._split(config.hidden, keep_shape=False))

    def forward(
        self, x: Tensor, groups: Tensor | None, hidden: Tensor | None, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Map x [B, T, F, C] to the same shape and the new state; `groups` and `hidden` are gates [B, T]."""
        y, state = self.gru(_normalise(x), groups, state)
        x = x + y
        return x + self.feed_forward(_normalise(x), hidden), state
