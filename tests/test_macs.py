"""The counter against arithmetic by hand, and against the operations that really run."""

import json
import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dsn_lite import macs
from dsn_lite.blocks import DynamicAttention, DynamicConv, DynamicConvTranspose, DynamicFeedForward, DynamicGRU
from dsn_lite.config import PRESETS, Config
from dsn_lite.errors import InputError
from dsn_lite.model import GATES, Network

FRAMES = 4
PRESET = pytest.mark.parametrize("preset", PRESETS)


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
        elif name.startswith("_scaled_dot_product"):
            query, key, value = args[:3]
            self.macs += query.numel() * key.shape[-2] + query.shape[:-1].numel() * value.shape[-2:].numel()
        elif any(word in name for word in ("mm", "conv", "dot", "gru", "rnn", "linear", "einsum", "matmul", "mv")):
            raise AssertionError(f"an operator that this count does not know: {name}")
        return result


def operations(network, spectrum, gates=None):
    with torch.no_grad(), Operations() as counted:
        network(spectrum, gates)
    return counted.macs


def network(preset, variant="gated"):
    config = Config.preset(preset)
    return Network({"gated": config, "static": config.static(), "static-only": config.static_only()}[variant]).eval()


def spectrum(frames=FRAMES):
    return torch.randn(1, frames, 257, dtype=torch.complex64)


# ---- the operators that run


@PRESET
@pytest.mark.parametrize("is_open", [True, False])
def test_open_and_closed_equal_what_runs(preset, is_open):
    made = network(preset)
    counted = macs.count(made)
    ran = operations(made, spectrum(), torch.full((1, FRAMES, 10), float(is_open))) / FRAMES
    policy = counted.policy * 1e6 / 62.5
    stated = (counted.open if is_open else counted.closed) * 1e6 / 62.5
    assert ran + policy == pytest.approx(stated, abs=1e-6)


@PRESET
def test_the_policy_equals_what_runs(preset):
    made, x = network(preset), spectrum()
    with torch.no_grad():
        gates = made(x).gates
    policy = (operations(made, x) - operations(made, x, gates)) / FRAMES
    pooling = 257 * made.config.policy_bands  # a fixed matrix, nearly all zeros: not counted, as the rule says
    assert policy - pooling == pytest.approx(macs.count(made).policy * 1e6 / 62.5, abs=1e-6)


@PRESET
@pytest.mark.parametrize("variant", ["static", "static-only"])
def test_static_networks_equal_what_runs(preset, variant):
    made = network(preset, variant)
    counted = macs.count(made)
    assert operations(made, spectrum()) / FRAMES == pytest.approx(counted.open * 1e6 / 62.5, abs=1e-6)
    assert counted.closed == counted.open and counted.policy == 0 and counted.gate_macs.shape == (0,)


@pytest.mark.parametrize("k", range(10), ids=GATES)
def test_each_gate_opens_its_share(k):
    made, x = network("tiny"), spectrum()
    gates = torch.zeros(1, FRAMES, 10)
    closed = operations(made, x, gates)
    gates[..., k] = 1
    assert (operations(made, x, gates) - closed) / FRAMES == macs.count(made).gate_macs[k]


@pytest.mark.parametrize("seed", range(5))
def test_any_gates_cost_what_runs(seed):
    """Frame by frame: what is closed is neither counted nor run."""
    made, frames = network("tiny"), 12
    gates = torch.randint(2, (1, frames, 10), generator=torch.Generator().manual_seed(seed)).float()
    stated = macs.frame_macs(macs.count(made), gates[0].numpy())
    policy = macs.count(made).policy * 1e6 / 62.5
    assert operations(made, spectrum(frames), gates) == pytest.approx((stated - policy).sum(), abs=1e-3)


# ---- by hand


def test_convolution_by_hand():
    block = DynamicConv(2, static=3, dynamic=1, kernel=(2, 5), stride=2)
    # 129 bands of the output, 2 input channels, 2 x 5 taps; 3 channels always, 1 behind the gate
    assert macs.convolution(block, 257) == (129 * 2 * 10 * 3, 129 * 2 * 10 * 1) == (7740, 2580)


def test_transposed_convolution_by_hand():
    block = DynamicConvTranspose(6, static=2, dynamic=5, kernel=3, stride=2)
    # each of 33 input bands and 6 channels is multiplied by 3 taps of each output channel
    assert macs.transposed_convolution(block, 33) == (33 * 6 * 3 * 2, 33 * 6 * 3 * 5) == (1188, 2970)


