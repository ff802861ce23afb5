"""The network: what open and closed mean, causality, state, batch, budget."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dsn_lite.audio.spectral import HOP, compress, istft, stft
from dsn_lite.config import Config
from dsn_lite.errors import InputError
from dsn_lite.model import GATES, Network

# Small, and no width is split into equal halves: mixing up the static and the dynamic part cannot go unseen.
SMALL = Config(
    channels=(5, 6, 7),
    heads=3,
    head_width=2,
    hidden=5,
    groups=3,
    group_width=2,
    policy_bands=8,
    policy_width=4,
    share=0.4,
)
K = len(GATES)


def network(config=SMALL, seed=0):
    """A network whose every part matters (untrained, its mask is one) and whose policy opens and closes."""
    torch.manual_seed(seed)
    made = Network(config).double().eval()
    with torch.no_grad():
        nn.init.normal_(made.decoder_1.conv.weight, std=0.3)
        for slope in made.slopes:
            slope.uniform_(0.05, 0.5)
        for block in (made.frequency_1, made.time, made.frequency_2):
            block.feed_forward.up.bias.fill_(1)  # no hidden unit is silent throughout
        if config.parts == "gated":
            nn.init.normal_(made.policy.recurrent.weight_ih_l0, std=0.3)
            logits = made.policy(compress(signal(1, 200)).abs())[0]
            made.policy.logits.bias -= logits.mean((0, 1)).flatten()  # each gate is open about half of the time
    return made


def signal(batch=1, frames=6, seed=1):
    """A spectrum of changing level, complex [B, T, F]."""
    generator = torch.Generator().manual_seed(seed)
    level = 10 ** (2 * torch.rand(batch, frames, 1, generator=generator, dtype=torch.float64) - 1)
    return level * torch.randn(batch, frames, 257, generator=generator, dtype=torch.complex128)


def random_gates(batch=1, frames=6, seed=2):
    return torch.randint(2, (batch, frames, K), generator=torch.Generator().manual_seed(seed)).double()


def blocks(made):
    """The gated block behind each name of the gating vector."""
    return {
        "encoder 2": made.encoder_2, "encoder 3": made.encoder_3,
        "frequency 1 heads": made.frequency_1.attention, "frequency 1 hidden": made.frequency_1.feed_forward,
        "time groups": made.time.gru, "time hidden": made.time.feed_forward,
        "frequency 2 heads": made.frequency_2.attention, "frequency 2 hidden": made.frequency_2.feed_forward,
        "decoder 3": made.decoder_3, "decoder 2": made.decoder_2,
    }  # fmt: skip


def parts(name, block):
    """Of every weight of a gated block: its key, the weight, the axis of the gated width, the static part of it."""
    static = block.static
    if name.startswith("encoder"):
        gated = {"conv.weight": (0, static), "conv.bias": (0, static)}
    elif name.startswith("decoder"):
        gated = {"conv.weight": (1, static), "conv.bias": (0, static)}
    elif name.endswith("hidden"):
        gated = {"up.weight": (0, static), "up.bias": (0, static), "down.weight": (1, static)}
    elif name.endswith("heads"):  # queries, keys and values lie one after the other, each by head
        gated = {"query_key_value.weight": (1, static), "query_key_value.bias": (1, static)}
        gated["out.weight"] = (1, static * block.head_width)
    else:
        gated = {key: (0, 0) for key in block.state_dict() if key.startswith("groups") and int(key[7]) >= static}
        gated["out.weight"] = (1, static * block.group_width)
    for key, (axis, kept) in gated.items():
        weight = block.get_parameter(key)
        if key.startswith("query"):
            weight = weight.unflatten(0, (3, static + block.dynamic, block.head_width))
        yield key, weight, axis, kept


def poison(name, block):
    with torch.no_grad():
        for _, weight, axis, kept in parts(name, block):
            weight.narrow(axis, kept, weight.shape[axis] - kept).fill_(torch.nan)


def static_weights(made):
    """State dict of the static-only network: the static slice of every gated weight, everything else as it is."""
    state = {name: value for name, value in made.state_dict().items() if not name.startswith("policy.")}
    for name, block in blocks(made).items():
        prefix = next(label for label, module in made.named_modules() if module is block)
        for key, weight, axis, kept in parts(name, block):
            own = weight.detach().narrow(axis, 0, kept)
            state[f"{prefix}.{key}"] = own.flatten(0, 2) if key.startswith("query") else own
            if not kept:
                del state[f"{prefix}.{key}"]
    return state


# ---- what open and closed mean


@pytest.mark.parametrize("config", [SMALL, Config.preset("tiny")], ids=["small", "tiny"])
def test_all_closed_is_the_network_without_the_dynamic_parts(config):
    gated, x = network(config), signal(2)
    static_only = network(config.static_only(), seed=9)
    static_only.load_state_dict(static_weights(gated))  # strict: nothing is missing, nothing is left over
    y = gated(x, torch.zeros(2, 6, K))
    torch.testing.assert_close(y.spectrum, static_only(x).spectrum, rtol=1e-9, atol=1e-9)
    for name, block in blocks(gated).items():
        poison(name, block)
    assert torch.equal(gated(x, torch.zeros(2, 6, K)).spectrum, y.spectrum)


@pytest.mark.parametrize("config", [SMALL, Config.preset("tiny")], ids=["small", "tiny"])
def test_all_open_is_the_static_network(config):
    gated, x = network(config), signal(2)
    static = network(config.static(), seed=9)
    static.load_state_dict(
        {name: value for name, value in gated.state_dict().items() if not name.startswith("policy.")}
    )
    torch.testing.assert_close(gated(x, torch.ones(2, 6, K)).spectrum, static(x).spectrum, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("preset", ["tiny", "base", "paper"])
def test_open_and_closed_in_single_precision(preset):
    config = Config.preset(preset)
    gated, x = network(config).float(), signal(1).to(torch.complex64)
    static, static_only = network(config.static()).float(), network(config.static_only()).float()
    static.load_state_dict(
        {name: value for name, value in gated.state_dict().items() if not name.startswith("policy.")}
    )
    static_only.load_state_dict(static_weights(gated))
    with torch.no_grad():
        for gates, other in ((torch.ones(1, 6, K), static), (torch.zeros(1, 6, K), static_only)):
            y, expected = gated(x, gates).spectrum, other(x).spectrum
            assert (y - expected).abs().max() < 1e-5 * expected.abs().max()


def test_open_and_closed_differ():
    gated, x = network(), signal()
    y, z = (gated(x, gates).spectrum for gates in (torch.ones(1, 6, K), torch.zeros(1, 6, K)))
    assert ((y - z).abs().amax(-1) > 0.01 * y.abs().amax(-1)).all()


def test_a_closed_slice_of_channels_stays_zero_for_the_next_layer():
    gated, seen = network(), {}
    followers = {gated.encoder_2: gated.encoder_3, gated.decoder_2: gated.decoder_1}
    for block, follower in followers.items():
        follower.register_forward_pre_hook(lambda module, args, block=block: seen.update({block: args[0]}))
    gated.encoder_1.register_forward_hook(lambda module, args, output: (torch.zeros_like(output[0]), output[1]))
    gated(signal(), torch.zeros(1, 6, K))  # no skip connection hides what the last decoder adds
    for block in followers:
        assert not seen[block][..., block.static :].any() and seen[block][..., : block.static].any()


@pytest.mark.parametrize("k", range(K), ids=GATES)
def test_each_gate_opens_the_part_of_its_name(k):
    gated, x = network(), signal()
    others = torch.ones(1, 6, K)
    others[..., k] = 0
    expected = gated(x, others).spectrum
    poison(GATES[k], blocks(gated)[GATES[k]])
    assert torch.equal(gated(x, others).spectrum, expected)
    alone = torch.zeros(1, 6, K)
    alone[0, 3, k] = 1
    touched = gated(x, alone).spectrum.isnan().any(-1)[0].tolist()
    # What is opened before the recurrence enters the state of its static groups, and so the later frames.
    later = k < GATES.index("time groups")
    assert touched == [False, False, False, True, later, later]


@pytest.mark.parametrize("k", range(K), ids=GATES)
def test_every_gate_matters_and_gets_a_gradient(k):
    gated, x = network(), signal()
    for start in (0.0, 1.0):
        gates = torch.full((1, 6, K), start, dtype=torch.float64)
        flipped = gates.clone()
        flipped[0, 2, k] = 1 - start
        difference = (gated(x, flipped).spectrum - gated(x, gates).spectrum).abs().amax(-1)[0]
        assert difference[:2].max() < 1e-12 and difference[2] > 1e-6
        gates.requires_grad_()
        gated(x, gates).spectrum.abs().sum().backward()
        assert gates.grad[..., k].abs().min() > 0 and gates.grad.isfinite().all()


def test_the_names_of_the_gates():
    assert network().gate_names == list(GATES) and len(set(GATES)) == 10
    assert network(SMALL.static()).gate_names == network(SMALL.static_only()).gate_names == []


@given(seed=st.integers(0, 999))
@settings(max_examples=10, deadline=None)
def test_training_path_equals_evaluation_path(seed):
    gated, x, gates = network(), signal(2), random_gates(2, seed=seed)
    expected = gated(x, gates)
    y = gated(x, gates.clone().requires_grad_())
    torch.testing.assert_close(y.spectrum, expected.spectrum, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(y.state.recurrent, expected.state.recurrent, rtol=0, atol=1e-12)


def test_weights_get_the_same_gradient_in_training_and_in_evaluation():
    gradients = []
    for requires in (False, True):
        gated = network()
        gated(signal(2), random_gates(2).requires_grad_(requires)).spectrum.abs().square().sum().backward()
        gradients.append({name: value.grad for name, value in gated.named_parameters() if value.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-7, atol=1e-7)


# ---- time


@pytest.mark.parametrize("kind", ["learned", "random", "training", "static", "static-only"])
@given(first=st.integers(0, 1800), seed=st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_the_future_never_changes_the_past(kind, first, seed):
    """Sample n is first read by frame n // 256, which writes from sample (n // 256 - 1) * 256 on: 511 before, at most."""
    config = {"static": SMALL.static(), "static-only": SMALL.static_only()}.get(kind, SMALL)
    made, generator = network(config), torch.Generator().manual_seed(seed)
    wave = torch.randn(1, 1800, generator=generator, dtype=torch.float64)
    others = [wave.clone(), wave.clone()]
    others[0][:, first:] = 3 * torch.randn(1, 1800 - first, generator=generator, dtype=torch.float64)
    others[1][:, first:] = torch.nan
    gates = random_gates(1, 9, seed) if kind in ("random", "training") else None
    if kind == "training":
        gates.requires_grad_()

    def run(samples):
        return istft(made(stft(samples), gates).spectrum, 1800).detach()

    before, bound = run(wave), max(0, (first // HOP - 1) * HOP)
    for other in others:
        after = run(other)
        torch.testing.assert_close(after[:, :bound], before[:, :bound], rtol=0, atol=1e-11)
        if first < 1800:  # and the bound is exact: the next block does change
            assert not torch.allclose(after[:, bound : bound + HOP], before[:, bound : bound + HOP], rtol=0, atol=1e-11)


def test_future_gates_never_change_the_past():
    made, x, gates = network(), signal(), random_gates()
    before = made(x, gates).spectrum
    for t in range(1, 6):
        other = gates.clone()
        other[:, t:] = 1 - other[:, t:]
        torch.testing.assert_close(made(x, other).spectrum[:, :t], before[:, :t], rtol=0, atol=1e-11)


@given(cuts=st.lists(st.integers(1, 7), max_size=4), seed=st.integers(0, 99), learned=st.booleans())
@settings(max_examples=12, deadline=None)
def test_pieces_with_the_state_carried_over_are_the_whole(cuts, seed, learned):
    made, x = network(), signal(2, 8, seed)
    gates = None if learned else random_gates(2, 8, seed)
    whole = made(x, gates)
    for edges in (range(9), sorted({0, 8, *cuts})):
        pieces, state = [], None
        for start, end in zip(edges[:-1], edges[1:], strict=True):
            piece = made(x[:, start:end], None if learned else gates[:, start:end], state)
            state = piece.state
            pieces.append(piece)
            for name, value in zip(state._fields, state, strict=True):
                assert value.shape == getattr(made.initial_state(2), name).shape
        torch.testing.assert_close(
            torch.cat([piece.spectrum for piece in pieces], 1), whole.spectrum, rtol=0, atol=1e-10
        )
        assert torch.equal(torch.cat([piece.gates for piece in pieces], 1), whole.gates)
        for one, other in zip(state, whole.state, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("learned", [True, False])
def test_items_of_a_batch_do_not_see_each_other(learned):
    made, x, gates = network(), signal(3, 8), None if learned else random_gates(3, 8)
    together = made(x, gates)
    for i in range(3):
        alone = made(x[i : i + 1], None if learned else gates[i : i + 1])
        torch.testing.assert_close(together.spectrum[i : i + 1], alone.spectrum, rtol=0, atol=1e-10)
        assert torch.equal(together.gates[i : i + 1], alone.gates)


# ---- values


def test_untrained_the_mask_is_nearly_one():
    torch.manual_seed(0)
    x = signal(1, 20)
    y = Network(SMALL).double().eval()(x).spectrum
    assert (y - x).abs().max() < 0.1 * x.abs().max()


@pytest.mark.parametrize("config", [SMALL, SMALL.static(), SMALL.static_only()], ids=lambda config: config.parts)
def test_silence_stays_silence(config):
    for dtype in (torch.complex64, torch.complex128):
        made = network(config).to(torch.float32 if dtype is torch.complex64 else torch.float64)
        x = torch.zeros(1, 5, 257, dtype=dtype, requires_grad=True)
        y = made(x).spectrum
        assert torch.equal(y, torch.zeros_like(x))
        y.real.sum().backward()
        assert x.grad.isfinite().all()


def test_loud_and_quiet_stay_finite():
    made = network().float()
    for level in (1e-20, 1e-6, 1.0, 1e4):
        assert made((level * signal(1, 4)).to(torch.complex64)).spectrum.isfinite().all()


# ---- who chooses the gates


def test_the_policy_of_this_test_opens_and_closes():
    gates = network()(signal(1, 200)).gates
    assert ((gates == 0) | (gates == 1)).all()
    rate = gates.mean((0, 1))
    assert ((rate > 0.02) & (rate < 0.98)).sum() >= 7, rate


def test_evaluation_repeats_and_draws_nothing():
    made, x, before = network(), signal(), torch.get_rng_state()
    first, second = made(x), made(x)
    assert torch.equal(first.spectrum, second.spectrum) and torch.equal(first.gates, second.gates)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.logits.shape == (1, 6, K, 2) and first.gates.shape == (1, 6, K)
    assert torch.equal(first.gates, (first.logits[..., 1] > first.logits[..., 0]).double())


def test_the_policy_does_not_depend_on_the_gates():
    made, x = network(), signal(1, 12)
    assert torch.equal(made(x, shift=3.0).logits, made(x, shift=-3.0).logits)
    given_gates = made(x, torch.ones(1, 12, K))
    assert given_gates.logits is None and given_gates.gates.all()


@given(shifts=st.lists(st.floats(-15, 15), min_size=2, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_a_higher_shift_opens_more(shifts, seed):
    made, x = network(), signal(1, 6, seed)
    used = [made(x, shift=shift).gates for shift in sorted(shifts)]
    assert all((more >= less).all() for less, more in zip(used[:-1], used[1:], strict=True))


def test_training_samples_hard_gates_and_everything_gets_a_gradient():
    made, x = network().train(), signal(2, 8)
    first, second = made(x), made(x)
    assert ((first.gates == 0) | (first.gates == 1)).all() and not torch.equal(first.gates, second.gates)
    first.spectrum.abs().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or "groups" in name, name


def test_noise_and_temperature_decide_what_is_sampled():
    made, x = network().train(), signal(1, 8)
    noise = torch.zeros(1, 8, K, 2, dtype=torch.float64)
    assert torch.equal(made(x, noise=noise).gates, made.eval()(x).gates)
    made.train()
    noise[..., 1] = 1e4
    assert made(x, noise=noise).gates.all()
    gradients = []
    for temperature in (1.0, 100.0):
        made.temperature = temperature
        made.zero_grad()
        made(x, noise=torch.zeros_like(noise)).gates.sum().backward()
        gradients.append(made.policy.logits.bias.grad.abs().sum())
    assert gradients[0] != gradients[1]


def test_the_policy_chooses_for_the_chosen_items_only():
    made, x, pattern = network().train(), signal(3, 8), random_gates(3, 8)
    noise = torch.zeros(3, 8, K, 2, dtype=torch.float64)
    own = made(x, noise=noise).gates
    output = made(x, pattern, noise=noise, chosen=torch.tensor([True, False, True]))
    assert torch.equal(output.gates, torch.stack([own[0], pattern[1], own[2]])) and output.logits is not None
    made.zero_grad()
    output.spectrum[1].abs().sum().backward(retain_graph=True)
    assert not made.policy.logits.weight.grad.any()
    output.spectrum[2].abs().sum().backward()
    assert made.policy.logits.weight.grad.any()


@pytest.mark.parametrize("config", [SMALL.static(), SMALL.static_only()], ids=lambda config: config.parts)
def test_a_network_without_gates(config):
    made, x = network(config), signal(2)
    output = made(x)
    assert output.gates.shape == (2, 6, 0) and output.logits is None and output.state.policy is None
    assert not any(name.startswith("policy") for name, _ in made.named_parameters())
    assert torch.equal(made(x, torch.ones(2, 6, 0)).spectrum, output.spectrum)
    with pytest.raises(ValueError, match="gates for 10 parts; this network has 0"):
        made(x, torch.ones(2, 6, K))


def test_gates_of_another_network_are_refused():
    with pytest.raises(ValueError, match="gates for 9 parts; this network has 10"):
        network()(signal(), torch.ones(1, 6, 9))


# ---- soften


@given(share=st.floats(0, 1))
@settings(max_examples=10, deadline=None)
def test_softening_blends_the_mask_with_one(share):
    made, x = network(), signal(1, 12)
    compressed = torch.view_as_real(compress(x))
    gates = torch.randint(0, 2, (1, 12, 10)).float()
    before, *_ = made._mask(compressed, gates, made.initial_state(1))
    made.soften(share)
    after, *_ = made._mask(compressed, gates, made.initial_state(1))
    assert torch.allclose(after, (1 - share) * before + share * torch.tensor([1.0, 0.0]), atol=1e-5)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(InputError, match="share"):
        network().soften(share)


# ---- budget


def test_budget_zero_closes_and_one_opens():
    made, x = network(), signal(1, 20)
    assert not made(x, shift=made.budget_shift(0)).gates.any()
    assert made(x, shift=made.budget_shift(1.0)).gates.all()
    made.card = {"calibration": [{"activation": 0.2, "shift": -1.0}, {"activation": 0.9, "shift": 1.0}]}
    assert (made.budget_shift(0), made.budget_shift(1)) == (-math.inf, math.inf)


def test_budget_without_and_with_calibration():
    made = network()
    assert made.budget_shift(None) == 0.0 and made.budget_shift(0.5) == 0.0
    assert made.budget_shift(0.75) == pytest.approx(math.log(3)) == -made.budget_shift(0.25)
    rows = [(0.1, -4.0), (0.4, 0.0), (0.8, 3.0)]
    made.card = {"calibration": [{"activation": activation, "shift": shift} for activation, shift in rows]}
    assert (
        made.budget_shift(0.4) == 0.0 and made.budget_shift(0.25) == pytest.approx(-2) and made.budget_shift(None) == 0
    )
    assert made.budget_shift(0.05) == -4 and made.budget_shift(0.99) == 3


@given(budgets=st.lists(st.floats(0, 1), min_size=2, max_size=5), calibrated=st.booleans())
def test_a_larger_budget_never_shifts_down(budgets, calibrated):
    made = BUDGETED
    made.card = {
        "calibration": [{"activation": a, "shift": s} for a, s in ((0.2, -3), (0.5, 1), (0.7, 2))] * calibrated
    }
    shifts = [made.budget_shift(budget) for budget in sorted(budgets)]
    assert shifts == sorted(shifts)


BUDGETED = network()


@pytest.mark.parametrize("budget", [-0.1, 1.1, math.nan])
def test_a_budget_out_of_range_is_refused(budget):
    with pytest.raises(InputError, match="between 0 .closed. and 1 .open."):
        network().budget_shift(budget)
