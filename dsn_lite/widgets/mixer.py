"""Mixer: speech and noise at the ratio of a slider, heard and seen, and what the network spends on it.

The browser mixes two short sounds itself. What the network makes of each mixture is computed beforehand by the real
network in Python, packed into one binary trait and shown by `mixer.js`; no kernel is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import traitlets

from dsn_lite.audio.levels import mix_at_snr
from dsn_lite.audio.spectral import SAMPLE_RATE, WINDOW, frame_count, power, stft
from dsn_lite.errors import InputError
from dsn_lite.evaluation.metrics import si_sdr
from dsn_lite.network.macs import count
from dsn_lite.network.model import Network
from dsn_lite.widgets.shared import GateWidget, Pack, check_gates, front_end, gain_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOISE_BITS = 11
"""Bits of a sample of the noise in the page: they are rounded about 50 dB below it, which nobody hears beside it."""


@dataclass(frozen=True)
class Step:
    """What the network does at one signal-to-noise ratio."""

    snr: float
    """In dB."""
    gates: np.ndarray
    """[T, K] of 0 and 1."""
    activation: float
    mmacs_per_second: float
    wave: np.ndarray | None
    """Enhanced signal [samples]; None where only the gates were computed."""
    si_sdr: tuple[float, float] | None
    """Of the mixture and of `wave`, in dB."""


def sweep(
    network: Network, clean: np.ndarray, noise: np.ndarray, snrs: Iterable[float], enhanced: Iterable[float]
) -> list[Step]:
    """Run a network over mixtures of one clip at each of `snrs`, by rising SNR; see :meth:`Mixer.from_network`.

    Only the small network and the policy run where the enhanced sound is not asked for.
    """
    check_gates(network)
    snrs, heard = sorted(set(snrs)), set(enhanced)
    if not snrs:
        raise InputError("there is no SNR to mix at; give at least one")
    if missing := sorted(heard - set(snrs)):
        raise InputError(
            f"enhanced sounds are wanted at {missing} dB, which the slider does not have; add them to snrs"
        )
    counted = count(network)
    mixtures = [mix_at_snr(clean, noise, snr) for snr in snrs]
    decided = [(network.margins(mixture) > 0).astype(np.float32) for mixture in mixtures]
    steps = []
    for snr, mixture, used in zip(snrs, mixtures, decided, strict=True):
        wave = scores = None
        if snr in heard:
            result = network.enhance(mixture, SAMPLE_RATE)
            wave, used = result.wave, result.gates
            scores = si_sdr(clean, mixture), si_sdr(clean, wave)
        mmacs = float(counted.of_frames(used).mean())
        steps.append(Step(snr, used, counted.activation(used), mmacs, wave, scores))
    return steps


class Mixer(GateWidget):
    """Speech and noise with a slider for their ratio; spectrogram, gates and activation follow.

    Parameters
    ----------
    clean : speech [samples] at 16 kHz.
    noise : [samples] at 16 kHz; repeated or cut to the length of the speech.
    steps : sequence of Step
        By rising SNR, of mixtures of these two.
    network : Network
        Names and costs of its gates are shown.
    snr : where the slider stands at the beginning, one of the steps; None is the middle one. In a live notebook the
        attribute of that name follows, and can be set.

    Examples
    --------
    >>> from dsn_lite.network.config import Config
    >>> network, rng = Network(Config.preset("tiny")).eval(), np.random.default_rng(0)
    >>> speech, noise = rng.standard_normal((2, 8000)).astype("float32") / 10
    >>> Mixer.from_network(network, speech, noise, snrs=[-5, 0, 5], enhanced=[5], snr=5)
    Mixer(snr=5, 3 steps from -5 to 5 dB)
    """

    _esm = front_end("mixer.js")
    _css = front_end("mixer.css")
    snr = traitlets.Float().tag(sync=True)
    steps = traitlets.List().tag(sync=True)
    """One dict a step; values that end in `_at` are [offset, length] in `data`, or None."""
    sounds = traitlets.Dict().tag(sync=True)
    """`clean_at`, `noise_at`, `samples`, `frames`, and `noise_db`: the gain of the noise at 0 dB, as it is packed."""

    def __init__(
        self, clean: np.ndarray, noise: np.ndarray, steps: Sequence[Step], network: Network, snr: float | None = None
    ):
        snrs = [step.snr for step in steps]
        if not snrs or snrs != sorted(set(snrs)):
            raise InputError("the steps of a mixer must be there, with rising SNR; take those of sweep()")
        snr = snrs[len(snrs) // 2] if snr is None else snr
        if snr not in snrs:
            raise InputError(f"the slider cannot begin at {snr} dB; choose one of {', '.join(f'{s:g}' for s in snrs)}")
        at_zero = mix_at_snr(clean, noise, 0.0) - clean
        most_noise = at_zero * 10 ** (-snrs[0] / 20)
        enhanced = [step.wave for step in steps if step.wave is not None]
        gain, noise_gain = gain_of(clean, most_noise, clean + most_noise, *enhanced), gain_of(at_zero)
        pack = Pack()
        sounds = {
            "clean_at": pack.sound(clean, gain), "noise_at": pack.sound(at_zero, noise_gain, NOISE_BITS),
            "samples": len(clean), "frames": frame_count(len(clean)), "noise_db": float(20 * np.log10(gain / noise_gain)),
        }  # fmt: skip
        described = [
            {
                "snr": float(step.snr), "activation": step.activation, "mmacs": step.mmacs_per_second,
                "gates_at": pack.bits(step.gates), "sound_at": None if step.wave is None else pack.sound(step.wave, gain),
                "si_sdr": None if step.si_sdr is None else list(step.si_sdr),
            }
            for step in steps
        ]  # fmt: skip
        super().__init__(network, pack, snr=snr, sounds=sounds, steps=described)
        self._clean, self._noise = clean, noise

    @classmethod
    def from_network(
        cls, network: Network, clean: np.ndarray, noise: np.ndarray, snrs: Iterable[float] = range(-10, 31),
        enhanced: Iterable[float] = range(-10, 31, 10), snr: float | None = None,
    ) -> Mixer:  # fmt: skip
        """Compute everything with a network.

        Parameters
        ----------
        network : Network with gates, in evaluation mode
        clean : speech [samples] at 16 kHz, 3 to 4 s (a page should stay small)
        noise : [samples] at 16 kHz; repeated or cut to the length of the speech.
        snrs : SNRs of the slider, in dB.
        enhanced : those of them at which the enhanced sound can be heard; each is about 50 kB in the page.
        snr : where the slider stands at the beginning; None is the middle.
        """
        return cls(clean, noise, sweep(network, clean, noise, snrs, enhanced), network, snr)

    def figure(self) -> Figure:
        """The mixture at the two ends and where the slider stands, and the activation over the SNR."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 4.6), layout="constrained")
        upper, lower = figure.subfigures(2, 1)
        snrs = [step["snr"] for step in self.steps]
        panels, shown = upper.subplots(1, 3, sharey=True), (snrs[-1], self.snr, snrs[0])
        waves = [mix_at_snr(self._clean, self._noise, snr) for snr in shown]
        levels = [10 * np.log10(power(stft(torch.from_numpy(wave))).numpy().T / WINDOW + 1e-12) for wave in waves]
        top, extent = np.quantile(levels[0], 0.999), (0, len(self._clean) / SAMPLE_RATE, 0, SAMPLE_RATE / 2000)
        for axes, level, snr in zip(panels, levels, shown, strict=True):
            axes.imshow(level, "magma", origin="lower", aspect="auto", vmin=top - 70, vmax=top, extent=extent)
            axes.set(title=f"{snr:g} dB", xlabel="seconds")
        panels[0].set_ylabel("kHz")
        axes = lower.subplots()
        axes.plot(snrs, [100 * step["activation"] for step in self.steps], color="#12508a")
        now = self.steps[snrs.index(self.snr)]
        axes.plot(self.snr, 100 * now["activation"], "o", color="#b54708")
        axes.set(xlabel="SNR in dB", ylabel="mean activation in %", ylim=(0, 100))
        return figure

    def __repr__(self) -> str:
        first, last = self.steps[0]["snr"], self.steps[-1]["snr"]
        return f"Mixer(snr={self.snr:g}, {len(self.steps)} steps from {first:g} to {last:g} dB)"
