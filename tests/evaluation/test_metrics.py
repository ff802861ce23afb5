"""Metrics: equal to the packages they wrap, right on hand-made cases, honest where there is nothing to say."""

import sys
import warnings

import numpy as np
import pytest

from dsn_lite.audio import clips
from dsn_lite.errors import InputError
from dsn_lite.evaluation import dnsmos, metrics

pytest.importorskip("pesq")
pytest.importorskip("speechmos")

CLEAN = clips.load(clips.names()[0])[: 3 * 16000]
NOISE = np.random.default_rng(0).standard_normal(20 * 16000).astype(np.float32)


def noisy(level: float) -> np.ndarray:
    return CLEAN + level * NOISE[: len(CLEAN)]


# ------------------------------------------------------------------------------ PESQ, STOI
def test_pesq_is_the_package_and_falls_with_noise():
    from pesq import pesq

    assert metrics.pesq_wb(CLEAN, noisy(0.01)) == pesq(16000, CLEAN, noisy(0.01), "wb")
    assert metrics.pesq_wb(CLEAN, CLEAN) > 4.6
    assert metrics.pesq_wb(CLEAN, noisy(0.003)) > metrics.pesq_wb(CLEAN, noisy(0.03)) > 1


def test_stoi_is_the_package_and_falls_with_noise():
    from pystoi import stoi

    assert metrics.stoi(CLEAN, noisy(0.01)) == pytest.approx(stoi(CLEAN, noisy(0.01), 16000), abs=1e-9)
    extended = stoi(CLEAN, noisy(0.01), 16000, extended=True)
    assert metrics.stoi(CLEAN, noisy(0.01), extended=True) == pytest.approx(extended, abs=1e-6)
    assert extended < metrics.stoi(CLEAN, noisy(0.01)) < metrics.stoi(CLEAN, noisy(0.001))


