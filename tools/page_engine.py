"""How exact and how fast the engine of the page is, under node.

    python tools/page_engine.py [NETWORK] --json results/page-engine.json

NETWORK is a shipped network or a .safetensors file; without one an untrained network of the preset `base` is measured,
whose exactness and cost are those of any of its shape. Times are processor time of one run, least and median of 25.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from dsn_lite.evaluation.provenance import provenance, report
from dsn_lite.network import weights
from dsn_lite.network.config import Config
from dsn_lite.network.model import Network
from dsn_lite.widgets import table
from dsn_lite.widgets.speak import book_clips

RUNNER = Path(__file__).resolve().parent.parent / "tests" / "widgets" / "run_engine.js"


def measure(network: Network) -> dict:
    """Microseconds a frame of both kernels, and the largest difference from PyTorch over the largest sample."""
    wave = next(iter(book_clips().values()))[: 50 * 256]
    packed, found = table.pack(network), {"network": network.name, "frames": 50}
    expected = network.enhance(wave, 16_000).wave
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "table.json").write_text(json.dumps(packed.header))
        (place / "weights.bin").write_bytes(packed.weights)
        (place / "products.wasm").write_bytes(table.products())
        (place / "engine.js").write_text(table.engine())
        np.asarray(wave, "<f4").tofile(place / "samples.bin")
        for name, kernel in (("JavaScript", "plain"), ("WebAssembly", "fast")):
            row = found[name] = json.loads(run(place, kernel, "time"))
            names = json.loads(run(place, kernel, "trace"))
            flat = np.fromfile(place / "trace.bin", "<f4").reshape(50, sum(length for _, length in names))
            wave_of_page = flat[1:, -256:].reshape(-1)  # a frame completes the hop before
            difference = np.abs(wave_of_page - expected[: len(wave_of_page)]).max() / np.abs(expected).max()
            row["difference"] = float(difference)
    return found


def run(place: Path, kernel: str, job: str) -> str:
    """What node says."""
    command = ["node", str(RUNNER), str(place / "engine.js"), str(place), kernel, job]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("network", nargs="?")
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()
    torch.manual_seed(0)
    given = weights.read(options.network, Network) if options.network else Network(Config.preset("base")).eval()
    report({**measure(given), "seed": 0, **provenance(("torch", "numpy"))}, options.json)
