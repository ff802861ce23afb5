"""The grouped GRU against `nn.GRU`, and against a loop of `nn.GRUCell` that holds its state by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dsn_lite.blocks import DynamicGRU, recurrent

CHANNELS, WIDTH, STATIC, DYNAMIC, BANDS = 4, 3, 2, 2, 2
GROUPS = STATIC + DYNAMIC


def block(seed=0, dtype=torch.float64, static=STATIC, dynamic=DYNAMIC):
    torch.manual_seed(seed)
    gated = DynamicGRU(CHANNELS, group_width=WIDTH, static=static, dynamic=dynamic).to(dtype)
    for parameter in gated.parameters() if dtype is torch.float64 else ():
        torch.nn.init.normal_(parameter, std=0.7)  # larger than the library's start: the recurrence matters
    return gated


def signal(batch, frames, seed=1, dtype=torch.float64):
    return torch.randn(batch, frames, BANDS, CHANNELS, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def some_state(batch, groups=GROUPS):
    generator = torch.Generator().manual_seed(7)
    return torch.rand(batch, BANDS, groups, WIDTH, generator=generator, dtype=torch.float64) - 0.5


def cells(gated):
    """One `nn.GRUCell` for each group, which shares the group's weights (and so collects their gradients)."""
    made = []
    for group in gated.groups:
        cell = nn.GRUCell(CHANNELS, WIDTH, dtype=torch.float64)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            setattr(cell, name, getattr(group, f"{name}_l0"))
        made.append(cell)
    return made


def loop(gated, x, gate, state=None):
    """Frame by frame, item by item, band by band: dynamic groups move and speak on open frames only."""
    batch, frames = gate.shape
    state = torch.zeros(batch, BANDS, GROUPS, WIDTH, dtype=x.dtype) if state is None else state
    outputs, finals = [], []
    for b in range(batch):
        held = [[state[b, f, g] for g in range(GROUPS)] for f in range(BANDS)]
        for t in range(frames):
            for f in range(BANDS):
                spoken = []
                for g, cell in enumerate(cells(gated)):
                    if g < STATIC or gate[b, t]:
                        held[f][g] = cell(x[b, t, f][None], held[f][g][None])[0]
                        spoken.append(held[f][g])
                    else:
                        spoken.append(torch.zeros(WIDTH, dtype=x.dtype))
                outputs.append(gated.out(torch.cat(spoken)))
        finals.append(torch.stack([torch.stack(groups) for groups in held]))
    return torch.stack(outputs).reshape(batch, frames, BANDS, CHANNELS), torch.stack(finals)


def plain(gated, x, groups):
    """`nn.GRU` for each of the first groups, and `nn.Linear`."""
    made = []
    for group in gated.groups[:groups]:
        library = nn.GRU(CHANNELS, WIDTH, batch_first=True, dtype=x.dtype)
        library.load_state_dict(group.state_dict())
        made.append(torch.stack([library(x[:, :, f])[0] for f in range(BANDS)], dim=2))
    out = nn.Linear(groups * WIDTH, CHANNELS, dtype=x.dtype)
    with torch.no_grad():
        out.weight.copy_(gated.out.weight[:, : groups * WIDTH])
        out.bias.copy_(gated.out.bias)
    return out(torch.cat(made, dim=-1))


def poison(gated):
    with torch.no_grad():
        for group in gated.groups[STATIC:]:
            for parameter in group.parameters():
                parameter.fill_(torch.nan)
        gated.out.weight[:, STATIC * WIDTH :] = torch.nan
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
    tolerance = 1e-6 if dtype is torch.float32 else 1e-12
    torch.testing.assert_close(gated(x, gate)[0], plain(gated, x, GROUPS), rtol=0, atol=tolerance)


def test_all_closed_is_the_layer_without_the_dynamic_part():
    gated, x, state = block(), signal(2, 6), some_state(2)
    y, last = gated(x, torch.zeros(2, 6), state)
    torch.testing.assert_close(gated(x, torch.zeros(2, 6))[0], plain(gated, x, STATIC), rtol=0, atol=1e-12)
    assert torch.equal(last[:, :, STATIC:], state[:, :, STATIC:])
    poisoned, poisoned_last = poison(gated)(x, torch.zeros(2, 6), state)
    assert torch.equal(poisoned, y) and torch.equal(poisoned_last, last)


