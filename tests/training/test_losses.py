"""What the losses are at known points, at silence and at any level."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsn_lite.training.losses import SpeechLoss, activation, activation_loss, usage_loss

SPECTRAL = SpeechLoss(waveform=0.0)


def speech(batch=2, samples=4000, seed=0, rms=0.05, dtype=torch.float32):
    """Noise with a varying envelope."""
    generator = torch.Generator().manual_seed(seed)
    envelope = torch.sin(torch.arange(samples) * 2 * math.pi / 1500).abs() + 0.05
    wave = envelope * torch.randn(batch, samples, generator=generator)
    return (rms * wave / wave.square().mean(-1, keepdim=True).sqrt()).to(dtype)


def test_identity_is_the_least():
    clean = speech()
    assert torch.equal(SPECTRAL(clean, clean), torch.zeros(2))
    # The waveform term ends at 40 dB: -4 bel.
    torch.testing.assert_close(SpeechLoss()(clean, clean), torch.full((2,), -4 * 0.03))
    for other in (clean * 1.05, clean + 1e-3 * torch.randn(2, 4000), clean.roll(1, -1), -clean, 0 * clean):
        assert (SPECTRAL(other, clean) > 0).all() and (SpeechLoss()(other, clean) > SpeechLoss()(clean, clean)).all()


def test_more_noise_costs_more():
    clean, noise = speech(), torch.randn(2, 4000, generator=torch.Generator().manual_seed(5))
    losses = torch.stack([SpeechLoss()(clean + size * noise, clean) for size in (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)])
    assert (losses.diff(dim=0) > 0).all()


def test_one_resolution_by_hand():
    """The sums of the docstring, written with the library's transform and NumPy's words for it."""
    clean, enhanced = speech(1, dtype=torch.float64), speech(1, seed=1, dtype=torch.float64)
    loss = SpeechLoss(windows=(512,), waveform=0.0, magnitude=0.7, complex=0.3)

    def spectrum(wave):
        wave = 0.05 * wave / clean.square().mean().sqrt()
        padded = torch.nn.functional.pad(wave, (256, 512 - 4000 % 256))
        window = torch.hann_window(512, dtype=torch.float64).sqrt()
        return torch.stft(padded, 512, 256, window=window, center=False, return_complex=True)

    y, s = spectrum(enhanced), spectrum(clean)
    magnitudes = (y.abs() ** 0.3 - s.abs() ** 0.3).square().mean()
    difference = y.abs() ** 0.3 * torch.exp(1j * y.angle()) - s.abs() ** 0.3 * torch.exp(1j * s.angle())
    expected = 0.7 * magnitudes + 0.3 * difference.abs().square().mean()
    assert loss(enhanced, clean).item() == pytest.approx(expected.item(), rel=1e-3)  # the floors of the power


def test_the_resolutions_are_averaged():
    clean, enhanced = speech(), speech(seed=1)
    single = [SpeechLoss(windows=(length,), waveform=0.0)(enhanced, clean) for length in (320, 512, 768)]
    torch.testing.assert_close(SPECTRAL(enhanced, clean), sum(single) / 3)


@pytest.mark.parametrize(("decibel", "bel"), [(-10, -1.0), (0, 0.0), (10, 1.0), (-60, -4.0)])
def test_the_waveform_term_is_the_error_ratio_in_bel(decibel, bel):
    clean = speech()
    loss = SpeechLoss(magnitude=0.0, complex=0.0, waveform=1.0)
    torch.testing.assert_close(
        loss(clean * (1 + 10 ** (decibel / 20)), clean), torch.full((2,), bel), rtol=0, atol=5e-3
    )


@given(level=st.floats(-40, 20), seed=st.integers(0, 20))
@settings(max_examples=15, deadline=None)
def test_the_level_does_not_matter(level, seed):
    clean, noise = speech(seed=seed), 0.02 * torch.randn(2, 4000, generator=torch.Generator().manual_seed(seed))
    gain = 10 ** (level / 20)
    expected, loss = SpeechLoss()(clean + noise, clean), SpeechLoss()(gain * (clean + noise), gain * clean)
    torch.testing.assert_close(loss, expected, rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize("enhanced_level", [0.0, 1e-8, 1e-3, 1.0])
@pytest.mark.parametrize("clean_level", [0.0, 1e-8, 1e-3, 1.0])
def test_value_and_gradient_are_finite_at_silence(enhanced_level, clean_level):
    enhanced = (enhanced_level * speech()).requires_grad_()
    loss = SpeechLoss()(enhanced, clean_level * speech(seed=1))
    loss.sum().backward()
    assert loss.shape == (2,) and loss.isfinite().all() and enhanced.grad.isfinite().all()


def test_silent_stretches_are_finite():
    clean, enhanced = speech(), speech(seed=1)
    clean[:, 1000:3000] = 0
    enhanced[:, 500:3500] = 0
    enhanced.requires_grad_()
    SpeechLoss()(enhanced, clean).sum().backward()
    assert enhanced.grad.isfinite().all()


def test_items_do_not_see_each_other():
    clean, enhanced = speech(3), speech(3, seed=1)
    loss = SpeechLoss()(enhanced, clean)
    for i in range(3):
        torch.testing.assert_close(SpeechLoss()(enhanced[i : i + 1], clean[i : i + 1]), loss[i : i + 1])


def test_a_step_down_the_gradient_helps():
    clean, enhanced = speech(), (speech() + 0.01 * torch.randn(2, 4000)).requires_grad_()
    loss = SpeechLoss()(enhanced, clean).sum()
    loss.backward()
    step = enhanced.grad * 1e-3 / enhanced.grad.norm()
    assert SpeechLoss()(enhanced - step, clean).sum() < loss


# ---- activation


def test_activation_weighs_gates_by_their_cost():
    weights = torch.tensor([1.0, 2.0, 5.0])
    gates = torch.tensor([[[1.0, 0, 0], [0, 0, 1]], [[1, 1, 1], [1, 1, 1]], [[0, 0, 0], [0, 0, 0]]])
    torch.testing.assert_close(activation(gates, weights), torch.tensor([(1 / 8 + 5 / 8) / 2, 1.0, 0.0]))
    torch.testing.assert_close(activation(gates, 7 * weights), activation(gates, weights))


def test_activation_has_the_gradient_of_the_cost():
    weights, gates = torch.tensor([1.0, 3.0]), torch.zeros(1, 5, 2, requires_grad=True)
    activation(gates, weights).sum().backward()
    torch.testing.assert_close(gates.grad, torch.tensor([0.25, 0.75]).expand(1, 5, 2) / 5)


def test_activation_loss():
    gates, weights = torch.ones(2, 4, 3), torch.ones(3)
    torch.testing.assert_close(activation_loss(gates, weights, torch.tensor([1.0, 0.4])), torch.tensor([0.0, 0.36]))
    gates.requires_grad_()
    activation_loss(gates, weights, torch.tensor([1.0, 0.4])).sum().backward()
    assert not gates.grad[0].any() and (gates.grad[1] > 0).all()  # above the target: close


def test_usage_loss():
    rate = torch.tensor([0.0, 0.05, 0.1, 0.5, 0.9, 0.95, 1.0], requires_grad=True)
    loss = usage_loss(rate)
    assert loss.item() == pytest.approx(2 * (0.1**2 + 0.05**2) / 7)
    loss.backward()
    assert rate.grad.sign().tolist() == [-1, -1, 0, 0, 0, 1, 1]
    assert usage_loss(torch.tensor([0.2, 0.8]), low=0.3, high=0.7).item() == pytest.approx(0.01)
