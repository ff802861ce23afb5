"""The compiled engine equals the PyTorch network on every gate pattern, and never reads a closed part."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsn_lite.engine import Stream, TorchEngine
from dsn_lite.network.model import GATES

pytest.importorskip("numba")
from dsn_lite.kernel import KernelEngine

from dsn_lite import kernel

ALL = [("tiny", "gated"), ("base", "gated"), ("base", "always"), ("base", "absent"), ("tiny", "always"), ("paper", "gated")]


def spectrum(frames: int, seed: int = 0) -> np.ndarray:
    """Complex frames of varying level, some of them silent."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((frames, 257)) + 1j * rng.standard_normal((frames, 257))
    values *= 10 ** rng.uniform(-3, 1, (frames, 1))
    values[rng.random(frames) < 0.1] = 0
    return values.astype(np.complex64)


def assert_equal(engine, network, frames, gates, pieces=None):
    """The engine's output and gates are those of PyTorch, to 1e-5 of the signal's level."""
    engine.reset()
    expected, expected_gates = TorchEngine(network, engine.shift).run(frames, gates)
    parts = np.split(np.arange(len(frames)), pieces) if pieces is not None else [np.arange(len(frames))]
    results = [engine.run(frames[rows], None if gates is None else gates[rows]) for rows in parts if len(rows)]
    assert np.array_equal(np.concatenate([used for _, used in results]), expected_gates)
    output = np.concatenate([enhanced for enhanced, _ in results])
    assert output.dtype == np.complex64
    scale = np.sqrt((np.abs(expected) ** 2).mean())
    assert np.abs(output - expected).max() < 1e-5 * scale * np.sqrt(257)


@pytest.mark.parametrize(("preset", "parts"), ALL)
def test_equals_the_network(random_network, preset, parts):
    network = random_network(preset, parts)
    engine = KernelEngine(network)
    frames = spectrum(40)
    assert_equal(engine, network, frames, None)
    if parts == "gated":
        for gates in (np.zeros((40, 10), np.uint8), np.ones((40, 10), np.uint8)):
            assert_equal(engine, network, frames, gates)


@pytest.mark.parametrize("preset", ["tiny", "base"])
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_every_pattern_and_chunking(random_network, preset, data):
    network = random_network(preset)
    count = data.draw(st.integers(1, 12), "frames")
    gates = np.array(data.draw(st.lists(st.integers(0, 1), min_size=10 * count, max_size=10 * count)), np.uint8)
    pieces = sorted(data.draw(st.lists(st.integers(0, count), max_size=4)))
    assert_equal(KernelEngine(network), network, spectrum(count, count), gates.reshape(count, 10), pieces)


@pytest.mark.parametrize("index", range(len(GATES)))
def test_each_gate_alone(random_network, index):
    network = random_network("base")
    gates = np.zeros((12, 10), np.uint8)
    gates[:, index] = np.arange(12) % 3 > 0
    assert_equal(KernelEngine(network), network, spectrum(12), gates)
    assert_equal(KernelEngine(network), network, spectrum(12), 1 - gates)


@pytest.mark.parametrize("shift", [-np.inf, -0.7, 0.4, np.inf])
def test_the_policy_decides_as_the_network_does(random_network, shift):
    network = random_network("tiny")
    engine = KernelEngine(network, shift)
    frames = spectrum(60)
    assert_equal(engine, network, frames, None)
    _, gates = engine.run(frames, None)
    if np.isfinite(shift):
        assert 0 < gates.mean() < 1 and gates.std(0).max() > 0
    else:
        assert gates.mean() == (shift > 0)


def poison(network, index: int) -> None:
    """Replace every weight behind gate `index` by NaN; they are the last units of their layer."""
    nan = float("nan")
    first, second, time = network.frequency_1, network.frequency_2, network.time
    with torch.no_grad():
        match GATES[index].split():
            case "encoder", number:
                layer = getattr(network, f"encoder_{number}")
                layer.conv.weight[layer.static :] = nan
                layer.conv.bias[layer.static :] = nan
            case "decoder", number:
                layer = getattr(network, f"decoder_{number}")
                layer.conv.weight[:, layer.static :] = nan
                layer.conv.bias[layer.static :] = nan
            case *block, "heads":
                attention = (first if block[1] == "1" else second).attention
                width = attention.static * attention.head_width
                attention.query_key_value.weight.unflatten(0, (3, -1))[:, width:] = nan
                attention.query_key_value.bias.unflatten(0, (3, -1))[:, width:] = nan
                attention.out.weight[:, width:] = nan
            case *block, "hidden":
                layer = (time if block == ["time"] else first if block[1] == "1" else second).feed_forward
                layer.up.weight[layer.static :] = nan
                layer.up.bias[layer.static :] = nan
                layer.down.weight[:, layer.static :] = nan
            case "time", "groups":
                for group in time.gru.groups[time.gru.static :]:
                    for parameter in group.parameters():
                        parameter.fill_(nan)
                time.gru.out.weight[:, time.gru.static * time.gru.group_width :] = nan


@pytest.mark.parametrize("index", range(len(GATES)))
def test_closed_parts_are_not_read(random_network, index):
    clean, poisoned = random_network("tiny"), random_network("tiny")
    poison(poisoned, index)
    gates = np.ones((4, 10), np.uint8)
    gates[:, index] = 0
    frames = spectrum(4)
    expected, _ = KernelEngine(clean).run(frames, gates)
    output, _ = KernelEngine(poisoned).run(frames, gates)
    assert np.array_equal(output, expected)
    gates[2, index] = 1  # and the poison is one: a single open frame shows it
    output, _ = KernelEngine(poisoned).run(frames, gates)
    assert np.isfinite(output[:2]).all() and np.isnan(output[2]).any()