@given(gate=gates(), starts=st.booleans())
@settings(max_examples=30, deadline=None)
def test_any_gates_equal_the_loop(gate, starts):
    gated, x = block(), signal(*gate.shape)
    state = some_state(len(gate)) if starts else None
    expected, last_expected = loop(gated, x, gate, state)
    for given_gate in (gate, gate.clone().requires_grad_()):
        y, last = gated(x, given_gate, state)
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(last, last_expected, rtol=0, atol=1e-12)


@given(gate=gates())
@settings(max_examples=12, deadline=None)
def test_it_is_trained_exactly(gate):
    """Input and weights get the loop's gradients: the held state is differentiated through, not approximated."""
    gradients = []
    for run in (loop, lambda gated, x, gate: gated(x, gate), lambda gated, x, gate: gated(x, gate.requires_grad_())):
        gated, x = block(), signal(*gate.shape).requires_grad_()
        y, last = run(gated, x, gate.clone())
        (y.square().sum() + last.square().sum()).backward()
        gradients.append([x.grad, *(parameter.grad for parameter in gated.parameters())])
    for by_loop, evaluating, training in zip(*gradients, strict=True):
        expected = torch.zeros_like(training) if by_loop is None else by_loop
        torch.testing.assert_close(training, expected, rtol=0, atol=1e-9)
        torch.testing.assert_close(torch.zeros_like(training) if evaluating is None else evaluating, expected)


