"""Hard in the forward pass, soft in the backward pass, random in training only."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsn_lite.network.gates import OPEN, anneal, decide, gumbel_noise, margin, probability, sample, straight_through


def logits(*shape, seed=0, scale=2.0):
    return scale * torch.randn(*shape, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(seed=st.integers(0, 999), temperature=st.floats(0.05, 10), scale=st.floats(0, 50))
@settings(max_examples=40, deadline=None)
def test_forward_is_exactly_zero_or_one(seed, temperature, scale):
    values = logits(4, 5, seed=seed, scale=scale).float().requires_grad_()
    gates = sample(values, temperature, gumbel_noise(values.shape, generator=torch.Generator().manual_seed(seed)))
    assert gates.shape == (4, 5) and ((gates == 0) | (gates == 1)).all() and gates.requires_grad
    gates.sum().backward()
    assert values.grad.isfinite().all()


@given(seed=st.integers(0, 999), temperature=st.floats(0.1, 5))
@settings(max_examples=25, deadline=None)
def test_backward_is_the_gradient_of_the_soft_gate(seed, temperature):
    values, weight = logits(3, 4, seed=seed).requires_grad_(), logits(3, 4, seed=seed + 1)[..., 0]
    noise = gumbel_noise(values.shape, generator=torch.Generator().manual_seed(seed)).double()
    (by_gate,) = torch.autograd.grad((sample(values, temperature, noise) * weight).sum(), values)
    soft = torch.exp((values + noise) / temperature)
    (by_soft,) = torch.autograd.grad((soft[..., OPEN] / soft.sum(-1) * weight).sum(), values)
    torch.testing.assert_close(by_gate, by_soft, rtol=1e-8, atol=1e-12)


def test_the_larger_noisy_logit_wins():
    values = logits(200)
    noise = gumbel_noise(values.shape, generator=torch.Generator().manual_seed(1)).double()
    for temperature in (0.1, 1.0, 5.0):
        assert torch.equal(sample(values, temperature, noise), ((values + noise).argmax(-1) == OPEN).double())


@pytest.mark.parametrize("difference", [-3.0, -1.0, 0.0, 0.5, 2.0, 4.0])
@pytest.mark.parametrize("temperature", [0.3, 3.0])
def test_gates_open_as_often_as_their_probability_says(difference, temperature):
    draws = 40_000
    values = torch.tensor([0.7, 0.7 + difference]).expand(draws, 2)
    noise = gumbel_noise(values.shape, generator=torch.Generator().manual_seed(3))
    expected = 1 / (1 + math.exp(-difference))
    assert probability(values[:1]).item() == pytest.approx(expected, abs=1e-6)
    four_sigma = 4 * math.sqrt(expected * (1 - expected) / draws)
    assert sample(values, temperature, noise).mean().item() == pytest.approx(expected, abs=four_sigma)


def test_the_noise_is_gumbel():
    noise = gumbel_noise((100_000,), generator=torch.Generator().manual_seed(0))
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.02)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.05)


def test_the_noise_is_finite_at_the_ends(monkeypatch):
    for end in (0.0, 1.0):
        monkeypatch.setattr(torch, "rand", lambda *shape, end=end, **_: torch.full(shape, end))
        assert gumbel_noise((2,)).isfinite().all()


def test_the_noise_repeats_with_its_generator():
    one, same, other = (gumbel_noise((5, 2), generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_training_draws_noise_of_its_own():
    torch.manual_seed(0)
    gates = torch.stack([sample(torch.zeros(50, 2), 1.0) for _ in range(4)])
    assert len(gates.unique(dim=0)) == 4


def test_evaluation_draws_nothing_and_repeats():
    values, before = logits(20, 3), torch.get_rng_state()
    first = decide(values)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, decide(values)) and torch.equal(first, (values[..., 1] > values[..., 0]).double())
    assert torch.equal(first, sample(values, 1.0, torch.zeros_like(values)))
    assert not decide(torch.zeros(3, 2)).any()  # undecided: closed, and cheaper


@given(seed=st.integers(0, 99), shifts=st.lists(st.floats(-20, 20), min_size=2, max_size=5))
@settings(max_examples=30, deadline=None)
def test_a_higher_shift_never_closes_a_gate(seed, shifts):
    values = logits(4, 5, seed=seed)
    for low, high in zip(sorted(shifts)[:-1], sorted(shifts)[1:], strict=True):
        assert (decide(values, high) >= decide(values, low)).all()
        assert (probability(values, high) >= probability(values, low)).all()


def test_shifts_without_end_decide_everything():
    values = logits(4, 5, scale=1000)
    assert decide(values, math.inf).all() and not decide(values, -math.inf).any()
    assert (probability(values, math.inf) == 1).all() and (probability(values, -math.inf) == 0).all()


def test_a_shift_is_that_of_the_open_logit():
    values, moved = logits(30), logits(30)
    moved[..., OPEN] += 1.3
    assert torch.equal(decide(values, 1.3), decide(moved))
    torch.testing.assert_close(probability(values, 1.3), probability(moved))
    torch.testing.assert_close(margin(moved) - margin(values), torch.full((30,), 1.3, dtype=torch.float64))


def test_temperature_moves_gradient_from_the_decided_to_the_undecided():
    def gradient(difference, temperature):
        values = torch.tensor([[0.0, difference]], requires_grad=True)
        sample(values, temperature, torch.zeros(1, 2)).sum().backward()
        return values.grad[0, OPEN].item()

    assert gradient(0.0, 0.25) > gradient(0.0, 1.0) > gradient(0.0, 4.0) > 0
    assert gradient(6.0, 4.0) > gradient(6.0, 1.0) > gradient(6.0, 0.25) >= 0


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_of_zero_is_refused(temperature):
    with pytest.raises(ValueError, match="above 0"):
        sample(torch.zeros(1, 2), temperature)


def test_straight_through():
    soft = torch.tensor([0.0, 0.1, 0.5, 0.500001, 0.9, 1.0], requires_grad=True)
    hard = straight_through(soft)
    assert hard.tolist() == [0, 0, 0, 1, 1, 1]
    (hard * torch.arange(6)).sum().backward()
    assert soft.grad.tolist() == [0, 1, 2, 3, 4, 5]


def test_anneal():
    assert anneal(2.0, 0.5, 0.0) == 2.0 and anneal(2.0, 0.5, 1.0) == pytest.approx(0.5)
    assert anneal(2.0, 0.5, -1.0) == 2.0 and anneal(2.0, 0.5, 9.0) == anneal(2.0, 0.5, 1.0)
    steps = [anneal(2.0, 0.5, i / 10) for i in range(11)]
    ratios = [after / before for before, after in zip(steps[:-1], steps[1:], strict=True)]
    assert all(ratio == pytest.approx(0.25**0.1) for ratio in ratios)
    assert anneal(1.5, 1.5, 0.3) == 1.5
