"""The policy reads the past and the present, at little cost."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dsn_lite.audio.spectral import BINS
from dsn_lite.config import PRESETS, Config
from dsn_lite.macs import count
from dsn_lite.policy import Policy, erb_pooling

GATES, BANDS, WIDTH = 10, 24, 6


def policy(seed=0):
    torch.manual_seed(seed)
    return Policy(GATES, bands=BANDS, width=WIDTH).double()


def magnitude(batch, frames, seed=1):
    return torch.rand(batch, frames, BINS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_a_gru_and_a_linear_layer_on_pooled_magnitudes():
    made, x = policy(), magnitude(2, 7)
    gru, linear = nn.GRU(BANDS, WIDTH, batch_first=True).double(), nn.Linear(WIDTH, 2 * GATES).double()
    gru.load_state_dict(made.recurrent.state_dict())
    linear.load_state_dict(made.logits.state_dict())
    logits, state = made(x)
    hidden, last = gru(x @ erb_pooling(BANDS).double())
    assert logits.shape == (2, 7, GATES, 2)
    torch.testing.assert_close(logits.flatten(-2), linear(hidden), rtol=0, atol=1e-12)
    torch.testing.assert_close(state, last[0], rtol=0, atol=1e-12)


@given(frames=st.integers(2, 9), first=st.integers(1, 8), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_nothing_looks_ahead(frames, first, seed):
    first = min(first, frames - 1)
    made, x = policy(), magnitude(2, frames, seed)
    before, changed = made(x)[0], x.clone()
    changed[:, first:] = torch.nan
    after = made(changed)[0]
    torch.testing.assert_close(after[:, :first], before[:, :first], rtol=0, atol=1e-13)
    assert after[:, first:].isnan().all()


def test_the_present_frame_counts():
    made, x = policy(), magnitude(1, 5).requires_grad_()
    made(x)[0][:, 3].sum().backward()
    assert x.grad.abs().sum((0, 2)).bool().tolist() == [True, True, True, True, False]


def test_frame_by_frame_is_the_whole():
    made, x = policy(), magnitude(3, 8)
    whole, last = made(x)
    state, steps = made.initial_state(3), []
    for t in range(8):
        logits, state = made(x[:, t : t + 1], state)
        steps.append(logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(state, last, rtol=0, atol=1e-12)


def test_items_do_not_see_each_other():
    made, x = policy(), magnitude(3, 4)
    torch.testing.assert_close(made(x)[0][1:2], made(x[1:2])[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("bands", sorted({preset.policy_bands for preset in PRESETS.values()} | {16}))
def test_pooling(bands):
    weights = erb_pooling(bands)
    assert weights.shape == (BINS, bands) and (weights >= 0).all()
    torch.testing.assert_close(weights.sum(0), torch.ones(bands))
    centres = torch.arange(BINS).float() @ weights
    assert (centres.diff() > 0).all()  # every band sees something of its own, from low to high
    assert (centres.diff()[-3:] > centres.diff()[:3]).all()  # and the high ones are wider
    assert weights[1].any() and weights[-1].any()


def test_pooling_is_not_trained_nor_saved():
    made = policy()
    assert not any("pooling" in name for name in [*made.state_dict(), *dict(made.named_parameters())])


@pytest.mark.parametrize("preset", PRESETS)
def test_it_costs_under_three_percent(preset):
    config = Config.preset(preset)
    counted = count(config)
    assert 0 < counted.policy < 0.03 * counted.open
    # The pooling is not in the count (its triangles are nearly all zeros); as a full product it would not matter either.
    pooling = BINS * config.policy_bands * 62.5 / 1e6
    assert counted.policy + pooling < 0.03 * counted.open
