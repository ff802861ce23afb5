"""Which gates the items of a batch get: shares, variety, repetition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsn_lite.errors import InputError
from dsn_lite.training.patterns import HOLDS, Mix, draw


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def kinds(mix, batch, seed, frames=200):
    pattern, chosen = draw(mix, batch, frames, 10, generator(seed))
    is_open, is_closed = pattern.flatten(1).all(1), ~pattern.flatten(1).any(1)
    return pattern, is_open, is_closed, chosen


def test_what_is_left_goes_to_the_policy():
    assert Mix(open=0.25, closed=0.15, random=0.6).policy == 0
    assert Mix(open=0.15, closed=0.1, random=0.25).policy == 0.5


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_shares_are_met_exactly_where_the_batch_allows(seed):
    pattern, is_open, is_closed, chosen = kinds(Mix(open=0.15, closed=0.35, random=0), 20, seed)
    assert pattern.shape == (20, 200, 10) and ((pattern == 0) | (pattern == 1)).all()
    assert chosen.sum() == 10 and is_open[~chosen].sum() == 3 and is_closed[~chosen].sum() == 7
    _, is_open, is_closed, chosen = kinds(Mix(open=0.15, closed=0.1, random=0.25), 20, seed)
    # Of the five random items some may be all open, or all closed, by chance.
    assert chosen.sum() == 10 and is_open[~chosen].sum() >= 3 and is_closed[~chosen].sum() >= 2


@given(batch=st.integers(1, 9), seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_shares_are_met_to_within_an_item(batch, seed):
    mix = Mix(open=0.15, closed=0.35, random=0)
    _, is_open, is_closed, chosen = kinds(mix, batch, seed)
    for count, share in ((is_open[~chosen].sum(), 0.15), (is_closed[~chosen].sum(), 0.35), (chosen.sum(), 0.5)):
        assert abs(int(count) - share * batch) < 1 + 1e-5


def test_shares_are_met_on_average_in_a_small_batch():
    mix, counts = Mix(open=0.25, closed=0.15, random=0.3), torch.zeros(3)
    for seed in range(400):
        _, is_open, is_closed, chosen = kinds(mix, 3, seed, frames=20)
        counts += torch.tensor([is_open[~chosen].sum(), is_closed[~chosen].sum(), chosen.sum()])
    # A random item may be all open or closed by chance, rarely; the standard error is 0.013.
    torch.testing.assert_close(counts / 1200, torch.tensor([0.25, 0.15, 0.3]), rtol=0, atol=0.05)


def test_every_place_in_the_batch_gets_every_kind():
    drawn = [kinds(Mix(open=0.25, closed=0.25, random=0.25), 4, seed, frames=20) for seed in range(60)]
    for which in (1, 2, 3):
        assert torch.stack([kind[which] for kind in drawn]).any(0).all()


@pytest.mark.parametrize("mix", [Mix(open=0.25, closed=0.15, random=0.6), Mix(open=0.1, closed=0.2, random=0.7)])
def test_the_policy_never_chooses_where_it_has_no_share(mix, monkeypatch):
    assert not any(draw(mix, batch, 4, 3, generator(seed))[1].any() for batch in (1, 3, 8) for seed in range(50))
    rand = torch.rand  # the largest number below one, which rounds up in the sum
    monkeypatch.setattr(torch, "rand", lambda *shape, **kw: torch.full_like(rand(*shape, **kw), 1 - 2**-24))
    assert not draw(mix, 8, 4, 3, generator())[1].any()


def test_the_policy_may_get_everything():
    assert draw(Mix(open=0, closed=0, random=0), 5, 4, 3, generator())[1].all()


def test_it_repeats_with_its_generator_and_differs_without():
    mix, before = Mix(open=0.25, closed=0.15, random=0.3), torch.get_rng_state()
    (a, chosen_a), (b, chosen_b), (c, _) = (draw(mix, 8, 50, 10, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b) and torch.equal(chosen_a, chosen_b) and not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)


def test_random_patterns_keep_their_value_for_their_hold():
    frames, seen = 256, set()
    for seed in range(40):
        pattern, _ = draw(Mix(open=0, closed=0, random=1), 1, frames, 10, generator(seed))
        changes = pattern[0].diff(dim=0).any(-1).nonzero().flatten() + 1
        fitting = [hold for hold in HOLDS if len({int(change) % hold for change in changes}) <= 1]
        assert fitting
        seen.add(max(fitting) if len(changes) > 2 else None)
    assert set(HOLDS) <= seen


def test_random_patterns_are_of_all_kinds():
    pattern, _ = draw(Mix(open=0, closed=0, random=1), 300, 64, 10, generator())
    rates = pattern.mean(1)  # [items, gates]
    assert rates.mean().item() == pytest.approx(0.5, abs=0.05)
    assert rates.mean(1).std() > 0.15  # some items are mostly open, some mostly closed
    apart = rates.std(1)
    assert (apart > 0.25).float().mean() > 0.3  # in some the gates have rates of their own
    assert ((rates > 0.9) & (rates.amin(1, keepdim=True) < 0.1)).any()  # one always, another never
    frames = pattern[:, ::64].flatten(0, 1)
    correlation = torch.corrcoef(frames.T) - torch.eye(10)
    assert correlation.abs().max() < 0.6


@pytest.mark.parametrize("frames", [1, 2, 63, 65])
def test_any_length(frames):
    pattern, chosen = draw(Mix(open=0.2, closed=0.2, random=0.4), 5, frames, 10, generator())
    assert pattern.shape == (5, frames, 10) and chosen.shape == (5,)


@pytest.mark.parametrize(("shares", "words"), [((0.5, 0.4, 0.3), "shares"), ((-0.1, 0.5, 0.5), "open: -0.1 does not fit")])
def test_impossible_shares(shares, words):
    with pytest.raises(InputError, match=words):
        Mix(open=shares[0], closed=shares[1], random=shares[2])
