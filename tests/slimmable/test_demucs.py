"""Slimmable DEMUCS: all paths give the same sound, nothing is read that is not paid for, nothing is early."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

import dsn_lite
from dsn_lite import cli
from dsn_lite.audio.files import write
from dsn_lite.engine.stream import Stream
from dsn_lite.errors import InputError
from dsn_lite.network import macs
from dsn_lite.network.weights import save
from dsn_lite.slimmable.choice import thermometer
from dsn_lite.slimmable.demucs.network import DemucsConfig, SlimDemucs
from dsn_lite.slimmable.demucs.parts import Mix
from dsn_lite.slimmable.demucs.stream import SEGMENT, SEGMENT_FRAMES, level_out

RATE = 16_000


def noise(samples, seed=0, batch=1):
    rng = np.random.default_rng(seed)
    envelope = 0.05 + np.abs(np.sin(np.arange(samples) / 3000))
    return torch.from_numpy((0.1 * rng.normal(size=(batch, samples)) * envelope).astype(np.float32))


def one_hot(indices):
    return torch.eye(4)[torch.as_tensor(indices, dtype=torch.long)]


def near(a, b, tolerance=1e-5):
    return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance)


# -------------------------------------------------------------------------------------------------------- the network
@settings(max_examples=12, deadline=None)
@given(samples=some.integers(1, 4 * SEGMENT), data=some.data())
def test_the_path_of_training_is_that_of_evaluation(random_demucs, samples, data):
    network, segments = random_demucs(1), math.ceil(samples / SEGMENT)
    row = some.lists(some.integers(0, 3), min_size=segments, max_size=segments)
    indices = data.draw(some.lists(row, min_size=2, max_size=2))
    wave, choice = noise(samples, batch=2), one_hot(indices)
    with torch.no_grad():
        expected = network(wave, choice)
        assert near(network(wave, choice.clone().requires_grad_()), expected)
        for index, width in enumerate(network.widths):
            constant = one_hot(torch.full((2, segments), index))
            assert near(network(wave, constant), network(wave, width))
    assert samples < 500 or not near(expected, wave, 1e-3), "the identity: nothing inside was tested"


def test_widths_differ(random_demucs):
    network, wave = random_demucs(), noise(3 * SEGMENT)
    with torch.no_grad():
        results = [network(wave, width) for width in network.widths]
    assert all(not near(a, b, 1e-3) for a, b in zip(results, results[1:], strict=False))


def kept(network: SlimDemucs, name: str, width: float) -> tuple[slice, ...]:
    """What a width reads of a weight: the inner channels are the rows of one layer and the columns of the next."""
    parameter = network.get_parameter(name)
    everything, parts = slice(None), 3 if name.startswith("recurrent.") else 1
    inner = slice(math.ceil(len(parameter) // parts * width))
    if name.startswith("recurrent."):
        reads_all = name.endswith("weight_ih_l0")
        return (inner,) if parameter.ndim == 1 else (inner, everything if reads_all else inner)
    if name.startswith("encoders") and ".convolution." in name:
        return (inner,)
    if name.startswith("encoders") and name.endswith("mixing.weight"):
        return everything, slice(math.ceil(parameter.shape[1] * width))
    if name.startswith("decoders") and ".mixing." in name:
        return (slice(math.ceil(len(parameter) // 2 * width)),)
    if name.startswith("decoders") and name.endswith("convolution.weight"):
        return (inner,)
    return (everything,)


def parts_of(name: str) -> int:
    """Blocks of rows that are sliced one by one: gates of a GRU, value and gate of a gated linear unit."""
    return 3 if name.startswith("recurrent.") else 2 if name.startswith("decoders") and ".mixing." in name else 1


def outside(network: SlimDemucs, width: float, value: float) -> SlimDemucs:
    """A copy with that value in every weight that the width does not need."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if name.startswith("router"):
                continue
            clean, index = parameter.clone(), kept(network, name, width)
            parameter.fill_(value)
            for ill, good in zip(parameter.chunk(parts_of(name)), clean.chunk(parts_of(name)), strict=True):
                ill[index] = good[index]
    return other


@pytest.mark.parametrize("width", [0.125, 0.25, 0.5])
def test_narrow_is_the_wide_network_without_the_other_channels(random_demucs, width):
    """With zeros for all other weights the widest network is the narrow one: absent channels are zero, so is a GRU unit
    without weights."""
    network, wave = random_demucs(), noise(2 * SEGMENT + 700)
    with torch.no_grad():
        assert near(network(wave, width), outside(network, width, 0.0)(wave, 1.0), 1e-6)
        assert not near(network(wave, width), network(wave, 1.0), 1e-3)


