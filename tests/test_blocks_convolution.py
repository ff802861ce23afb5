"""The convolutions against `nn.Conv2d` and `nn.ConvTranspose2d`: values, gates, time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from dsn_lite.blocks import DynamicConv, DynamicConvTranspose

INPUTS, STATIC, DYNAMIC, BANDS = 3, 2, 3, 9
TAPS = 3  # along time


def conv(seed=0, dtype=torch.float64, kernel=(TAPS, 3), stride=2, dynamic=DYNAMIC):
    torch.manual_seed(seed)
    return DynamicConv(INPUTS, static=STATIC, dynamic=dynamic, kernel=kernel, stride=stride).to(dtype)


def transposed(seed=0, dtype=torch.float64, kernel=3, stride=2):
    torch.manual_seed(seed)
    return DynamicConvTranspose(INPUTS, static=STATIC, dynamic=DYNAMIC, kernel=kernel, stride=stride).to(dtype)


def signal(batch, frames, seed=1, dtype=torch.float64):
    return torch.randn(batch, frames, BANDS, INPUTS, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def plain_conv(gated, x, channels=None):
    """`nn.Conv2d` with zeros before and after in time; the frames that see the zeros after are cut off."""
    channels = STATIC + gated.dynamic if channels is None else channels
    (taps, bins), stride = gated.kernel, gated.stride
    layer = nn.Conv2d(INPUTS, channels, (taps, bins), stride=(1, stride), padding=(taps - 1, bins // 2)).to(x.dtype)
    with torch.no_grad():
        layer.weight.copy_(gated.conv.weight[:channels])
        layer.bias.copy_(gated.conv.bias[:channels])
    return layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)[:, : x.shape[1]]


def plain_transposed(gated, x, channels=STATIC + DYNAMIC):
    layer = nn.ConvTranspose2d(
        INPUTS, channels, (1, gated.kernel), stride=(1, gated.stride), padding=(0, gated.kernel // 2)
    ).to(x.dtype)
    with torch.no_grad():
        layer.weight.copy_(gated.conv.weight[:, :channels])
        layer.bias.copy_(gated.conv.bias[:channels])
    return layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def run(gated, x, gate=None):
    y = gated(x, gate)
    return y[0] if isinstance(y, tuple) else y


def plain(gated, x, channels=STATIC + DYNAMIC):
    return (plain_conv if isinstance(gated, DynamicConv) else plain_transposed)(gated, x, channels)


def poison(gated):
    with torch.no_grad():
        weight = gated.conv.weight if isinstance(gated, DynamicConv) else gated.conv.weight.transpose(0, 1)
        weight[STATIC:] = torch.nan
        gated.conv.bias[STATIC:] = torch.nan
    return gated


@st.composite
def gates(draw):
    batch, frames = draw(st.integers(1, 3)), draw(st.integers(1, 7))
    bits = draw(st.lists(st.booleans(), min_size=batch * frames, max_size=batch * frames))
    return torch.tensor(bits, dtype=torch.float64).reshape(batch, frames)


BOTH = pytest.mark.parametrize("make", [conv, transposed])


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["none", "ones", "training"])
def test_all_open_is_the_plain_layer(make, dtype, kind):
    gated, x = make(dtype=dtype), signal(2, 6, dtype=dtype)
    gate = {"none": None, "ones": torch.ones(2, 6), "training": torch.ones(2, 6, requires_grad=True)}[kind]
    tolerance = 1e-6 if dtype is torch.float32 else 1e-12
    torch.testing.assert_close(run(gated, x, gate), plain(gated, x), rtol=0, atol=tolerance)


@BOTH
def test_all_closed_is_the_layer_without_the_dynamic_part(make):
    gated, x = make(), signal(2, 6)
    y = run(gated, x, torch.zeros(2, 6))
    torch.testing.assert_close(y[..., :STATIC], plain(gated, x, STATIC), rtol=0, atol=1e-12)
    assert y.shape[-1] == STATIC + DYNAMIC and not y[..., STATIC:].any()
    assert torch.equal(run(poison(gated), x, torch.zeros(2, 6)), y)


@given(gate=gates(), taps=st.integers(1, 3), bins=st.sampled_from([1, 3, 5]), stride=st.integers(1, 2))
@settings(max_examples=30, deadline=None)
def test_any_gates_equal_a_loop_over_frames(gate, taps, bins, stride):
    gated, x = conv(kernel=(taps, bins), stride=stride), signal(*gate.shape)
    y, state = gated(x, gate)
    assert y.shape == (*gate.shape, gated.out_bands(BANDS), STATIC + DYNAMIC)
    for b in range(gate.shape[0]):
        past = [torch.zeros(BANDS, INPUTS, dtype=x.dtype)] * (taps - 1)
        for t in range(gate.shape[1]):
            frames = torch.stack([*past, x[b, t]])  # [taps, F, C]
            channels = STATIC + DYNAMIC if gate[b, t] else STATIC
            one = functional.conv2d(
                frames.permute(2, 0, 1)[None], gated.conv.weight[:channels], gated.conv.bias[:channels],
                stride=(1, stride), padding=(0, bins // 2),
            )[0, :, 0].T  # fmt: skip
            expected = functional.pad(one, (0, STATIC + DYNAMIC - channels))
            torch.testing.assert_close(y[b, t], expected, rtol=0, atol=1e-12)
            past = [*past, x[b, t]][1:] if taps > 1 else []
        assert state.shape == (gate.shape[0], taps - 1, BANDS, INPUTS)
        if past:
            assert torch.equal(state[b], torch.stack(past))
    torch.testing.assert_close(gated(x, gate.clone().requires_grad_())[0], y, rtol=0, atol=1e-12)


@given(gate=gates(), bins=st.sampled_from([1, 3, 5]), stride=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_any_gates_of_the_transposed_one_equal_a_loop_over_frames(gate, bins, stride):
    gated, x = transposed(kernel=bins, stride=stride), signal(*gate.shape)
    y = gated(x, gate)
    assert y.shape == (*gate.shape, gated.out_bands(BANDS), STATIC + DYNAMIC)
    for b in range(gate.shape[0]):
        for t in range(gate.shape[1]):
            channels = STATIC + DYNAMIC if gate[b, t] else STATIC
            one = plain_transposed(gated, x[b : b + 1, t : t + 1], channels)[0, 0]
            expected = functional.pad(one, (0, STATIC + DYNAMIC - channels))
            torch.testing.assert_close(y[b, t], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(gated(x, gate.clone().requires_grad_()), y, rtol=0, atol=1e-12)


def test_the_transposed_convolution_by_hand():
    """Input band f adds weight k to output band ``stride * f + k - kernel // 2``."""
    gated, x = transposed(kernel=3, stride=2), signal(1, 1)
    expected = gated.conv.bias.detach().repeat(gated.out_bands(BANDS), 1)
    for f in range(BANDS):
        for k in range(3):
            band = 2 * f + k - 1
            if 0 <= band < len(expected):
                expected[band] += x[0, 0, f] @ gated.conv.weight.detach()[:, :, 0, k]
    torch.testing.assert_close(gated(x)[0, 0], expected, rtol=0, atol=1e-12)


