"""The separator: one set of weights for every width, chosen chunk by chunk."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from dsn_lite import zoo
from dsn_lite.audio.spectral import FRAMES_PER_SECOND, frame_count
from dsn_lite.errors import InputError
from dsn_lite.network.weights import save
from dsn_lite.slimmable.layers import active
from dsn_lite.slimmable.separator import Separator, SeparatorConfig
from dsn_lite.slimmable.separator.loss import separation_loss

WIDTHS = (0.125, 0.25, 0.5, 1.0)
HIDDEN, CHUNK = 16, 4


def sound(seconds: float = 1.0, batch: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    swell = torch.linspace(0, 12, int(16_000 * seconds)).sin().square()
    return 0.1 * swell * torch.randn(batch, int(16_000 * seconds), generator=generator)


def one_hot(numbers) -> torch.Tensor:
    return functional.one_hot(torch.as_tensor(numbers), len(WIDTHS)).float()


def narrow_inside(block, width: float) -> tuple[nn.GRU, nn.Linear]:
    """Library layers of a block built at a width, with the sliced weights."""
    full = block.inside
    units = active(full.hidden_size, width)
    gru = nn.GRU(full.input_size, units, batch_first=True, bidirectional=True)
    out = nn.Linear(2 * units, block.out.forward_out.out_features)
    with torch.no_grad():
        for name, value in gru.named_parameters():
            sliced = getattr(full, name).unflatten(0, (3, full.hidden_size))[:, :units].flatten(0, 1)
            value.copy_(sliced[:, :units] if name.startswith("weight_hh") else sliced)
        both = [layer.weight[:, :units] for layer in (block.out.forward_out, block.out.backward_out)]
        out.weight.copy_(torch.cat(both, 1))
        out.bias.copy_(block.out.forward_out.bias)
    return gru, out


@pytest.mark.parametrize("width", WIDTHS)
def test_a_width_equals_a_narrow_network_with_the_sliced_weights(random_separator, width):
    network, x = random_separator(), torch.randn(2, 5, 4, 12)
    for block in network.blocks:
        gru, out = narrow_inside(block, width)
        y = block.inside_norm(x).flatten(0, 1)
        with torch.no_grad():
            assert torch.allclose(block._run(y, width), out(gru(y)[0]), atol=1e-6)


@pytest.mark.parametrize("width", WIDTHS[:-1])
def test_weights_beyond_the_width_are_not_read(random_separator, width):
    network, wave = random_separator(), sound()
    numbers = torch.randint(WIDTHS.index(width) + 1, (2, network.chunks(wave.shape[1])))
    with torch.no_grad():
        expected = network(wave, [width, one_hot(numbers)]).waves
        for block in network.blocks:
            units = active(HIDDEN, width)
            for name, value in block.inside.named_parameters():
                value.unflatten(0, (3, HIDDEN))[:, units:] = math.nan
                if name.startswith("weight_hh"):
                    value[:, units:] = math.nan
            block.out.forward_out.weight[:, units:] = math.nan
            block.out.backward_out.weight[:, units:] = math.nan
        found = network(wave, [width, one_hot(numbers)]).waves
        assert not torch.isfinite(network(wave, [1.0]).waves[0]).all()
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a, b)


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_gathered_chunks_equal_the_mixed_path_of_training(random_separator, data):
    network, wave = random_separator(), sound(data.draw(st.floats(0.3, 1.2)))
    shape = (2, network.chunks(wave.shape[1]))
    numbers = data.draw(st.lists(st.integers(0, 3), min_size=math.prod(shape), max_size=math.prod(shape)))
    choice = one_hot(np.array(numbers).reshape(shape))
    with torch.no_grad():
        gathered = network(wave, [choice]).waves[0]
    mixed = network(wave, [choice.requires_grad_()]).waves[0]
    assert torch.allclose(gathered, mixed, atol=1e-6)


@pytest.mark.parametrize("number", range(4))
def test_a_constant_choice_equals_the_width(random_separator, number):
    network, wave = random_separator(), sound()
    with torch.no_grad():
        constant, chosen = network(wave, [WIDTHS[number], one_hot(torch.full((2, network.chunks(16_000)), number))]).waves
    assert torch.allclose(constant, chosen, atol=1e-6)


def test_inside_a_chunk_nothing_of_the_others_is_heard(random_separator):
    block = random_separator().blocks[0]
    x = torch.randn(1, 6, 4, 12)
    changed = x.clone()
    changed[:, 2] = torch.randn(4, 12)
    with torch.no_grad():
        before, after = block._inside(x, 0.5), block._inside(changed, 0.5)
    same = [0, 1, 3, 4, 5]
    assert torch.equal(before[:, same], after[:, same]) and not torch.equal(before[:, 2], after[:, 2])


def test_the_straight_through_gradient_is_that_of_every_width(random_separator):
    """With W = 2 the gradient of the choice is what each width adds, at the place where it is added."""
    block = random_separator().blocks[0]
    y = torch.randn(1, 2, 4, 12)
    choice = one_hot([[1, 3]]).requires_grad_()
    target = torch.randn(1, 2, 4, 12)
    (block._inside(y, choice) * target).sum().backward()
    for number, width in enumerate(WIDTHS):
        with torch.no_grad():
            expected = (block._inside(y, width) * target).sum((2, 3))
        assert torch.allclose(choice.grad[..., number], expected, atol=1e-4)


def test_gradient_reaches_the_gating_module_and_not_the_encoder_through_it(random_separator):
    network, wave = random_separator().train(), sound()
    output = network(wave, [None], noise=torch.zeros(2, network.chunks(16_000), 4))
    separation_loss(output.waves[0], torch.randn(2, 2, 16_000), wave)[0].mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), name
    network.zero_grad()
    network(wave, ()).logits.square().sum().backward()
    assert network.read.weight.grad is None and bool(network.gating.read.weight.grad.any())


def test_choices_are_sampled_in_training_and_fixed_in_evaluation(random_separator):
    network, wave = random_separator(), sound()
    chunks = network.chunks(wave.shape[1])
    with torch.no_grad():
        first, second = (network(wave).choices[0] for _ in range(2))
        assert torch.equal(first, second) and torch.equal(first.sum(-1), torch.ones(2, chunks))
        assert torch.equal(first.argmax(-1), network(wave).logits.argmax(-1))
        network.train()
        noise = 50 * torch.randn(2, chunks, 4, generator=torch.Generator().manual_seed(1))
        assert torch.equal(network(wave, noise=noise).choices[0], network(wave, noise=noise).choices[0])
        assert not torch.equal(network(wave, noise=noise).choices[0], first)


def test_an_item_does_not_depend_on_the_others_or_on_its_level(random_separator):
    network, wave = random_separator(), sound(batch=3)
    with torch.no_grad():
        together = network(wave, [0.25]).waves[0]
        assert torch.allclose(together[1:2], network(wave[1:2], [0.25]).waves[0], atol=1e-6)
        assert torch.allclose(together * 8, network(wave * 8, [0.25]).waves[0], atol=1e-4)


# ---------------------------------------------------------------------------------------------------- counting
def test_the_count_is_that_of_the_layers_that_run():
    """Each product counted where it runs: matrix sizes seen by hooks and by hand."""
    config = SeparatorConfig()
    counted = Separator(config).count()
    for number, width in enumerate(config.widths):
        units = math.ceil(config.hidden * width)
        inside = 2 * 3 * units * (128 + units) + 2 * units * 128
        across = 2 * 3 * 64 * (128 + 64) + 2 * 64 * 128
        frame = 257 * 128 + 3 * (inside + across + 128 * 5) + 128 * 514
        gating = 128 * 32 + 32 * 32 * 5 + math.ceil((2 * 3 * 24 * (64 + 24) + 48 * 4) / 16)
        assert counted.width_mmacs[number] == pytest.approx((frame + gating) * FRAMES_PER_SECOND / 1e6)
    assert counted.policy == pytest.approx(gating * FRAMES_PER_SECOND / 1e6)
    assert counted.policy < 0.02 * counted.open and counted.closed < 0.4 * counted.open
    assert 60 < counted.open < 120
    assert counted.parameters == sum(parameter.numel() for parameter in Separator(config).parameters())
    assert Separator(config).costs.tolist() == pytest.approx(list(counted.width_mmacs / counted.open))


# ---------------------------------------------------------------------------------------------------- whole signals
@settings(max_examples=12, deadline=None)
@given(
    samples=st.integers(1, 30_000), channels=st.sampled_from([None, 1, 2, 3]),
    rate=st.sampled_from([8000, 16_000, 44_100]), policy=st.sampled_from(["learned", "open", "closed", 0.5]),
)  # fmt: skip
def test_any_signal_comes_out_at_its_rate_and_length(random_separator, samples, channels, rate, policy):
    network = random_separator()
    shape = (samples,) if channels is None else (channels, max(samples, channels))
    wave = 0.1 * np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    result = network.separate(wave, rate, policy=policy)
    assert result.waves.shape == (2, shape[-1]) and np.isfinite(result.waves).all()
    assert result.widths.shape == (math.ceil(len(result.frame_mmacs) / CHUNK),)
    assert set(result.widths) <= set(WIDTHS)
    assert result.mmacs_per_second == pytest.approx(result.frame_mmacs.mean())
    assert 0 <= result.activation <= 1 and WIDTHS[0] <= result.utilisation <= 1
    if channels:
        mono = network.separate(wave.mean(0), rate, policy=policy)
        assert np.allclose(mono.waves, result.waves, atol=1e-5)


def test_cost_follows_the_widths(random_separator):
    network, wave = random_separator(), sound()[0].numpy()
    counted, chunks = network.count(), network.chunks(16_000)
    assert network.separate(wave, 16_000, policy="open").mmacs_per_second == pytest.approx(counted.open)
    assert network.separate(wave, 16_000, policy="closed").mmacs_per_second == pytest.approx(counted.closed)
    given = np.array(WIDTHS)[np.arange(chunks) % 4]
    result = network.separate(wave, 16_000, policy=given)
    assert np.array_equal(result.widths, given)
    frames = np.repeat(np.arange(chunks) % 4, CHUNK)[: frame_count(16_000)]
    assert result.frame_mmacs == pytest.approx(counted.width_mmacs[frames])
    learned = network.separate(wave, 16_000)
    assert len(set(learned.widths)) > 1, "the test's network chooses one width only"
    again = network.separate(wave, 16_000, policy=learned.widths)
    assert np.array_equal(again.waves, learned.waves)


def test_kind_of_the_signal_is_kept_and_levels_add_up(random_separator):
    network, wave = random_separator(), sound()[0]
    result = network.separate(wave, 16_000, policy=1.0)
    assert isinstance(result.waves, torch.Tensor) and result.waves.shape == (2, 16_000)
    one, two = result.waves
    rest = float((wave - one - two).square().sum())
    for factor in (0.9, 1.1):  # no other levels come closer
        assert rest <= float((wave - factor * one - two).square().sum()) + 1e-3
        assert rest <= float((wave - one - factor * two).square().sum()) + 1e-3
    assert not network.separate(np.zeros(5000, np.float32), 16_000).waves.any()


def test_budget_follows_the_calibration(random_separator):
    network, wave = random_separator(), sound(3.0)[0].numpy()
    with pytest.raises(InputError, match="no calibration"):
        network.separate(wave, 16_000, budget=0.5)
    network.card = {"calibration": [{"shift": -30.0, "activation": 0.0}, {"shift": 30.0, "activation": 1.0}]}
    assert network.budget_shift(0.25) == pytest.approx(-15)
    used = [network.separate(wave, 16_000, budget=budget).activation for budget in (0, 0.2, 0.5, 0.8, 1)]
    assert used == sorted(used) and (used[0], used[-1]) == pytest.approx((0, 1))


@pytest.mark.parametrize(
    ("wave", "options", "words"),
    [
        (np.zeros(0, np.float32), {}, "no samples"),
        (np.full(100, np.nan, np.float32), {}, "NaN"),
        (np.zeros((2, 2, 2), np.float32), {}, "shape"),
        (np.zeros(100, np.int64), {}, "type int64"),
        (np.zeros(100, np.float32), {"policy": "wide"}, "no policy"),
        (np.zeros(100, np.float32), {"policy": 0.3}, "choose one of"),
        (np.zeros(100, np.float32), {"policy": np.full(7, 0.5)}, "chunks"),
        (np.zeros(100, np.float32), {"budget": 2.0}, "budget is 2.0"),
        (np.zeros(100, np.float32), {"budget": 0.5, "policy": "open"}, "leave it out"),
    ],
)
def test_bad_input_is_one_clear_line(random_separator, wave, options, words):
    with pytest.raises(InputError, match=words) as caught:
        random_separator().separate(wave, 16_000, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values", [{"widths": [0.5, 0.25, 1]}, {"widths": [0.5]}, {"hidden": 0}, {"reach": 4}, {"depth": 3}]
)
def test_bad_shapes_are_refused(values):
    with pytest.raises(InputError):
        SeparatorConfig.from_dict(values)


def test_a_saved_network_is_the_same(random_separator, tmp_path):
    network, wave = random_separator(), sound()
    save(network, tmp_path / "separator.safetensors", {"note": "random"})
    loaded = zoo.load(tmp_path / "separator.safetensors", kinds=("separator",))
    assert isinstance(loaded, Separator) and loaded.config == network.config and loaded.name == "separator"
    with torch.no_grad():
        assert torch.equal(loaded(wave, [0.5]).waves[0], network(wave, [0.5]).waves[0])
    with pytest.raises(InputError, match="kind"):
        zoo.load(tmp_path / "separator.safetensors", kinds=("enhancer",))
