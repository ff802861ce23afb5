"""The network itself: closed is the small network, open is the whole, a held GRU is one run on its open frames."""

import math

import numpy as np
import pytest
import torch
from networks import CONFIGS, random_network, spectrum

from dsn_lite.errors import InputError
from dsn_lite.network.blocks import norm, recurrent
from dsn_lite.network.blocks.norm import Norm
from dsn_lite.network.config import Config
from dsn_lite.network.folded import fold
from dsn_lite.network.macs import count
from dsn_lite.network.model import Network

GATED = [name for name, config in CONFIGS.items() if config.gated and config.is_dynamic]


def frames(count: int = 20, seed: int = 5) -> torch.Tensor:
    return torch.from_numpy(spectrum(count, seed))[None]


def twin(network: Network, config: Config) -> Network:
    """A network of another variant with the weights that it shares with this one."""
    other = Network(config).eval()
    known = network.state_dict()
    other.load_state_dict({name: known[name] for name in other.state_dict()})
    return other


@pytest.mark.parametrize("config", GATED)
@torch.no_grad()
def test_closed_is_the_small_network_and_open_the_whole(config):
    network, x = random_network(config), frames()
    gates = torch.zeros(1, 20, len(network.gate_names))
    small = twin(network, network.config.static_only())(x)
    closed, opened = network(x, gates), network(x, gates + 1)
    assert torch.equal(closed.spectrum, small.spectrum) and torch.equal(closed.small, closed.spectrum)
    assert torch.equal(opened.small, small.spectrum), "a gate reached the small answer"
    assert torch.equal(opened.spectrum, twin(network, network.config.static())(x).spectrum)
    assert not torch.allclose(opened.spectrum, closed.spectrum)


@pytest.mark.parametrize("config", CONFIGS)
def test_macs_by_hand(config):
    """Written out from the widths, without a look at a layer."""
    network = random_network(config)
    c, counted = network.config, count(network)
    static = dynamic = 0
    before, bands = (6, 0), 256
    shapes = []
    for widths, stride, kernel in zip(c.channels, c.strides, c.kernels, strict=True):
        bands //= stride
        static += bands * before[0] * kernel * widths[0]
        dynamic += bands * sum(before) * kernel * widths[1]
        shapes.append((before, widths, kernel, bands))
        before = widths
    wide, total = before[0], sum(before)
    for block in range(c.blocks):
        for part, ins, outs in ((0, wide, before[0]), (1, total, before[1])):
            heads, units, groups = c.heads[part], c.hidden[part], c.groups[part]
            if part == 0 and block:
                continue
            size, state = heads * c.head_width[part], c.group_width[part]
            macs = bands * (3 * ins * size + size * outs + 2 * bands * size)
            macs += bands * (ins + outs) * units
            macs += bands * (3 * groups * state * (ins + state) + groups * state * outs)
            static, dynamic = static + macs * (part == 0), dynamic + macs * (part == 1)
    for (into, widths, kernel, at), stage in zip(reversed(shapes), range(len(shapes), 0, -1), strict=True):
        outs = into if stage > 1 else (2, 2 if c.is_dynamic else 0)
        static += at * widths[0] * kernel * outs[0]
        dynamic += at * sum(widths) * kernel * outs[1]
    policy = 0
    if c.policy_width and network.gate_names:
        policy = 3 * c.policy_width * (2 * c.policy_bands + wide + c.policy_width)
        policy += c.policy_width * len(network.gate_names)
    rate = 62.5 / 1e6
    assert counted.open == pytest.approx((static + dynamic + policy) * rate, abs=1e-4)
    assert counted.closed == pytest.approx((static + policy + (0 if c.gated else dynamic)) * rate, abs=1e-4)
    assert counted.policy == pytest.approx(policy * rate, abs=1e-4)
    if network.gate_names:
        assert counted.gate_macs.sum() == dynamic
    assert counted.parameters == sum(p.numel() for p in network.parameters())


