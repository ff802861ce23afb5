"""One check of samples and rates: what numpy users pass is taken alike everywhere, or the line says what is wanted."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dsn_lite
from dsn_lite import audio
from dsn_lite.audio import noises
from dsn_lite.audio.checks import as_rate, as_samples
from dsn_lite.engine.stream import Stream
from dsn_lite.errors import InputError

ONCE = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WAVE = (np.random.default_rng(0).standard_normal(9000) * 0.1).astype(np.float32)
PCM = np.round(WAVE * 32768).astype(np.int16)


# ------------------------------------------------------------------------------------------------------------- rates
@ONCE
@given(
    rate=st.integers(1, (1 << 31) - 1),
    form=st.sampled_from([int, float, np.int32, np.uint32, np.int64, np.float64, np.array, torch.tensor]),
)
def test_a_whole_number_of_any_type_is_a_rate(rate, form):
    assert as_rate(form(rate)) == rate and type(as_rate(form(rate))) is int


@pytest.mark.parametrize(
    "rate",
    [0, -8000, 44_100.5, math.nan, math.inf, None, "44100", True, [16_000], np.array([16_000]), 1 << 31, 1 << 80, 16_000j,
     Fraction(16_000)],
)  # fmt: skip
def test_anything_else_is_refused_everywhere(rate, tmp_path, enhancer):
    for use in (
        lambda: audio.resample(WAVE, rate, 16_000),
        lambda: audio.resample(WAVE, 16_000, rate),
        lambda: audio.Resampler(rate, 16_000, 1),
        lambda: audio.write(tmp_path / "x.wav", WAVE, rate),
        lambda: audio.active_level(WAVE, rate),
        lambda: noises.synthesise("fan", 1.0, 0, rate),
        lambda: enhancer.enhance(WAVE, rate),
    ):
        with pytest.raises(InputError, match="the sample rate is .*; give a whole number of Hz"):
            use()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", [float, np.int32, np.float32, np.uint16, np.array])
def test_the_type_of_a_rate_changes_nothing(form, tmp_path, enhancer, random_separator):
    rate = form(44_100)
    np.testing.assert_array_equal(audio.resample(WAVE, rate, form(16_000)), audio.resample(WAVE, 44_100, 16_000))
    assert audio.resampled_length(1 << 20, rate, form(16_000)) == audio.resampled_length(1 << 20, 44_100, 16_000)
    long = np.int32(200_000_000)  # times 16000 is more than 32 bits hold
    assert audio.resampled_length(long, rate, form(16_000)) == -(-200_000_000 * 16_000 // 44_100)
    assert audio.active_level(WAVE, rate) == audio.active_level(WAVE, 44_100)
    audio.write(tmp_path / "x.wav", WAVE, rate)
    assert audio.read(tmp_path / "x.wav").sample_rate == 44_100
    np.testing.assert_array_equal(noises.synthesise("fan", 0.3, 1, rate), noises.synthesise("fan", 0.3, 1, 44_100))
    np.testing.assert_array_equal(enhancer.enhance(WAVE, rate).wave, enhancer.enhance(WAVE, 44_100).wave)
    separator = random_separator()
    np.testing.assert_array_equal(separator.separate(WAVE, rate).waves, separator.separate(WAVE, 44_100).waves)


# ----------------------------------------------------------------------------------------------------------- samples
@pytest.fixture(scope="module")
def enhancer(random_network):
    """A small network with random weights."""
    return random_network()


FORMS = {
    "float64": WAVE.astype(np.float64),
    "longdouble": WAVE.astype(np.longdouble),
    "big-endian": WAVE.astype(">f4"),
    "list": WAVE.tolist(),
    "strided": np.repeat(WAVE, 2)[::2],
    "tensor": torch.from_numpy(WAVE),
    "tensor with gradient": torch.from_numpy(WAVE).double().requires_grad_(),
    "int16": PCM,
    "int32": PCM.astype(np.int32) << 16,
    "big-endian int16": PCM.astype(">i2"),
    "int16 tensor": torch.from_numpy(PCM),
    "float16": WAVE.astype(np.float16),
    "bfloat16": torch.from_numpy(WAVE).bfloat16(),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_numpy_users_pass_is_taken_alike(form, tmp_path, enhancer, random_demucs, random_separator):
    given, tolerance = FORMS[form], 1e-6
    expected = WAVE
    if "int" in form:
        expected = (PCM / 32768).astype(np.float32)
    elif "16" in form:
        expected, tolerance = as_samples(given), 1e-6
        np.testing.assert_allclose(expected, WAVE, atol=2e-3)
    np.testing.assert_array_equal(as_samples(given), expected)
    assert as_samples(given).dtype == np.float32

    def same(function):
        np.testing.assert_allclose(np.asarray(function(given)), np.asarray(function(expected)), atol=tolerance)

    same(lambda wave: audio.resample(wave, 44_100, 16_000))
    same(audio.to_mono)
    same(audio.rms_dbfs)
    same(audio.active_level)
    same(lambda wave: audio.mix_at_snr(wave, np.ones(7), 3.0))
    same(lambda wave: audio.mix_at_snr(np.ones(9000), wave, 3.0))
    same(lambda wave: enhancer.enhance(wave, 16_000).wave)
    same(lambda wave: random_demucs().enhance(wave, 16_000).wave)
    same(lambda wave: random_separator().separate(wave, 16_000).waves)
    for network in (enhancer, random_demucs()):
        same(lambda wave, network=network: Stream(network).feed(wave))

    def written(wave):
        audio.write(tmp_path / "x.wav", wave, 16_000, "FLOAT")
        return audio.read(tmp_path / "x.wav").wave

    same(written)


@pytest.mark.parametrize(
    ("wave", "words"),
    [
        (np.zeros(600, np.int64), "type int64; give floats within -1..1"), (np.zeros(600, np.uint8), "type uint8"),
        (np.zeros(600, bool), "type bool"), (np.zeros(600, complex), "type complex128"), (["a"], "type <U1"),
        (np.array([None]), "type object"), (0.5, "shape"), (np.array([0.1, np.nan]), "NaN or infinite"),
        (np.array([0.1, -np.inf]), "NaN or infinite"), (np.array([1e300, 0.1]), "NaN or infinite"),
        (torch.full((5,), torch.nan), "NaN or infinite"),
    ],
)  # fmt: skip
def test_what_nobody_can_tell_is_refused_alike(wave, words, tmp_path, enhancer, random_demucs, random_separator):
    for use in (
        lambda: audio.resample(wave, 44_100, 16_000),
        lambda: audio.to_mono(wave),
        lambda: audio.mix_at_snr(wave, WAVE, 3.0),
        lambda: audio.write(tmp_path / "x.wav", wave, 16_000),
        lambda: enhancer.enhance(wave, 16_000),
        lambda: random_demucs().enhance(wave, 16_000),
        lambda: random_separator().separate(wave, 16_000),
        lambda: Stream(enhancer).feed(wave),
        lambda: Stream(random_demucs()).feed(wave),
    ):
        with pytest.raises(InputError, match=words) as caught:
            use()
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_chunk_leaves_the_stream_as_it_was(enhancer):
    stream, other = Stream(enhancer), Stream(enhancer)
    first = np.concatenate([stream.feed(WAVE[:1000]), stream.feed(WAVE[1000:2000])])
    parts = [other.feed(WAVE[:1000])]
    for bad in (np.zeros(9, np.int64), np.zeros((2, 9)), np.array([np.nan])):
        with pytest.raises(InputError):
            other.feed(bad)
    parts.append(other.feed(WAVE[1000:2000]))
    np.testing.assert_array_equal(np.concatenate(parts), first)


# ------------------------------------------------------------------------------------------------- PyTorch's defaults


@pytest.mark.parametrize("loaded_before", [False, True])
@pytest.mark.parametrize("name", ["mgt-dsn", "static", "slim-demucs", "separator"])
def test_float64_as_the_default_type_changes_nothing(name, loaded_before):
    def made(network, engine=None):
        if network.KIND == "separator":
            return network.separate(WAVE, 16_000).waves
        if engine is None:
            return network.enhance(WAVE, 16_000).wave
        stream = Stream(network, engine=engine)
        return np.concatenate([stream.feed(WAVE), stream.flush()])

    engines = (None,) if name in ("slim-demucs", "separator") else (None, "torch", "kernel")
    early = dsn_lite.load(name)
    expected = {engine: made(early, engine) for engine in engines}
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        network = early if loaded_before else dsn_lite.load(name)
        for engine in engines:
            found = made(network, engine)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected[engine], atol=1e-5)
    finally:
        torch.set_default_dtype(before)


# ------------------------------------------------------------------------------------------------ what is no sound
def test_weights_that_hold_no_numbers_are_named(tmp_path, random_network):
    from dsn_lite import zoo

    network = random_network()
    for value in (np.nan, np.inf):
        with torch.no_grad():
            next(network.parameters()).view(-1)[3] = value
        zoo.save(network, tmp_path / "broken.safetensors")
        with pytest.raises(InputError, match=r"broken\.safetensors: these weights hold NaN or infinity .*; train or"):
            dsn_lite.load(tmp_path / "broken.safetensors")


def test_what_a_network_makes_must_be_sound(random_network, random_demucs, random_separator):
    for network in (random_network(), random_demucs(), random_separator()):
        network.name = "mine"
        with torch.no_grad():
            for values in network.parameters():
                values.mul_(1e30)
        with pytest.raises(InputError, match="mine: what this network makes is NaN or infinite"):
            network.separate(WAVE, 16_000) if network.KIND == "separator" else network.enhance(WAVE, 16_000)
    stream = Stream(random_network_of_nan(random_network), engine="torch")
    with pytest.raises(InputError, match="mine: what this network makes"):
        stream.feed(WAVE)


def random_network_of_nan(make):
    network = make(seed=1)
    network.name = "mine"
    with torch.no_grad():
        network.layers[-1].block.static.weight.fill_(np.nan)
    return network


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_no_number_is_ever_written_as_sound(tmp_path, subtype):
    audio.write(tmp_path / "x.wav", WAVE, 16_000)
    before = (tmp_path / "x.wav").read_bytes()

    def write():
        with audio.writing(tmp_path / "x.wav", sample_rate=16_000, channels=1, subtype=subtype) as writer:
            writer.write(WAVE[None])
            writer.write(np.full((1, 9), np.nan, np.float32))

    with pytest.raises(InputError, match=r"x\.wav: not written, as samples of it are NaN or infinite"):
        write()
    assert (tmp_path / "x.wav").read_bytes() == before and len(list(tmp_path.iterdir())) == 1
