"""From a recipe to sound: noisy and clean, the same bits each time.

Equaliser, band limit and room are all products in one long spectrum of the whole item, so a 4 s mixture takes
some ten milliseconds and three transforms each way.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from dsn_lite.audio.levels import active_level
from dsn_lite.data.cache import SAMPLE_RATE
from dsn_lite.data.corpus import Corpus
from dsn_lite.data.pieces import Piece
from dsn_lite.data.recipes import CLEAN_DB, Layer, Recipe
from dsn_lite.data.rirs import early
from dsn_lite.data.synthetic import synthetic

EQ_HZ = (60, 150, 300, 600, 1200, 2200, 3500, 5000, 7500)  # where an equaliser's gains stand; log-spaced lines between
PEAK = 0.99
FADE = 80  # samples, 5 ms: at both ends of each piece


def active_rms(wave: np.ndarray) -> float:
    """RMS over the active frames of a wave [samples]: :func:`dsn_lite.audio.levels.active_level` as a factor."""
    return 10 ** (active_level(wave) / 20)


def render(corpus: Corpus, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Make the mixture of a recipe: noisy and clean, float32 [samples].

    The target is the speech as it sounds in its room: noise is what has to go. A network that is asked to take
    late reverberation away as well does so with every recording, clean ones included, whose reference has it.
    The direct path is sample 0 of each response, so target and mixture are aligned. The SNR is that of the
    direct path and the early reflections (to 30 ms, faded out until 50 ms). Both have one gain: the RMS of noisy is
    ``recipe.level_dbfs``, less where its peak would pass 0.99.
    """
    n = recipe.samples
    talker = noise_room = None
    if recipe.room >= 0:
        bank = corpus.bank.responses[recipe.room]
        talker, noise_room = bank[0], bank[recipe.response]
    elif recipe.hall >= 0:
        talker = _hall(corpus, recipe.hall)
    size = fast_size(n + (0 if talker is None else talker.size))

    speech = lay(corpus, recipe.speech, int(n * recipe.speed) + 2 if recipe.speed != 1 else n)
    spectrum = np.fft.rfft(_played(speech, recipe.speed, n), size)
    if recipe.speech_eq or recipe.lowpass_hz:
        spectrum *= curve(recipe.speech_eq, recipe.lowpass_hz, spectrum.size)
    if talker is None:
        clean = direct = np.fft.irfft(spectrum, size)[:n]
    else:
        clean = np.fft.irfft(spectrum * np.fft.rfft(talker, size), size)[:n]
        direct = np.fft.irfft(spectrum * np.fft.rfft(early(talker), size), size)[:n]

    noise = np.sum([lay_noise(corpus, layer, n) for layer in recipe.layers], 0)
    if noise_room is not None:
        noise = np.fft.irfft(np.fft.rfft(noise, size) * np.fft.rfft(noise_room, size), size)[:n]

    # Files were laid at level 1. A stretch without speech counts as if it had some, and a noise of which
    # bursts or pauses have left almost nothing is not raised without end.
    level = active_rms(direct) if np.abs(direct).max() > 1e-3 else 1.0
    gain = 0.0 if recipe.snr_db >= CLEAN_DB else level / max(rms(noise), 0.03) * 10 ** (-recipe.snr_db / 20)
    noisy = clean + np.float32(gain) * noise
    peak = max(float(np.abs(noisy).max()), float(np.abs(clean).max()), 1e-9)
    scale = min(10 ** (recipe.level_dbfs / 20) / max(rms(noisy), 1e-9), PEAK / peak)
    return (noisy * np.float32(scale)).astype(np.float32), (clean * np.float32(scale)).astype(np.float32)


def rms(wave: np.ndarray) -> float:
    """RMS of a wave [samples]."""
    return float(np.sqrt(np.dot(wave, wave) / wave.size))