def test_feed_forward_by_hand():
    block = DynamicFeedForward(8, static=3, dynamic=5)
    # up 8 -> h and down h -> 8 in each of 33 bands
    assert macs.feed_forward(block, 33) == (33 * (8 * 3 + 3 * 8), 33 * (8 * 5 + 5 * 8)) == (1584, 2640)


def test_recurrence_by_hand():
    block = DynamicGRU(8, group_width=4, static=1, dynamic=2)
    # three gates, each 8 inputs and 4 states to 4; then 4 to 8 channels out; in each of 33 bands
    one = 33 * (3 * (8 * 4 + 4 * 4) + 4 * 8)
    assert macs.recurrence(block, 33) == (one, 2 * one) == (5808, 11616)


def test_attention_by_hand():
    block = DynamicAttention(8, head_width=4, static=1, dynamic=3)
    # a head: query, key, value 8 -> 4 each, output 4 -> 8, in 33 bands; scores and mixture 33 x 33 x 4 each
    one = 33 * (3 * 8 * 4 + 4 * 8) + 2 * 33 * 33 * 4
    assert macs.attention(block, 33) == (one, 3 * one) == (12936, 38808)


def test_base_by_hand():
    """Bands 257, 129, 65, 33; channels 16, 24, 32; 4 heads of 8; 48 hidden units; 4 groups of 16, 3 dynamic."""
    gated = {
        "encoder 2": 65 * 16 * 3 * 24,
        "encoder 3": 33 * 24 * 3 * 32,
        "frequency 1 heads": 33 * 32 * 96 + 2 * 33 * 33 * 32 + 33 * 32 * 32,
        "frequency 1 hidden": 33 * 32 * 48 * 2,
        "time groups": 4 * 33 * 3 * 16 * (32 + 16) + 33 * 64 * 32,
        "time hidden": 33 * 32 * 48 * 2,
        "frequency 2 heads": 33 * 32 * 96 + 2 * 33 * 33 * 32 + 33 * 32 * 32,
        "frequency 2 hidden": 33 * 32 * 48 * 2,
        "decoder 3": 33 * 32 * 3 * 24,
        "decoder 2": 65 * 24 * 3 * 16,
    }
    always = {
        "encoder 1": 129 * 2 * 2 * 5 * 16,
        "decoder 1": 129 * 16 * 5 * 2,
        "policy": 3 * 32 * (24 + 32) + 32 * 20,
        "slopes and embedding": 0,
    }
    counted = macs.count(Config.preset("base"))
    layers = {layer.name: (layer.static, layer.dynamic, layer.gate) for layer in counted.layers}
    dynamic = {name: value * 3 // 4 if name == "time groups" else value // 2 for name, value in gated.items()}
    assert layers == {
        **{name: (value - dynamic[name], dynamic[name], name) for name, value in gated.items()},
        **{name: (value, 0, None) for name, value in always.items()},
    }
    assert counted.gate_macs.tolist() == [dynamic[name] for name in GATES]
    frame = sum(gated.values()) + sum(always.values())
    assert counted.open == pytest.approx(frame * 62.5 / 1e6)
    assert counted.closed == pytest.approx((frame - sum(dynamic.values())) * 62.5 / 1e6)


# ---- promises


@pytest.mark.parametrize(
    ("preset", "is_open", "closed", "policy", "parameters"),
    [
        ("tiny", 27.621, 13.449, 0.246, 15_126),
        ("base", 90.958, 41.794, 0.376, 44_486),
        ("paper", 311.604, 144.648, 2.424, 173_302),
    ],
)
def test_the_presets(preset, is_open, closed, policy, parameters):
    counted = macs.count(Config.preset(preset))
    assert (counted.open, counted.closed, counted.policy) == pytest.approx((is_open, closed, policy), abs=1e-3)
    assert counted.parameters == parameters
    assert 0.43 <= counted.closed / counted.open <= 0.55
    assert counted.policy / counted.open < 0.03


@PRESET
@pytest.mark.parametrize("variant", ["gated", "static", "static-only"])
def test_every_parameter_is_counted_once(preset, variant):
    made = network(preset, variant)
    assert macs.count(made).parameters == sum(parameter.numel() for parameter in made.parameters())


@PRESET
def test_variants_cost_what_the_gates_say(preset):
    """Static: all open without a policy. Static-only: all closed without a policy."""
    counted, config = macs.count(Config.preset(preset)), Config.preset(preset)
    assert macs.count(config.static()).open == pytest.approx(counted.open - counted.policy)
    assert macs.count(config.static_only()).open == pytest.approx(counted.closed - counted.policy)


def test_a_configuration_counts_like_its_network_and_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    counted = macs.count(Config.preset("tiny"))
    assert torch.equal(torch.get_rng_state(), before)
    assert counted == macs.count(network("tiny"))


def test_frame_macs():
    counted = macs.count(Config.preset("tiny"))
    gates = np.random.default_rng(0).integers(0, 2, (3, 5, 10))
    spent = macs.frame_macs(counted, gates)
    assert spent.shape == (3, 5)
    for channel in range(3):
        for t in range(5):
            expected = sum(layer.static for layer in counted.layers)
            expected += sum(g * m for g, m in zip(gates[channel, t], counted.gate_macs, strict=True))
            assert spent[channel, t] == expected
    assert (macs.frame_macs(counted, np.ones((2, 10))) * 62.5 / 1e6 == pytest.approx(counted.open)) and (
        macs.frame_macs(counted, np.zeros((2, 10), bool)) * 62.5 / 1e6 == pytest.approx(counted.closed)
    )


def test_frame_macs_without_gates():
    counted = macs.count(Config.preset("tiny").static())
    assert macs.frame_macs(counted, np.zeros((7, 0))) * 62.5 / 1e6 == pytest.approx(np.full(7, counted.open))


@PRESET
def test_json(preset):
    counted = macs.count(Config.preset(preset))
    values = json.loads(json.dumps(counted.to_json()))
    assert {"open", "closed", "policy", "parameters", "layers"} <= values.keys()
    for key in ("open", "closed", "parameters"):
        assert sum(layer[key] for layer in values["layers"]) == pytest.approx(values[key])
    assert [layer["gate"] for layer in values["layers"] if layer["gate"]] == list(GATES)
    assert "zero padding included" in values["rule"] and "\n" not in values["rule"]


def test_table():
    counted = macs.count(Config.preset("base"))
    lines = counted.table().splitlines()
    assert len(lines) == len(counted.layers) + 3
    assert len({len(line) for line in lines[:-1]}) == 1 and max(map(len, lines)) <= 100
    for layer, line in zip(counted.layers, lines[1:], strict=False):
        assert line.startswith(layer.name) and f"{layer.parameters:,}" in line
    assert "44,486" in lines[-2] and "90.96" in lines[-2] and "41.79" in lines[-2]
    assert "45.9%" in lines[-1] and "0.4%" in lines[-1]


# ---- the narrow variant


@PRESET
@pytest.mark.parametrize("share", [0.3, 0.55, 0.8, 0.99])
def test_narrow(preset, share):
    config = Config.preset(preset)
    wanted = share * macs.count(config.static()).open
    narrow = macs.narrow(config, wanted)
    assert macs.count(narrow).open == pytest.approx(wanted, rel=0.01)
    assert narrow.parts == "always" and (narrow.heads, narrow.groups) == (config.heads, config.groups)
    # All widths are shrunk alike: each is within one and a half of the same multiple of its own.
    pairs = [
        *zip(narrow.channels, config.channels, strict=True), (narrow.head_width, config.head_width),
        (narrow.hidden, config.hidden), (narrow.group_width, config.group_width),
    ]  # fmt: skip
    factor = sum(small for small, _ in pairs) / sum(large for _, large in pairs)
    assert factor < 1
    assert all(abs(small - factor * large) <= 2 for small, large in pairs), (factor, pairs)


def test_narrow_as_wide_as_can_be():
    config = Config.preset("tiny")
    assert macs.narrow(config, macs.count(config.static()).open) == config.static()


def test_narrow_meets_a_tighter_tolerance():
    narrow = macs.narrow(Config.preset("base"), 60, tolerance=0.001)
    assert macs.count(narrow).open == pytest.approx(60, rel=0.001)


@pytest.mark.parametrize("wanted", [0.01, 0, -5, 95, math.nan])
def test_narrow_out_of_reach(wanted):
    with pytest.raises(InputError, match=r"MMAC/s.*choose between \d"):
        macs.narrow(Config.preset("base"), wanted)
