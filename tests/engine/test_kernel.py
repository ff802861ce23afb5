"""The compiled engine where it can be missing or has nowhere to keep its code; test_engines.py says what it computes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from networks import random_network, spectrum

import dsn_lite
from dsn_lite.engine.engines import TorchEngine
from dsn_lite.engine.stream import Stream
from dsn_lite.network.config import Config

pytest.importorskip("numba")
from dsn_lite.engine.kernel import frame
from dsn_lite.engine.kernel.engine import KernelEngine


def test_the_largest_preset():
    network, frames = random_network(Config.preset("paper")), spectrum(30)
    expected, gates = TorchEngine(network, 0.0).run(frames, None)
    found, used = KernelEngine(network).run(frames, None)
    assert np.array_equal(used, gates) and 0 < gates.mean() < 1
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_engines_side_by_side_do_not_see_each_other():
    network, frames = random_network("tiny"), spectrum(12)
    one, other = KernelEngine(network), KernelEngine(network)
    expected, _ = one.run(frames, None)
    one.reset()
    first, _ = one.run(frames[:6], None)
    other.run(frames[::-1], None)
    second, _ = one.run(frames[6:], None)
    assert np.array_equal(np.concatenate([first, second]), expected)


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float32, np.uint8])
def test_gates_of_any_type_and_layout(dtype):
    network, frames = random_network("tiny"), spectrum(9)
    gates = np.random.default_rng(0).integers(0, 2, (8, 9)).astype(dtype).T  # not contiguous
    expected, _ = TorchEngine(network, 0.0).run(frames, np.ascontiguousarray(gates).astype(np.uint8))
    found, used = KernelEngine(network).run(frames, gates)
    assert np.array_equal(used, gates) and np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_it_is_the_default_and_can_be_missing(monkeypatch):
    network = random_network("tiny")
    assert Stream(network).engine.name == "kernel"
    monkeypatch.setitem(sys.modules, "dsn_lite.engine.kernel.engine", None)
    assert Stream(network, engine="auto").frames == 0
    with pytest.warns(UserWarning, match="pip install numba"):
        stream = Stream(network, engine="kernel")
    stream.feed(np.zeros(600, np.float32))
    assert stream.take_gates().shape == (2, 8)


STREAM = """
import shutil, sys
import numpy as np
from pathlib import Path
import dsn_lite
from dsn_lite import Stream
from dsn_lite.engine.kernel import frame
from dsn_lite.network.config import Config
from dsn_lite.network.model import Network

cache = frame.run_hops.stats.cache_path
print(Path(dsn_lite.__file__).parent, cache, sep="\\n")
stream = Stream(Network(Config.preset("tiny")).eval())
assert stream.engine.name == "kernel"
if cache:  # what this process compiled is there already: spare the minute
    for path in Path(sys.argv[1]).glob("*.nb?"):
        shutil.copy2(path, cache)
    print(len(stream.feed(np.ones(600, np.float32))))
"""


@pytest.mark.parametrize("cache", ["given", "user", None])
def test_a_folder_that_cannot_be_written_to(tmp_path, cache):
    """Numba keeps its machine code elsewhere, or nowhere; a file in the place of a folder stops even the superuser."""
    Stream(random_network("tiny")).feed(np.zeros(600, np.float32))
    package, home = tmp_path / "read-only" / "dsn_lite", tmp_path / "home"
    left_out = shutil.ignore_patterns("__pycache__", "weights", "clips")
    shutil.copytree(Path(dsn_lite.__file__).parent, package, ignore=left_out)
    for folder in ("engine/kernel", "network"):
        (package / folder / "__pycache__").touch()
    home.mkdir()
    if cache is None:
        (home / ".cache").touch()
    settings = os.environ | {"HOME": str(home), "PYTHONPATH": str(package.parent), "PYTHONSAFEPATH": "1"}
    for name in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "IPYTHONDIR"):
        settings.pop(name, None)
    if cache == "given":
        settings["NUMBA_CACHE_DIR"] = str(tmp_path / "given")
    command = [sys.executable, "-c", STREAM, frame.run_hops.stats.cache_path]
    result = subprocess.run(command, env=settings, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    used, folder, *enhanced = result.stdout.split("\n")
    assert used == str(package)
    if cache is None:
        assert folder == "None" and result.stderr.count("set NUMBA_CACHE_DIR") == 1
    else:
        assert folder.startswith(str(tmp_path / "given" if cache == "given" else home)) and "Warning" not in result.stderr
        assert enhanced[0] == "256"