@pytest.mark.parametrize("widest", [0, 1, 2])
def test_weights_beyond_the_chosen_widths_are_not_read(random_demucs, widest):
    network = random_demucs()
    poisoned = outside(network, network.widths[widest], math.nan)
    wave = noise(6 * SEGMENT)
    choice = one_hot([[0, widest, widest, 0, widest, 0]])
    with torch.no_grad():
        assert torch.equal(network(wave, choice), poisoned(wave, choice))
        assert torch.equal(network(wave, network.widths[widest]), poisoned(wave, network.widths[widest]))
        assert not torch.isfinite(poisoned(wave, network.widths[widest + 1])).all()
    gates = thermometer(choice)[0].numpy().repeat(SEGMENT_FRAMES, axis=0)
    results = [each.enhance(wave[0].numpy(), RATE, policy=gates).wave for each in (network, poisoned)]
    assert np.array_equal(*results)


def test_a_width_ends_with_its_segment(random_demucs):
    """After a wide segment the narrow one reads none of the wide channels: a narrow past and a wide past differ only below.

    The poison of the wide channels of the carried state must not come through.
    """
    network = random_demucs()
    state, wave = network.initial_state(1), noise(2 * SEGMENT)
    with torch.no_grad():
        levelled = level_out(wave, torch.zeros(1, 2))[0]
        _, state = network.run_segments(levelled[:, :SEGMENT], [3], state)
        expected, _ = network.run_segments(levelled[:, SEGMENT:], [0], state)
        for values in state.transposed:  # what the encoders look back to are whole channels
            values[:, math.ceil(values.shape[1] / 8) :] = math.nan
        state.recurrent[..., 2:] = math.nan
        found, _ = network.run_segments(levelled[:, SEGMENT:], [0], state)
    assert torch.equal(found, expected)


def test_units_beyond_a_width_hold_their_state(random_demucs):
    network, state = random_demucs(), random_demucs().initial_state(1)
    with torch.no_grad():
        levelled = level_out(noise(3 * SEGMENT), torch.zeros(1, 2))[0]
        _, wide = network.run_segments(levelled[:, :SEGMENT], [3], state)
        _, after = network.run_segments(levelled[:, SEGMENT:], [0, 1], wide)
    held = math.ceil(16 * network.widths[1])
    assert torch.equal(after.recurrent[..., held:], wide.recurrent[..., held:])
    assert not torch.equal(after.recurrent[..., :held], wide.recurrent[..., :held])


@settings(max_examples=10, deadline=None)
@given(at=some.integers(0, 5 * SEGMENT - 1), seed=some.integers(0, 99))
def test_nothing_is_known_of_the_future(random_demucs, at, seed):
    """A constant width is late by a frame of 256 samples, the routed one by a segment."""
    network, wave = random_demucs(), noise(5 * SEGMENT, seed)
    changed = wave.clone()
    changed[:, at:] += 1.0
    with torch.no_grad():
        same = at // 256 * 256
        assert near(network(changed, 1.0)[:, :same], network(wave, 1.0)[:, :same], 1e-6)
        same = at // SEGMENT
        logits = network.route(changed, 0.25)[:, :same], network.route(wave, 0.25)[:, :same]
        assert near(*logits, 1e-5)
    first, second = (network.enhance(each[0].numpy(), RATE) for each in (changed, wave))
    assert np.abs(first.wave - second.wave)[: same * SEGMENT].max(initial=0) < 1e-5
    assert np.array_equal(first.gates[: same * SEGMENT_FRAMES], second.gates[: same * SEGMENT_FRAMES])


def test_loud_and_quiet_are_alike(random_demucs):
    network, wave = random_demucs(), noise(4 * SEGMENT)
    with torch.no_grad():
        assert near(network(0.05 * wave, 0.5) * 20, network(wave, 0.5), 2e-2)
        assert bool(network(torch.zeros(1, 5000), 1.0).isfinite().all())


def test_untrained_is_nearly_the_identity():
    torch.manual_seed(0)
    network, wave = SlimDemucs(DemucsConfig()).eval(), noise(8000)
    with torch.no_grad():
        for width in network.widths:
            assert float((network(wave, width) - wave).square().mean() / wave.square().mean()) < 0.03


@pytest.mark.parametrize("width", [0.125, 1.0])
def test_softened_subtracts_less(random_demucs, width):
    network, wave = random_demucs(), noise(2 * SEGMENT)
    with torch.no_grad():
        taken = wave - network(wave, width)
        network.soften(0.25)
        assert near(wave - network(wave, width), 0.75 * taken)
    with pytest.raises(InputError, match="share"):
        network.soften(1.5)


# -------------------------------------------------------------------------------------------------------- gradients
def test_mix_has_the_gradient_of_the_sum():
    choice = one_hot([[0, 2, 1], [3, 3, 0]]).double().requires_grad_()
    candidates = [torch.randn(2, n, 6, dtype=torch.float64, requires_grad=True) for n in (1, 2, 3, 5)]
    assert torch.autograd.gradcheck(Mix.apply, (choice, *candidates))


