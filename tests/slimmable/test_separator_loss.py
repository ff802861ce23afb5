"""The loss of the separator: the better order, bounded, and the price of computing where it is not needed."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsn_lite.evaluation.metrics import si_sdr
from dsn_lite.slimmable.separator.loss import (
    chunk_quality,
    complexity_loss,
    complexity_weight,
    match,
    separation_loss,
)


def waves(seed, batch=3, samples=4000):
    return torch.randn(batch, 2, samples, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), noise=st.floats(0.05, 3), gain=st.floats(0.1, 10))
def test_the_ratio_is_the_metric_with_a_cap_in_the_better_order(seed, noise, gain):
    sources = waves(seed) + 0.3
    estimates = gain * (sources + noise * waves(seed + 1))[:, torch.randperm(2)] - 0.2
    found = match(estimates, sources, sources.sum(1))
    for b in range(3):
        orders = []
        for order in itertools.permutations(range(2)):
            plain = [si_sdr(sources[b, k].numpy(), estimates[b, order[k]].numpy()) for k in range(2)]
            orders.append((np.mean(plain), order, plain))
        _, order, plain = max(orders)
        assert tuple(found.order[b].tolist()) == order
        capped = -10 * np.log10(10 ** (-np.array(plain) / 10) + 1e-3)
        assert found.ratio[b].numpy() == pytest.approx(capped, abs=0.01)
        for k in range(2):  # the gain leaves nothing of the estimate in the error
            scaled = found.gain[b, k] * (estimates[b, order[k]] - estimates[b, order[k]].mean())
            error = sources[b, k] - sources[b, k].mean() - scaled
            assert abs(float(error @ scaled)) < 0.01 * float(scaled @ scaled) + 1e-3


def test_order_of_outputs_and_level_do_not_matter():
    sources, noise = waves(0), waves(1)
    estimates = sources + 0.3 * noise
    loss = separation_loss(estimates, sources, sources.sum(1))[0]
    assert torch.allclose(loss, separation_loss(5 * estimates.flip(1), sources, sources.sum(1))[0], atol=1e-4)
    assert torch.allclose(loss, separation_loss(estimates, sources.flip(1), sources.sum(1))[0], atol=1e-4)


def test_silence_is_bounded_and_asks_for_silence():
    sources = waves(0)
    sources[:, 1] = 0
    mixture = sources.sum(1)
    for estimates in (sources, torch.zeros_like(sources), 1e-4 * waves(2), 1e4 * waves(3)):
        estimates = estimates.clone().requires_grad_()
        loss, _ = separation_loss(estimates, sources, mixture)
        loss.sum().backward()
        assert bool(torch.isfinite(loss).all()) and bool(torch.isfinite(estimates.grad).all())
        assert bool((loss >= -30.01).all())
    assert separation_loss(sources, sources, mixture)[0].max() < -29.9
    quiet, loud = sources.clone(), sources.clone()
    quiet[:, 1], loud[:, 1] = 0.01 * mixture, 0.5 * mixture
    assert bool((separation_loss(quiet, sources, mixture)[0] < separation_loss(loud, sources, mixture)[0]).all())
    nothing = torch.zeros(1, 2, 100)
    assert bool(torch.isfinite(separation_loss(nothing, nothing, nothing.sum(1))[0]).all())


def test_quality_of_chunks_by_hand():
    sources = waves(0, batch=1, samples=400)
    sources[..., 200:300] = 0
    error = 0.4 * waves(1, batch=1, samples=400)
    error[..., :100] *= 0.2
    estimates = (sources + error).flip(1)
    found = match(estimates, sources, sources.sum(1))
    quality, silent = chunk_quality(estimates, sources, found, 100)
    scaled = estimates.flip(1) * found.gain[..., None]
    for chunk in (0, 1, 3):
        part = slice(100 * chunk, 100 * chunk + 100)
        left = (sources - scaled)[..., part].square().sum()
        expected = 10 * torch.log10(sources[..., part].square().sum() / left)
        assert quality[0, chunk] == pytest.approx(float(expected), abs=0.01)
    assert silent.tolist() == [[False, False, True, False]]
    assert quality[0, 0] > quality[0, 3] + 5
    assert not quality.requires_grad


def test_the_price_is_high_where_all_is_well_and_takes_its_gradient_to_the_choice_only():
    quality = torch.tensor([[25.0, 10.0, -5.0, -5.0]])
    silent = torch.tensor([[False, False, False, True]])
    weight = complexity_weight(quality, silent, pivot=10, softness=3)
    assert weight.tolist()[0] == pytest.approx([0.9933, 0.5, 0.0067, 1.0], abs=1e-3)
    choice = torch.eye(3)[[2, 2, 2, 2]][None].requires_grad_()
    costs = torch.tensor([0.2, 0.5, 1.0])
    price = complexity_loss(choice, costs, weight)
    assert price.item() == pytest.approx(2.5 / 4, abs=1e-3)
    price.backward()
    assert torch.allclose(choice.grad[0], weight[0, :, None] * costs / 4)
