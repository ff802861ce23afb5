"""The network: time, state, batch, levels, who chooses the gates, and what a budget does to them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import CONFIGS, random_network, spectrum

from dsn_lite.errors import InputError
from dsn_lite.network.config import Config
from dsn_lite.network.model import Network

NETWORK = random_network("odd widths").double()
K = len(NETWORK.gate_names)
GATES = Config.preset("base"), [
    "encoder 2", "encoder 3", "heads", "hidden units", "groups", "middle 2", "decoder 3", "decoder 2",
]  # fmt: skip


def signal(batch: int = 1, frames: int = 6, seed: int = 1) -> torch.Tensor:
    return torch.stack([torch.from_numpy(spectrum(frames, seed + i)) for i in range(batch)]).to(torch.complex128)


def random_gates(batch: int = 1, frames: int = 6, seed: int = 2) -> torch.Tensor:
    return torch.randint(2, (batch, frames, K), generator=torch.Generator().manual_seed(seed)).double()


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-10 * b.abs().max().clamp_min(1))


def test_the_names_of_the_gates():
    assert Network(GATES[0]).gate_names == GATES[1]
    assert random_network("three blocks").gate_names[5:7] == ["middle 2", "middle 3"]
    assert random_network("base, static").gate_names == random_network("base, static only").gate_names == []


# ---------------------------------------------------------------------------------------------------------------- time
@pytest.mark.parametrize("kind", ["learned", "random", "static", "static only"])
@given(first=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=8, deadline=None)
@torch.no_grad()
def test_the_future_never_changes_the_past(kind, first, seed):
    network = NETWORK if kind in ("learned", "random") else random_network(f"base, {kind}").double()
    x, gates = signal(1, 10, seed), random_gates(1, 10, seed) if kind == "random" else None
    other = x.clone()
    other[:, first:] = 3 * signal(1, 10, seed + 7)[:, first:] + 1
    before, after = network(x, gates), network(other, gates)
    assert close(after.spectrum[:, :first], before.spectrum[:, :first])
    assert torch.equal(after.gates[:, :first], before.gates[:, :first])
    assert not close(after.spectrum[:, first], before.spectrum[:, first])
    other[:, first:] = torch.nan
    assert close(network(other, gates).spectrum[:, :first], before.spectrum[:, :first])
    if gates is not None:
        gates[:, first:] = 1 - gates[:, first:]
        assert close(network(x, gates).spectrum[:, :first], before.spectrum[:, :first])


@given(cuts=st.lists(st.integers(1, 7), max_size=4), seed=st.integers(0, 99), learned=st.booleans())
@settings(max_examples=10, deadline=None)
@torch.no_grad()
def test_pieces_with_the_state_carried_over_are_the_whole(cuts, seed, learned):
    x, gates = signal(2, 8, seed), None if learned else random_gates(2, 8, seed)
    whole, shapes = NETWORK(x, gates), None
    for edges in (range(9), sorted({0, 8, *cuts})):
        pieces, state = [], None
        for a, b in zip(edges[:-1], edges[1:], strict=True):
            pieces.append(NETWORK(x[:, a:b], None if learned else gates[:, a:b], state))
            state = pieces[-1].state
            tensors = torch.utils._pytree.tree_leaves(state)
            sizes = [None if tensor is None else tensor.shape for tensor in tensors]
            assert shapes in (None, sizes), "the state grows"
            shapes = sizes
        assert close(torch.cat([piece.spectrum for piece in pieces], 1), whole.spectrum)
        assert torch.equal(torch.cat([piece.gates for piece in pieces], 1), whole.gates)


@pytest.mark.parametrize("learned", [True, False])
@torch.no_grad()
def test_items_of_a_batch_do_not_see_each_other(learned):
    x, gates = signal(3, 8), None if learned else random_gates(3, 8)
    together = NETWORK(x, gates)
    for i in range(3):
        alone = NETWORK(x[i : i + 1], None if learned else gates[i : i + 1])
        assert close(together.spectrum[i : i + 1], alone.spectrum)
        assert torch.equal(together.gates[i : i + 1], alone.gates)


# -------------------------------------------------------------------------------------------------------------- values
@torch.no_grad()
def test_untrained_it_is_near_the_identity():
    torch.manual_seed(0)
    x = signal(1, 20)[..., :256]
    for config in (CONFIGS["tiny"], CONFIGS["base, static only"]):
        y = Network(config).double().eval()(signal(1, 20)).spectrum
        assert (y[..., :256] - x).abs().max() < 0.5 * x.abs().max()
        assert not y[..., 256].any()  # the Nyquist bin is no part of the answer


@pytest.mark.parametrize("config", ["odd widths", "base, static", "base, static only"])
def test_silence_stays_silence(config):
    for dtype in (torch.complex64, torch.complex128):
        network = random_network(config).to(torch.float32 if dtype is torch.complex64 else torch.float64)
        y = network(torch.zeros(1, 5, 257, dtype=dtype)).spectrum
        assert not y.any()
        y.real.sum().backward()
        assert all(value.grad.isfinite().all() for value in network.parameters() if value.grad is not None)


@torch.no_grad()
def test_loud_and_quiet_stay_finite():
    for level in (1e-20, 1e-6, 1.0, 1e4):
        assert random_network("odd widths")((level * signal(1, 4)).to(torch.complex64)).spectrum.isfinite().all()


# --------------------------------------------------------------------------------------------------------------- gates
@pytest.mark.parametrize("k", range(K), ids=NETWORK.gate_names)
def test_every_gate_matters_and_gets_a_gradient(k):
    x = signal()
    for start in (0.0, 1.0):
        gates = torch.full((1, 6, K), start, dtype=torch.float64)
        if start == 0:  # what is refined leaves through the decoders: without them nothing shows
            gates[..., NETWORK.gate_names.index("decoder 3")] = gates[..., NETWORK.gate_names.index("decoder 2")] = 1
        flipped = gates.clone()
        flipped[0, 2, k] = 1 - flipped[0, 2, k]
        with torch.no_grad():
            difference = (NETWORK(x, flipped).spectrum - NETWORK(x, gates).spectrum).abs().amax(-1)[0]
        assert difference[:2].max() < 1e-10 and difference[2] > 1e-6
        gates.requires_grad_()
        NETWORK(x, gates).spectrum.abs().sum().backward()
        heard = x[0].abs().sum(-1) > 0
        assert gates.grad.isfinite().all() and gates.grad[0, heard, k].abs().min() > 0
        NETWORK.zero_grad()


@torch.no_grad()
def test_evaluation_repeats_and_draws_nothing():
    x, before = signal(1, 40), torch.get_rng_state()
    first, second = NETWORK(x), NETWORK(x)
    assert torch.equal(first.spectrum, second.spectrum) and torch.equal(first.gates, second.gates)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.margins.shape == first.gates.shape == (1, 40, K)
    assert torch.equal(first.gates, (first.margins > 0).double())
    assert ((first.gates.mean(1) > 0.02) & (first.gates.mean(1) < 0.98)).sum() > K // 2


@torch.no_grad()
def test_the_policy_does_not_depend_on_the_gates():
    x = signal(1, 12)
    margins = NETWORK(x).margins
    assert torch.equal(NETWORK(x, shift=3.0).margins, margins) and torch.equal(NETWORK(x, shift=-3.0).margins, margins)
    output = NETWORK(x, lambda found: (found < 0).double())
    assert torch.equal(output.margins, margins) and torch.equal(output.gates, (margins < 0).double())
    given_gates = NETWORK(x, torch.ones(1, 12, K).double())
    assert given_gates.margins is None and given_gates.gates.all()


def test_the_policy_teaches_nothing_but_itself():
    network = random_network("odd widths")
    network(signal(1, 6).to(torch.complex64)).margins.sum().backward()
    with_gradient = {name for name, value in network.named_parameters() if value.grad is not None}
    assert with_gradient == {f"policy.{name}" for name, _ in network.policy.named_parameters()}


@given(shifts=st.lists(st.floats(-15, 15), min_size=2, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
@torch.no_grad()
def test_a_higher_shift_opens_more(shifts, seed):
    used = [NETWORK(signal(1, 6, seed), shift=shift).gates for shift in sorted(shifts)]
    assert all((more >= less).all() for less, more in zip(used[:-1], used[1:], strict=True))


@pytest.mark.parametrize("config", ["base, static", "base, static only"])
@torch.no_grad()
def test_a_network_without_gates(config):
    network, x = random_network(config), signal(2).to(torch.complex64)
    output = network(x)
    assert output.gates.shape == (2, 6, 0) and output.margins is None and output.state.policy is None
    assert network.policy is None
    assert torch.equal(network(x, torch.ones(2, 6, 0)).spectrum, output.spectrum)


@pytest.mark.parametrize(("config", "given_count"), [("odd widths", 7), ("odd widths", 9), ("base, static", 8)])
def test_gates_of_another_network_are_refused(config, given_count):
    network = random_network(config)
    with pytest.raises(ValueError, match=f"gates for {given_count} parts; this network has {len(network.gate_names)}"):
        network(signal().to(torch.complex64), torch.ones(1, 6, given_count))


def test_a_new_policy_has_learnt_nothing_and_the_rest_stays():
    network = random_network("odd widths")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.renew_policy()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("policy."), name


# -------------------------------------------------------------------------------------------------------------- budget
def calibrated(*rows: tuple[float, float]) -> Network:
    network = random_network("tiny")
    network.card = {"calibration": [{"activation": activation, "shift": shift} for activation, shift in rows]}
    return network


def test_budget_without_and_with_calibration():
    network = calibrated()
    assert network.budget_shift(None) == network.budget_shift(0.5) == 0.0
    assert network.budget_shift(0.75) == pytest.approx(math.log(3)) == -network.budget_shift(0.25)
    network = calibrated((0.1, -4.0), (0.4, 0.0), (0.8, 3.0))
    assert (network.budget_shift(0), network.budget_shift(1)) == (-math.inf, math.inf)
    assert network.budget_shift(0.4) == 0.0 and network.budget_shift(0.25) == pytest.approx(-2)
    assert network.budget_shift(0.05) == -4 and network.budget_shift(0.99) == 3 and network.budget_shift(None) == 0


@pytest.mark.parametrize("rows", [(), ((0.2, -3), (0.5, 1), (0.7, 2))])
def test_a_larger_budget_never_shifts_down(rows):
    network = calibrated(*rows)
    shifts = [network.budget_shift(budget / 50) for budget in range(51)]
    assert shifts == sorted(shifts)


@pytest.mark.parametrize("budget", [-0.1, 1.1, math.nan])
def test_a_budget_out_of_range_is_refused(budget):
    with pytest.raises(InputError, match=r"between 0 \(closed\) and 1 \(open\)"):
        random_network("tiny").budget_shift(budget)
