"""The line from OVRL to target activation: falling, clipped, of the wanted mean."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsn_lite.errors import InputError
from dsn_lite.training.guidance import Guidance

LABELS = st.lists(st.floats(1, 5), min_size=1, max_size=50).map(np.array)


@given(ovrl=LABELS, mean=st.floats(0.15, 0.85), slope=st.floats(0.05, 3))
@settings(max_examples=60, deadline=None)
def test_the_mean_target_is_met_and_the_line_is_clipped_and_falls(ovrl, mean, slope):
    line = Guidance.fit(ovrl, mean=mean, slope=slope)
    targets = line.target(ovrl)
    assert targets.mean() == pytest.approx(mean, abs=1e-9)
    assert (targets >= 0.1).all() and (targets <= 0.9).all()
    grid = line.target(np.linspace(0, 6, 100))
    assert (np.diff(grid) <= 0).all() and grid[0] >= grid[-1]
    inside = (grid > 0.1) & (grid < 0.9)
    steps = np.diff(grid)[inside[:-1] & inside[1:]]
    np.testing.assert_allclose(steps, -slope * 6 / 99, atol=1e-9)


def test_worse_input_gets_more():
    ovrl = np.random.default_rng(0).normal(2.0, 0.5, 1000).clip(1, 4)
    line = Guidance.fit(ovrl, mean=0.45)
    targets = line.target(ovrl)
    order = np.argsort(ovrl)
    assert targets[order[:100]].mean() > 0.45 + 0.2 and targets[order[-100:]].mean() < 0.45 - 0.2
    assert line.target(np.array([0.0, 9.0])).tolist() == [0.9, 0.1]


def test_other_ends():
    ovrl = np.linspace(1, 4, 50)
    line = Guidance.fit(ovrl, mean=0.5, slope=2.0, lowest=0.0, highest=1.0)
    assert (line.lowest, line.highest, line.slope) == (0.0, 1.0, 2.0)
    assert line.target(ovrl).min() == 0 and line.target(ovrl).max() == 1
    assert line.target(ovrl).mean() == pytest.approx(0.5)


def test_a_single_score_and_equal_labels():
    line = Guidance.fit(np.full(7, 2.5), mean=0.3)
    assert float(line.target(2.5)) == pytest.approx(0.3) and float(line.target(2.0)) > 0.3


@pytest.mark.parametrize("mean", [0.1, 0.9, 0.0, 1.0, float("nan")])
def test_a_mean_that_cannot_be_met(mean):
    with pytest.raises(InputError, match="between the lowest, 0.1, and the highest, 0.9"):
        Guidance.fit(np.array([2.0]), mean=mean)


def test_no_labels_and_bad_labels():
    with pytest.raises(InputError, match="dsn-lite label"):
        Guidance.fit(np.array([]), mean=0.5)
    with pytest.raises(InputError, match="not numbers"):
        Guidance.fit(np.array([2.0, np.nan]), mean=0.5)


@pytest.mark.parametrize("slope", [0.0, -1.0])
def test_a_line_that_does_not_fall(slope):
    with pytest.raises(InputError, match="slope"):
        Guidance.fit(np.array([2.0, 3.0]), mean=0.5, slope=slope)
