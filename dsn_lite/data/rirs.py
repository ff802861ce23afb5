"""A bank of small simulated rooms, made once and kept beside the decoded corpus.

With ``pyroomacoustics`` installed (the extra ``rooms``) the responses come from the image source method
(Allen and Berkley 1979). Without it a bare machine still trains: a direct path and an exponentially decaying
noise tail. In both, the direct path is sample 0 with amplitude 1 for the talker, so convolving delays
nothing.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsn_lite.audio.files import replacing
from dsn_lite.data.cache import SAMPLE_RATE, lock, progress

ROOMS = 200
RESPONSES = 3  # of each room: 0 for the talker, the others for noises
SAMPLES = 6400  # 0.4 s
SEED = 20
EARLY = (480, 800)  # samples: the target keeps the response up to 30 ms and fades it out until 50 ms


@dataclass(frozen=True)
class Bank:
    """Room responses, float32 [rooms, responses, samples]; ``method`` is ``image-source`` or ``decay``."""

    responses: np.ndarray
    method: str

    @property
    def name(self) -> str:
        """What a recipe's key holds: the same on every machine that makes the bank the same way."""
        return f"{self.method}-1-{SEED}-{len(self.responses)}"


def early(response: np.ndarray) -> np.ndarray:
    """The direct path and early reflections of a response [samples]: to 30 ms, faded out until 50 ms."""
    start, stop = EARLY
    part = np.array(response[:stop], dtype=np.float32)
    ramp = 0.5 + 0.5 * np.cos(np.pi * np.arange(stop - start) / (stop - start))
    part[start:] *= ramp[: max(part.size - start, 0)].astype(np.float32)
    return part


def open_bank(folder: Path, rooms: int | None = None) -> Bank:
    """The bank of that many rooms (None: `ROOMS`) of a folder, made on the first use (a minute with pyroomacoustics)."""
    count = rooms or ROOMS
    method, make, path = "image-source", _image_source, folder / f"rooms-image-source-1-{SEED}-{count}.npz"
    try:
        import pyroomacoustics  # noqa: F401
    except ImportError:
        if not path.exists():
            method, make, path = "decay", _decay, folder / f"rooms-decay-1-{SEED}-{count}.npz"
    if (responses := _kept(path)) is None:
        with lock(path.with_suffix(".lock")):
            if (responses := _kept(path)) is None:
                rng = np.random.default_rng(SEED)
                responses = np.stack([make(rng) for _ in progress(range(count), count, "simulating rooms")])
                with replacing(path) as temporary, open(temporary, "wb") as file:
                    np.savez(file, responses=responses)
    return Bank(responses, method)


def _kept(path: Path) -> np.ndarray | None:
    """Responses in a file; None where it is missing or damaged."""
    try:
        with np.load(path) as data:
            return data["responses"]
    except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _image_source(rng: np.random.Generator) -> np.ndarray:
    """Responses [RESPONSES, SAMPLES] of one shoebox room to one microphone."""
    import pyroomacoustics as pra

    size = rng.uniform((2.5, 2.5, 2.3), (7.0, 6.0, 3.2))
    volume = float(np.prod(size))
    surface = 2 * float(size[0] * size[1] + size[0] * size[2] + size[1] * size[2])
    # Sabine: no wall absorbs more than everything, so a big room has a shortest reverberation time
    seconds = max(rng.uniform(0.1, 0.45), 0.161 * volume / (0.95 * surface))
    absorption = min(0.161 * volume / (surface * seconds), 0.99)
    sound, order = 343.0, int(min(np.ceil(seconds * 343.0 / size.min()), 30))
    pra.constants.set("c", sound)
    pra.constants.set("rir_hpf_enable", False)
    room = pra.ShoeBox(size, fs=SAMPLE_RATE, materials=pra.Material(absorption), max_order=order)
    microphone = rng.uniform(0.3, 0.7, 3) * size
    for source in range(RESPONSES):
        while True:
            direction = rng.normal(size=3)
            distance = rng.uniform(0.25, 1.5) if source == 0 else rng.uniform(0.5, 4.0)
            # a whole number of samples away: the direct path is then one sample, with no ringing before it
            distance = round(distance * SAMPLE_RATE / sound) * sound / SAMPLE_RATE
            place = microphone + distance * direction / np.linalg.norm(direction)
            if np.all(place > 0.15) and np.all(place < size - 0.15):
                break
        room.add_source(place)
    room.add_microphone(microphone)
    room.compute_rir()
    out = np.zeros((RESPONSES, SAMPLES), dtype=np.float32)
    for source in range(RESPONSES):
        response = np.asarray(room.rir[0][source])
        direct = int(np.round(np.linalg.norm(room.sources[source].position - microphone) * SAMPLE_RATE / sound))
        direct += pra.constants.get("frac_delay_length") // 2
        response = response[direct : direct + SAMPLES] / response[direct]
        out[source, : response.size] = response
    return out


def _decay(rng: np.random.Generator) -> np.ndarray:
    """Responses [RESPONSES, SAMPLES]: a direct path and noise that falls by 60 dB within 0.1 to 0.5 s."""
    time = np.arange(SAMPLES) / SAMPLE_RATE
    fall = 10 ** (-3 * time / rng.uniform(0.1, 0.5))
    out = np.zeros((RESPONSES, SAMPLES))
    for source in range(RESPONSES):
        ratio = rng.uniform(0, 12) if source == 0 else rng.uniform(-6, 6)  # direct over reverberant energy, dB
        tail = rng.normal(size=SAMPLES) * fall
        tail[: int(SAMPLE_RATE * rng.uniform(0.001, 0.004))] = 0
        out[source] = tail * np.sqrt(10 ** (-ratio / 10) / np.sum(tail**2))
        out[source, 0] = 1
    return out.astype(np.float32)