def test_the_gradient_reaches_the_router_from_every_width(random_demucs):
    network, wave = random_demucs().train(), noise(3 * SEGMENT, batch=2)
    choice = one_hot([[0, 1, 2], [3, 0, 0]]).requires_grad_()
    network(wave, choice).square().sum().backward()
    assert bool((choice.grad.abs() > 0).all())
    for name, parameter in network.named_parameters():
        if not name.startswith("router"):
            assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


def test_the_gradient_of_a_choice_is_the_derivative_of_the_mixture(random_demucs):
    """Between two widths the mixture is smooth: its slope is the gradient."""
    network, wave = random_demucs().double(), noise(2 * SEGMENT).double()
    choice = one_hot([[1, 2]]).double().requires_grad_()
    network(wave, choice).square().sum().backward()
    for segment, index in ((0, 0), (0, 3), (1, 1), (1, 2)):
        step = torch.zeros_like(choice)
        step[0, segment, index] = 1e-5
        with torch.no_grad():
            ends = [network(wave, (choice + sign * step).requires_grad_()).square().sum() for sign in (1, -1)]
        assert float((ends[0] - ends[1]) / 2e-5) == pytest.approx(float(choice.grad[0, segment, index]), rel=1e-4)


# -------------------------------------------------------------------------------------------------------- cost
def test_the_count_equals_a_count_by_hand():
    network = SlimDemucs(DemucsConfig())
    wide = 0
    for inputs, outputs, rate in ((1, 32, 4000), (32, 48, 1000), (48, 96, 250), (96, 128, 62.5)):
        wide += 2 * rate * (8 * inputs * outputs + 2 * outputs * outputs)
    wide += 62.5 * 2 * 3 * 128 * 256
    router = (48 * (34 + 6 * 48) + 50 * 4) / 8
    counted = network.count()
    assert counted.open == pytest.approx((wide + 62.5 * router) / 1e6, rel=1e-5)
    assert counted.width_mmacs[-1] == pytest.approx(counted.open)
    assert counted.width_mmacs[0] == pytest.approx(counted.closed)
    # Convolutions grow with the width; the GRU reads all 128 channels and, in its second layer and its state, n units.
    gru = [62.5 * 3 * n * (128 + n + 2 * n) for n in (16, 32, 64, 128)]
    for u, recurrent, found in zip(network.widths, gru, counted.width_mmacs, strict=True):
        assert found == pytest.approx(((wide - gru[-1]) * u + recurrent + 62.5 * router) / 1e6, rel=1e-5)
    assert counted.policy < 0.02 * counted.open
    assert 100 < counted.open < 150
    assert counted.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert macs.count(network).open == counted.open


# -------------------------------------------------------------------------------------------------------- streams
@settings(max_examples=12, deadline=None)
@given(
    samples=some.integers(0, 20_000), cuts=some.lists(some.integers(0, 20_000), max_size=5),
    budget=some.sampled_from([None, 0.1, 0.6]),
)  # fmt: skip
def test_the_stream_gives_the_offline_result(random_demucs, samples, cuts, budget):
    network, wave = random_demucs(), noise(20_000)[0, :samples].numpy()
    stream, parts, gates = Stream(network, budget=budget), [], []
    for chunk in np.split(wave, sorted(min(cut, samples) for cut in cuts)):
        parts.append(stream.feed(chunk))
        gates.append(stream.take_gates())
        assert stream.samples_in - stream.samples_out == stream.samples_in % SEGMENT
    parts.append(stream.flush())
    gates.append(stream.take_gates())
    found = np.concatenate(parts)
    assert len(found) == samples
    if samples:
        result = network.enhance(wave, RATE, budget=budget)
        assert np.abs(found - result.wave).max() < 1e-5
        assert np.array_equal(np.concatenate(gates), result.gates)
        segments = result.gates[::SEGMENT_FRAMES].sum(-1, dtype=np.int64)
        with torch.no_grad():
            assert near(torch.from_numpy(result.wave)[None], network(torch.from_numpy(wave)[None], one_hot(segments[None])))


def test_a_long_chunk_is_computed_in_blocks(random_demucs, monkeypatch):
    from dsn_lite.engine import stream

    network, wave = random_demucs(), noise(9 * SEGMENT + 100)[0].numpy()
    expected = network.enhance(wave, RATE).wave
    monkeypatch.setattr(stream, "BLOCK_SAMPLES", 2 * SEGMENT + 50)
    assert np.abs(network.enhance(wave, RATE).wave - expected).max() < 1e-5


