"""Gate explorer: hear a network and see which of its parts are open.

Everything is computed by the real network in Python beforehand, packed into one binary trait and shown by
`gate_explorer.js`; no kernel is needed to look and listen. The browser computes the spectrograms from the sounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import traitlets

from dsn_lite.audio.levels import mix_at_snr
from dsn_lite.audio.spectral import HOP, SAMPLE_RATE, frame_count
from dsn_lite.errors import InputError
from dsn_lite.evaluation.metrics import si_sdr
from dsn_lite.network.macs import count
from dsn_lite.network.model import Network
from dsn_lite.plots import maps as figures
from dsn_lite.widgets.shared import GateWidget, Pack, check_gates, front_end, gain_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Point:
    """One operating point of the network on one scene."""

    name: str
    """What the slider calls it."""
    shift: float
    """Added to the margins; -inf closes and inf opens everything."""
    wave: np.ndarray
    """Enhanced signal [samples]."""
    gates: np.ndarray
    """Gates used [T, K] of 0 and 1."""
    activation: float
    mmacs_per_second: float
    si_sdr: float
    """Of `wave`, in dB."""


@dataclass(frozen=True)
class Scene:
    """One clip at one SNR, and what the network made of it at each operating point."""

    clip: str
    snr: float
    """Mean signal-to-noise ratio in dB."""
    clean: np.ndarray
    """[samples] at 16 kHz."""
    noisy: np.ndarray
    """[samples] at 16 kHz."""
    margins: np.ndarray
    """Margins of the policy [T, K], without shift."""
    points: tuple[Point, ...]
    """By rising shift: everything closed first, everything open last."""


def frame_snr(clean: np.ndarray, noise: np.ndarray, seconds: float = 0.25) -> np.ndarray:
    """Signal-to-noise ratio in dB around each frame [T] of sounds [samples] at 16 kHz, held within -40 and 40.

    Both powers are averaged over a Hann window of some `seconds`; frame t is centred on sample t * 256.

    >>> speech, noise = np.ones(1000), np.full(1000, 0.1)
    >>> frame_snr(speech, noise).tolist()
    [20.0, 20.0, 20.0, 20.0, 20.0]
    """
    weights = np.hanning(round(seconds * SAMPLE_RATE) | 1)
    centres = np.minimum(np.arange(frame_count(len(clean))) * HOP, len(clean) - 1)

    def around(wave: np.ndarray) -> np.ndarray:
        half = len(weights) // 2
        power = np.pad(np.square(wave, dtype=np.float64), half)
        return np.lib.stride_tricks.sliding_window_view(power, len(weights))[centres] @ weights

    ratio = (around(clean) + 1e-12) / (around(noise) + 1e-12)
    return np.clip(10 * np.log10(ratio), -40, 40).round(4).astype(np.float32)


def explore(
    network: Network, clips: Mapping[str, np.ndarray], noise: np.ndarray, snrs: Sequence[float],
    budgets: Sequence[float | None],
) -> list[Scene]:  # fmt: skip
    """Run a network over each clip at each SNR and operating point; see :meth:`GateExplorer.from_network`."""
    check_gates(network)
    shifts = {0.0: "all closed", 1.0: "all open"} | {b: _budget_name(b) for b in budgets}
    order = sorted(shifts, key=network.budget_shift)
    scenes = []
    for clip, clean in clips.items():
        for snr in snrs:
            noisy = mix_at_snr(clean, noise, snr)
            points = tuple(_point(network, noisy, clean, budget, shifts[budget]) for budget in order)
            scenes.append(Scene(clip, snr, clean, noisy, network.margins(noisy), points))
    return scenes


def _point(network: Network, noisy: np.ndarray, clean: np.ndarray, budget: float | None, name: str) -> Point:
    result, shift = network.enhance(noisy, SAMPLE_RATE, budget=budget), network.budget_shift(budget)
    quality = si_sdr(clean, result.wave)
    return Point(name, shift, result.wave, result.gates, result.activation, result.mmacs_per_second, quality)


class GateExplorer(GateWidget):
    """Spectrograms, one lane a gate, SNR and cost over time, with a play head tied to the sound.

    Parameters
    ----------
    scenes : sequence of Scene
        All with the same operating points.
    network : Network
        Names and costs of its gates are shown.

    Examples
    --------
    >>> from dsn_lite.network.config import Config
    >>> network, rng = Network(Config.preset("tiny")).eval(), np.random.default_rng(0)
    >>> speech, noise = rng.standard_normal((2, 8000)).astype("float32") / 10
    >>> explorer = GateExplorer.from_network(network, {"hiss": speech}, noise, snrs=[5], budgets=[0.5])
    >>> [point["name"] for point in explorer.scenes[0]["points"]]
    ['all closed', 'budget 0.5', 'all open']
    """

    _esm = front_end("gate_explorer.js")
    _css = front_end("gate_explorer.css")
    scenes = traitlets.List().tag(sync=True)
    """One dict a scene; values that end in `_at` are [offset, length] in `data`."""

    def __init__(self, scenes: Sequence[Scene], network: Network):
        if not scenes:
            raise InputError("there is no scene to explore; give at least one clip and one SNR")
        pack = Pack()
        gain = gain_of(*(wave for s in scenes for wave in (s.clean, s.noisy, *(point.wave for point in s.points))))
        # The clean sound of a clip is shared by its scenes.
        clean = {name: pack.sound(wave, gain) for name, wave in {scene.clip: scene.clean for scene in scenes}.items()}
        described = [{"clean_at": clean[scene.clip], **_describe(scene, pack, gain)} for scene in scenes]
        super().__init__(network, pack, scenes=described)
        self._first, self._network = scenes[0], network

    @classmethod
    def from_network(
        cls, network: Network, clips: Mapping[str, np.ndarray], noise: np.ndarray, snrs: Sequence[float] = (0, 10),
        budgets: Sequence[float | None] = (0.25, None, 0.75),
    ) -> GateExplorer:  # fmt: skip
        """Compute everything with a network.

        Parameters
        ----------
        network : Network with gates, in evaluation mode
        clips : what to call each clip -> clean speech [samples] at 16 kHz, 3 to 5 s (a page should stay small)
        noise : [samples] at 16 kHz; repeated or cut to the length of each clip.
        snrs : mean SNRs in dB; each clip is heard at each.
        budgets : operating points, see `Network.enhance`; all closed and all open are added.
        """
        return cls(explore(network, clips, noise, snrs, budgets), network)

    def figure(self) -> Figure:
        """The first scene at the trained operating point (or the middle one), for print."""
        scene = self._first
        names = [point.name for point in scene.points]
        trained = _budget_name(None)
        point = scene.points[names.index(trained) if trained in names else len(names) // 2]
        counted = count(self._network)
        return figures.gate_map(
            scene.noisy, point.wave, point.gates, self._network.gate_names, counted.of_frames(point.gates),
            levels=(counted.closed, counted.open), snr=scene.snr, title=scene.clip,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"GateExplorer({self.title!r}, {len(self.scenes)} scenes)"


def _describe(scene: Scene, pack: Pack, gain: float) -> dict:
    snr = frame_snr(scene.clean, scene.noisy - scene.clean)
    return {
        "clip": scene.clip, "snr": scene.snr, "frames": len(snr), "samples": len(scene.noisy),
        "si_sdr": si_sdr(scene.clean, scene.noisy), "noisy_at": pack.sound(scene.noisy, gain),
        "snr_at": pack.add(snr.astype("<f4").tobytes()), "margins_at": pack.add(scene.margins.astype("<f4").tobytes()),
        "points": [
            {
                "name": point.name, "shift": point.shift if np.isfinite(point.shift) else None,
                "activation": point.activation, "mmacs": point.mmacs_per_second, "si_sdr": point.si_sdr,
                "sound_at": pack.sound(point.wave, gain), "gates_at": pack.bits(point.gates),
            }
            for point in scene.points
        ],
    }  # fmt: skip


def _budget_name(budget: float | None) -> str:
    return "as trained" if budget is None else f"budget {budget:g}"
