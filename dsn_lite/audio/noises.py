"""Six everyday noises, synthesised from a seed with numpy alone.

No recording is needed (babble is made of the clips that ship). They stand for kinds of noise: `hum` is
stationary and narrow, `fan` stationary and wide, `rain` is wide and made of drops, `traffic` comes and goes,
`keyboard` is almost nothing but clicks, and `babble` has the spectrum of speech. They serve tests, demonstrations
and first experiments; for training, recorded noise is better.

Below, `n` is a number of samples, `rate` a sampling rate in Hz.
"""

import zlib
from collections.abc import Callable

import numpy as np

from dsn_lite.audio import clips
from dsn_lite.audio.checks import as_rate
from dsn_lite.audio.resampling import resample
from dsn_lite.errors import InputError

RMS = 0.05  # of every noise, -26 dB relative to full scale
PEAK = 0.95  # louder clicks are pressed below this
_CLIP_RATE = 16000


def synthesise(name: str, seconds: float, seed: int, sample_rate: int = 16000) -> np.ndarray:
    """Make a noise.

    Parameters
    ----------
    name : str
        One of :data:`NAMES`.
    seconds : float
        Length; rounded to whole samples.
    seed : int
        0 or more. Same name, length, seed and rate: same noise. Another seed: another fan, another shower.
    sample_rate : int
        In Hz, 8000 or more.

    Returns
    -------
    float32 array [samples]
        Root mean square 0.05, within -0.95 to 0.95.

    Examples
    --------
    >>> noise = synthesise("rain", 2.0, seed=1)
    >>> noise.shape, round(float(np.sqrt(np.mean(noise**2))), 4)
    ((32000,), 0.05)
    """
    if name not in _MAKERS:
        raise InputError(f"there is no noise {name!r}; take one of {', '.join(NAMES)}")
    sample_rate = as_rate(sample_rate)
    if sample_rate < 8000:
        raise InputError(f"noises need 8000 Hz or more, not {sample_rate}; resample afterwards")
    if seed < 0:
        raise InputError(f"the seed of a noise is 0 or more, not {seed}")
    samples = round(seconds * sample_rate)
    if samples < 1:
        raise InputError(f"{seconds} s of {name} are no samples at {sample_rate} Hz; ask for more")
    # The name takes part, so that hum and fan of one seed have nothing in common. PCG64 is named because
    # `default_rng` may become another generator in a later numpy.
    rng = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    longer = max(samples, sample_rate // 10)  # less than this has no spectrum to shape
    return _level(_MAKERS[name](rng, longer, sample_rate)[:samples]).astype(np.float32)


# ------------------------------------------------------------------------------------------------------------- noises
def _hum(rng: np.random.Generator, n: int, rate: int) -> np.ndarray:
    """Mains hum of a loose transformer: multiples of 50 Hz, the even ones louder, the mains a little unsteady."""
    mains = 50 + 0.02 * _wander(rng, n, rate, 0.2)
    phase = 2 * np.pi * np.cumsum(mains) / rate
    out = np.zeros(n)
    for k in range(1, 41):
        # A transformer's core pulls twice a period: 100 Hz and its multiples lead.
        amplitude = (1.0 if k % 2 == 0 else 0.35) * k**-0.9 * rng.uniform(0.5, 1.5)
        out += amplitude * np.sin(k * phase + rng.uniform(0, 2 * np.pi))
    out *= 1 + 0.06 * _wander(rng, n, rate, 1.0)
    hiss = _shaped(rng, n, rate, lambda f: 1 / (1 + f / 1500))
    return out / _rms(out) + 0.03 * hiss


def _fan(rng: np.random.Generator, n: int, rate: int) -> np.ndarray:
    """A fan: rushing air, blades that pass an obstacle, a motor far behind."""
    blades = int(rng.integers(3, 8))
    turns = rng.uniform(14, 24) * (1 + 0.004 * _wander(rng, n, rate, 0.3))  # a second
    angle = 2 * np.pi * np.cumsum(turns) / rate
    # Air: rising to 150 Hz, then falling by about 5 dB an octave, with two broad resonances of the housing.
    bumps = [(rng.uniform(250, 500), 0.5), (rng.uniform(800, 1600), 0.35)]
    housing = lambda f: 1 + sum(1.2 * _bump(f, at, width) for at, width in bumps)
    air = _shaped(rng, n, rate, lambda f: (f / 150) / (1 + (f / 150) ** 1.85) * housing(f))
    air *= 1 + 0.10 * np.sin(angle) + 0.06 * np.sin(blades * angle + 1.0)  # one blade is bent
    tone = sum(0.55**k * np.sin(k * blades * angle + rng.uniform(0, 2 * np.pi)) for k in range(1, 6))
    whine = np.sin(12 * blades * angle) * (1 + 0.3 * _wander(rng, n, rate, 2.0))
    return air + 0.35 * tone + 0.03 * whine


def _rain(rng: np.random.Generator, n: int, rate: int) -> np.ndarray:
    """Rain on leaves and a sill: a wash of far drops, almost flat, and near ones that can be told apart."""
    wash = _shaped(rng, n, rate, lambda f: (f > 60) / (1 + f / 9000) * (1 + 0.4 * _bump(f, 3500, 0.8)))
    wash *= 1 + 0.08 * _wander(rng, n, rate, 1.5)
    out = 0.65 * wash
    # Near drops: how loud is a matter of distance, so a few are far above the rest (a Pareto law, cut off).
    drops = np.zeros(n)
    for a_second, low, high, decay in ((70, 3000, 7500, 0.0012), (35, 1200, 4000, 0.003), (9, 500, 1600, 0.008)):
        count = rng.poisson(a_second * n / rate)
        train = np.zeros(n)
        loudness = np.minimum(0.3 + rng.pareto(1.8, count), 4.0)
        np.add.at(train, rng.integers(0, n, count), loudness * rng.choice([-1.0, 1.0], count))
        # Eight kinds of drop, so that no two neighbours need be copies of each other.
        owner = rng.integers(0, 8, n)
        for kind in range(8):
            t = np.arange(round(8 * decay * rate)) / rate
            ring = np.sin(2 * np.pi * rng.uniform(low, high) * t * (1 + 4 * t))  # a bubble rises in pitch
            splash = rng.standard_normal(t.size)
            drops += _convolve(np.where(owner == kind, train, 0), (ring + 0.7 * splash) * np.exp(-t / decay))
    return out + 0.55 * drops / max(_rms(drops), 1e-9)


def _traffic(rng: np.random.Generator, n: int, rate: int) -> np.ndarray:
    """A road: the murmur of a town, and a car every few seconds that swells, passes and fades."""
    town = _shaped(rng, n, rate, lambda f: (f > 25) / (1 + (f / 90) ** 1.6))
    out = 0.22 * town * (1 + 0.15 * _wander(rng, n, rate, 0.4))
    # The first car is there early, so that a short stretch of road has one as well; later ones at their own times.
    at, end = rng.uniform(0.3, 0.7) * min(3.0, n / rate), n / rate + 4
    while at < end:
        speed, distance = rng.uniform(9, 18), rng.uniform(5, 12)  # m/s, m
        _add(out, at - _CAR_HEARD, rng.uniform(0.6, 1.3) * _car(rng, rate, speed, distance), rate)
        at += 1.2 + rng.exponential(2.8)
    return out


_CAR_HEARD = 10.0  # seconds before and after a car is nearest


def _car(rng: np.random.Generator, rate: int, speed: float, distance: float) -> np.ndarray:
    """One car, nearest in the middle of its 20 s, at a speed (m/s) on a line that lies `distance` (m) away."""
    t = np.arange(round(-_CAR_HEARD * rate), round(_CAR_HEARD * rate)) / rate
    reach = np.sqrt(distance**2 + (speed * t) ** 2)
    # A little steeper than 1/r, because the far road is screened; the second factor reaches zero at both ends.
    swell = (distance / reach) ** 1.5 * (1 - (t / _CAR_HEARD) ** 2)
    tyres = _shaped(rng, t.size, rate, lambda f: (f > 40) * (_bump(f, 900, 0.9) + 0.25 / (1 + (f / 250) ** 1.5)))
    body = _shaped(rng, t.size, rate, lambda f: (f > 30) / (1 + (f / 120) ** 2))
    doppler = 343 / (343 + speed**2 * t / reach)
    phase = 2 * np.pi * np.cumsum(rng.uniform(32, 60) * doppler) / rate
    engine = sum(k**-1.1 * np.sin(k * phase + rng.uniform(0, 2 * np.pi)) for k in range(1, 9))
    # High frequencies fade first with distance, so what is far sounds dull.
    return 0.9 * swell**1.3 * tyres + swell * (0.45 * body + 0.2 * engine)


def _keyboard(rng: np.random.Generator, n: int, rate: int) -> np.ndarray:
    """Somebody types words on a mechanical keyboard in a quiet room; the first key falls at once."""
    room = _shaped(rng, n, rate, lambda f: (f > 40) / (1 + (f / 300) ** 1.2))
    out = 0.02 * room
    # Every key has a sound of its own: where the cap rings, where the desk does.
    keys = [(rng.uniform(1800, 4200), rng.uniform(140, 260)) for _ in range(12)]
    space = (rng.uniform(900, 1400), rng.uniform(90, 130))
    at, left = 0.02, int(rng.integers(3, 8))
    while at * rate < n:
        cap, desk = space if left == 0 else keys[rng.integers(len(keys))]
        force = rng.uniform(0.7, 1.15)
        _add(out, at, force * _key(rng, rate, cap, desk), rate)
        _add(out, at + rng.uniform(0.06, 0.11), 0.4 * force * _key(rng, rate, 1.25 * cap, 1.3 * desk), rate)
        at += rng.lognormal(np.log(0.135), 0.25)
        if left == 0:
            left = int(rng.integers(2, 9))
            at += rng.exponential(0.35) if rng.random() < 0.3 else 0.05  # a moment to think
        else:
            left -= 1
    return out


def _key(rng: np.random.Generator, rate: int, cap: float, desk: float) -> np.ndarray:
    """A key that hits the bottom: a click of the cap at `cap` Hz, then a thump of the desk at `desk` Hz."""
    t = np.arange(round(0.06 * rate)) / rate
    late = np.maximum(t - 0.003, 0)
    click = (np.sin(2 * np.pi * cap * t) + 1.2 * rng.standard_normal(t.size)) * np.exp(-t / 0.0045)
    rattle = 0.25 * rng.standard_normal(t.size) * np.exp(-late / 0.014) * (late > 0)
    thump = 0.6 * np.sin(2 * np.pi * desk * late) * np.exp(-late / 0.018)
    return click + rattle + thump


def _babble(rng: np.random.Generator, n: int, rate: int) -> np.ndarray:
    """A full room: eight people, each saying the clips in an order of their own, with some echo."""
    samples = -(-n * _CLIP_RATE // rate)
    sentences = [np.trim_zeros(clips.load(name)) for name in clips.names()]
    direct, far = np.zeros(samples), np.zeros(samples)
    for _ in range(8):
        order: list[int] = []
        at = -int(rng.integers(0, 3 * _CLIP_RATE))  # everybody is in the middle of something
        voice = np.zeros(samples)
        while at < samples:
            order = order or list(rng.permutation(len(sentences)))
            sentence = sentences[order.pop()]
            begin, end = max(at, 0), min(at + len(sentence), samples)
            if begin < end:
                voice[begin:end] += sentence[begin - at : end - at]
            at += len(sentence) + int(rng.uniform(0.05, 0.5) * _CLIP_RATE)
        near = rng.uniform(0.4, 1.0)
        direct += near * voice
        far += voice
    # The echo of a room of about 0.4 s: noise that dies away, duller than what came straight.
    t = np.arange(round(0.4 * _CLIP_RATE)) / _CLIP_RATE
    tail = rng.standard_normal(t.size) * 10 ** (-3 * t / 0.4)
    tail = np.convolve(tail, [0.25, 0.5, 0.25], mode="same")
    echo = _convolve(far, tail / np.sqrt(np.sum(tail**2)))
    return resample(direct + 0.5 * echo, _CLIP_RATE, rate)[:n].astype(np.float64)


_MAKERS = {"hum": _hum, "fan": _fan, "rain": _rain, "traffic": _traffic, "keyboard": _keyboard, "babble": _babble}
NAMES = tuple(_MAKERS)


# -------------------------------------------------------------------------------------------------------------- tools
def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def _level(x: np.ndarray) -> np.ndarray:
    """Set the level; where that takes a click beyond PEAK, bend the wave smoothly (tanh) and set it again."""
    x = x - x.mean() if x.size > 1 else x
    power = _rms(x)
    if power == 0:  # a single sample, or the gap between two sentences
        return np.full(x.size, RMS) * (-1.0) ** np.arange(x.size)
    x = x * (RMS / power)
    for _ in range(50):
        if np.abs(x).max() <= PEAK:
            break
        x = PEAK * np.tanh(x / PEAK)
        x *= RMS / _rms(x)
    return x


def _shaped(rng: np.random.Generator, n: int, rate: int, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Gaussian noise [n] of RMS 1 whose amplitude spectrum follows `gain(frequency in Hz)`."""
    size = _fast_size(n)
    spectrum = np.fft.rfft(rng.standard_normal(size))
    noise = np.fft.irfft(spectrum * gain(np.fft.rfftfreq(size, 1 / rate)), size)[:n]
    return noise / _rms(noise)


def _bump(f: np.ndarray, centre: float, octaves: float) -> np.ndarray:
    """A bell over the logarithm of the frequency, 1 at `centre` Hz, `octaves` wide (one standard deviation)."""
    return np.exp(-0.5 * (np.log2(np.maximum(f, 1.0) / centre) / octaves) ** 2)


def _wander(rng: np.random.Generator, n: int, rate: int, hertz: float) -> np.ndarray:
    """A smooth random curve [n] of variance about 1 that changes its mind about `hertz` times a second."""
    knots = rng.standard_normal(int(np.ceil(n / rate * hertz)) + 4)
    x = np.arange(n) / rate * hertz
    k, u = x.astype(int), x % 1
    u = u * u * (3 - 2 * u)
    return (1 - u) * knots[k] + u * knots[k + 1]


def _convolve(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """x [n] filtered by a kernel, cut to n samples."""
    size = _fast_size(x.size + kernel.size - 1)
    return np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(kernel, size), size)[: x.size]


def _add(x: np.ndarray, at: float, sound: np.ndarray, rate: int) -> None:
    """Add a sound to x [n] in place, `at` seconds from the start; what lies outside of x is lost."""
    start = round(at * rate)
    sound, start = sound[max(0, -start) :], max(0, start)
    piece = sound[: max(0, x.size - start)]
    x[start : start + piece.size] += piece


def _fast_size(n: int) -> int:
    """The next length of the form m * 2**k with m from 5 to 8: quick to transform, never much longer."""
    unit = 1 << max(0, (n - 1).bit_length() - 3)
    return -(-n // unit) * unit