def test_all_closed_with_everything_poisoned(random_network):
    clean, poisoned = random_network("base"), random_network("base")
    for index in range(len(GATES)):
        poison(poisoned, index)
    frames, gates = spectrum(6), np.zeros((6, 10), np.uint8)
    assert np.array_equal(KernelEngine(poisoned).run(frames, gates)[0], KernelEngine(clean).run(frames, gates)[0])


def test_closed_groups_hold_their_state(random_network):
    network = random_network("tiny")
    engine = KernelEngine(network)
    frames = spectrum(6)
    engine.run(frames[:3], np.ones((3, 10), np.uint8))
    states = kernel._get(engine.memory, engine.plan[kernel.STATES])
    width = network.time.gru.static * (1 + network.time.gru.group_width)
    before = states.copy()
    engine.run(frames[3:], np.zeros((3, 10), np.uint8))
    assert np.array_equal(states[width:], before[width:]) and not np.array_equal(states[:width], before[:width])


def test_a_copy_goes_its_own_way(random_network):
    engine = KernelEngine(random_network())
    frames = spectrum(9)
    engine.run(frames[:3], None)
    twin = engine.copy()
    first, _ = engine.run(frames[3:6], None)
    engine.run(frames[6:], None)
    second, _ = twin.run(frames[3:6], None)
    assert np.array_equal(first, second)


def test_transforms(random_network):
    rng = np.random.default_rng(0)
    weights = kernel.pack(random_network())
    get = lambda index: kernel._get(weights.block, weights.table[index])
    rows, halves, turned = (np.zeros((18, 32), np.float32) for _ in range(3))
    samples = rng.standard_normal(512).astype(np.float32)
    spectrum, result = np.zeros((16, 33), np.float32), np.zeros(514, np.float32)
    forward = [get(i) for i in (kernel.FORWARD_1, kernel.TWIDDLE, kernel.FORWARD_2)]
    kernel._to_spectrum(samples.reshape(16, 32), *forward, rows, halves, turned, spectrum)
    kernel._join(spectrum, result)
    assert np.allclose(result.view(np.complex64), np.fft.rfft(samples), atol=3e-5)
    grid = np.zeros((16, 32), np.float32)
    backward = [get(i) for i in (kernel.BACKWARD_2, kernel.TWIDDLE, kernel.BACKWARD_1)]
    values = (rng.standard_normal(257) + 1j * rng.standard_normal(257)).astype(np.complex64)
    kernel._split(values.view(np.float32), spectrum)
    kernel._to_samples(spectrum, *backward, turned, halves, rows, grid)
    assert np.allclose(grid.ravel(), np.fft.irfft(values), atol=1e-6)


def test_normalisation_of_large_means():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((32, 33)) + 300 * rng.standard_normal(33)).astype(np.float32)
    x[:, 5] = 7
    out, wide = np.ones((33, 33), np.float32), x.astype(np.float64)
    kernel._normalise(x, out)
    expected = (wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-5)
    assert np.abs(out[1:] - expected).max() < 1e-4 and (out[0] == 1).all()


def test_it_is_the_default_and_can_be_missing(random_network, monkeypatch):
    network = random_network()
    assert Stream(network).engine.name == "kernel"
    monkeypatch.setitem(__import__("sys").modules, "dsn_lite.kernel", None)
    assert Stream(network).engine.name == "torch"
    with pytest.warns(UserWarning, match="pip install numba"):
        assert Stream(network, engine="kernel").engine.name == "torch"


STREAM = """
import shutil, sys
import numpy as np
from pathlib import Path
from dsn_lite import Stream, kernel
from dsn_lite.network.config import Config
from dsn_lite.network.model import Network

cache = kernel.run.stats.cache_path
print(Path(kernel.__file__).parent, cache, sep="\\n")
stream = Stream(Network(Config.preset("tiny")).eval())
assert stream.engine.name == "kernel"
if cache:  # what this process compiled is there already: spare the minute
    for path in Path(sys.argv[1]).glob("kernel.*.nb?"):
        shutil.copy2(path, cache)
    print(len(stream.feed(np.ones(600, np.float32))), kernel.run.stats.cache_hits)
"""


@pytest.mark.parametrize("cache", ["given", "user", None])
def test_a_folder_that_cannot_be_written_to(random_network, tmp_path, cache):
    """Numba keeps its machine code elsewhere, or nowhere; a file in the place of a folder stops even the superuser."""
    Stream(random_network()).feed(np.zeros(600, np.float32))
    package, home = tmp_path / "read-only" / "dsn_lite", tmp_path / "home"
    left_out = shutil.ignore_patterns("__pycache__", "weights", "clips")
    shutil.copytree(Path(kernel.__file__).parent, package, ignore=left_out)
    (package / "__pycache__").touch()
    home.mkdir()
    if cache is None:
        (home / ".cache").touch()
    settings = os.environ | {"HOME": str(home), "PYTHONPATH": str(package.parent), "PYTHONSAFEPATH": "1"}
    for name in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "IPYTHONDIR"):
        settings.pop(name, None)
    if cache == "given":
        settings["NUMBA_CACHE_DIR"] = str(tmp_path / "given")
    command = [sys.executable, "-c", STREAM, kernel.run.stats.cache_path]
    result = subprocess.run(command, env=settings, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    used, folder, *enhanced = result.stdout.split("\n")
    assert used == str(package)
    if cache is None:
        assert folder == "None" and result.stderr.count("set NUMBA_CACHE_DIR") == 1
    else:
        assert folder.startswith(str(tmp_path / "given" if cache == "given" else home)) and "Warning" not in result.stderr
        assert enhanced[0].split()[0] == "256"