def test_silence_and_snippets_have_no_score():
    silence = np.zeros_like(CLEAN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(metrics.pesq_wb(silence, CLEAN)) and np.isnan(metrics.pesq_wb(CLEAN, silence))
        assert np.isnan(metrics.stoi(silence, CLEAN)) and np.isnan(metrics.si_sdr(silence, CLEAN))
        for length in (1, 100, 2000):
            snippet = CLEAN[8000 : 8000 + length]
            assert np.isnan(metrics.pesq_wb(snippet, snippet)) and np.isnan(metrics.stoi(snippet, snippet))
    assert metrics.stoi(CLEAN, silence) < 0.1  # a silent output is a bad output
    # Against a silent output ESTOI is the correlation with the package's random dither: the same each time here.
    assert metrics.stoi(CLEAN, silence, extended=True) == metrics.stoi(CLEAN, silence, extended=True)


def test_long_files_are_scored_in_pieces():
    # 67 utterances in 30 s end the process inside the package's C code when given at once.
    time = np.arange(30 * 16000) / 16000
    bursts = 0.1 * np.resize(NOISE, len(time)) * (time % 0.45 < 0.22)
    disturbed = bursts + 0.01 * np.resize(NOISE[::-1], len(time))
    halves = [
        metrics.pesq_wb(bursts[half], disturbed[half]) for half in (slice(0, 240000), slice(240000, None))
    ]
    assert metrics.pesq_wb(bursts, disturbed) == pytest.approx(np.mean(halves))
    long = np.tile(CLEAN, 22)
    assert metrics.stoi(long, long + 0.01 * np.resize(NOISE, len(long))) == pytest.approx(
        metrics.stoi(CLEAN, noisy(0.01)), abs=0.02
    )


# ------------------------------------------------------------------------------ SI-SDR
def test_si_sdr_by_hand():
    error = NOISE[: len(CLEAN)] - NOISE[: len(CLEAN)].mean()
    clean = CLEAN - CLEAN.mean()
    error = error - (error @ clean) / (clean @ clean) * clean
    error *= np.sqrt((clean @ clean) / (error @ error))
    for db in (-5, 0, 20):
        assert metrics.si_sdr(CLEAN, CLEAN + 10 ** (-db / 20) * error) == pytest.approx(db, abs=1e-2)
    assert metrics.si_sdr(CLEAN, 0.1 * noisy(0.01) + 0.3) == pytest.approx(
        metrics.si_sdr(CLEAN, noisy(0.01)), abs=1e-3
    )
    assert metrics.si_sdr(CLEAN, CLEAN) == 100 and metrics.si_sdr(CLEAN, np.zeros_like(CLEAN)) == -100


# ------------------------------------------------------------------------------ DNSMOS
@pytest.mark.parametrize("seconds", [1.3, 4.0, 5.3, 9.01, 10.2])
def test_dnsmos_is_the_package(seconds):
    from speechmos import dnsmos as package

    wave = np.resize(noisy(0.005), int(seconds * 16000)).astype(np.float32)
    expected = package.run(wave, 16000)
    scores = dnsmos.score(wave)
    for key in ("sig", "bak", "ovrl"):
        assert scores[key] == pytest.approx([expected[f"{key}_mos"]], abs=1e-3), key


def test_dnsmos_takes_one_wave_an_array_or_a_list():
    one = dnsmos.score(CLEAN)["ovrl"]
    assert one.shape == (1,) and 2 < one[0] < 5
    assert dnsmos.score(np.stack([CLEAN, noisy(0.05)]))["ovrl"][0] == one[0]
    listed = dnsmos.score([noisy(0.05)[:20000], CLEAN])
    assert set(listed) == {"sig", "bak", "ovrl"} and listed["ovrl"][1] == one[0] > listed["ovrl"][0]


def test_dnsmos_level():
    loud = np.resize(noisy(0.01), 5 * 16000) / np.abs(noisy(0.01)).max()
    assert dnsmos.score(3 * loud)["ovrl"] == dnsmos.score(np.clip(3 * loud, -1, 1))["ovrl"]
    at_level = [dnsmos.score(dnsmos.to_level(wave))["ovrl"][0] for wave in (loud, 0.01 * loud)]
    assert at_level[0] == pytest.approx(at_level[1], abs=1e-3)


def test_ovrl_label():
    wave = np.resize(noisy(0.01), 5 * 16000)
    label = dnsmos.ovrl_label(wave)
    assert isinstance(label, float)
    assert label == pytest.approx(
        dnsmos.score(dnsmos.to_level(wave))["ovrl"][0], abs=1e-6
    )  # 5 s are one window
    assert label == pytest.approx(dnsmos.ovrl_label(0.02 * wave), abs=1e-3)
    assert label < dnsmos.ovrl_label(np.resize(CLEAN, 5 * 16000))
    with pytest.raises(InputError, match="4 s or more"):
        dnsmos.ovrl_label(wave[: 4 * 16000 - 1])
    with pytest.raises(InputError, match="silence"):
        dnsmos.ovrl_label(np.zeros(4 * 16000))
    with pytest.raises(InputError, match="NaN"):
        dnsmos.ovrl_label(np.full(4 * 16000, np.nan))


# ------------------------------------------------------------------------------ bad input
@pytest.mark.parametrize("metric", [metrics.pesq_wb, metrics.stoi, metrics.si_sdr])
def test_bad_waves_are_refused(metric):
    with pytest.raises(InputError, match="one length"):
        metric(CLEAN, CLEAN[1:])
    with pytest.raises(InputError, match="one length"):
        metric(CLEAN[None], CLEAN[None])
    with pytest.raises(InputError, match="NaN"):
        metric(CLEAN, np.where(np.arange(len(CLEAN)) == 5, np.inf, CLEAN))


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("pesq", lambda: metrics.pesq_wb(CLEAN, CLEAN)),
        ("pystoi", lambda: metrics.stoi(CLEAN, CLEAN)),
        ("speechmos", lambda: dnsmos.score(CLEAN)),
        ("onnxruntime", lambda: dnsmos.ovrl_label(np.resize(CLEAN, 64000))),
        ("pesq", metrics.require_packages),
    ],
)
def test_a_missing_package_names_the_cure(monkeypatch, package, call):
    monkeypatch.setitem(sys.modules, package, None)
    dnsmos._session.cache_clear()
    with pytest.raises(InputError, match=rf'{package}.*pip install "dsn-lite\[evaluate\]"') as caught:
        call()
    assert "\n" not in str(caught.value)
