"""Noises that nobody recorded: impacts, scrapes, motors, calls, textures and crackle, each clip of a kind of its own.

Recorded noise is scarce. These are no imitations of particular sounds; they are drawn over wide ranges, so that a network
meets clinks, rattles, sirens and gusts of a thousand makes and learns what is not speech rather than what was in its files.
Modal impacts after van den Doel and Pai (1998); everything else is shaped noise, sines and envelopes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dsn_lite.data.cache import SAMPLE_RATE

Rng = np.random.Generator


def synthetic(seed: int, n: int) -> np.ndarray:
    """A noise, float32 [n], of one or two of the six kinds; the same seed, the same noise.

    >>> wave = synthetic(3, 16000)
    >>> wave.shape, bool(np.isfinite(wave).all()), bool(np.array_equal(wave, synthetic(3, 16000)))
    ((16000,), True, True)
    """
    rng = np.random.default_rng(seed)
    wave = _scaled(KINDS[int(rng.integers(len(KINDS)))](rng, n))
    if rng.random() < 0.35:
        wave = wave + 10 ** (rng.uniform(-18, 0) / 20) * _scaled(KINDS[int(rng.integers(len(KINDS)))](rng, n))
    return wave.astype(np.float32)


def _impacts(rng: Rng, n: int) -> np.ndarray:
    """Things that knock against each other: sums of decaying sines, several bodies, in clusters or one by one."""
    wave = np.zeros(n + SAMPLE_RATE, np.float32)
    bodies = [_body(rng) for _ in range(int(rng.integers(1, 5)))]
    for at in _times(rng, n, 0.7, 14):
        body = bodies[int(rng.integers(len(bodies)))]
        wave[at : at + body.size] += np.float32(rng.lognormal(0, 0.8)) * body
    return wave[:n]


def _body(rng: Rng) -> np.ndarray:
    """What one knock sounds like: 2 to 12 modes and a click, at most a second."""
    longest = _log(rng, 0.015, 0.5)
    time = np.arange(int(min(4 * longest, 0.9) * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE
    modes = int(rng.integers(2, 13))
    hertz = np.exp(rng.uniform(np.log(150), np.log(7500), modes)).astype(np.float32)
    decay = longest * rng.uniform(0.15, 1, modes) * (400 / np.maximum(hertz, 400)) ** rng.uniform(0, 0.7)
    size = rng.lognormal(0, 0.7, modes) * (1000 / hertz) ** rng.uniform(0, 0.8)
    phases = 2 * np.pi * hertz[:, None] * time + rng.uniform(0, 6.3, (modes, 1)).astype(np.float32)
    fades = size[:, None].astype(np.float32) * np.exp(-time / decay[:, None].astype(np.float32))
    wave = (fades * np.sin(phases)).sum(0)
    click = np.exp(-time / _log(rng, 0.0005, 0.008)) * rng.standard_normal(time.size, np.float32)
    return (wave + rng.uniform(0, 2) * size.mean() * click).astype(np.float32)


def _scrapes(rng: Rng, n: int) -> np.ndarray:
    """Something is rubbed, poured, brushed: shaped noise in strokes of 30 ms to a second."""
    wave = np.zeros(n, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        envelope = np.zeros(n + 2 * SAMPLE_RATE, np.float32)
        rise, fall = _log(rng, 0.003, 0.3), _log(rng, 0.02, 0.7)
        time = np.arange(int(min(rise + 3 * fall, 1.9) * SAMPLE_RATE)) / SAMPLE_RATE
        stroke = (np.minimum(time / rise, 1) * np.exp(-np.maximum(time - rise, 0) / fall)).astype(np.float32)
        for at in _times(rng, n, 0.4, 8):
            envelope[at : at + stroke.size] += np.float32(rng.lognormal(0, 0.5)) * stroke
        wave += envelope[:n] * _shaped(rng, n, int(rng.integers(1, 4)))
    return wave


def _motor(rng: Rng, n: int) -> np.ndarray:
    """A machine: harmonics of a speed that wanders, louder and softer in every turn, and the air that it moves."""
    speed = _log(rng, 25, 450) * 2 ** (rng.uniform(0, 0.5) * _slow(rng, n, _log(rng, 0.1, 2)))
    phase = 2 * np.pi * np.cumsum(speed) / SAMPLE_RATE
    tilt, count = rng.uniform(0.3, 1.8), int(np.clip(7000 / speed.mean(), 2, 30))
    turn, k = np.arange(4096) * (2 * np.pi / 4096), np.arange(1, count)[:, None]
    sizes = k**-tilt * rng.lognormal(0, 0.8, k.shape)
    table = (sizes * np.sin(k * turn + rng.uniform(0, 6.3, k.shape))).sum(0)  # one turn
    wave = (table / max(table.std(), 1e-6))[(phase * (4096 / (2 * np.pi))).astype(int) % 4096]
    wave = wave * (1 + rng.uniform(0, 0.8) * np.sin(phase / int(rng.integers(1, 9))))
    return wave + rng.uniform(0.05, 1.5) * _shaped(rng, n, 2)


def _calls(rng: Rng, n: int) -> np.ndarray:
    """Beeps, sirens, birds, squeaks: gliding tones with a few harmonics, in a pattern that repeats."""
    wave = np.zeros(n + 3 * SAMPLE_RATE, np.float32)
    calls = []
    for _ in range(int(rng.integers(1, 4))):
        time = np.arange(int(_log(rng, 0.04, 1.2) * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE
        share = time / time[-1]
        octaves = rng.uniform(-1, 1) * share + rng.uniform(0, 0.3) * np.sin(2 * np.pi * _log(rng, 2, 40) * time)
        phase = 2 * np.pi * np.cumsum(_log(rng, 300, 5000) * 2**octaves) / SAMPLE_RATE
        tones = sum(rng.lognormal(-0.7 * k, 0.5) * np.sin((k + 1) * phase) for k in range(int(rng.integers(1, 6))))
        calls.append((tones * np.minimum(1, 40 * np.minimum(share, 1 - share))).astype(np.float32))
    for at in _times(rng, n, 0.5, 6):
        call = calls[int(rng.integers(len(calls)))]
        wave[at : at + call.size] += np.float32(rng.lognormal(0, 0.4)) * call
    return wave[:n]


def _texture(rng: Rng, n: int) -> np.ndarray:
    """Wind, waves, a road, applause: shaped noise whose parts come and go at their own pace."""
    wave = np.zeros(n)
    for _ in range(int(rng.integers(1, 4))):
        depth = rng.uniform(0, 1.2)
        wave += np.exp(depth * _slow(rng, n, _log(rng, 0.3, 25))) * _shaped(rng, n, int(rng.integers(1, 5)))
    return wave


def _crackle(rng: Rng, n: int) -> np.ndarray:
    """Drops, sparks, gravel: very many small impulses of very different sizes, through a short response."""
    count = max(int(n / SAMPLE_RATE * _log(rng, 20, 2500)), 1)
    train = np.zeros(n, np.float32)
    np.add.at(train, rng.integers(0, n, count), (rng.pareto(rng.uniform(1.2, 3), count) * rng.choice([-1, 1], count)))
    train = np.clip(train, -50, 50)
    spectrum = np.fft.rfft(train) * np.fft.rfft(_body(rng)[: int(_log(rng, 0.002, 0.1) * SAMPLE_RATE)], n)
    return np.fft.irfft(spectrum, n)


KINDS: tuple[Callable[[Rng, int], np.ndarray], ...] = (_impacts, _scrapes, _motor, _calls, _texture, _crackle)


def _log(rng: Rng, low: float, high: float) -> float:
    """A number between two, each octave alike."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _times(rng: Rng, n: int, fewest: float, most: float) -> list[int]:
    """Samples at which something happens, between `fewest` and `most` times a second; regular, or in clusters, or not."""
    gap = SAMPLE_RATE / _log(rng, fewest, most)
    spread, at, times = rng.choice([0.05, 0.4, 1.0]), int(rng.uniform(0, min(gap, n / 2))), []
    while at < n:
        times.append(at)
        at += max(int(gap * ((1 - spread) + spread * rng.exponential())), 160)
    return times


