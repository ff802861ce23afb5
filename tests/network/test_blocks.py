"""The gated blocks in double precision, each against the library's layers in a loop over frames."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from dsn_lite.network.blocks import DynamicAttention, DynamicConv, DynamicFeedForward, DynamicGRU
from dsn_lite.network.blocks.frames import where_open
from dsn_lite.network.blocks.norm import Norm

CHANNELS, BANDS = (3, 4), 6
MAKERS = {
    "down": lambda: DynamicConv(CHANNELS, (2, 5), kernel=5, stride=2),
    "up": lambda: DynamicConv(CHANNELS, (2, 5), kernel=3, stride=2, up=True),
    "mask": lambda: DynamicConv(CHANNELS, (2, 5), kernel=5, stride=2, up=True, plain=True),
    "attention": lambda: DynamicAttention(CHANNELS, (1, 2), (3, 5)),
    "linear": lambda: DynamicFeedForward(CHANNELS, (3, 6)),
    "recurrent": lambda: DynamicGRU(CHANNELS, (1, 2), (3, 5)),
}
EACH = pytest.mark.parametrize("name", MAKERS)
CONVOLUTIONS = ("down", "up", "mask")


def made(name, seed=0):
    torch.manual_seed(seed)
    block = MAKERS[name]().double().eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(0, 0.7)  # larger than at the start: softmax and recurrence matter
        for norm in (module for module in block.modules() if isinstance(module, Norm)):
            norm.mean.normal_()
            norm.variance.uniform_(0.5, 2)
    return block


def signal(batch, frames, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, frames, BANDS, n, generator=generator, dtype=torch.float64) for n in CHANNELS]


def refined(block, static, dynamic, gate):
    y = block.refine(static, dynamic, gate, *([None] if isinstance(block, DynamicGRU) else []))
    return y[0] if isinstance(y, tuple) else y


def normed(norm, x):
    return functional.batch_norm(x, norm.mean, norm.variance, norm.weight, norm.bias)


def plain(part, x):
    """What one part makes of one frame x [F, inputs], by the library's layers."""
    if hasattr(part, "stride"):
        convolve = functional.conv_transpose1d if part.up else functional.conv1d
        options = {"output_padding": part.stride - 1} if part.up else {}
        bias = part.bias if part.norm is None else None
        y = convolve(x.T[None], part.weight[:, :, 0], bias, part.stride, part.kernel // 2, **options)[0].T
        return y if part.norm is None else functional.prelu(normed(part.norm, y), part.slope)
    x = normed(part.norm, x)
    if hasattr(part, "up"):
        return part.down(part.up(x).relu())
    query, key, value = part.query_key_value(x).unflatten(-1, (3, part.heads, part.width)).permute(1, 2, 0, 3)
    return part.out(functional.scaled_dot_product_attention(query, key, value).transpose(0, 1).flatten(1))


def loop(block, static, dynamic, gate, state=None):
    """Refined channels frame by frame, and the dynamic state: what is closed is left out, a closed GRU waits."""
    items, last = [], []
    for b in range(len(gate)):
        frames = []
        held = [torch.zeros(BANDS, 5, dtype=torch.float64) if state is None else state[b, :, g] for g in range(2)]
        for t in range(gate.shape[1]):
            x, before = torch.cat([static[b, t], dynamic[b, t]], -1), dynamic[b, t]
            if isinstance(block, DynamicConv):
                one = plain(block.dynamic, x)
                frames.append(one * gate[b, t].detach())
            elif not gate[b, t]:
                frames.append(before)
            elif isinstance(block, DynamicGRU):
                x = normed(block.dynamic.norm, x)
                for g, group in enumerate(block.dynamic.groups):
                    weights = [getattr(group, f"{n}_l0") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
                    held[g] = torch.gru_cell(x, held[g], *weights)
                frames.append(before + block.dynamic.out(torch.cat(held, -1)))
            else:
                frames.append(before + plain(block.dynamic, x))
        items.append(torch.stack(frames))
        last.append(torch.stack(held, 1))
    return torch.stack(items), torch.stack(last)


def poison(block):
    with torch.no_grad():
        for parameter in block.dynamic.parameters():
            parameter.fill_(torch.nan)
    return block


@st.composite
def gates(draw):
    batch, frames = draw(st.integers(1, 3)), draw(st.integers(1, 7))
    bits = draw(st.lists(st.booleans(), min_size=batch * frames, max_size=batch * frames))
    return torch.tensor(bits, dtype=torch.float64).reshape(batch, frames)


@EACH
@given(gate=gates())
@settings(max_examples=15, deadline=None)
def test_any_gates_equal_a_loop_over_frames_and_are_trained_exactly(name, gate):
    """In evaluation and in training; inputs and weights get the loop's gradients, through held states too."""
    gradients = []
    for run in (refined, lambda *all_of_it: loop(*all_of_it)[0]):
        block, inputs = made(name), [x.requires_grad_() for x in signal(*gate.shape)]
        y = run(block, *inputs, gate.clone().requires_grad_())
        y.square().sum().backward()
        wanted = [*inputs, *block.dynamic.parameters()]
        gradients.append([torch.zeros_like(x) if x.grad is None else x.grad for x in wanted])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-8)
    with torch.no_grad():
        torch.testing.assert_close(refined(block, *inputs, gate), y, rtol=0, atol=1e-11)


@EACH
@torch.no_grad()
def test_open_is_no_gate_and_the_small_part_is_the_library_too(name):
    block, (static, dynamic) = made(name), signal(2, 4)
    torch.testing.assert_close(
        refined(block, static, dynamic, None), refined(block, static, dynamic, torch.ones(2, 4)), rtol=0, atol=1e-12
    )
    if name == "recurrent":
        y, _ = block.small(static, None)
        x = normed(block.static.norm, static.flatten(0, 2)).view(static.shape)
        (group,) = block.static.groups
        hidden = torch.stack([group(x[:, :, band])[0] for band in range(BANDS)], 2)
        expected = static + block.static.out(hidden)
    else:
        y, part = block.small(static), block.static
        expected = torch.stack([torch.stack([plain(part, frame) for frame in item]) for item in static])
        expected = expected if name in CONVOLUTIONS else static + expected
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-11)


