"""Three engines over one table of layers: PyTorch, the compiled kernel and ONNX say the same of every shape."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import CONFIGS, noisy, random_network, spectrum

from dsn_lite.engine.engines import TorchEngine, make_engine
from dsn_lite.engine.stream import Stream
from dsn_lite.errors import InputError

FRAMES = 50
ONE_BLOCK, TINY = random_network("one block"), random_network("tiny")


def engine_of(name: str, network, shift: float = 0.0):
    """An engine by name; skips where what it needs is not installed."""
    if name == "kernel":
        pytest.importorskip("numba")
    if name == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    return make_engine(name, network, shift)


def assert_equal(engine, network, gates, shift: float = 0.0, frames: np.ndarray | None = None) -> np.ndarray:
    """Frames in three pieces are those of PyTorch at once, to 1e-5 of the largest; returns the gates used."""
    frames = spectrum(FRAMES, 3) if frames is None else frames
    expected, expected_gates = TorchEngine(network, shift).run(frames, gates)
    engine.reset()
    cut = sorted({0, 1, len(frames) // 2, len(frames)})
    pieces = [slice(a, b) for a, b in zip(cut, cut[1:], strict=False)]
    results = [engine.run(frames[piece], None if gates is None else gates[piece]) for piece in pieces]
    assert np.array_equal(np.concatenate([used for _, used in results]), expected_gates)
    enhanced = np.concatenate([one for one, _ in results])
    assert enhanced.dtype == np.complex64 and np.abs(expected).max() > 1e-3
    assert np.abs(enhanced - expected).max() < 1e-5 * np.abs(expected).max()
    return expected_gates


@pytest.mark.parametrize("name", ["kernel", "onnx"])
@pytest.mark.parametrize("config", CONFIGS)
def test_every_shape(config, name):
    network = random_network(config)
    engine, count = engine_of(name, network), len(network.gate_names)
    used = assert_equal(engine, network, None)
    if network.policy is not None:
        assert (used.std(0) > 0).sum() > count // 2, "the gates of this network do not move"
    if count:
        random = np.random.default_rng(0).random((FRAMES, count)) < np.linspace(0.1, 0.9, count)
        assert_equal(engine, network, random.astype(np.uint8))
        assert_equal(engine, network, np.zeros((FRAMES, count), np.uint8))
        assert_equal(engine, network, np.ones((FRAMES, count), np.uint8))


@pytest.mark.parametrize("name", ["kernel", "onnx"])
def test_each_gate_alone(name):
    network = random_network("odd widths")
    engine = engine_of(name, network)
    for gate in range(len(network.gate_names)):
        gates = np.zeros((12, len(network.gate_names)), np.uint8)
        gates[:, gate] = np.arange(12) % 3 > 0
        assert_equal(engine, network, gates, frames=spectrum(12))
        assert_equal(engine, network, 1 - gates, frames=spectrum(12))


@pytest.mark.parametrize("name", ["kernel", "onnx"])
@pytest.mark.parametrize("shift", [-np.inf, -0.7, 0.4, np.inf])
def test_the_policy_can_be_shifted(name, shift):
    network = random_network("tiny")
    used = assert_equal(engine_of(name, network, shift), network, None, shift)
    assert 0 < used.mean() < 1 if np.isfinite(shift) else used.mean() == (shift > 0)


@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_kernel_on_every_pattern(data):
    network = ONE_BLOCK
    count, frames = len(network.gate_names), data.draw(st.integers(1, 12))
    flat = data.draw(st.lists(st.integers(0, 1), min_size=count * frames, max_size=count * frames))
    gates = np.array(flat, np.uint8).reshape(frames, count)
    assert_equal(engine_of("kernel", network), network, gates, frames=spectrum(frames, frames))


# ------------------------------------------------------------------------------------------------- nothing is computed
def poison(network, gates: list[str]) -> None:
    """NaN in every weight behind some gates."""
    with torch.no_grad():
        for layer in network.layers:
            if layer.gate is not None and network.gate_names[layer.gate] in gates:
                for parameter in layer.block.dynamic.parameters():
                    parameter.fill_(float("nan"))


@pytest.mark.parametrize("name", ["torch", "kernel", "onnx"])
@pytest.mark.parametrize("config", ["one block", "odd widths"])
def test_what_is_closed_is_not_computed(config, name):
    gate_names = random_network(config).gate_names
    for closed in [[gate] for gate in gate_names if config == "one block"] + [gate_names]:
        network = random_network(config)
        poison(network, closed)
        gates = np.tile(np.array([gate not in closed for gate in gate_names], np.uint8), (4, 1))
        engine = engine_of(name, network)
        assert np.isfinite(engine.run(spectrum(4), gates)[0]).all(), closed
        opened = gates.copy()
        opened[-1] = 1
        engine.reset()
        assert not np.isfinite(engine.run(spectrum(4), opened)[0]).all(), "what was poisoned is never read"


# ------------------------------------------------------------------------------------------------------------- streams
@pytest.mark.parametrize("name", ["torch", "kernel", "onnx"])
@given(lengths=st.lists(st.integers(0, 1500), max_size=6), offset=st.sampled_from([0.0, 0.1]))
@settings(max_examples=5, deadline=None)
def test_a_stream_is_the_whole_signal(name, lengths, offset):
    network = TINY
    engine_of(name, network)
    wave = noisy(0.4) + np.float32(offset)
    expected = network.enhance(wave, 16_000)
    stream = Stream(network, engine=name)
    parts, used = [], []
    for piece in np.split(wave, np.minimum(np.cumsum(lengths), len(wave))) if lengths else [wave]:
        parts.append(stream.feed(piece))
        used.append(stream.take_gates())
    parts.append(stream.flush())
    used.append(stream.take_gates())
    assert np.abs(np.concatenate(parts) - expected.wave).max() < 1e-5 * np.abs(expected.wave).max()
    assert np.array_equal(np.concatenate(used), expected.gates)


@pytest.mark.parametrize("samples", [0, 1, 200, 256, 257, 700])
def test_short_streams(samples):
    network, wave = random_network("tiny"), noisy(1.0)[:samples] + np.float32(0.05)
    stream = Stream(network)
    result = np.concatenate([stream.feed(wave), stream.flush()])
    assert len(result) == samples
    if samples:
        assert np.allclose(result, network.enhance(wave, 16_000).wave, atol=1e-6)


@pytest.mark.parametrize("name", ["torch", "kernel", "onnx"])
def test_a_stream_forgets(name):
    network = random_network("base")
    engine_of(name, network)
    stream = Stream(network, engine=name)
    first = np.concatenate([stream.feed(noisy(0.5)), stream.flush()])
    assert np.array_equal(first, np.concatenate([stream.feed(noisy(0.5)), stream.flush()]))


def test_given_gates_and_budgets():
    network = random_network("tiny")
    rows = (np.random.default_rng(1).random((64, 8)) < 0.5).astype(np.uint8)
    stream = Stream(network, policy=rows)
    stream.feed(noisy(0.9))
    assert np.array_equal(stream.take_gates(), rows[: stream.frames])
    for budget, mean in ((0.0, 0), (1.0, 1)):
        assert network.enhance(noisy(0.3), 16_000, budget=budget).gates.mean() == mean
        stream = Stream(network, budget=budget)
        stream.feed(noisy(0.3))
        assert stream.take_gates().mean() == mean
    with pytest.raises(InputError, match="the signal has more"):
        network.enhance(noisy(2.0), 16_000, policy=rows)


def test_onnx_from_a_file(tmp_path):
    onnx = pytest.importorskip("dsn_lite.engine.onnx")
    engine_of("onnx", random_network("tiny"))
    network = random_network("tiny")
    onnx.save(network, tmp_path / "tiny.onnx")
    assert_equal(onnx.OnnxEngine(tmp_path / "tiny.onnx"), network, None)
    (tmp_path / "other.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match="other.onnx: not a graph of dsn-lite"):
        onnx.OnnxEngine(tmp_path / "other.onnx")
