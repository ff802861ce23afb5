"""The counter against the operations that really run; the arithmetic by hand is in test_layers.py."""

import json
import math

import numpy as np
import pytest
import torch
from networks import CONFIGS, random_network, spectrum
from torch.utils._python_dispatch import TorchDispatchMode

from dsn_lite.network.config import Config
from dsn_lite.network.cut import small_alone, without_gates
from dsn_lite.network.macs import count
from dsn_lite.network.model import Network

FRAMES = 4
A_FRAME = 1e6 / 62.5  # MAC of a frame of 1 MMAC/s
GATED = [name for name, config in CONFIGS.items() if config.gated and config.is_dynamic]


class Operations(TorchDispatchMode):
    """Adds up the multiply-accumulates of the operators that PyTorch runs, from the shapes of their operands."""

    def __init__(self):
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if name in ("mm", "bmm"):
            self.macs += args[0].numel() * args[1].shape[-1]
        elif name in ("addmm", "baddbmm"):
            self.macs += args[1].numel() * args[2].shape[-1]
        elif name == "convolution":
            x, weight, transposed = args[0], args[1], args[6]
            places = x if transposed else result  # each of its positions meets each weight once
            self.macs += places.shape[0] * math.prod(places.shape[2:]) * weight.numel()
        elif any(word in name for word in ("mm", "conv", "dot", "gru", "rnn", "linear", "einsum", "matmul", "mv")):
            raise AssertionError(f"an operator that this count does not know: {name}")
        return result


def operations(network, gates=None, frames: int = FRAMES) -> int:
    with torch.no_grad(), Operations() as counted:
        network(torch.from_numpy(spectrum(frames))[None], gates)
    return counted.macs


@pytest.mark.parametrize("config", CONFIGS)
def test_open_and_closed_equal_what_runs(config):
    network = random_network(config)
    counted, count_of_gates = count(network), len(network.gate_names)
    for stated, value in ((counted.open, 1.0), (counted.closed, 0.0)):
        ran = operations(network, torch.full((1, FRAMES, count_of_gates), value)) / FRAMES
        assert ran + counted.policy * A_FRAME == pytest.approx(stated * A_FRAME, abs=1e-6)
    if network.policy is not None:
        gates = torch.zeros(1, FRAMES, count_of_gates)
        ran = (operations(network, lambda _: gates) - operations(network, gates)) / FRAMES
        pooling = 2 * 256 * network.config.policy_bands  # fixed and nearly all zeros: not counted
        assert ran - pooling == pytest.approx(counted.policy * A_FRAME, abs=1e-6)
    assert counted.parameters == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("config", GATED)
def test_any_gates_cost_what_runs(config):
    """Each gate its share, and frame by frame: what is closed is neither counted nor run."""
    network = random_network(config)
    counted, number = count(network), len(network.gate_names)
    gates = torch.zeros(1, FRAMES, number)
    closed = operations(network, gates)
    for k in range(number):
        gates.zero_()[..., k] = 1
        assert (operations(network, gates) - closed) / FRAMES == counted.gate_macs[k]
    gates = torch.randint(2, (1, 12, number), generator=torch.Generator().manual_seed(0)).float()
    stated = counted.of_frames(gates[0].numpy()) - counted.policy
    assert operations(network, gates, 12) == pytest.approx(stated.sum() * A_FRAME, abs=1e-3)


@pytest.mark.parametrize("config", GATED)
def test_what_is_cut_costs_what_the_gates_say(config):
    network = random_network(config)
    counted = count(network)
    for cut, stated in ((without_gates(network), counted.open), (small_alone(network), counted.closed)):
        assert count(cut).open == count(cut).closed == pytest.approx(stated - counted.policy)
        assert count(cut).policy == 0 and count(cut).gate_macs.shape == (0,)
        assert operations(cut) / FRAMES == pytest.approx(count(cut).open * A_FRAME, abs=1e-6)


def test_frames_one_by_one():
    counted = count(random_network("tiny"))
    gates = np.random.default_rng(0).integers(0, 2, (3, 5, 8))
    spent = counted.of_frames(gates)
    assert spent.shape == (3, 5)
    expected = counted.closed + (gates[2, 4] * counted.gate_macs).sum() * 62.5 / 1e6
    assert spent[2, 4] == pytest.approx(expected)
    static = count(random_network("base, static"))
    assert np.allclose(static.of_frames(np.zeros((7, 0))), static.open)


def test_the_presets_are_what_is_said_of_them():
    for preset, is_open, closed in (("tiny", 22.7, 4.4), ("base", 64.3, 11.35), ("paper", 311, 35)):
        counted = count(Network(Config.preset(preset)))
        assert (counted.open, counted.closed) == pytest.approx((is_open, closed), rel=0.01)
        assert 0 < counted.policy < 0.05 * counted.open


@pytest.mark.parametrize("config", ["tiny", "base, static only"])
def test_json(config):
    counted = count(random_network(config))
    values = json.loads(json.dumps(counted.to_json()))
    for key in ("open", "closed", "parameters"):
        assert sum(layer[key] for layer in values["layers"]) == pytest.approx(values[key])
    assert {layer["gate"] for layer in values["layers"]} - {None} == set(counted.gates)
    assert "zero padding included" in values["rule"] and "\n" not in values["rule"]


def test_table():
    counted = count(random_network("base"))
    lines = counted.table().splitlines()
    assert len(lines) == len(counted.layers) + 3
    assert len({len(line) for line in lines[:-1]}) == 1 and max(map(len, lines)) <= 100
    for layer, line in zip(counted.layers, lines[1:], strict=False):
        assert line.startswith(layer.name) and f"{layer.parameters:,}" in line
    assert f"{counted.parameters:,}" in lines[-2] and f"{counted.open:.2f}" in lines[-2]
    assert f"{counted.closed / counted.open:.1%}" in lines[-1]