@EACH
@given(gate=gates())
@settings(max_examples=10, deadline=None)
@torch.no_grad()
def test_closed_frames_never_read_the_dynamic_weights(name, gate):
    block, inputs = made(name), signal(*gate.shape)
    expected, y = refined(block, *inputs, gate), refined(poison(block), *inputs, gate)
    assert torch.equal(y[gate == 0], expected[gate == 0])
    assert torch.equal(y[gate == 0], torch.zeros_like(y)[gate == 0] if name in CONVOLUTIONS else inputs[1][gate == 0])
    assert y[gate == 1].isnan().all()


@EACH
def test_the_gate_gets_what_opening_adds_to_its_frame(name):
    """What a moved state does to later frames is not part of the estimate."""
    block, inputs = made(name), signal(2, 4)
    hard = torch.tensor([[1.0, 0, 1, 0], [0, 0, 1, 1]], dtype=torch.float64)
    gate = hard.clone().requires_grad_()
    y = refined(block, *inputs, gate)
    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    for b, t in torch.cartesian_prod(torch.arange(2), torch.arange(4)).tolist():
        opened, closed = hard.clone(), hard.clone()
        opened[b, t], closed[b, t] = 1, 0
        added = loop(block, *inputs, opened)[0] - loop(block, *inputs, closed)[0]
        torch.testing.assert_close(gate.grad[b, t], (added * weight)[b, t].sum(), rtol=1e-8, atol=1e-10)


@EACH
@pytest.mark.parametrize("opened", [0.0, 1.0])
def test_the_sign_of_the_estimate_for_a_curved_loss(name, opened):
    """A target beyond the open answer says open, one before the closed answer says close."""
    block, inputs = made(name), signal(1, 1)
    open_y, closed_y = (refined(block, *inputs, torch.full((1, 1), value).double()) for value in (1.0, 0.0))
    for target, sign in ((2 * open_y - closed_y, -1), (2 * closed_y - open_y, 1)):
        gate = torch.full((1, 1), opened, dtype=torch.float64, requires_grad=True)
        (refined(block, *inputs, gate) - target.detach()).square().sum().backward()
        assert gate.grad.sign().item() == sign


@EACH
@given(gate=gates(), cuts=st.lists(st.integers(0, 7), max_size=3))
@settings(max_examples=10, deadline=None)
@torch.no_grad()
def test_pieces_with_the_state_carried_over_are_the_whole(name, gate, cuts):
    block, (static, dynamic) = made(name), signal(*gate.shape)
    whole = refined(block, static, dynamic, gate)
    frames = gate.shape[1]
    for edges in (range(frames + 1), sorted({0, frames, *(cut for cut in cuts if cut < frames)})):
        pieces, state = [], None
        for a, b in zip(edges[:-1], edges[1:], strict=True):
            if name == "recurrent":
                piece, state = block.refine(static[:, a:b], dynamic[:, a:b], gate[:, a:b], state)
            else:
                piece = block.refine(static[:, a:b], dynamic[:, a:b], gate[:, a:b])
            pieces.append(piece)
        torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=1e-11)
        if name == "recurrent":
            torch.testing.assert_close(state, loop(block, static, dynamic, gate)[1], rtol=0, atol=1e-11)


