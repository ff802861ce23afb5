"""Transform and inverse, which samples a frame reads, compression and its inverse, behaviour at zero."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsn_lite.audio.spectral import (
    BINS,
    FRAMES_PER_SECOND,
    HOP,
    SAMPLE_RATE,
    WINDOW,
    compress,
    decompress,
    frame_count,
    istft,
    power,
    stft,
    window,
)


def signal(*shape, seed=0, dtype=torch.float32):
    """Samples uniform in -1..1: as loud as a file can be."""
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) - 1


def spectrum(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.complex128)


def test_the_numbers_of_the_design():
    assert (SAMPLE_RATE, WINDOW, HOP, BINS, FRAMES_PER_SECOND) == (16_000, 512, 256, 257, 62.5)


@given(samples=st.integers(0, 3000), length=st.sampled_from([320, 512, 768]), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_perfect_reconstruction(samples, length, seed):
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        wave = signal(samples, seed=seed, dtype=dtype)
        frames = stft(wave, length)
        assert frames.shape == (frame_count(samples, length // 2), length // 2 + 1)
        back = istft(frames, samples)
        assert back.shape == wave.shape and back.dtype == dtype
        assert samples == 0 or (back - wave).abs().max() < tolerance


def test_leading_axes_are_kept():
    wave = signal(2, 3, 1000)
    frames = stft(wave)
    assert frames.shape == (2, 3, 5, BINS)
    assert torch.equal(frames[1, 2], stft(wave[1, 2]))
    assert torch.equal(istft(frames, 1000)[0, 1], istft(frames[0, 1], 1000))


def test_it_is_the_transform_of_the_library():
    wave = signal(16_000, dtype=torch.float64)
    padded = torch.nn.functional.pad(wave, (HOP, 2 * HOP - 16_000 % HOP))
    expected = torch.stft(padded, WINDOW, HOP, window=window(dtype=torch.float64), center=False, return_complex=True).T
    torch.testing.assert_close(stft(wave), expected, rtol=0, atol=1e-12)


def test_the_window_is_the_root_of_hann():
    n = torch.arange(WINDOW, dtype=torch.float64)
    torch.testing.assert_close(window(dtype=torch.float64), torch.sin(math.pi * n / WINDOW), rtol=0, atol=1e-8)
    squared = window(dtype=torch.float64).square()
    torch.testing.assert_close(squared[:HOP] + squared[HOP:], torch.ones(HOP, dtype=torch.float64))


@given(sample=st.integers(0, 2999))
@settings(max_examples=20, deadline=None)
def test_a_sample_lies_in_two_frames_and_no_others(sample):
    """Frame t covers the samples (t - 1) * 256 up to (t + 1) * 256: none after its own end."""
    wave = torch.zeros(3000)
    wave[sample] = torch.nan
    touched = stft(wave).isnan().any(-1)
    assert touched.nonzero().flatten().tolist() == [sample // HOP, sample // HOP + 1]


@pytest.mark.parametrize("frame", [0, 1, 5, 12])
def test_a_frame_writes_one_window_and_no_more(frame):
    frames = torch.zeros(13, BINS, dtype=torch.complex64)
    frames[frame] = torch.nan
    touched = istft(frames, 3000).isnan().nonzero().flatten()
    assert touched.min() >= (frame - 1) * HOP and touched.max() < (frame + 1) * HOP


def test_the_inverse_is_differentiable_and_adjoint():
    wave = signal(1000, dtype=torch.float64).requires_grad_()
    istft(stft(wave) * 2, 1000).sum().backward()
    torch.testing.assert_close(wave.grad, torch.full_like(wave, 2))


def test_compression_by_definition():
    x = spectrum(50, seed=3)
    y = compress(x)
    torch.testing.assert_close(y.abs(), x.abs() ** 0.3, rtol=1e-9, atol=0)
    torch.testing.assert_close(y.angle(), x.angle(), rtol=0, atol=1e-12)
    torch.testing.assert_close(decompress(y).abs(), y.abs() ** (1 / 0.3), rtol=1e-9, atol=0)


@given(exponent=st.floats(0.2, 1.0), decades=st.floats(-4, 3), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_decompression_is_the_inverse(exponent, decades, seed):
    x = spectrum(20, seed=seed)
    x = x / x.abs() * 10**decades  # 1e-4 is far below the last bit of a 16-bit file
    torch.testing.assert_close(decompress(compress(x, exponent), exponent), x, rtol=1e-3, atol=1e-9)
    torch.testing.assert_close(decompress(compress(x, exponent, floor=0), exponent), x, rtol=1e-9, atol=0)


@pytest.mark.parametrize("size", [0.0, 1e-300, 1e-30, 1e-12, 1e-8, 1e-6, 1e-5, 1e-4, 1e-2, 1.0])
def test_the_inverse_near_zero(size):
    x = torch.full((3,), size, dtype=torch.float64) * torch.tensor([1, 1j, -1])
    assert (decompress(compress(x)) - x).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("size", [0.0, 1e-38, 1e-20, 1e-6])
@pytest.mark.parametrize(
    "function", [compress, decompress, lambda x: decompress(compress(x)), lambda x: compress(decompress(x))]
)
def test_value_and_gradient_are_finite_at_zero(function, size, dtype):
    x = (size * torch.tensor([1, 1j, -1 - 1j])).to(dtype).requires_grad_()
    y = function(x)
    power(y).sum().backward(retain_graph=True)
    assert y.isfinite().all() and x.grad.isfinite().all()
    y.real.sum().backward()
    assert x.grad.isfinite().all()
    if size == 0:
        assert not y.abs().any()


@pytest.mark.parametrize("function", [compress, decompress])
def test_gradient_against_finite_differences(function):
    assert torch.autograd.gradcheck(function, (spectrum(6, seed=5).requires_grad_(),))


def test_power_has_a_gradient_at_zero():
    x = torch.zeros(2, dtype=torch.complex64, requires_grad=True)
    power(x).sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))
    assert power(torch.tensor(3 + 4j)) == 25