def _shaped(rng: Rng, n: int, peaks: int) -> np.ndarray:
    """Noise [n] of standard deviation 1 with a random slope and `peaks` bands that stand out."""
    octave = np.log2(np.maximum(np.fft.rfftfreq(n, 1 / SAMPLE_RATE), 40) / 1000).astype(np.float32)
    decibels = rng.uniform(-9, 2) * octave
    for _ in range(peaks):
        decibels += rng.uniform(0, 25) * np.exp(-(((octave - rng.uniform(-3.5, 3)) / rng.uniform(0.1, 1)) ** 2))
    spectrum = np.fft.rfft(rng.standard_normal(n, np.float32)) * (10 ** (decibels / 20)).astype(np.float32)
    wave = np.fft.irfft(spectrum, n)
    return wave / max(float(wave.std()), 1e-9)


def _slow(rng: Rng, n: int, hertz: float) -> np.ndarray:
    """A random curve [n] of standard deviation about 1 that turns about `hertz` times a second."""
    knots = rng.standard_normal(int(n / SAMPLE_RATE * hertz) + 3)
    return np.interp(np.arange(n) * (hertz / SAMPLE_RATE), np.arange(knots.size), knots)


def _scaled(wave: np.ndarray) -> np.ndarray:
    return wave / max(float(np.sqrt(np.mean(np.square(wave)))), 1e-9)
