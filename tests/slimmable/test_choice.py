"""Choice among widths: one-hot, nested, with the gradient of the softmax; and what the widths cost."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from dsn_lite.network import gates as gating
from dsn_lite.network.macs import LayerMacs
from dsn_lite.slimmable.choice import decide, from_thermometer, sample, step_names, thermometer
from dsn_lite.slimmable.cost import WidthCount, rows
from dsn_lite.slimmable.layers import SlimLinear


@settings(max_examples=40, deadline=None)
@given(widths=some.integers(2, 5), seed=some.integers(0, 999), temperature=some.floats(0.2, 4))
def test_a_sample_is_one_hot_and_has_the_gradient_of_the_softmax(widths, seed, temperature):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, widths, generator=generator, requires_grad=True)
    noise = gating.gumbel_noise((6, widths), generator=generator)
    values = torch.randn(6, widths, generator=generator)
    choice = sample(logits, temperature, noise)
    assert set(choice.detach().unique().tolist()) <= {0.0, 1.0} and bool((choice.sum(-1) == 1).all())
    assert torch.equal(choice.argmax(-1), (logits + noise).argmax(-1))
    (found,) = torch.autograd.grad((choice * values).sum(), logits)
    (expected,) = torch.autograd.grad((((logits + noise) / temperature).softmax(-1) * values).sum(), logits)
    assert torch.allclose(found, expected, atol=1e-6)


def test_two_widths_are_a_gate():
    """With W = 2 the choice is the gate of dsn_lite.network.gates."""
    logits, noise = torch.randn(50, 2), torch.randn(50, 2)
    assert torch.equal(sample(logits, 0.7, noise)[:, 1], gating.sample(logits, 0.7, noise))
    costs = torch.tensor([0.0, 1.0])
    for shift in (-math.inf, -0.5, 0.0, 0.5, math.inf):
        assert torch.equal(decide(logits, shift, costs)[:, 1], gating.decide(logits, shift))


def test_samples_follow_the_softmax():
    logits = torch.tensor([0.0, 1.0, 2.0]).expand(20_000, 3)
    noise = gating.gumbel_noise(logits.shape, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(sample(logits, 1.0, noise).mean(0), logits[0].softmax(-1), atol=0.015)


@given(some.floats(-5, 5), some.floats(0, 5))
def test_a_larger_shift_never_costs_less(shift, more):
    logits = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    costs = torch.tensor([0.125, 0.25, 0.5, 1.0])
    assert bool((decide(logits, shift + more, costs) @ costs >= decide(logits, shift, costs) @ costs).all())


def test_bad_temperature_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        sample(torch.zeros(1, 2), 0.0)


@pytest.mark.parametrize("widths", [2, 4, 5])
def test_thermometer_and_back(widths):
    choice = torch.eye(widths)
    gates = thermometer(choice)
    assert gates.tolist() == np.tri(widths, widths - 1, -1).tolist()
    assert torch.equal(from_thermometer(gates), choice)


def test_cost_adds_up_to_the_layer_at_each_width():
    widths, layer, other = (0.25, 0.5, 1.0), SlimLinear(8, 8), SlimLinear(4, 12)
    counted = WidthCount(
        (*rows("a", layer.macs, widths, positions=2, modules=[layer]), *rows("b", other.macs, widths, modules=[other]),
         LayerMacs("policy", 5, 0, None, 7)), tuple(step_names(widths)), widths,
    )  # fmt: skip
    by_hand = [2 * 4 + 3 + 5, 2 * 16 + 12 + 5, 2 * 64 + 48 + 5]
    gates = thermometer(torch.eye(3)).numpy()
    assert np.allclose(counted.of_frames(gates), np.array(by_hand) * 62.5e-6)
    assert np.allclose(counted.width_mmacs, np.array(by_hand) * 62.5e-6)
    assert counted.closed == by_hand[0] * 62.5e-6 and counted.open == by_hand[-1] * 62.5e-6
    assert counted.parameters == 72 + 60 + 7 and counted.policy == 5 * 62.5e-6
    assert step_names(widths) == ["over 1/4", "over 1/2"]
    assert "over 1/4" in counted.table() and counted.to_json()["open"] == counted.open
