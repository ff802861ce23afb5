"""Networks of the new kind with random weights, in which every part shows in the answer and every gate moves."""

from pathlib import Path

import numpy as np
import torch

from dsn_lite.network import weights
from dsn_lite.network.blocks.norm import Norm
from dsn_lite.network.config import Config
from dsn_lite.network.model import Network

BASE, TINY = Config.preset("base"), Config.preset("tiny")
ODD = {
    "channels": ((3, 5), (5, 6), (7, 9)), "heads": (1, 3), "head_width": (3, 5), "hidden": (7, 9), "groups": (1, 3),
    "group_width": (5, 3), "policy_bands": 9, "policy_width": 11,
}  # fmt: skip
CONFIGS = {
    "tiny": TINY,
    "base": BASE,
    "base, static": BASE.static(),
    "base, static only": BASE.static_only(),
    "one block": Config.from_dict({"preset": "tiny", "blocks": 1}),
    "three blocks": Config.from_dict({"preset": "base", "blocks": 3, "heads": (1, 3), "hidden": (16, 48)}),
    "no policy": Config.from_dict({"preset": "tiny", "policy_width": 0}),
    "odd widths": Config(**ODD),
    "strides 4 and 2": Config(**ODD | {"channels": ((4, 4), (7, 9)), "strides": (4, 2), "kernels": (7, 3)}),
    "64 bands": Config(**ODD | {"channels": ((4, 4), (8, 8)), "strides": (2, 2), "kernels": (5, 5), "blocks": 1}),
    "strides over kernels": Config(**ODD | {"channels": ((4, 4), (7, 9)), "strides": (8, 2), "kernels": (5, 1)}),
    "16 bands": Config(**ODD | {"strides": (2, 4, 2), "kernels": (3, 9, 5)}),
}
"""Shapes by configuration alone."""


def random_network(config: Config | str, seed: int = 0) -> Network:
    """A network in evaluation mode whose every weight is random; the same seed, the same weights."""
    config = CONFIGS[config] if isinstance(config, str) else config
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        network = Network(config).eval()
        for module in network.modules():
            if isinstance(module, Norm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
                module.mean.normal_(0, 0.3)
                module.variance.uniform_(0.5, 2)
            if getattr(module, "slope", None) is not None:
                module.slope.uniform_(-0.2, 0.6)
        mask = network.layers[-1].block
        for part in (mask.static, mask.dynamic):
            if part is not None:
                part.weight.normal_(0, 0.2)
                part.bias.normal_(0, 0.3)
        if network.policy is not None:  # margins around zero, which the sound moves
            network.policy.margins.weight.normal_(0, 2)
            margins = network(torch.from_numpy(spectrum(200, seed))[None]).margins
            network.policy.margins.bias -= margins.median(1).values[0]
    return network


def spectrum(frames: int, seed: int = 0) -> np.ndarray:
    """Complex frames [T, 257] of varying level, some of them silent."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((frames, 257)) + 1j * rng.standard_normal((frames, 257))
    values *= 10 ** (rng.uniform(-1, 1, (frames, 1)) + rng.uniform(-0.7, 0.7, (1, 257)))
    values[rng.random(frames) < 0.1] = 0
    return values.astype(np.complex64)


def noisy(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise [samples] at 16 kHz that swells and fades, with a tone in it, of 0.1 at most or so."""
    rng, t = np.random.default_rng(seed), np.arange(round(16_000 * seconds)) / 16_000
    wave = rng.standard_normal(len(t)) * (1 + np.sin(4 * t)) + np.sin(1500 * t) * (np.sin(7 * t) > 0)
    return (0.03 * wave).astype(np.float32)


def save_untaught(config: Config, path: Path) -> Path:
    """An untrained network whose refinement shows, and whose gates therefore matter, as a file."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        network = Network(config)
        for part in (network.layers[-1].block.static, network.layers[-1].block.dynamic):
            part.weight.normal_(0, 0.3)
    weights.save(network, path)
    return path
