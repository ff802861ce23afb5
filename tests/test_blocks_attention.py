"""Attention with dynamic heads against `nn.MultiheadAttention`, and against the formula."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dsn_lite.blocks import DynamicAttention

WIDTH, STATIC, DYNAMIC, BANDS = 3, 1, 2, 5
HEADS = STATIC + DYNAMIC
CHANNELS = HEADS * WIDTH  # the library's layer has no other


def block(seed=0, dtype=torch.float64, channels=CHANNELS):
    torch.manual_seed(seed)
    gated = DynamicAttention(channels, head_width=WIDTH, static=STATIC, dynamic=DYNAMIC).to(dtype)
    with torch.no_grad():
        gated.query_key_value.weight *= 3  # sharper than at the start: queries and keys matter
    return gated


def signal(batch, frames, seed=1, dtype=torch.float64, channels=CHANNELS):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, frames, BANDS, channels, generator=generator, dtype=dtype)


def formula(gated, frame, heads):
    """One frame [F, C]: softmax(q k / sqrt(d)) v of the first `heads` heads, projected and summed."""
    query, key, value = gated.query_key_value(frame).unflatten(-1, (3, HEADS, WIDTH)).unbind(1)
    y = gated.out.bias.expand(BANDS, -1)
    for head in range(heads):
        attention = (query[:, head] @ key[:, head].T / math.sqrt(WIDTH)).softmax(-1)
        y = y + attention @ value[:, head] @ gated.out.weight[:, head * WIDTH : (head + 1) * WIDTH].T
    return y


def poison(gated):
    with torch.no_grad():
        gated.query_key_value.weight.unflatten(0, (3, HEADS, WIDTH))[:, STATIC:] = torch.nan
        gated.query_key_value.bias.unflatten(0, (3, HEADS, WIDTH))[:, STATIC:] = torch.nan
        gated.out.weight[:, STATIC * WIDTH :] = torch.nan
    return gated


@st.composite
def gates(draw):
    batch, frames = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    bits = draw(st.lists(st.booleans(), min_size=batch * frames, max_size=batch * frames))
    return torch.tensor(bits, dtype=torch.float64).reshape(batch, frames)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["none", "ones", "training"])
def test_all_open_is_the_plain_layer(dtype, kind):
    gated, x = block(dtype=dtype), signal(2, 4, dtype=dtype)
    library = nn.MultiheadAttention(CHANNELS, HEADS, batch_first=True, dtype=dtype)
    with torch.no_grad():
        library.in_proj_weight.copy_(gated.query_key_value.weight)
        library.in_proj_bias.copy_(gated.query_key_value.bias)
        library.out_proj.weight.copy_(gated.out.weight)
        library.out_proj.bias.copy_(gated.out.bias)
    frames = x.flatten(0, 1)
    expected = library(frames, frames, frames, need_weights=False)[0].reshape(x.shape)
    gate = {"none": None, "ones": torch.ones(2, 4), "training": torch.ones(2, 4, requires_grad=True)}[kind]
    torch.testing.assert_close(gated(x, gate), expected, rtol=0, atol=1e-6 if dtype is torch.float32 else 1e-12)


def test_all_closed_is_the_layer_without_the_dynamic_part():
    gated, x = block(), signal(2, 4)
    static = DynamicAttention(CHANNELS, head_width=WIDTH, static=STATIC).double()
    with torch.no_grad():
        rows = torch.arange(3 * HEADS * WIDTH).unflatten(0, (3, HEADS, WIDTH))[:, :STATIC].flatten()
        static.query_key_value.weight.copy_(gated.query_key_value.weight[rows])
        static.query_key_value.bias.copy_(gated.query_key_value.bias[rows])
        static.out.weight.copy_(gated.out.weight[:, : STATIC * WIDTH])
        static.out.bias.copy_(gated.out.bias)
    y = gated(x, torch.zeros(2, 4))
    torch.testing.assert_close(y, static(x), rtol=0, atol=1e-12)
    for gate in (torch.ones(2, 4), torch.zeros(2, 4), torch.tensor([[1.0, 0, 1, 0]] * 2)):
        assert torch.equal(static(x, gate), static(x))
    assert torch.equal(poison(gated)(x, torch.zeros(2, 4)), y)


@given(gate=gates(), channels=st.sampled_from([2, CHANNELS, 11]))
@settings(max_examples=25, deadline=None)
def test_any_gates_equal_a_loop_over_frames(gate, channels):
    gated, x = block(channels=channels), signal(*gate.shape, channels=channels)
    expected = torch.stack(
        [
            torch.stack(
                [formula(gated, frame, HEADS if is_open else STATIC) for frame, is_open in zip(*row, strict=True)]
            )
            for row in zip(x, gate, strict=True)
        ]
    )
    torch.testing.assert_close(gated(x, gate), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(gated(x, gate.clone().requires_grad_()), expected, rtol=0, atol=1e-12)


@given(gate=gates())
@settings(max_examples=15, deadline=None)
def test_closed_frames_never_read_the_dynamic_weights(gate):
    gated, x = block(), signal(*gate.shape)
    expected, y = gated(x, gate), poison(gated)(x, gate)
    assert torch.equal(y[gate == 0], expected[gate == 0])
    assert y[gate == 1].isnan().all()


@given(gate=gates())
@settings(max_examples=8, deadline=None)
def test_weights_get_the_same_gradient_in_training_and_in_evaluation(gate):
    gradients = []
    for given_gate in (gate, gate.clone().requires_grad_()):
        gated = block()
        gated(signal(*gate.shape), given_gate).square().sum().backward()
        gradients.append([parameter.grad for parameter in gated.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


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
    gated, x = block(), signal(1, 6)
    open_y, closed_y = gated(x, torch.ones(1, 6)), gated(x, torch.zeros(1, 6))
    for target, sign in ((2 * open_y - closed_y, -1), (2 * closed_y - open_y, 1)):
        for hard in (torch.zeros(1, 6), torch.ones(1, 6)):
            gate = hard.double().requires_grad_()
            (gated(x, gate) - target.detach()).square().sum().backward()
            opened = (open_y - target).square().sum((-1, -2)) - (closed_y - target).square().sum((-1, -2))
            assert (gate.grad.sign() == sign).all() and (opened.sign() == sign).all()


@given(gate=gates())
@settings(max_examples=8, deadline=None)
def test_frame_by_frame_is_the_whole(gate):
    gated, x = block(), signal(*gate.shape)
    steps = [gated(x[:, t : t + 1], gate[:, t : t + 1]) for t in range(x.shape[1])]
    torch.testing.assert_close(torch.cat(steps, dim=1), gated(x, gate), rtol=0, atol=1e-12)


def test_frames_do_not_see_each_other():
    gated, x, gate = block(), signal(1, 4), torch.tensor([[1.0, 0, 1, 1]])
    changed = x.clone()
    changed[:, 2] = torch.nan
    y, other = gated(x, gate), gated(changed, gate)
    assert torch.equal(other[:, [0, 1, 3]], y[:, [0, 1, 3]]) and other[:, 2].isnan().all()


def test_the_order_of_the_bands_does_not_matter():
    gated, x, gate = block(), signal(2, 3), torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(gated(x[:, :, order], gate), gated(x, gate)[:, :, order], rtol=0, atol=1e-12)
