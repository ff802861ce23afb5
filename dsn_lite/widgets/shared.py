"""What several widgets need: one front end put together from several files, a picture for print, sounds in few bytes."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import traitlets

from dsn_lite.audio.spectral import FRAMES_PER_SECOND, SAMPLE_RATE
from dsn_lite.errors import InputError
from dsn_lite.network.macs import count
from dsn_lite.network.model import Network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

try:
    import anywidget
except ImportError as error:  # pragma: no cover
    raise ImportError("widgets need anywidget; install it with: pip install 'dsn-lite[book]'") from error

PEAK = 0.95
"""Loudest sample of all sounds of one widget; they share one gain, so that their levels can be compared."""
FOLDER = Path(__file__).parent


def text_of(*names: str) -> str:
    """Texts of files of this folder, one after the other."""
    return "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in names)


def front_end(*names: str) -> str:
    """Text of front-end files (``mixer.js``), with the file that all share (``shared.js``) before them.

    A widget must be one self-contained module, so they are joined here and not by an import.

    >>> "export default" in front_end("mixer.js")
    True
    """
    return text_of(f"shared{Path(names[0]).suffix}", *names)


def check_gates(network: Network) -> None:
    """Refuse a network without gates."""
    if not network.gate_names:
        raise InputError(f"{network.name} is static and has no gates to show; take a dynamic network")


def gain_of(*waves: np.ndarray) -> float:
    """What to multiply sounds [samples] with, so that the loudest of them reaches ``PEAK``."""
    return PEAK / max(float(np.abs(wave).max()) for wave in waves)


class Widget(anywidget.AnyWidget):
    """An anywidget that also shows a picture where no widget can be shown: print, LaTeX, code hosting pages."""

    def figure(self) -> Figure:
        """The picture for print, a matplotlib figure."""
        raise NotImplementedError

    def picture(self) -> bytes:
        """PNG of :meth:`figure`."""
        file = io.BytesIO()
        self.figure().savefig(file, format="png", dpi=100)
        return file.getvalue()

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs)
        data["image/png"] = base64.b64encode(self.picture()).decode()
        data["text/plain"] = repr(self)
        return data, metadata


class GateWidget(Widget):
    """A widget about the gates of a network over time, and what they cost."""

    title = traitlets.Unicode().tag(sync=True)
    gates = traitlets.List().tag(sync=True)
    """One dict a gate: `name`, `mmacs` (MMAC/s it adds while open)."""
    levels = traitlets.List().tag(sync=True)
    """MMAC/s with everything closed and with everything open."""
    data = traitlets.Bytes().tag(sync=True)
    """Sounds (FLAC, 16 kHz), gates (bits) and numbers (float32, little-endian)."""

    def __init__(self, network: Network, pack: Pack, **traits):
        counted = count(network)
        costs = (counted.gate_macs * FRAMES_PER_SECOND / 1e6).tolist()
        gates = [{"name": name, "mmacs": cost} for name, cost in zip(network.gate_names, costs, strict=True)]
        levels = [counted.closed, counted.open]
        super().__init__(title=network.name, gates=gates, levels=levels, data=bytes(pack.data), **traits)


class Pack:
    """Binary parts of a widget, one after the other; each is found again by its [offset, length].

    >>> pack = Pack()
    >>> pack.add(b"one"), pack.add(b"two!"), bytes(pack.data)
    ([0, 3], [3, 4], b'onetwo!')
    """

    def __init__(self) -> None:
        self.data = bytearray()

    def add(self, part: bytes) -> list[int]:
        """Append bytes."""
        self.data += part
        return [len(self.data) - len(part), len(part)]

    def bits(self, values: np.ndarray) -> list[int]:
        """Append zeros and ones, eight in a byte, the first in the lowest bit."""
        return self.add(np.packbits(values.astype(bool), bitorder="little").tobytes())

    def sound(self, wave: np.ndarray, gain: float = 1.0, bits: int = 13) -> list[int]:
        """Append samples at 16 kHz as FLAC of `bits` bits; the lowest of 16 are rounded away, which saves weight."""
        step = 2 ** (16 - bits)  # FLAC leaves out bits that are always zero
        scaled = np.asarray(wave, dtype=np.float64) * (gain * 32767 / step)
        samples = np.clip(np.round(scaled) * step, -32768, 32767).astype(np.int16)
        file = io.BytesIO()
        soundfile.write(file, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        return self.add(file.getvalue())
