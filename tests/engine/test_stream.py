"""A stream equals the offline result for any chunking, is late by a window at most, and does not grow."""

import gc
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsn_lite.engine import Stream, make_engine
from dsn_lite.errors import InputError

ENGINES = ["torch", "kernel"]


@pytest.fixture(autouse=True)
def _engines(request):
    if "kernel" in request.node.name:
        pytest.importorskip("numba")


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def offline(network, wave: np.ndarray, gates: np.ndarray | None = None) -> np.ndarray:
    """The whole signal at once, in PyTorch, without any of the stream's code."""
    return network.enhance(wave, 16_000, policy="learned" if gates is None else gates).wave


def streamed(stream: Stream, wave: np.ndarray, cuts: list[int]) -> np.ndarray:
    parts = [stream.feed(chunk) for chunk in np.split(wave, sorted(cuts))]
    return np.concatenate([*parts, stream.flush()])


@pytest.mark.parametrize("engine", ENGINES)
@given(
    samples=st.integers(1, 6000),
    cuts=st.lists(st.integers(0, 6000), max_size=12),
    seed=st.integers(0, 2**32 - 1),
    preset=st.sampled_from(["tiny", "tiny", "base"]),
)
@settings(max_examples=12, deadline=None)
def test_any_chunking_and_any_gates_equal_offline(random_network, engine, samples, cuts, seed, preset):
    network, wave = random_network(preset), noise(samples, seed)
    frames = -(-samples // 256) + 1
    gates = np.random.default_rng(seed).integers(0, 2, (frames, 8)).astype(np.uint8)
    expected = offline(network, wave, gates)
    output = streamed(Stream(network, policy=gates, engine=engine), wave, [cut for cut in cuts if cut <= samples])
    assert output.shape == wave.shape and output.dtype == np.float32
    assert np.abs(output - expected).max() < 1e-5 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("parts", ["gated", "always", "absent"])
def test_sample_by_sample(random_network, engine, parts):
    network, wave = random_network("tiny", parts), noise(1500)
    output = streamed(Stream(network, engine=engine), wave, list(range(1, 1500)))
    assert np.abs(output - offline(network, wave)).max() < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
def test_gates_are_reported_as_used(random_network, engine):
    network, wave = random_network(), noise(256 * 40)
    stream, gates = Stream(network, engine=engine), []
    for chunk in np.split(wave, 8):
        stream.feed(chunk)
        gates.append(stream.take_gates())
    stream.flush()
    gates.append(stream.take_gates())
    assert np.array_equal(np.concatenate(gates), network.enhance(wave, 16_000).gates)
    for policy, value in (("open", 1), ("closed", 0)):
        stream = Stream(network, policy=policy, engine=engine)
        stream.feed(wave)
        assert (stream.take_gates() == value).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_latency_is_one_window(random_network, engine):
    """After n samples the first n - 512 + 1 or more are out, and an input sample changes nothing 512 samples before it."""
    network, wave = random_network(), noise(4096)
    stream, fed, out = Stream(network, engine=engine), 0, 0
    for chunk in np.split(wave, range(64, 4096, 64)):
        out += len(stream.feed(chunk))
        fed += len(chunk)
        assert out == max(0, fed // 256 - 1) * 256
        assert fed - out < 512
    changed = wave.copy()
    changed[2048] += 1
    gates = np.ones((17, 8), np.uint8)
    before, after = (streamed(Stream(network, policy=gates, engine=engine), w, []) for w in (wave, changed))
    moved = np.flatnonzero(before != after)
    assert 2048 - 512 < moved[0] <= 2048
    impulse = np.zeros(4096, np.float32)
    impulse[2048] = 1
    response = streamed(Stream(network, policy=gates, engine=engine), impulse, [])
    assert not response[: 2048 - 512].any() and response[2048 - 511 :].any()


@pytest.mark.parametrize("engine", ENGINES)
def test_reset_copy_and_side_by_side(random_network, engine):
    network = random_network()
    waves = [noise(3000, seed) for seed in range(3)]
    expected = [streamed(Stream(network, engine=engine), wave, []) for wave in waves]

    used = Stream(network, engine=engine)
    used.feed(waves[0])
    used.reset()
    assert np.array_equal(streamed(used, waves[1], []), expected[1])
    assert np.array_equal(streamed(used, waves[2], []), expected[2])  # a flush resets

    streams, outputs = [Stream(network, engine=engine) for _ in waves], [[], [], []]
    for start in range(0, 3000, 300):
        for stream, wave, output in zip(streams, waves, outputs, strict=True):
            output.append(stream.feed(wave[start : start + 300]))
    for stream, output, right in zip(streams, outputs, expected, strict=True):
        assert np.abs(np.concatenate([*output, stream.flush()]) - right).max() < 1e-6


@pytest.mark.parametrize("engine", ENGINES)
def test_memory_is_flat(random_network, engine):
    """An hour of 16 ms frames is 225 000; what leaks shows after a few thousand."""
    stream, chunk = Stream(random_network(), engine=engine), noise(256)
    count = 3000 if engine == "kernel" else 60
    held = []
    tracemalloc.start()
    for _ in range(3):  # the first round fills caches
        for _ in range(count):
            stream.feed(chunk)
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    # PyTorch's own small objects come and go; ours do not.
    assert held[2] - held[1] < (1_000 if engine == "kernel" else 30_000)
    assert len(stream._input) < 256


def test_a_bad_chunk_leaves_the_stream_as_it_was(random_network):
    stream, wave = Stream(random_network()), noise(2000)
    first = stream.feed(wave[:1000])
    for bad in (np.array([0, np.nan], np.float32), np.zeros((2, 100), np.float32)):
        with pytest.raises(InputError):
            stream.feed(bad)
    output = np.concatenate([first, stream.feed(wave[1000:]), stream.flush()])
    assert np.array_equal(output, streamed(Stream(random_network()), wave, [1000]))


def test_nothing_in_nothing_out(random_network):
    stream = Stream(random_network())
    assert len(stream.feed(np.zeros(0, np.float32))) == 0 and len(stream.flush()) == 0
    assert stream.take_gates().shape == (0, 8)


def test_wrong_choices(random_network):
    network = random_network()
    with pytest.raises(InputError, match="auto, kernel, onnx, torch"):
        Stream(network, engine="fast")
    with pytest.raises(InputError, match="learned, open or closed"):
        Stream(network, policy="loud")
    with pytest.raises(InputError, match=r"\[frames, 8\]"):
        Stream(network, policy=np.zeros((5, 3)))
    stream = Stream(network, policy=np.zeros((2, 8), np.uint8))
    with pytest.raises(InputError, match="the signal has more"):
        stream.feed(noise(4000))


def test_an_engine_of_ones_own(random_network):
    network = random_network()
    stream = Stream(network, engine=make_engine("torch", network, shift=-np.inf))
    stream.feed(noise(2000))
    assert not stream.take_gates().any()


def test_budget_moves_the_policy(random_network):
    network, wave = random_network(), noise(16_000)
    activity = []
    for budget in (0, 0.2, 0.8, 1):
        stream = Stream(network, budget=budget)
        stream.feed(wave)
        activity.append(stream.take_gates().mean())
    assert activity[0] == 0 and activity[-1] == 1 and activity == sorted(activity)
