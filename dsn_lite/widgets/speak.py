"""Speak to it: the reader's own voice through the network, computed in the page, and what was spent on it.

The widget holds the network as a table (`dsn_lite.widgets.table`), an engine in JavaScript and WebAssembly, and some noisy
clips. No kernel, no server and no request is needed; nothing that a reader says leaves the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import traitlets

from dsn_lite.audio import clips as speech
from dsn_lite.audio import noises
from dsn_lite.audio.levels import mix_at_snr
from dsn_lite.audio.spectral import SAMPLE_RATE
from dsn_lite.errors import InputError
from dsn_lite.network.macs import count
from dsn_lite.network.model import Network
from dsn_lite.plots import maps
from dsn_lite.widgets import table
from dsn_lite.widgets.shared import Pack, Widget, front_end, gain_of, text_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HINT = (
    "Press play, then 1 and 2 in turn: the noise goes at the very sample you hear. Look below the pictures: a lane is "
    "filled where its part of the network is at work, and the line at the bottom is what that costs. Then press Record and "
    "speak: nothing leaves this page."
)


def book_clips() -> dict[str, np.ndarray]:
    """Noisy clips [samples] at 16 kHz by what to call them; in each the noise changes while somebody speaks.

    >>> {name: len(wave) > 48_000 for name, wave in book_clips().items()}
    {'a rain shower': True, 'typing': True, 'a street': True}
    """
    made = {}
    for name, clip, noise, snr, span in (
        ("a rain shower", "moon", "rain", 0, (0.25, 0.7)),
        ("typing", "library", "keyboard", 3, (0.3, 1.0)),
        ("a street", "bridge", "traffic", 2, (0.0, 0.6)),
    ):
        clean = speech.load(clip)
        # The noise is there in a part of the clip alone, with a quarter of a second to come and go.
        time = np.arange(len(clean)) / len(clean)
        edge = 0.25 * SAMPLE_RATE / len(clean)
        shape = np.clip(np.minimum((time - span[0]) / edge + 1, (span[1] - time) / edge + 1), 0.03, 1)
        noisy = mix_at_snr(clean, noises.synthesise(noise, len(clean) / SAMPLE_RATE, seed=4), snr)
        made[name] = (clean + (noisy - clean) * shape).astype(np.float32)
    return made


class SpeakToIt(Widget):
    """Record, choose a file or take a clip; hear it noisy and enhanced, see the gates and the bill, and set the budget.

    Parameters
    ----------
    network : Network
        Of any configuration; a static one has no gates to show.
    clips : what to call each clip -> noisy [samples] at 16 kHz; None takes :func:`book_clips`. It begins with the first.
    hint : what to look and listen for, below the picture.

    Examples
    --------
    >>> from dsn_lite.network.config import Config
    >>> network = Network(Config.preset("tiny")).eval()
    >>> SpeakToIt(network, {"a hiss": np.random.default_rng(0).normal(size=8000) / 10})
    SpeakToIt('untrained', 1 clips)
    """

    _esm = front_end("blocks.js", "engine.js", "clip.js", "microphone.js", "strip.js", "panel.js", "speak.js")
    _css = front_end("speak.css")
    worklet = traitlets.Unicode(text_of("blocks.js", "engine.js", "resampler.js", "worklet.js")).tag(sync=True)
    """What runs on the thread of the sound."""
    table = traitlets.Dict().tag(sync=True)
    clips = traitlets.List().tag(sync=True)
    """One dict a clip: `name`, and where its sound (FLAC, 16 kHz) is in `data`, [offset, length]."""
    weights_at = traitlets.List().tag(sync=True)
    products_at = traitlets.List().tag(sync=True)
    hint = traitlets.Unicode().tag(sync=True)
    data = traitlets.Bytes().tag(sync=True)
    """Weights (float32, little-endian), the WebAssembly module, sounds."""

    def __init__(self, network: Network, clips: Mapping[str, np.ndarray] | None = None, hint: str = HINT):
        clips = book_clips() if clips is None else clips
        if not clips:
            raise InputError("there is no clip to begin with; give at least one")
        packed, pack = table.pack(network, list(clips.values())), Pack()
        gain = min(1.0, gain_of(*clips.values()))
        super().__init__(
            table=packed.header, hint=hint, weights_at=pack.add(packed.weights), products_at=pack.add(table.products()),
            clips=[{"name": name, "sound_at": pack.sound(wave, gain, bits=16)} for name, wave in clips.items()],
            data=bytes(pack.data),
        )  # fmt: skip
        self._network, self._first = network, next(iter(clips.items()))

    def figure(self) -> Figure:
        """The first clip under the network's own gates, for print."""
        name, wave = self._first
        result, counted = self._network.enhance(wave, SAMPLE_RATE), count(self._network)
        return maps.gate_map(
            wave, result.wave, result.gates, self._network.gate_names, result.frame_mmacs,
            levels=(counted.closed, counted.open), title=name,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"SpeakToIt({self._network.name!r}, {len(self.clips)} clips)"
