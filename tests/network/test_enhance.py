"""A whole signal: level and offset do not matter, no answer knows what comes later, rates and channels come back."""

import numpy as np
import pytest
import torch
from networks import noisy, random_network

from dsn_lite.audio import resample
from dsn_lite.audio.offset import block_offset, blocked_hops
from dsn_lite.errors import InputError
from dsn_lite.network.enhance import BLOCK_FRAMES


def si_sdr(wave: np.ndarray, clean: np.ndarray) -> float:
    wave, clean = wave - wave.mean(), clean - clean.mean()
    target = clean * (wave @ clean) / (clean @ clean)
    return 10 * np.log10((target @ target) / ((wave - target) @ (wave - target)))


@pytest.mark.parametrize("config", ["base", "odd widths"])
@pytest.mark.parametrize(("dbfs", "offset"), [(-60, 0.0), (-10, 0.0), (-60, 0.1), (-40, -0.03), (-10, 0.1)])
def test_level_and_offset_do_not_matter(config, dbfs, offset):
    network, wave = random_network(config), noisy(1.0)
    wave *= 10 ** (-30 / 20) / np.sqrt(np.mean(wave**2))
    scale = 10 ** ((dbfs + 30) / 20)
    expected = network.enhance(wave, 16_000)
    moved = network.enhance((scale * wave + offset).astype(np.float32), 16_000)
    difference = np.abs(moved.wave / scale - expected.wave).max() / np.abs(expected.wave).max()
    # What float32 keeps of a quiet signal beside an offset is its noise; below it nothing may be lost.
    assert difference < (1e-5 if not offset else 0.05 if dbfs == -60 else 1e-3)
    assert abs(si_sdr(moved.wave, wave) - si_sdr(expected.wave, wave)) < 0.5
    if not offset:
        assert np.array_equal(moved.gates, expected.gates)


def test_an_offset_is_blocked_and_little_else():
    t = np.arange(64 * 256) / 16_000
    tone = np.sin(2 * np.pi * 100 * t).astype(np.float32)
    blocked, _ = block_offset(tone.reshape(64, 256))
    assert np.abs(blocked[30:].ravel() - tone[30 * 256 :]).max() < 0.03  # 2 Hz beside 100: 1.1 degrees
    constant, mean = block_offset(np.full((3, 256), -0.7, np.float32))
    assert np.abs(constant).max() < 1e-7 and mean == pytest.approx(-0.7)
    step = np.repeat(np.float32([0, 1]), 128 * 256).reshape(256, 256)
    risen = block_offset(step)[0].ravel()
    # A one-pole high-pass at 2 Hz falls to 1 / e in 80 ms.
    assert risen[128 * 256 + round(16_000 / (4 * np.pi))] == pytest.approx(np.exp(-1), abs=1e-3)


def test_pieces_of_hops_are_the_whole():
    hops = (noisy(1.0)[: 60 * 256] + np.float32(0.2)).reshape(60, 256)
    whole, end = block_offset(hops)
    mean, parts = None, []
    for first in range(0, 60, 7):
        part, mean = block_offset(hops[first : first + 7], mean)
        parts.append(part)
    assert np.array_equal(np.concatenate(parts), whole) and mean == end
    assert np.abs(blocked_hops(hops.ravel()[:-100], 61)[:59] - whole[:59]).max() == 0


@pytest.mark.parametrize("policy", ["learned", "open", "closed"])
def test_no_answer_knows_what_comes_later(policy):
    network, wave = random_network("base"), noisy(1.0)
    other = wave.copy()
    cut = 9_000
    other[cut:] = noisy(1.0, seed=7)[cut:] * 3
    one, two = (network.enhance(each, 16_000, policy=policy) for each in (wave, other))
    # A frame answers for the hop before its last one: what lies a window before the change is settled.
    settled = cut // 256 * 256 - 256
    assert np.array_equal(one.wave[:settled], two.wave[:settled])
    assert not np.array_equal(one.wave[settled : settled + 1024], two.wave[settled : settled + 1024])
    assert np.array_equal(one.gates[: cut // 256], two.gates[: cut // 256])


def test_blocks_carry_the_state_over(monkeypatch):
    network, wave = random_network("three blocks"), noisy(2.0)
    whole = network.enhance(wave, 16_000)
    monkeypatch.setattr("dsn_lite.network.enhance.BLOCK_FRAMES", 11)
    pieces = network.enhance(wave, 16_000)
    assert BLOCK_FRAMES > 100 and np.array_equal(whole.gates, pieces.gates)
    assert np.abs(whole.wave - pieces.wave).max() < 1e-5 * np.abs(whole.wave).max()


def test_rates_channels_and_kinds():
    network, wave = random_network("tiny"), noisy(0.5)
    stereo = torch.from_numpy(np.stack([wave, wave[::-1].copy()]))
    result = network.enhance(stereo, 16_000)
    assert isinstance(result.wave, torch.Tensor) and result.wave.shape == stereo.shape
    assert result.gates.shape[0] == 2 and result.frame_mmacs.shape == result.gates.shape[:2]
    assert np.array_equal(result.wave[0].numpy(), network.enhance(wave, 16_000).wave)
    assert network.enhance(resample(wave, 16_000, 44_100), 44_100).wave.shape == (len(resample(wave, 16_000, 44_100)),)


def test_what_was_spent():
    network = random_network("tiny")
    for policy, activation in (("open", 1.0), ("closed", 0.0)):
        assert network.enhance(noisy(0.3), 16_000, policy=policy).activation == activation
    result = network.enhance(noisy(1.0), 16_000)
    assert 0 < result.activation < 1 and result.mmacs_per_second == pytest.approx(result.frame_mmacs.mean())
    assert random_network("base, static").enhance(noisy(0.3), 16_000).activation == 1.0


@pytest.mark.parametrize(
    ("wave", "rate", "options", "line"),
    [
        (np.zeros(0, np.float32), 16_000, {}, "no samples"),
        (np.full(99, np.nan, np.float32), 16_000, {}, "NaN"),
        (np.zeros(99, np.float32), 0, {}, "sample rate"),
        (np.zeros(99, np.float32), 16_000, {"policy": "best"}, "choose learned, open or closed"),
        (np.zeros(99, np.float32), 16_000, {"policy": np.ones((5, 3))}, r"needed is \[frames, 8\]"),
        (np.zeros(99, np.float32), 16_000, {"budget": 2.0}, "between 0"),
    ],
)
def test_what_is_refused(wave, rate, options, line):
    with pytest.raises(InputError, match=line):
        random_network("tiny").enhance(wave, rate, **options)