# ---------------------------------------------------------------------------------------------------------- held GRUs
def states_by_hand(block, static, dynamic, gate):
    """What the dynamic groups make of a sequence, with PyTorch's GRU over the open frames alone."""
    x = block.dynamic.norm(torch.cat([static, dynamic], -1))
    out = dynamic.clone()
    is_open = gate[0].bool()
    if is_open.any():
        sequences = x[0, is_open].transpose(0, 1)  # bands are a batch
        hidden = torch.cat([group(sequences)[0] for group in block.dynamic.groups], -1)
        out[0, is_open] += block.dynamic.out(hidden.transpose(0, 1))
    return out


@pytest.mark.parametrize("pattern", ["some", "none", "all", "late"])
def test_a_held_gru_is_one_run_on_its_open_frames(pattern):
    network = random_network("odd widths")
    block = next(layer.block for layer in network.layers if layer.kind == "recurrent")
    generator = torch.Generator().manual_seed(0)
    static, dynamic = (torch.randn(1, 15, 32, n, generator=generator) for n in network.config.channels[-1])
    gate = {
        "some": (torch.rand(1, 15, generator=generator) < 0.5).float(), "none": torch.zeros(1, 15),
        "all": torch.ones(1, 15), "late": (torch.arange(15) > 9).float()[None],
    }[pattern]  # fmt: skip
    with torch.no_grad():
        expected = states_by_hand(block, static, dynamic, gate)
        y, state = block.refine(static, dynamic, gate, None)
        assert torch.allclose(y, expected, atol=1e-5)
        # The same in two pieces, the state carried over.
        first, middle = block.refine(static[:, :6], dynamic[:, :6], gate[:, :6], None)
        second, last = block.refine(static[:, 6:], dynamic[:, 6:], gate[:, 6:], middle)
        assert torch.allclose(torch.cat([first, second], 1), y, atol=1e-5)
        assert torch.allclose(last, state, atol=1e-5)


