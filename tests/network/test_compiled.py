"""Functions of numbers against NumPy in double precision."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

compiled = pytest.importorskip("dsn_lite.network.compiled")


def test_functions():
    @compiled.njit
    def apply(x):
        out = np.empty((4, len(x)), np.float32)
        for i in range(len(x)):
            out[0, i], out[1, i] = compiled.exp(x[i]), compiled.log(abs(x[i]) + np.float32(1e-6))
            out[2, i], out[3, i] = compiled.sigmoid(x[i]), compiled.tanh(x[i])
        return out

    x = np.linspace(-86, 86, 9999).astype(np.float32)
    exp, log, sigmoid, tanh = apply(x)
    wide = x.astype(np.float64)
    assert np.abs(exp / np.exp(wide) - 1).max() < 2e-7
    assert np.abs(log - np.log((np.abs(x) + np.float32(1e-6)).astype(np.float64))).max() < 2e-6
    assert np.abs(sigmoid - 1 / (1 + np.exp(-wide))).max() < 3e-7
    assert np.abs(tanh - np.tanh(wide)).max() < 3e-7
    assert np.isfinite(apply(np.array([-1e30, 1e30], np.float32))[[0, 2, 3]]).all()


def test_kept_code_follows_what_it_calls(tmp_path):
    package = str(Path(compiled.__file__).resolve().parents[2])
    paths = {"PYTHONPATH": os.pathsep.join([str(tmp_path), package]), "NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    code = "from dsn_lite.network.compiled import jit\n@jit\n"
    (tmp_path / "outer.py").write_text(f"from inner import f\n{code}def g(x):\n    return f(x)\n")

    def run() -> list[str]:
        """What g says in a fresh process, and how often its code was found."""
        command = [sys.executable, "-c", "from outer import g\nprint(g(0), sum(g.stats.cache_hits.values()))"]
        return subprocess.check_output(command, env={**os.environ, **paths}, text=True).split()

    (tmp_path / "inner.py").write_text(f"{code}def f(x):\n    return x + 1\n")
    assert run() == ["1", "0"]
    (tmp_path / "inner.py").write_text(f"{code}def f(x):\n    return x + 22\n")
    assert run() == ["22", "0"]
    assert run() == ["22", "1"]