def lay(corpus: Corpus, pieces: tuple[Piece, ...], n: int) -> np.ndarray:
    """Sum of pieces [n], each file at active level 1, with short fades where it was cut."""
    out = np.zeros(n, dtype=np.float32)
    ramp = np.linspace(0, 1, FADE, dtype=np.float32)
    for piece in pieces:
        wave = corpus.cache.read(piece.file, piece.start, piece.length)
        fade = min(FADE, wave.size // 2)
        wave[:fade] *= ramp[:fade]
        wave[wave.size - fade :] *= ramp[:fade][::-1]
        wave *= np.float32(10 ** (piece.gain_db / 20) / corpus.cache.level[piece.file])
        stop = min(piece.at + wave.size, n)
        out[piece.at : stop] += wave[: stop - piece.at]
    return out


def lay_noise(corpus: Corpus, layer: Layer, n: int) -> np.ndarray:
    """One noise, float32 [n], at RMS 1 times its level."""
    if layer.kind == "coloured":
        size = fast_size(n)
        draws = np.random.default_rng(layer.seed).standard_normal((2, size // 2 + 1), dtype=np.float32)
        bins = np.arange(size // 2 + 1, dtype=np.float32)
        shape = np.maximum(bins, 30 * size / SAMPLE_RATE) ** np.float32(-layer.exponent / 2)  # flat below 30 Hz
        wave = np.fft.irfft((draws[0] + 1j * draws[1]) * shape, size)[:n]
    elif layer.kind == "synthetic":
        wave = synthetic(layer.seed, n)
    elif layer.kind == "babble":
        wave = lay(corpus, layer.pieces, n)
    else:
        length = max(piece.at + piece.length for piece in layer.pieces)
        wave = lay(corpus, layer.pieces, length)
        wave = np.interp(np.arange(n) * layer.speed, np.arange(length), wave).astype(np.float32)
    if layer.eq:
        size = fast_size(n)
        wave = np.fft.irfft(np.fft.rfft(wave, size) * curve(layer.eq, 0.0, size // 2 + 1), size)[:n]
    wave = wave * (10 ** (layer.level_db / 20) / max(rms(wave), 1e-9))
    return _course(wave, layer).astype(np.float32)


def _played(wave: np.ndarray, speed: float, n: int) -> np.ndarray:
    """A wave played `speed` times as fast, band-limited [n]: its spectrum is cut or filled up with zeros."""
    if speed == 1:
        return wave
    size = fast_size(wave.size)
    out = round(size / speed / 2) * 2
    spectrum = np.fft.rfft(wave, size)
    fitted = np.zeros(out // 2 + 1, dtype=spectrum.dtype)
    kept = min(fitted.size, spectrum.size)
    fitted[:kept] = spectrum[:kept]
    played = np.fft.irfft(fitted, out)[:n] * (out / size)
    return np.pad(played, (0, n - played.size)).astype(np.float32)


def _course(noise: np.ndarray, layer: Layer) -> np.ndarray:
    """Slow swells, and the times at which the noise is on."""
    time = np.arange(noise.size)
    if layer.swell:
        gains = 10 ** (np.array(layer.swell) / 20)
        noise = noise * np.interp(time, np.linspace(0, noise.size, gains.size), gains).astype(np.float32)
    if layer.bursts:
        knots = np.array([[a, a + 160, b, b + 160] for a, b in layer.bursts]).ravel()  # 10 ms ramps
        gains = np.tile([0.0, 1.0, 1.0, 0.0], len(layer.bursts))
        noise = noise * np.interp(time, knots, gains).astype(np.float32)
    return noise


def curve(gains_db: tuple[float, ...], lowpass_hz: float, bins: int) -> np.ndarray:
    """Gain of each bin [bins]: an equaliser (zero phase) and a band limit that falls to -60 dB in 600 Hz."""
    coarse = np.linspace(0, SAMPLE_RATE / 2, 513)
    decibels = np.zeros(513)
    if gains_db:
        decibels += np.interp(np.log(np.maximum(coarse, 1)), np.log(EQ_HZ), gains_db)
    if lowpass_hz:
        decibels -= 60 * np.clip((coarse - lowpass_hz) / 600, 0, 1)
    return np.interp(np.linspace(0, 512, bins), np.arange(513), 10 ** (decibels / 20)).astype(np.float32)


def _hall(corpus: Corpus, file: int) -> np.ndarray:
    """A recorded response from its direct sound (its peak, at most 50 ms in) on, with that peak at 1."""
    response = corpus.cache.read(file)[: 3 * SAMPLE_RATE]
    peak = int(np.argmax(np.abs(response[: SAMPLE_RATE // 20])))
    return response[peak:] / response[peak]


@lru_cache(maxsize=64)
def fast_size(size: int) -> int:
    """The next even size whose factors are 2, 3 and 5."""
    size += size % 2
    while 30**64 % size:  # has each of these factors more often than any size
        size += 2
    return size