@given(gate=gates(), kind=st.sampled_from(["training", "given", "none"]), starts=st.booleans(), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_compiled_loop_equals_the_library(gate, kind, starts, seed):
    """Single precision takes the compiled loop, double precision the library's GRU: outputs, states and all gradients."""
    recurrent.HAS_LOOP or pytest.skip("Numba is not installed")
    found = []
    for dtype in (torch.float32, torch.float64):
        gated = block(seed).to(dtype)
        x = signal(*gate.shape).to(dtype).requires_grad_()
        state = some_state(len(gate)).to(dtype).requires_grad_() if starts else None
        own = {"training": gate.to(dtype, copy=True).requires_grad_(), "given": gate.to(dtype), "none": None}[kind]
        y, last = gated(x, own, state)
        assert any("HeldGRU" in name for name in graph(y)) == (dtype is torch.float32)
        ((y.square() + y).sum() + last.square().sum()).backward()
        asked = [x, *gated.parameters(), *([state] if starts else []), *([own] if kind == "training" else [])]
        found.append([y, last, *(torch.zeros_like(tensor) if tensor.grad is None else tensor.grad for tensor in asked)])
    for compiled, library in zip(*found, strict=True):
        scale = max(1.0, library.detach().abs().max().item())
        torch.testing.assert_close(compiled.double() / scale, library / scale, rtol=0, atol=3e-6)


def graph(tensor):
    """Names of the operations that a tensor came from."""
    names, waiting = set(), [tensor.grad_fn]
    while waiting:
        if (node := waiting.pop()) is not None:
            names.add(node.name())
            waiting += [before for before, _ in node.next_functions]
    return names


def test_compiled_loop_reads_no_closed_group():
    gated, x = poison(block()).float(), signal(2, 6, dtype=torch.float32)
    y, last = gated(x, torch.zeros(2, 6), some_state(2).float())
    y.sum().backward()
    assert y.isfinite().all() and last.isfinite().all() and gated.groups[0].weight_hh_l0.grad.isfinite().all()


def test_every_weight_has_a_gradient_in_training_even_if_all_is_closed():
    """What several processes need: none may lack a gradient that the others have."""
    gated = block()
    gated(signal(2, 4), torch.zeros(2, 4, requires_grad=True))[0].sum().backward()
    for name, parameter in gated.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@given(gate=gates())
@settings(max_examples=15, deadline=None)
def test_closed_frames_never_read_the_dynamic_weights(gate):
    gated, x = block(), signal(*gate.shape)
    expected, y = gated(x, gate)[0], poison(gated)(x, gate)[0]
    assert torch.equal(y[gate == 0], expected[gate == 0])
    assert y[gate == 1].isnan().all()


def test_the_gate_gets_what_opening_adds_to_its_frame():
    """The estimate is that of the frame itself; what a moved state does to later frames is not part of it."""
    gated, x = block(), signal(2, 5)
    hard = torch.tensor([[1.0, 0, 1, 0, 0], [0, 0, 1, 1, 0]], dtype=x.dtype)
    weight = torch.randn(x.shape, dtype=x.dtype)
    gate = hard.clone().requires_grad_()
    (gated(x, gate)[0] * weight).sum().backward()
    for b, t in torch.cartesian_prod(torch.arange(2), torch.arange(5)).tolist():
        opened, closed = hard.clone(), hard.clone()
        opened[b, t], closed[b, t] = 1, 0
        difference = ((loop(gated, x, opened)[0] - loop(gated, x, closed)[0]) * weight)[b, t].sum()
        torch.testing.assert_close(gate.grad[b, t], difference, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("opened", [False, True])
def test_the_sign_of_the_estimate_for_a_curved_loss(opened):
    """One frame, so that nothing comes later: a target beyond the open output says open, one before it says close."""
    gated, x = block(), signal(1, 1)
    open_y, closed_y = gated(x, torch.ones(1, 1))[0], gated(x, torch.zeros(1, 1))[0]
    for target, sign in ((2 * open_y - closed_y, -1), (2 * closed_y - open_y, 1)):
        gate = torch.full((1, 1), float(opened), dtype=x.dtype, requires_grad=True)
        (gated(x, gate)[0] - target.detach()).square().sum().backward()
        difference = (open_y - target).square().sum() - (closed_y - target).square().sum()
        assert gate.grad.sign().item() == sign == difference.sign().item()


@given(gate=gates(), cuts=st.lists(st.integers(0, 7), max_size=3))
@settings(max_examples=20, deadline=None)
def test_pieces_with_the_state_carried_over_are_the_whole(gate, cuts):
    gated, x = block(), signal(*gate.shape)
    frames = x.shape[1]
    whole, last = gated(x, gate)
    for edges in (range(frames + 1), sorted({0, frames, *(cut for cut in cuts if cut < frames)})):
        pieces, state = [], None
        for start, end in zip(edges[:-1], edges[1:], strict=True):
            piece, state = gated(x[:, start:end], gate[:, start:end], state)
            pieces.append(piece)
        torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=1e-12)
        torch.testing.assert_close(state, last, rtol=0, atol=1e-12)


@given(gate=gates())
@settings(max_examples=10, deadline=None)
def test_nothing_looks_ahead(gate):
    gated, x = block(), signal(*gate.shape)
    before = gated(x, gate)[0]
    for t in range(1, x.shape[1]):
        changed, other = x.clone(), gate.clone()
        changed[:, t:], other[:, t:] = torch.nan, 1 - gate[:, t:]
        torch.testing.assert_close(gated(changed, other)[0][:, :t], before[:, :t], rtol=0, atol=1e-12)


def test_bands_and_groups_do_not_mix_before_the_projection():
    gated, x = block(), signal(1, 4)
    changed = x.clone()
    changed[:, :, 0] += 1
    assert torch.equal(gated(changed)[0][:, :, 1], gated(x)[0][:, :, 1])
    state = some_state(1)
    moved = state.clone()
    moved[:, :, 2] += 0.1
    a, b = gated(x, state=state)[1], gated(x, state=moved)[1]
    assert torch.equal(a[:, :, [0, 1, 3]], b[:, :, [0, 1, 3]]) and not torch.equal(a[:, :, 2], b[:, :, 2])


@pytest.mark.parametrize("gate", [[1.0, 1, 1], [0, 0, 0], [0, 1, 0]])
@pytest.mark.parametrize("training", [False, True])
def test_without_a_dynamic_part_the_gate_does_not_matter(gate, training):
    static, x = block(dynamic=0), signal(1, 3)
    y, state = static(x, torch.tensor([gate], dtype=x.dtype).requires_grad_(training))
    assert torch.equal(y, static(x)[0]) and state.shape == (1, BANDS, STATIC, WIDTH)
