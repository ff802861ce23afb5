"""The fully connected pair against `nn.Linear`, frame by frame."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dsn_lite.blocks import DynamicFeedForward

CHANNELS, STATIC, DYNAMIC, BANDS = 5, 3, 4, 2


def block(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return DynamicFeedForward(CHANNELS, static=STATIC, dynamic=DYNAMIC).to(dtype)


def signal(batch, frames, seed=1, dtype=torch.float64):
    return torch.randn(batch, frames, BANDS, CHANNELS, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def plain(gated, units):
    """The library's layers with the first `units` hidden units of `gated`."""
    up, down = nn.Linear(CHANNELS, units), nn.Linear(units, CHANNELS)
    with torch.no_grad():
        up.weight.copy_(gated.up.weight[:units])
        up.bias.copy_(gated.up.bias[:units])
        down.weight.copy_(gated.down.weight[:, :units])
        down.bias.copy_(gated.down.bias)
    return nn.Sequential(up, nn.ReLU(), down).to(gated.up.weight.dtype)


def poison(gated):
    with torch.no_grad():
        gated.up.weight[STATIC:] = torch.nan
        gated.up.bias[STATIC:] = torch.nan
        gated.down.weight[:, STATIC:] = torch.nan
    return gated


@st.composite
def gates(draw):
    batch, frames = draw(st.integers(1, 3)), draw(st.integers(1, 7))
    bits = draw(st.lists(st.booleans(), min_size=batch * frames, max_size=batch * frames))
    return torch.tensor(bits, dtype=torch.float64).reshape(batch, frames)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["none", "ones", "training"])
def test_all_open_is_the_plain_layer(dtype, kind):
    gated, x = block(dtype=dtype), signal(2, 6, dtype=dtype)
    gate = {"none": None, "ones": torch.ones(2, 6), "training": torch.ones(2, 6, requires_grad=True)}[kind]
    expected = plain(gated, STATIC + DYNAMIC)(x)
    torch.testing.assert_close(gated(x, gate), expected, rtol=0, atol=1e-6 if dtype is torch.float32 else 1e-12)


def test_all_closed_is_the_layer_without_the_dynamic_part():
    gated, x = block(), signal(2, 6)
    y = gated(x, torch.zeros(2, 6))
    torch.testing.assert_close(y, plain(gated, STATIC)(x), rtol=0, atol=1e-12)
    assert torch.equal(poison(gated)(x, torch.zeros(2, 6)), y)


@given(gate=gates())
@settings(max_examples=25, deadline=None)
def test_any_gates_equal_a_loop_over_frames(gate):
    gated, x = block(), signal(*gate.shape)
    layers = {0.0: plain(gated, STATIC), 1.0: plain(gated, STATIC + DYNAMIC)}
    expected = torch.stack(
        [
            torch.stack([layers[g.item()](frame) for frame, g in zip(*row, strict=True)])
            for row in zip(x, gate, strict=True)
        ]
    )
    torch.testing.assert_close(gated(x, gate), expected, rtol=0, atol=1e-12)
    training = gated(x, gate.clone().requires_grad_())
    torch.testing.assert_close(training, expected, rtol=0, atol=1e-12)


@given(gate=gates())
@settings(max_examples=15, deadline=None)
def test_closed_frames_never_read_the_dynamic_weights(gate):
    gated, x = block(), signal(*gate.shape)
    expected, y = gated(x, gate), poison(gated)(x, gate)
    assert torch.equal(y[gate == 0], expected[gate == 0])
    assert y[gate == 1].isnan().all()


@given(gate=gates())
@settings(max_examples=10, deadline=None)
def test_weights_get_the_same_gradient_in_training_and_in_evaluation(gate):
    gradients = []
    for given_gate in (gate, gate.clone().requires_grad_()):
        gated = block()
        gated(signal(*gate.shape), given_gate).square().sum().backward()
        gradients.append([parameter.grad for parameter in gated.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_the_gate_gets_what_opening_adds():
    gated, x = block(), signal(2, 4)
    weight = torch.randn(x.shape, dtype=x.dtype)
    hard = torch.tensor([[1.0, 0, 1, 0], [0, 0, 1, 1]], dtype=x.dtype)
    gate = hard.clone().requires_grad_()
    (gated(x, gate) * weight).sum().backward()
    for b, t in torch.cartesian_prod(torch.arange(2), torch.arange(4)).tolist():
        opened, closed = hard.clone(), hard.clone()
        opened[b, t], closed[b, t] = 1, 0
        difference = ((gated(x, opened) - gated(x, closed)) * weight).sum()
        torch.testing.assert_close(gate.grad[b, t], difference, rtol=1e-9, atol=1e-12)


def test_the_sign_of_the_estimate_for_a_curved_loss():
    """A target beyond the open output: opening must help, on open frames as on closed ones."""
    gated, x = block(), signal(1, 6)
    open_y, closed_y = gated(x, torch.ones(1, 6)), gated(x, torch.zeros(1, 6))
    for target, sign in ((2 * open_y - closed_y, -1), (2 * closed_y - open_y, 1)):
        for hard in (torch.zeros(1, 6), torch.ones(1, 6)):
            gate = hard.double().requires_grad_()
            (gated(x, gate) - target.detach()).square().sum().backward()
            opened = (open_y - target).square().sum((-1, -2)) - (closed_y - target).square().sum((-1, -2))
            assert (gate.grad.sign() == sign).all() and (opened.sign() == sign).all()


@given(gate=gates())
@settings(max_examples=10, deadline=None)
def test_frame_by_frame_is_the_whole(gate):
    gated, x = block(), signal(*gate.shape)
    steps = [gated(x[:, t : t + 1], gate[:, t : t + 1]) for t in range(x.shape[1])]
    torch.testing.assert_close(torch.cat(steps, dim=1), gated(x, gate), rtol=0, atol=1e-12)


@pytest.mark.parametrize("axes", [(), (3,), (3, 2)])
def test_any_number_of_axes_between_frame_and_channel(axes):
    gated, gate = block(), torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    x = torch.randn(2, 3, *axes, CHANNELS, dtype=torch.float64)
    expected = torch.where(
        gate.reshape(2, 3, *(1,) * (len(axes) + 1)) > 0, plain(gated, STATIC + DYNAMIC)(x), plain(gated, STATIC)(x)
    )
    torch.testing.assert_close(gated(x, gate), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(gated(x, gate.clone().requires_grad_()), expected, rtol=0, atol=1e-12)


def test_without_a_dynamic_part_the_gate_does_not_matter():
    torch.manual_seed(0)
    static = DynamicFeedForward(CHANNELS, static=4)
    x = torch.randn(1, 3, CHANNELS)
    for gate in (torch.ones(1, 3), torch.zeros(1, 3), torch.tensor([[1.0, 0, 1]])):
        assert torch.equal(static(x, gate), static(x))