@BOTH
@given(gate=gates())
@settings(max_examples=15, deadline=None)
def test_closed_frames_never_read_the_dynamic_weights(make, gate):
    gated, x = make(), signal(*gate.shape)
    expected, y = run(gated, x, gate), run(poison(gated), x, gate)
    assert torch.equal(y[gate == 0], expected[gate == 0])
    assert torch.equal(y[..., :STATIC], expected[..., :STATIC])
    assert y[gate == 1][..., STATIC:].isnan().all()


@BOTH
@given(gate=gates())
@settings(max_examples=8, deadline=None)
def test_weights_get_the_same_gradient_in_training_and_in_evaluation(make, gate):
    gradients = []
    for given_gate in (gate, gate.clone().requires_grad_()):
        gated = make()
        run(gated, signal(*gate.shape), given_gate).square().sum().backward()
        gradients.append([parameter.grad for parameter in gated.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@BOTH
def test_the_gate_gets_what_opening_adds(make):
    gated, x = make(), signal(2, 4)
    hard = torch.tensor([[1.0, 0, 1, 0], [0, 0, 1, 1]], dtype=x.dtype)
    weight = torch.randn(run(gated, x).shape, dtype=x.dtype)
    gate = hard.clone().requires_grad_()
    (run(gated, x, gate) * weight).sum().backward()
    for b, t in torch.cartesian_prod(torch.arange(2), torch.arange(4)).tolist():
        opened, closed = hard.clone(), hard.clone()
        opened[b, t], closed[b, t] = 1, 0
        difference = ((run(gated, x, opened) - run(gated, x, closed)) * weight).sum()
        torch.testing.assert_close(gate.grad[b, t], difference, rtol=1e-9, atol=1e-12)


@BOTH
def test_the_sign_of_the_estimate_for_a_curved_loss(make):
    gated, x = make(), signal(1, 6)
    open_y, closed_y = run(gated, x, torch.ones(1, 6)), run(gated, x, torch.zeros(1, 6))
    for target, sign in ((2 * open_y - closed_y, -1), (2 * closed_y - open_y, 1)):
        for hard in (torch.zeros(1, 6), torch.ones(1, 6)):
            gate = hard.double().requires_grad_()
            (run(gated, x, gate) - target.detach()).square().sum().backward()
            opened = (open_y - target).square().sum((-1, -2)) - (closed_y - target).square().sum((-1, -2))
            assert (gate.grad.sign() == sign).all() and (opened.sign() == sign).all()


@given(gate=gates(), taps=st.integers(1, 3), cuts=st.lists(st.integers(0, 7), max_size=3))
@settings(max_examples=20, deadline=None)
def test_pieces_with_the_state_carried_over_are_the_whole(gate, taps, cuts):
    gated, x = conv(kernel=(taps, 3)), signal(*gate.shape)
    frames = x.shape[1]
    whole, last = gated(x, gate)
    for edges in (range(frames + 1), sorted({0, frames, *(cut for cut in cuts if cut < frames)})):
        pieces, state = [], None
        for start, end in zip(edges[:-1], edges[1:], strict=True):
            piece, state = gated(x[:, start:end], gate[:, start:end], state)
            pieces.append(piece)
        torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=1e-12)
        assert torch.equal(state, last)


def test_the_transposed_one_has_no_memory():
    gated, x, gate = transposed(), signal(2, 5), torch.tensor([[1.0, 0, 1, 1, 0], [0, 1, 0, 0, 0]])
    steps = [gated(x[:, t : t + 1], gate[:, t : t + 1]) for t in range(5)]
    torch.testing.assert_close(torch.cat(steps, dim=1), gated(x, gate), rtol=0, atol=1e-12)


@BOTH
@pytest.mark.parametrize("gate", [None, torch.tensor([[1.0, 0, 1, 0, 1, 1]])])
def test_nothing_looks_ahead(make, gate):
    gated, x = make(), signal(1, 6)
    before = run(gated, x, gate)
    for t in range(1, 6):
        changed = x.clone()
        changed[:, t:] = torch.nan
        assert torch.equal(run(gated, changed, gate)[:, :t], before[:, :t])


def test_a_frame_is_read_for_as_long_as_the_kernel():
    gated, x = conv(kernel=(TAPS, 3)), signal(1, 7).requires_grad_()
    gated(x)[0][:, 4].sum().backward()
    assert x.grad.abs().sum((0, 2, 3)).bool().tolist() == [False, False, True, True, True, False, False]


def test_initial_state_is_silence():
    gated, x = conv(), signal(2, 4)
    silent = torch.cat([torch.zeros(2, 5, BANDS, INPUTS, dtype=x.dtype), x], dim=1)
    torch.testing.assert_close(gated(x)[0], gated(silent)[0][:, 5:], rtol=0, atol=1e-12)
    assert gated.initial_state(2, BANDS).shape == (2, TAPS - 1, BANDS, INPUTS)


@pytest.mark.parametrize("gate", [None, torch.zeros(1, 4), torch.tensor([[0.0, 1, 1, 0]])])
def test_absent_channels_are_zero(gate):
    torch.manual_seed(0)
    x = torch.randn(1, 4, BANDS, INPUTS)
    for block in (DynamicConv(INPUTS, static=2, absent=3), DynamicConvTranspose(INPUTS, static=2, absent=3)):
        y = run(block, x, gate)
        assert y.shape[-1] == 5 and not y[..., 2:].any() and y[..., :2].any()
        assert block.conv.bias.shape == (2,)  # no weights are kept for them


@pytest.mark.parametrize("bands", [257, 129, 65, 33, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_out_bands_is_the_shape(bands, stride):
    down, up = DynamicConv(1, static=1, stride=stride), DynamicConvTranspose(1, static=1, stride=stride)
    x = torch.zeros(1, 2, bands, 1)
    assert run(down, x).shape[2] == down.out_bands(bands)
    assert run(up, x).shape[2] == up.out_bands(bands)
    if bands % 2:
        assert up.out_bands(down.out_bands(bands)) == bands


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="odd"):
        DynamicConv(1, static=1, kernel=(1, 4))
    with pytest.raises(ValueError, match="odd"):
        DynamicConvTranspose(1, static=1, kernel=2)
