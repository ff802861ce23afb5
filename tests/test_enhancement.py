"""A whole signal: any rate, channels, kinds of arrays; what is refused; what is reported."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsn_lite.audio.spectral import frame_count, istft, stft
from dsn_lite.config import Config
from dsn_lite.errors import InputError
from dsn_lite.macs import count
from dsn_lite.model import GATES, Network

TINY = Config.preset("tiny")
K = len(GATES)


def network(config=TINY, seed=0):
    """A network with a mask that is not one, and a policy that opens and closes."""
    torch.manual_seed(seed)
    made = Network(config).eval()
    with torch.no_grad():
        torch.nn.init.normal_(made.decoder_1.conv.weight, std=0.2)
        if config.parts == "gated":
            torch.nn.init.normal_(made.policy.logits.weight, std=4)
    return made


def identity(config=TINY):
    """A network whose mask is exactly one."""
    made = network(config)
    with torch.no_grad():
        made.decoder_1.conv.weight.zero_()
    return made


def noise(*shape, seed=0):
    generator = np.random.default_rng(seed)
    level = (
        10 ** generator.uniform(-1.5, 0, (*shape[:-1], shape[-1] // 1000 + 1)).repeat(1000, axis=-1)[..., : shape[-1]]
    )
    return (0.3 * level * generator.standard_normal(shape)).astype(np.float32)


MODEL = network()


def direct(made, wave, gates=None):
    with torch.no_grad():
        output = made(stft(torch.from_numpy(wave)[None]), gates)
        return istft(output.spectrum, len(wave))[0].numpy(), output.gates[0].numpy()


@pytest.mark.parametrize("samples", [1, 100, 256, 511, 512, 4000, 5000])
def test_it_is_the_network_between_transform_and_inverse(samples):
    wave = noise(samples)
    result = MODEL.enhance(wave, 16_000)
    expected, gates = direct(MODEL, wave)
    np.testing.assert_allclose(result.wave, expected, rtol=0, atol=1e-5)
    assert np.array_equal(result.gates, gates) and result.gates.shape == (frame_count(samples), K)


@given(
    rate=st.sampled_from([8000, 11_025, 16_000, 22_050, 44_100, 48_000]),
    channels=st.sampled_from([None, 1, 2, 8]),
    samples=st.integers(1, 3000),
)
@settings(max_examples=25, deadline=None)
def test_shape_kind_and_rate_come_back(rate, channels, samples):
    wave = noise(samples) if channels is None else noise(channels, samples)
    result = MODEL.enhance(wave, rate)
    frames = frame_count(math.ceil(samples * 16_000 / rate))
    lead = () if channels is None else (channels,)
    assert isinstance(result.wave, np.ndarray) and result.wave.shape == wave.shape
    assert result.wave.dtype == np.float32 and np.isfinite(result.wave).all()
    assert result.gates.shape == (*lead, frames, K) and result.gates.dtype == np.uint8
    assert result.frame_mmacs.shape == (*lead, frames)


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("seconds", [0.5, 1.03])
def test_nothing_is_shifted_at_other_rates(rate, seconds):
    t = np.arange(round(seconds * rate)) / rate
    wave = (0.3 * np.sin(2 * np.pi * 440 * t) * np.hanning(len(t))).astype(np.float32)
    result = identity().enhance(wave, rate)
    np.testing.assert_allclose(result.wave, wave, rtol=0, atol=2e-3)


def test_what_lies_above_8_khz_is_lost_and_no_more():
    t = np.arange(24_000) / 48_000
    low, high = (0.3 * np.sin(2 * np.pi * hertz * t) * np.hanning(24_000) for hertz in (3000, 15_000))
    result = identity().enhance((low + high).astype(np.float32), 48_000)
    np.testing.assert_allclose(result.wave, low, rtol=0, atol=5e-3)


def test_channels_are_enhanced_one_by_one():
    wave = noise(3, 4000)
    together = MODEL.enhance(wave, 16_000)
    for i in range(3):
        alone = MODEL.enhance(wave[i], 16_000)
        np.testing.assert_allclose(together.wave[i], alone.wave, rtol=0, atol=1e-6)
        assert np.array_equal(together.gates[i], alone.gates)
        assert np.array_equal(together.frame_mmacs[i], alone.frame_mmacs)
    one = MODEL.enhance(wave[:1], 16_000)
    assert one.wave.shape == (1, 4000) and one.gates.shape == (1, 17, K)


def test_tensors_come_back_as_tensors():
    wave = noise(2, 2000)
    result = MODEL.enhance(torch.from_numpy(wave).requires_grad_(), 16_000)
    assert isinstance(result.wave, torch.Tensor) and result.wave.dtype == torch.float32
    assert np.array_equal(result.wave.numpy(), MODEL.enhance(wave, 16_000).wave)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_kind_of_float(dtype):
    wave = noise(2000).astype(dtype)
    expected = MODEL.enhance(wave.astype(np.float32), 16_000).wave
    for layout in (wave, np.stack([wave, wave], axis=1)[:, 0], wave[::-1].copy()[::-1], wave.tolist()):
        assert np.array_equal(MODEL.enhance(layout, 16_000).wave, expected)


def test_the_input_is_left_alone():
    wave = noise(2000)
    before = wave.copy()
    MODEL.enhance(wave, 16_000)
    assert np.array_equal(wave, before)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
@pytest.mark.parametrize("shape", [(1,), (300,), (5000,), (2, 5000)])
def test_silence_stays_silence(rate, shape):
    result = MODEL.enhance(np.zeros(shape, np.float32), rate)
    assert result.wave.shape == shape and not result.wave.any()


@pytest.mark.parametrize("config", [TINY.static(), TINY.static_only()], ids=lambda config: config.parts)
def test_a_static_network(config):
    result = network(config).enhance(noise(2000), 16_000)
    assert result.gates.shape == (9, 0) and result.activation == 1.0
    assert result.mmacs_per_second == pytest.approx(count(config).open)
    with pytest.raises(InputError, match="no gates.*leave the budget out"):
        network(config).enhance(noise(2000), 16_000, budget=0.3)


# ---- gates and what they cost


@pytest.mark.parametrize(("options", "value"), [
    ({"budget": 0}, 0), ({"budget": 1.0}, 1), ({"policy": "open"}, 1), ({"policy": "closed"}, 0),
])  # fmt: skip
def test_the_ends(options, value):
    result, counted = MODEL.enhance(noise(3000), 16_000, **options), count(TINY)
    assert (result.gates == value).all() and result.activation == pytest.approx(value, abs=1e-9)
    assert result.mmacs_per_second == pytest.approx(counted.open if value else counted.closed)
    np.testing.assert_allclose(
        result.wave, direct(MODEL, noise(3000), torch.full((1, 13, K), float(value)))[0], atol=1e-5
    )


def test_given_gates_are_used_and_counted():
    wave, counted = noise(3000), count(TINY)
    gates = np.random.default_rng(1).integers(0, 2, (13, K))
    for given_gates in (gates, gates.astype(bool), gates.astype(float), torch.from_numpy(gates)):
        result = MODEL.enhance(wave, 16_000, policy=given_gates)
        assert np.array_equal(result.gates, gates)
        np.testing.assert_allclose(
            result.wave, direct(MODEL, wave, torch.from_numpy(gates)[None].float())[0], atol=1e-5
        )
        assert result.activation == pytest.approx((gates * counted.gate_macs).sum() / counted.gate_macs.sum() / 13)
        expected = counted.closed + gates @ counted.gate_macs * 62.5 / 1e6
        np.testing.assert_allclose(result.frame_mmacs, expected)
        assert result.mmacs_per_second == pytest.approx(expected.mean())


def test_a_larger_budget_opens_more():
    wave = noise(16_000)
    used = [MODEL.enhance(wave, 16_000, budget=budget) for budget in (0, 0.02, 0.2, 0.5, 0.8, 0.98, 1)]
    activations = [result.activation for result in used]
    assert activations == sorted(activations) and len(set(activations)) >= 4
    learned = MODEL.enhance(wave, 16_000)
    assert 0 < learned.activation < 1 and len(np.unique(learned.frame_mmacs)) > 1
    assert count(TINY).closed <= learned.frame_mmacs.min() and learned.frame_mmacs.max() <= count(TINY).open + 1e-9


def test_it_repeats():
    wave = noise(5000)
    first, second = MODEL.enhance(wave, 44_100), MODEL.enhance(wave, 44_100)
    assert np.array_equal(first.wave, second.wave) and np.array_equal(first.gates, second.gates)


# ---- what is refused

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
    (np.zeros(100, np.int64), {}, "int64.*floats within -1..1"),
    (np.zeros(100, complex), {}, "complex128"),
    (["a", "b"], {}, "floats"),
    (np.zeros(600, np.float32), {"sample_rate": 0}, "sample rate is 0"),
    (np.zeros(600, np.float32), {"sample_rate": -8000}, "sample rate is -8000"),
    (np.zeros(600, np.float32), {"sample_rate": math.nan}, "sample rate is nan"),
    (np.zeros(600, np.float32), {"policy": "sometimes"}, "'sometimes'; choose learned, open or closed"),
    (np.zeros(600, np.float32), {"policy": np.ones((4, 3))}, r"shape \(4, 3\); needed is \[frames, 10\]"),
    (np.zeros(600, np.float32), {"policy": np.ones((2, 10))}, "gates for 2 frames"),
    (np.zeros(600, np.float32), {"budget": 1.5}, "budget is 1.5"),
]  # fmt: skip


@pytest.mark.parametrize(("wave", "options", "words"), BAD)
def test_bad_input_gets_one_line(wave, options, words):
    options = dict(options)
    with pytest.raises(InputError, match=words) as error:
        MODEL.enhance(wave, options.pop("sample_rate", 16_000), **options)
    assert "\n" not in str(error.value)
