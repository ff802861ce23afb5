"""A whole signal: level and offset do not matter, no answer knows what comes later, rates and channels come back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import noisy, random_network

from dsn_lite.audio import resample
from dsn_lite.audio.offset import block_offset, blocked_hops
from dsn_lite.audio.spectral import frame_count, istft, stft
from dsn_lite.errors import InputError
from dsn_lite.network.enhance import BLOCK_FRAMES
from dsn_lite.network.macs import count


def si_sdr(wave: np.ndarray, clean: np.ndarray) -> float:
    wave, clean = wave - wave.mean(), clean - clean.mean()
    target = clean * (wave @ clean) / (clean @ clean)
    return 10 * np.log10((target @ target) / ((wave - target) @ (wave - target)))


@pytest.mark.parametrize("config", ["base", "odd widths"])
@pytest.mark.parametrize(("dbfs", "offset"), [(-60, 0.0), (-10, 0.0), (-60, 0.1), (-40, -0.03), (-10, 0.1)])
def test_level_and_offset_do_not_matter(config, dbfs, offset):
    network, wave = random_network(config), noisy(1.0)
    wave *= 10 ** (-30 / 20) / np.sqrt(np.mean(wave**2))
    scale = 10 ** ((dbfs + 30) / 20)
    expected = network.enhance(wave, 16_000)
    moved = network.enhance((scale * wave + offset).astype(np.float32), 16_000)
    difference = np.abs(moved.wave / scale - expected.wave).max() / np.abs(expected.wave).max()
    # What float32 keeps of a quiet signal beside an offset is its noise; below it nothing may be lost.
    assert difference < (1e-5 if not offset else 0.05 if dbfs == -60 else 1e-3)
    assert abs(si_sdr(moved.wave, wave) - si_sdr(expected.wave, wave)) < 0.5
    if not offset:
        assert np.array_equal(moved.gates, expected.gates)


def test_an_offset_is_blocked_and_little_else():
    t = np.arange(64 * 256) / 16_000
    tone = np.sin(2 * np.pi * 100 * t).astype(np.float32)
    blocked, _ = block_offset(tone.reshape(64, 256))
    assert np.abs(blocked[30:].ravel() - tone[30 * 256 :]).max() < 0.03  # 2 Hz beside 100: 1.1 degrees
    constant, mean = block_offset(np.full((3, 256), -0.7, np.float32))
    assert np.abs(constant).max() < 1e-7 and mean == pytest.approx(-0.7)
    step = np.repeat(np.float32([0, 1]), 128 * 256).reshape(256, 256)
    risen = block_offset(step)[0].ravel()
    # A one-pole high-pass at 2 Hz falls to 1 / e in 80 ms.
    assert risen[128 * 256 + round(16_000 / (4 * np.pi))] == pytest.approx(np.exp(-1), abs=1e-3)


def test_pieces_of_hops_are_the_whole():
    hops = (noisy(1.0)[: 60 * 256] + np.float32(0.2)).reshape(60, 256)
    whole, end = block_offset(hops)
    mean, parts = None, []
    for first in range(0, 60, 7):
        part, mean = block_offset(hops[first : first + 7], mean)
        parts.append(part)
    assert np.array_equal(np.concatenate(parts), whole) and mean == end
    assert np.abs(blocked_hops(hops.ravel()[:-100], 61)[:59] - whole[:59]).max() == 0


@pytest.mark.parametrize("policy", ["learned", "open", "closed"])
def test_no_answer_knows_what_comes_later(policy):
    network, wave = random_network("base"), noisy(1.0)
    other = wave.copy()
    cut = 9_000
    other[cut:] = noisy(1.0, seed=7)[cut:] * 3
    one, two = (network.enhance(each, 16_000, policy=policy) for each in (wave, other))
    # A frame answers for the hop before its last one: what lies a window before the change is settled.
    settled = cut // 256 * 256 - 256
    assert np.array_equal(one.wave[:settled], two.wave[:settled])
    assert not np.array_equal(one.wave[settled : settled + 1024], two.wave[settled : settled + 1024])
    assert np.array_equal(one.gates[: cut // 256], two.gates[: cut // 256])


def test_blocks_carry_the_state_over(monkeypatch):
    network, wave = random_network("three blocks"), noisy(2.0)
    whole = network.enhance(wave, 16_000)
    monkeypatch.setattr("dsn_lite.network.enhance.BLOCK_FRAMES", 11)
    pieces = network.enhance(wave, 16_000)
    assert BLOCK_FRAMES > 100 and np.array_equal(whole.gates, pieces.gates)
    assert np.abs(whole.wave - pieces.wave).max() < 1e-5 * np.abs(whole.wave).max()


def direct(network, wave: np.ndarray, gates: np.ndarray | None = None) -> np.ndarray:
    """The network between transform and inverse."""
    frames = frame_count(len(wave))
    with torch.no_grad():
        spectrum = stft(torch.from_numpy(blocked_hops(wave, frames).ravel()))[None, :frames]
        output = network(spectrum, None if gates is None else torch.from_numpy(gates[None]).float())
        return istft(output.spectrum[0], len(wave)).numpy()


def identity(config: str = "tiny"):
    """A network whose mask is exactly one."""
    network = random_network(config)
    mask = network.layers[-1].block
    with torch.no_grad():
        for part in (mask.static, mask.dynamic):
            part.weight.zero_()
            part.bias.zero_()
        mask.static.bias[0] = 1
    return network


NETWORK = random_network("tiny")


@pytest.mark.parametrize("samples", [1, 100, 256, 511, 512, 5000])
def test_it_is_the_network_between_transform_and_inverse(samples):
    wave = noisy(1.0)[:samples]
    result = NETWORK.enhance(wave, 16_000)
    assert np.abs(result.wave - direct(NETWORK, wave)).max() < 1e-6
    assert result.gates.shape == (frame_count(samples), 8) and result.gates.dtype == np.uint8


@given(
    rate=st.sampled_from([8000, 11_025, 16_000, 22_050, 44_100, 48_000]), channels=st.sampled_from([None, 1, 2, 8]),
    samples=st.integers(1, 3000),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_shape_kind_and_rate_come_back(rate, channels, samples):
    wave = np.resize(noisy(0.5), samples if channels is None else (channels, samples))
    result = NETWORK.enhance(wave, rate)
    lead, frames = () if channels is None else (channels,), frame_count(-(-samples * 16_000 // rate))
    assert isinstance(result.wave, np.ndarray) and result.wave.shape == wave.shape
    assert result.wave.dtype == np.float32 and np.isfinite(result.wave).all()
    assert result.gates.shape == (*lead, frames, 8) and result.frame_mmacs.shape == (*lead, frames)


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("seconds", [0.5, 1.03])
def test_nothing_is_shifted_at_other_rates(rate, seconds):
    t = np.arange(round(seconds * rate)) / rate
    wave = (0.3 * np.sin(2 * np.pi * 440 * t) * np.hanning(len(t))).astype(np.float32)
    assert np.abs(identity().enhance(wave, rate).wave - wave).max() < 5e-3  # 2 Hz are blocked: half a degree at 440


def test_what_lies_above_8_khz_is_lost_and_no_more():
    t = np.arange(24_000) / 48_000
    low, high = (0.3 * np.sin(2 * np.pi * hertz * t) * np.hanning(24_000) for hertz in (3000, 15_000))
    result = identity().enhance((low + high).astype(np.float32), 48_000)
    assert np.abs(result.wave - low).max() < 5e-3


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_kind_of_float_and_the_input_is_left_alone(dtype):
    wave = noisy(0.2).astype(dtype)
    before = wave.copy()
    expected = NETWORK.enhance(wave.astype(np.float32), 16_000).wave
    for layout in (wave, np.stack([wave, wave], axis=1)[:, 0], wave[::-1].copy()[::-1], wave.tolist()):
        assert np.array_equal(NETWORK.enhance(layout, 16_000).wave, expected)
    assert np.array_equal(wave, before)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
@pytest.mark.parametrize("shape", [(1,), (300,), (2, 5000)])
def test_silence_stays_silence(rate, shape):
    result = NETWORK.enhance(np.zeros(shape, np.float32), rate)
    assert result.wave.shape == shape and not result.wave.any()


@pytest.mark.parametrize("config", ["base, static", "base, static only"])
def test_a_network_without_gates(config):
    network = random_network(config)
    result = network.enhance(noisy(0.1), 16_000)
    assert result.gates.shape == (frame_count(1600), 0) and result.activation == 1.0
    assert result.mmacs_per_second == pytest.approx(count(network).open)
    with pytest.raises(InputError, match=r"no gates.*leave the budget out"):
        network.enhance(noisy(0.1), 16_000, budget=0.3)


@pytest.mark.parametrize(
    ("options", "value"), [({"budget": 0}, 0), ({"budget": 1.0}, 1), ({"policy": "open"}, 1), ({"policy": "closed"}, 0)]
)
def test_the_ends(options, value):
    wave, counted = noisy(0.3), count(NETWORK)
    result = NETWORK.enhance(wave, 16_000, **options)
    assert (result.gates == value).all() and result.activation == pytest.approx(value, abs=1e-9)
    assert result.mmacs_per_second == pytest.approx(counted.open if value else counted.closed)
    assert np.abs(result.wave - direct(NETWORK, wave, np.full((len(result.gates), 8), value))).max() < 1e-6


def test_given_gates_are_used_and_counted():
    wave, counted = noisy(0.2), count(NETWORK)
    gates = np.random.default_rng(1).integers(0, 2, (frame_count(3200), 8))
    for given_gates in (gates, gates.astype(bool), gates.astype(float), torch.from_numpy(gates)):
        result = NETWORK.enhance(wave, 16_000, policy=given_gates)
        assert np.array_equal(result.gates, gates)
        assert np.abs(result.wave - direct(NETWORK, wave, gates)).max() < 1e-6
        assert result.activation == pytest.approx((gates @ counted.gate_macs).mean() / counted.gate_macs.sum())
        assert np.allclose(result.frame_mmacs, counted.of_frames(gates))
        assert result.mmacs_per_second == pytest.approx(result.frame_mmacs.mean())


def test_a_larger_budget_opens_more():
    results = [NETWORK.enhance(noisy(1.0), 16_000, budget=budget) for budget in (0, 0.02, 0.2, 0.5, 0.8, 0.98, 1)]
    activations = [result.activation for result in results]
    assert activations == sorted(activations) and len(set(activations)) >= 4
    learned, counted = NETWORK.enhance(noisy(1.0), 16_000), count(NETWORK)
    assert 0 < learned.activation < 1 and len(np.unique(learned.frame_mmacs)) > 1
    assert counted.closed <= learned.frame_mmacs.min() and learned.frame_mmacs.max() <= counted.open + 1e-9


def test_margins_are_those_that_open_the_gates(monkeypatch):
    wave = noisy(1.0)
    margins = NETWORK.margins(wave)
    assert np.array_equal(margins > 0, NETWORK.enhance(wave, 16_000).gates)
    monkeypatch.setattr("dsn_lite.network.enhance.BLOCK_FRAMES", 11)
    assert np.abs(NETWORK.margins(wave) - margins).max() < 1e-4 * np.abs(margins).max()


def test_rates_channels_and_kinds():
    network, wave = random_network("tiny"), noisy(0.5)
    stereo = torch.from_numpy(np.stack([wave, wave[::-1].copy()]))
    result = network.enhance(stereo, 16_000)
    assert isinstance(result.wave, torch.Tensor) and result.wave.shape == stereo.shape
    assert result.gates.shape[0] == 2 and result.frame_mmacs.shape == result.gates.shape[:2]
    assert np.array_equal(result.wave[0].numpy(), network.enhance(wave, 16_000).wave)
    assert network.enhance(resample(wave, 16_000, 44_100), 44_100).wave.shape == (len(resample(wave, 16_000, 44_100)),)


def test_what_was_spent():
    network = random_network("tiny")
    for policy, activation in (("open", 1.0), ("closed", 0.0)):
        assert network.enhance(noisy(0.3), 16_000, policy=policy).activation == activation
    result = network.enhance(noisy(1.0), 16_000)
    assert 0 < result.activation < 1 and result.mmacs_per_second == pytest.approx(result.frame_mmacs.mean())
    assert random_network("base, static").enhance(noisy(0.3), 16_000).activation == 1.0


BAD = [
    (np.zeros(0, np.float32), {}, "no samples"),
    (np.zeros((2, 0), np.float32), {}, "no samples"),
    (np.zeros((0, 100), np.float32), {}, "no samples"),
    (np.array([0.0, np.nan, 0.1]), {}, "the signal holds NaN or infinite"),
    (np.array([[0.0, 0.1], [np.inf, 0.1]]), {}, "the signal holds NaN or infinite"),
    (np.array([1.0, 1e300]), {}, "the signal holds NaN or infinite"),
    (np.zeros((1, 2, 100), np.float32), {}, r"shape \(1, 2, 100\).*\[samples\] or \[channels, samples\]"),
    (np.float32(0.5), {}, "shape"),
    (np.zeros((16_000, 2), np.float32), {}, "transposed"),
    (np.zeros(100, np.int64), {}, r"int64.*floats within -1..1"),
    (np.zeros(100, complex), {}, "complex128"),
    (["a", "b"], {}, "floats"),
    (np.zeros(600, np.float32), {"sample_rate": 0}, "sample rate is 0"),
    (np.zeros(600, np.float32), {"sample_rate": -8000}, "sample rate is -8000"),
    (np.zeros(600, np.float32), {"sample_rate": np.nan}, "sample rate is nan"),
    (np.zeros(600, np.float32), {"policy": "sometimes"}, "'sometimes'; choose learned, open or closed"),
    (np.zeros(600, np.float32), {"policy": np.ones((4, 3))}, r"shape \(4, 3\); needed is \[frames, 8\]"),
    (np.zeros(600, np.float32), {"policy": np.ones((2, 8))}, "gates for 2 frames"),
    (np.zeros(600, np.float32), {"budget": 1.5}, "budget is 1.5"),
]


@pytest.mark.parametrize(("wave", "options", "words"), BAD)
def test_bad_input_gets_one_line(wave, options, words):
    options = dict(options)
    with pytest.raises(InputError, match=words) as error:
        NETWORK.enhance(wave, options.pop("sample_rate", 16_000), **options)
    assert "\n" not in str(error.value)
