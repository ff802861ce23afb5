"""Networks and programs that the tests of the page's engine need."""

import shutil

import pytest
import torch

from dsn_lite.audio.spectral import stft
from dsn_lite.network.config import Config
from dsn_lite.network.model import Network


def random_weights(config: Config, seed: int = 0) -> Network:
    """A network whose every part shows in its output, with norms of random statistics and gates that move."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        network = Network(config).eval()
        for name, tensor in network.state_dict().items():
            last = name.rpartition(".")[2]
            if last == "variance":
                tensor.uniform_(0.5, 2.0)
            elif last == "mean":
                tensor.normal_(0, 0.3)
            elif last == "slope":
                tensor.uniform_(-0.2, 0.6)
            elif last.startswith("bias") or last in ("static", "dynamic"):
                tensor.add_(0.2 * torch.randn_like(tensor))
        mask = network.layers[-1].block
        for part in (mask.static, mask.dynamic):
            if part is not None:
                part.weight.mul_(3)
        if network.policy is not None:
            network.policy.margins.weight.normal_(0, 2)
            wave = 0.1 * torch.randn(1, 32_000) * torch.linspace(0, 20, 32_000).sin()
            margins = network(stft(wave)).margins
            network.policy.margins.bias.sub_(margins.mean((0, 1)))
    network.name = f"random-{seed}"
    return network


@pytest.fixture(scope="session")
def random_enhancer():
    """Maker of networks (config, seed) with random weights."""
    return random_weights


@pytest.fixture(scope="session")
def node() -> str:
    """The program node; skips where there is none."""
    found = shutil.which("node") or shutil.which("nodejs")
    if not found:
        pytest.skip("no node here (apt install nodejs): the engine of the page is not run")
    return found