@pytest.mark.parametrize("is_gated", [True, False])
def test_the_compiled_loop_and_the_gathered_frames_train_alike(monkeypatch, is_gated):
    pytest.importorskip("numba")
    network = random_network("odd widths")
    block = next(layer.block for layer in network.layers if layer.kind == "recurrent").eval()
    generator = torch.Generator().manual_seed(1)
    static, dynamic = (torch.randn(2, 9, 32, n, generator=generator) for n in network.config.channels[-1])
    pattern = (torch.rand(2, 9, generator=generator) < 0.6).float() if is_gated else None
    weight = torch.randn(2, 9, 32, network.config.channels[-1][1], generator=generator)

    def run(held):
        monkeypatch.setattr(recurrent, "HeldGRU", held)
        inputs = [static.clone().requires_grad_(), dynamic.clone().requires_grad_()]
        gate = None if pattern is None else pattern.clone().requires_grad_()
        block.zero_grad()
        y, state = block.refine(*inputs, gate, None)
        ((y * weight).sum() + state.square().sum()).backward()
        gradients = {name: p.grad.clone() for name, p in block.dynamic.named_parameters()}
        gradients |= {"static": inputs[0].grad, "dynamic": inputs[1].grad}
        if gate is not None:
            gradients["gate"] = gate.grad
        return y.detach(), state.detach(), gradients

    compiled, gathered = run(recurrent.HeldGRU), run(None)
    for one, other in zip(compiled[:2], gathered[:2], strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    for name, gradient in compiled[2].items():
        scale = gathered[2][name].abs().max()
        assert scale > 0 and (gradient - gathered[2][name]).abs().max() < 1e-4 * scale, name


@pytest.mark.parametrize("is_bent", [True, False])
@pytest.mark.parametrize("channels", [1, 7, 20])
def test_the_compiled_norm_is_the_library_s(monkeypatch, is_bent, channels):
    pytest.importorskip("numba")
    generator = torch.Generator().manual_seed(2)
    x = 3 * torch.randn(2, 41, 32, channels, generator=generator) + 5
    d_y = torch.randn(x.shape, generator=generator)
    told = [torch.rand(channels, generator=generator) for _ in range(3)]

    def run(fused):
        monkeypatch.setattr(norm, "FusedNorm", fused)
        block, given = norm.Norm(channels).train(), x.clone().requires_grad_()
        slope = told[2].clone().requires_grad_() if is_bent else None
        with torch.no_grad():
            block.weight.copy_(told[0]), block.bias.copy_(told[1])
        (block(given, slope) * d_y).sum().backward()
        found = {"x": given.grad, "weight": block.weight.grad, "bias": block.bias.grad}
        found |= {"mean": block.mean, "variance": block.variance}
        return found | ({"slope": slope.grad} if is_bent else {})

    compiled, library = run(norm.FusedNorm), run(None)
    for name, value in library.items():
        # Where the bend lies within rounding a single gradient may take the other side.
        away = ((compiled[name] - value).abs() > 1e-3 * value.abs().max()).float().mean()
        assert away < 1e-4, name


@torch.no_grad()
def test_training_and_evaluation_answer_alike():
    """With norms that keep their statistics, gates that multiply come to gates that skip."""
    network, x = random_network("odd widths"), frames()
    gates = (torch.rand(1, 20, 8, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    expected = network(x, gates).spectrum
    with torch.enable_grad():
        trained = network(x, gates).spectrum.detach()
    assert (expected - trained).abs().max() < 1e-5 * expected.abs().max()


# -------------------------------------------------------------------------------------------------------------- norms
def test_folded_norms():
    network = random_network("tiny")
    norms = [module for module in network.modules() if isinstance(module, Norm)]
    assert norms and all(float(norm.mean.abs().max()) > 0 for norm in norms)
    rows = {row.name: row for row in fold(network)}
    block, row = network.layers[0].block, rows["encoder 1"]
    x = torch.randn(1, 3, 256, 6)
    with torch.no_grad():
        y = torch.nn.functional.conv2d(
            x.permute(0, 3, 1, 2), torch.from_numpy(row.static["weight"])[:, :, None],
            torch.from_numpy(row.static["bias"]), (1, 2), (0, 2),
        ).permute(0, 2, 3, 1)  # fmt: skip
        y = torch.where(y > 0, y, y * torch.from_numpy(row.static["slope"]))
        assert torch.allclose(y, block.small(x), atol=1e-5)
        block, arrays = network.blocks["middle_1_linear"], rows["middle 1 linear"].dynamic
        static, dynamic = torch.randn(1, 3, 32, 8), torch.randn(1, 3, 32, 12)
        both = torch.cat([static, dynamic], -1)
        hidden = (both @ torch.from_numpy(arrays["up"]).T + torch.from_numpy(arrays["up_bias"])).relu()
        y = dynamic + hidden @ torch.from_numpy(arrays["down"]).T + torch.from_numpy(arrays["down_bias"])
        assert torch.allclose(y, block.refine(static, dynamic, None), atol=1e-5)


@torch.no_grad()
def test_no_frame_hears_a_later_one():
    network, x = random_network("base"), frames()
    other = x.clone()
    other[:, 12:] = 3 * x.flip(1)[:, 12:]
    one, two = network(x), network(other)
    assert torch.equal(one.gates[:, :12], two.gates[:, :12])
    assert (one.spectrum[:, :12] - two.spectrum[:, :12]).abs().max() < 1e-6 * one.spectrum.abs().max()
    assert not torch.allclose(one.spectrum[:, 12], two.spectrum[:, 12])


@pytest.mark.parametrize("change", [{"heads": (2, 0)}, {"channels": ((8, 0), (8, 12), (12, 20))}, {"hidden": (24, 0)}])
def test_a_part_without_a_dynamic_width_is_refused(change):
    with pytest.raises(InputError, match="dynamic"):
        Config.from_dict({"preset": "base", **change})


def test_the_closed_network_is_cheap():
    for preset in ("base", "paper"):
        counted = count(Network(Config.preset(preset)))
        assert counted.closed < 0.2 * counted.open and counted.policy < 0.03 * counted.open
        assert math.isclose(counted.of_frames(np.ones(len(counted.gates))), counted.open)
