"""Each noise has its length, its level, its seed, and sounds like its name."""

import numpy as np
import pytest

from dsn_lite.audio import noises
from dsn_lite.errors import InputError

ALL = pytest.mark.parametrize("name", noises.NAMES)
SEEDS = pytest.mark.parametrize("seed", [0, 1, 2, 3])


def rms(x):
    return np.sqrt(np.mean(np.square(x, dtype=np.float64)))


def spectrum(x, size=4096, rate=16000):
    """Mean power by frequency: (hertz [F], power [F])."""
    frames = x[: len(x) // size * size].reshape(-1, size) * np.hanning(size)
    return np.fft.rfftfreq(size, 1 / rate), (np.abs(np.fft.rfft(frames)) ** 2).mean(0)


def band_db(x, low, high, rate=16000):
    """Mean power density from `low` to `high` Hz, in dB."""
    hertz, power = spectrum(x, rate=rate)
    return 10 * np.log10(power[(hertz >= low) & (hertz < high)].mean())


def crest(x):
    return np.abs(x).max() / rms(x)


def envelope_db(x, seconds):
    size = round(seconds * 16000)
    frames = x[: len(x) // size * size].reshape(-1, size).astype(np.float64)
    return 10 * np.log10((frames**2).mean(1))


def test_names():
    assert noises.NAMES == ("hum", "fan", "rain", "traffic", "keyboard", "babble")


@ALL
@pytest.mark.parametrize(("seconds", "rate"), [(0.5, 8000), (3.00003, 16000), (1.0, 44100), (0.7, 48000)])
def test_length_and_level(name, seconds, rate):
    noise = noises.synthesise(name, seconds, 5, rate)
    assert noise.dtype == np.float32 and noise.shape == (round(seconds * rate),)
    assert rms(noise) == pytest.approx(0.05, rel=1e-3)
    assert np.abs(noise).max() <= 0.951


@ALL
@pytest.mark.parametrize("samples", [1, 2, 7, 160])
@SEEDS
def test_very_short_noises_have_the_level_too(name, samples, seed):
    noise = noises.synthesise(name, samples / 16000, seed)
    assert noise.shape == (samples,) and np.isfinite(noise).all()
    assert rms(noise) == pytest.approx(0.05, rel=1e-2)


@ALL
def test_same_seed_same_noise_and_other_seed_other_noise(name):
    first = noises.synthesise(name, 2, 7)
    np.random.seed(99)  # noqa: NPY002 - the global state of numpy has no part in it
    np.testing.assert_array_equal(first, noises.synthesise(name, 2, 7))
    other = noises.synthesise(name, 2, 8)
    assert abs(np.corrcoef(first, other)[0, 1]) < (0.9 if name == "hum" else 0.2)


def test_noises_of_one_seed_are_not_related():
    waves = [noises.synthesise(name, 2, 1) for name in noises.NAMES]
    together = np.corrcoef(waves) - np.eye(len(waves))
    assert np.abs(together).max() < 0.1


@SEEDS
def test_hum_has_peaks_at_multiples_of_50_hz(seed):
    hertz, power = spectrum(noises.synthesise("hum", 8, seed), size=32768)
    db = 10 * np.log10(power)
    for k in range(1, 9):
        peak = db[np.abs(hertz - 50 * k) < 3].max()
        between = np.median(db[np.abs(hertz - 50 * k - 25) < 8])
        assert peak - between > 30
    on_line = np.abs(hertz - 50 * np.round(hertz / 50)) < 4
    assert power[on_line].sum() / power.sum() > 0.97


@SEEDS
def test_fan_is_steady_and_dull(seed):
    noise = noises.synthesise("fan", 8, seed)
    assert crest(noise) < 6
    assert np.ptp(envelope_db(noise, 0.5)) < 2
    assert band_db(noise, 150, 600) - band_db(noise, 3000, 6000) > 10


@SEEDS
def test_rain_is_flat_and_crackles(seed):
    noise = noises.synthesise("rain", 8, seed)
    bands = [band_db(noise, low, low + 1000) for low in range(300, 7300, 1000)]
    assert np.ptp(bands) < 8
    assert np.mean((noise / rms(noise)) ** 4) > 5  # kurtosis; 3 is hiss without drops
    assert np.ptp(envelope_db(noise, 1.0)) < 4  # yet it is a shower, not single taps


@SEEDS
def test_traffic_swells_and_is_low(seed):
    noise = noises.synthesise("traffic", 20, seed)
    swell = envelope_db(noise, 0.5)
    assert np.ptp(swell) > 8
    assert np.abs(np.diff(swell)).max() < 9  # a car that is fast and near, but no jump
    assert band_db(noise, 50, 1500) - band_db(noise, 4000, 8000) > 20


@SEEDS
def test_a_short_stretch_of_road_has_a_car(seed):
    assert np.ptp(envelope_db(noises.synthesise("traffic", 4, seed), 0.25)) > 4


@SEEDS
def test_keyboard_is_impulsive(seed):
    noise = noises.synthesise("keyboard", 8, seed)
    assert crest(noise) > 10
    level = envelope_db(noise, 0.01)
    assert np.percentile(level, 98) - np.percentile(level, 20) > 20
    onsets = np.flatnonzero((level[1:] > -26) & (level[1:] - level[:-1] > 10))
    assert 2 < len(onsets) / 8 < 20  # keys a second
    assert envelope_db(noise, 0.1)[0] > -35  # the first key falls at once


@SEEDS
def test_babble_has_the_spectrum_and_rhythm_of_many_voices(seed):
    noise = noises.synthesise("babble", 8, seed)
    assert band_db(noise, 150, 800) - band_db(noise, 4000, 7000) > 10
    level = envelope_db(noise, 0.03)
    assert 1 < np.std(level) < 5  # one voice has about 15, hiss about 0.3
    assert envelope_db(noise, 0.5).min() > -34  # nobody waits for the others to finish


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("drizzle", 1, 0), r"'drizzle'.*hum, fan, rain, traffic, keyboard, babble"),
        (("rain", 0, 0), "no samples"),
        (("rain", -1, 0), "no samples"),
        (("rain", 1, -3), r"seed.*-3"),
        (("rain", 1, 0, 4000), "8000 Hz or more, not 4000"),
    ],
)
def test_what_cannot_be_made_is_named(arguments, words):
    with pytest.raises(InputError, match=words):
        noises.synthesise(*arguments)
