"""The distance in loudness: what it hears, what it forgives, and that it goes with PESQ."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsn_lite import audio
from dsn_lite.audio import clips, noises
from dsn_lite.audio.spectral import istft, stft
from dsn_lite.evaluation.metrics import pesq_wb
from dsn_lite.training.losses import SpeechLoss
from dsn_lite.training.perceptual import BAND, bark, ear, perceptual_distance


@pytest.fixture(scope="module")
def clean():
    return torch.from_numpy(np.stack([clips.load(name)[:40_000] for name in clips.names()[:4]]))


def noise_of(clean, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return clean.square().mean(-1, keepdim=True).sqrt() * torch.randn(clean.shape, generator=generator)


def test_tables():
    bands, quiet, exponent, speech = ear()
    # Each bin from 100 Hz up belongs to one band, and no band is empty or wider than half a Bark and a bin.
    assert bands.sum(1).tolist() == [0.0] * 4 + [1.0] * 253
    hertz = np.arange(257) * 31.25
    for band in bands.T.bool().numpy():
        assert band.any() and np.ptp(bark(hertz[band])) <= BAND
    assert 2800 < hertz[bands[:, quiet.argmin()].bool()].mean() < 3800  # where the ear is keenest
    assert exponent.max() > exponent.min() == pytest.approx(0.23)
    assert [hertz[speech.bool()].min(), hertz[speech.bool()].max()] == [343.75, 3250.0]


def test_goes_with_pesq():
    """Over sentences, noises and levels, and over enhancement by an ideal mask of several strengths."""
    distances, scores = [], []
    for i, name in enumerate(clips.names()[:6]):
        wave = clips.load(name)
        noise = noises.synthesise(("rain", "fan", "hum")[i % 3], len(wave) / 16_000, seed=i)
        for snr in (0, 8, 16):
            noisy = audio.mix_at_snr(wave, noise, snr)
            ideal = (stft(torch.from_numpy(wave)).abs() / stft(torch.from_numpy(noisy)).abs().clamp_min(1e-6)).clamp(max=1)
            for strength in (0, 0.5):
                masked = istft(stft(torch.from_numpy(noisy)) * ideal**strength, len(wave))
                distances.append(perceptual_distance(masked[None], torch.from_numpy(wave)[None]).item())
                scores.append(pesq_wb(wave, masked.numpy()))
    raw = (3.8224 - np.log(4 / (np.array(scores) - 0.999) - 1)) / 1.3669  # before the curve of P.862.2
    assert np.corrcoef(distances, raw)[0, 1] < -0.9


def test_forgives_level_and_colour(clean):
    floor = perceptual_distance(clean, clean)
    assert (floor < 1e-3).all()
    torch.testing.assert_close(perceptual_distance(0.1 * clean, clean), floor, atol=1e-3, rtol=0)
    tilt = torch.linspace(1, 0.5, 257)
    coloured = istft(stft(clean) * tilt, clean.shape[-1])
    noisy = clean + 0.1 * noise_of(clean)
    assert (perceptual_distance(coloured, clean) < 0.5 * perceptual_distance(noisy, clean)).all()


def test_forgives_slow_changes_of_gain(clean):
    swell = 1 + 0.5 * torch.sin(torch.arange(clean.shape[-1]) * 2 * torch.pi / 32_000)
    assert (perceptual_distance(clean * swell, clean) < 0.15).all()


def test_added_costs_more_than_missing(clean):
    """Sound that was not there annoys more than sound that is gone: the asymmetric disturbance."""
    spectrum = stft(clean)
    gap = torch.ones(257)
    gap[128:] = 0.03
    missing = istft(spectrum * gap, clean.shape[-1])
    assert (perceptual_distance(clean, missing) > perceptual_distance(missing, clean)).all()
    noisy = clean + 0.3 * noise_of(clean)
    assert (perceptual_distance(noisy, clean) > 1.05 * perceptual_distance(clean, noisy)).all()


@settings(max_examples=20, deadline=None)
@given(gain=st.floats(0.05, 20), size=st.floats(0.02, 0.3), more=st.floats(1.5, 4), seed=st.integers(0, 99))
def test_more_noise_is_further_at_any_level(gain, size, more, seed):
    clean = torch.from_numpy(clips.load(clips.names()[seed % 5])[:32_000])[None]
    noise = noise_of(clean, seed)
    near, far = (perceptual_distance(gain * (clean + s * noise), gain * clean) for s in (size, size * more))
    assert (near < far).all()
    torch.testing.assert_close(near, perceptual_distance(clean + size * noise, clean), atol=1e-3, rtol=1e-2)


def test_gradient_is_finite_and_leads_down(clean):
    enhanced = torch.stack([clean[0] + 0.1 * noise_of(clean[0][None])[0], 0 * clean[1], clean[2], clean[3]])
    target = torch.stack([clean[0], clean[1], clean[2], 0 * clean[3]])
    enhanced.requires_grad_()
    loss = perceptual_distance(enhanced, target)
    (gradient,) = torch.autograd.grad(loss.sum(), enhanced)
    assert torch.isfinite(loss).all() and torch.isfinite(gradient).all() and gradient[0].abs().max() > 0
    step = 1e-3 * gradient[0] / gradient[0].norm()
    assert perceptual_distance((enhanced[0] - step)[None].detach(), target[:1]) < loss[0]


def test_items_do_not_touch(clean):
    noisy = clean + 0.2 * noise_of(clean)
    together = perceptual_distance(noisy, clean)
    for i in range(4):
        torch.testing.assert_close(perceptual_distance(noisy[i : i + 1], clean[i : i + 1]), together[i : i + 1])


def test_part_of_the_loss(clean):
    noisy = clean + 0.2 * noise_of(clean)
    with_it, without = SpeechLoss(perceptual=0.5), SpeechLoss()
    torch.testing.assert_close(with_it(noisy, clean) - without(noisy, clean), 0.5 * perceptual_distance(noisy, clean))