@EACH
@torch.no_grad()
def test_nothing_looks_ahead_and_only_the_recurrence_looks_back(name):
    block, (static, dynamic), gate = made(name), signal(1, 5), torch.tensor([[1.0, 0, 1, 1, 1]])
    y = refined(block, static, dynamic, gate)
    changed = static.clone()
    changed[:, 2] = torch.nan
    moved = refined(block, changed, dynamic, gate).isnan().any(-1).any(-1)[0].tolist()
    assert moved == [False, False, True, name == "recurrent", name == "recurrent"]
    assert torch.equal(refined(block, changed, dynamic, gate)[:, :2], y[:, :2])


@EACH
def test_every_weight_has_a_gradient_in_training_even_if_all_is_closed(name):
    """What several processes need: none may lack a gradient that the others have."""
    block = made(name)
    refined(block, *signal(2, 3), torch.zeros(2, 3).double()).sum().backward()
    for parameter in block.dynamic.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()


# ---------------------------------------------------------------------------------------------------------- one by one
def test_the_transposed_convolution_by_hand():
    """Input band f adds tap k to output band ``stride * f + k - kernel // 2``."""
    block, (static, dynamic) = made("mask"), signal(1, 1)
    x, part = torch.cat([static, dynamic], -1)[0, 0], block.dynamic
    expected = part.bias.detach().repeat(2 * BANDS, 1)
    for f in range(BANDS):
        for k in range(5):
            if 0 <= 2 * f + k - 2 < 2 * BANDS:
                expected[2 * f + k - 2] += x[f] @ part.weight.detach()[:, :, 0, k]
    torch.testing.assert_close(refined(block, static, dynamic, None)[0, 0].detach(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bands", [256, 128, 36])
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("up", [False, True])
def test_out_bands_is_the_shape(bands, stride, up):
    block, x = DynamicConv((1, 0), (1, 1), kernel=5, stride=stride, up=up), torch.zeros(1, 2, bands, 1)
    for part, y in ((block.static, block.small(x)), (block.dynamic, block.refine(x, None, torch.ones(1, 2)))):
        assert y.shape == (1, 2, part.out_bands(bands), 1)
    assert block.static.out_bands(bands) == (bands * stride if up else bands // stride)


@torch.no_grad()
def test_attention_does_not_mind_the_order_of_the_bands():
    block, (static, dynamic), gate = made("attention"), signal(2, 3), torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    order = torch.tensor([3, 1, 4, 0, 2, 5])
    moved = refined(block, static[:, :, order], dynamic[:, :, order], gate)
    torch.testing.assert_close(moved, refined(block, static, dynamic, gate)[:, :, order], rtol=0, atol=1e-11)


@torch.no_grad()
def test_bands_and_groups_do_not_mix_before_the_projection():
    block, (static, dynamic), gate = made("recurrent"), signal(1, 4), torch.ones(1, 4)
    changed = static.clone()
    changed[:, :, 0] += 1
    expected, state = block.refine(static, dynamic, gate, None)
    assert torch.equal(refined(block, changed, dynamic, gate)[:, :, 1:], expected[:, :, 1:])
    start = torch.zeros_like(state)
    start[:, :, 1] += 0.1
    last = block.refine(static, dynamic, gate, start)[1]
    assert torch.equal(last[:, :, 0], state[:, :, 0]) and not torch.equal(last[:, :, 1], state[:, :, 1])


@torch.no_grad()
def test_only_open_frames_are_seen():
    x, gate, seen = torch.randn(2, 3, 4, 5), torch.tensor([[1.0, 0, 1], [0, 0, 1]]), []

    def function(frames):
        seen.append(frames.clone())
        return 2 * frames[..., :2]

    y = where_open(function, x, gate, (4, 2))
    assert len(seen) == 1 and torch.equal(seen[0], torch.stack([x[0, 0], x[0, 2], x[1, 2]]))
    assert torch.equal(y, 2 * x[..., :2] * gate[:, :, None, None])
    assert not where_open(function, x, torch.zeros(2, 3), (4, 2)).any() and len(seen) == 1
    assert torch.equal(where_open(function, x, torch.ones(2, 3), (4, 2)), 2 * x[..., :2])


def test_a_norm_in_training_is_that_of_the_library():
    torch.manual_seed(0)
    norm, library, x = Norm(4), nn.BatchNorm1d(4, momentum=0.05), torch.randn(2, 5, 6, 4)
    for _ in range(3):
        torch.testing.assert_close(norm(x), library(x.view(-1, 4)).view(x.shape))
    torch.testing.assert_close(norm.mean, library.running_mean)
    torch.testing.assert_close(norm.variance, library.running_var)
    norm.frozen, before = True, norm.mean.clone()
    norm.weight.data.fill_(2)
    scale, shift = norm.folded()
    torch.testing.assert_close(norm(x), x * scale + shift)
    assert torch.equal(norm.mean, before)