def test_two_streams_do_not_hear_each_other(random_demucs):
    network, wave = random_demucs(), noise(3 * SEGMENT)[0].numpy()
    one, other = Stream(network), Stream(network)
    first = one.feed(wave[:SEGMENT])
    other.feed(wave[::-1])
    assert np.abs(np.r_[first, one.feed(wave[SEGMENT:])] - network.enhance(wave, RATE).wave).max() < 1e-5
    assert len(one.flush()) == 0 and one.samples_in == 0


def test_enhance_takes_rates_channels_and_policies(random_demucs):
    network = random_demucs()
    wave = noise(24_000, batch=2).numpy()
    result = network.enhance(wave, 48_000)
    assert result.wave.shape == wave.shape and result.gates.shape == (2, 32, 3)
    assert isinstance(network.enhance(torch.from_numpy(wave), 48_000).wave, torch.Tensor)
    costs = network.count().width_mmacs
    for policy, index in (("open", 3), ("closed", 0), (0.25, 1), (0.5, 2)):
        result = network.enhance(wave[0], RATE, policy=policy)
        assert result.mmacs_per_second == pytest.approx(costs[index]) and set(result.gates.sum(-1)) == {index}
        assert float(network.utilisation(result.gates).mean()) == network.widths[index]
    assert network.enhance(wave[0], RATE, budget=0.0).mmacs_per_second == pytest.approx(costs[0])
    assert network.enhance(wave[0], RATE, budget=1.0).mmacs_per_second == pytest.approx(costs[-1])
    learned = network.enhance(wave[0], RATE)
    assert len(set(learned.gates.sum(-1).tolist())) > 1, "the router took one width: nothing was tested"
    assert learned.activation == pytest.approx(
        (learned.mmacs_per_second - costs[0]) / (costs[-1] - costs[0])
    )
    again = network.enhance(wave[0], RATE, policy=learned.gates)
    assert np.array_equal(again.wave, learned.wave) and np.array_equal(again.gates, learned.gates)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "loud"}, "choose learned, open or closed"),
        ({"policy": 0.3}, "width 0.3: .* has 0.125, 0.25, 0.5, 1"),
        ({"budget": 1.5}, "between 0"),
        ({"policy": np.zeros((40, 2))}, r"needed is \[frames, 3\]"),
        ({"policy": np.tile([0, 1, 0], (40, 1))}, "not nested"),
        ({"policy": np.arange(40)[:, None].repeat(3, 1) > 10}, "within a segment"),
        ({"policy": np.zeros((8, 3))}, "the signal has more"),
    ],
)
def test_what_cannot_be_is_one_clear_line(random_demucs, options, message):
    with pytest.raises(InputError, match=message) as error:
        random_demucs().enhance(noise(8000)[0].numpy(), RATE, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "values",
    [{"channels": [8, 8]}, {"widths": [0.5, 0.25, 1]}, {"widths": [0.5]}, {"target": 0}, {"router_width": 0}, {"size": 3}],
)
def test_shapes_that_cannot_be_are_refused(values):
    with pytest.raises(InputError):
        DemucsConfig.from_dict(values)


def test_a_wrong_choice_is_refused(random_demucs):
    with pytest.raises(ValueError, match="needed is"):
        random_demucs()(noise(5000), one_hot([[0, 1]]))


# -------------------------------------------------------------------------------------------------------- files, commands
def test_saved_and_loaded(random_demucs, tmp_path):
    network, wave = random_demucs(), noise(5000)[0].numpy()
    save(network, tmp_path / "small.safetensors", {"name": "small"})
    again = dsn_lite.load(tmp_path / "small.safetensors")
    assert isinstance(again, SlimDemucs) and again.name == "small" and again.config == network.config
    assert np.array_equal(again.enhance(wave, RATE).wave, network.enhance(wave, RATE).wave)
    with pytest.raises(InputError, match="small runs in PyTorch alone"):
        Stream(again, engine="kernel")


def test_the_command_enhances(random_demucs, tmp_path, capsys):
    network = random_demucs()
    save(network, tmp_path / "small.safetensors")
    wave = noise(30_000, batch=2).numpy()
    write(tmp_path / "in.wav", wave, 22_050)
    model = ["--model", str(tmp_path / "small.safetensors")]
    options = ["enhance", str(tmp_path / "in.wav"), "-o", str(tmp_path / "out.wav")]
    options += ["--gates", str(tmp_path / "gates.png"), "--report", str(tmp_path / "report.json")]
    assert cli.main([*options, *model]) == 0
    assert (tmp_path / "out.wav").exists() and (tmp_path / "gates.png").stat().st_size > 5000
    assert "MMAC/s" in capsys.readouterr().out
    assert '"over 1/8"' in (tmp_path / "report.json").read_text()
    assert cli.main(["macs", *model]) == 0
