"""Slimmable layers: narrow equals a narrow layer of the library with the sliced weights; what lies beyond is not read."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import nn

from dsn_lite.errors import InputError
from dsn_lite.slimmable import layers
from dsn_lite.slimmable.layers import (
    SlimConv1d,
    SlimConvTranspose1d,
    SlimGRU,
    SlimLinear,
    SlimNorm,
    active,
)

WIDTHS = (0.125, 0.25, 0.3, 0.5, 0.75, 1.0)


def near(a, b, tolerance=1e-6):
    return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance)


def filled(layer: nn.Module, **tensors) -> nn.Module:
    """The library's layer with these weights."""
    with torch.no_grad():
        for name, value in tensors.items():
            target = getattr(layer, name)
            assert target.shape == value.shape, name
            target.copy_(value)
    return layer


def split_rows(values, parts, keep):
    return torch.cat([block[:keep] for block in values.chunk(parts)])


def poisoned(layer: nn.Module, keep: dict[str, tuple]) -> None:
    """NaN in every weight but the kept slices."""
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            values = parameter.clone()
            parameter.fill_(math.nan)
            for index in keep[name]:
                parameter[index] = values[index]


@given(width=some.integers(1, 64), utilisation=some.floats(0.01, 1))
def test_active_is_the_ceiling(width, utilisation):
    assert active(width, utilisation) in (math.ceil(width * utilisation), math.floor(width * utilisation))
    assert 1 <= active(width, utilisation) <= width
    assert active(width, 1) == width


@pytest.mark.parametrize("utilisation", [0, -0.5, 1.01, math.nan])
def test_a_utilisation_that_is_none_is_refused(utilisation):
    with pytest.raises(InputError, match="utilisation"):
        active(8, utilisation)


@settings(max_examples=40, deadline=None)
@given(
    inputs=some.integers(1, 12), outputs=some.integers(1, 12), parts=some.integers(1, 2), u=some.sampled_from(WIDTHS),
    full_in=some.booleans(), full_out=some.booleans(), bias=some.booleans(),
)  # fmt: skip
def test_linear_is_a_narrow_linear(inputs, outputs, parts, u, full_in, full_out, bias):
    layer = SlimLinear(inputs, outputs, parts=parts, full_in=full_in, full_out=full_out, bias=bias)
    i, o = inputs if full_in else active(inputs, u), outputs if full_out else active(outputs, u)
    tensors = {"weight": split_rows(layer.weight, parts, o)[:, :i]}
    if bias:
        tensors["bias"] = split_rows(layer.bias, parts, o)
    narrow = filled(nn.Linear(i, parts * o, bias=bias), **tensors)
    x = torch.randn(2, 3, inputs)
    assert near(layer(x, u), narrow(x[..., :i]))
    assert near(layer(x[..., :i], u), layer(x, u))
    assert layer.macs(u) == narrow.weight.numel()


@settings(max_examples=40, deadline=None)
@given(
    inputs=some.integers(1, 8), outputs=some.integers(1, 8), kernel=some.integers(1, 8), stride=some.integers(1, 4),
    parts=some.integers(1, 2), u=some.sampled_from(WIDTHS),
)  # fmt: skip
def test_convolution_is_a_narrow_convolution(inputs, outputs, kernel, stride, parts, u):
    kernel = max(kernel, stride)
    layer = SlimConv1d(inputs, outputs, kernel, stride=stride, parts=parts)
    i, o = active(inputs, u), active(outputs, u)
    narrow = filled(
        nn.Conv1d(i, parts * o, kernel, stride=stride),
        weight=split_rows(layer.weight, parts, o)[:, :i], bias=split_rows(layer.bias, parts, o),
    )  # fmt: skip
    x = torch.randn(2, inputs, 8 * stride)
    padded = torch.cat([torch.zeros(2, i, kernel - stride), x[:, :i]], -1)
    assert near(layer(x, u), narrow(padded))
    assert layer.macs(u) == narrow.weight.numel()
    assert layer(x, u).shape[-1] == 8
    first, second = x.split(4 * stride, -1)
    past = torch.cat([torch.zeros(2, inputs, layer.context), first], -1)[..., first.shape[-1] :]
    assert near(torch.cat([layer(first, u), layer(second, u, past)], -1), layer(x, u), 1e-5)


@settings(max_examples=40, deadline=None)
@given(
    inputs=some.integers(1, 8), outputs=some.integers(1, 8), kernel=some.integers(1, 9), stride=some.integers(1, 4),
    u=some.sampled_from(WIDTHS), full_out=some.booleans(),
)  # fmt: skip
def test_transposed_convolution_is_a_narrow_one(inputs, outputs, kernel, stride, u, full_out):
    kernel = max(kernel, stride)
    layer = SlimConvTranspose1d(inputs, outputs, kernel, stride=stride, full_out=full_out)
    i, o = active(inputs, u), outputs if full_out else active(outputs, u)
    narrow = filled(nn.ConvTranspose1d(i, o, kernel, stride=stride), weight=layer.weight[:i, :o], bias=layer.bias[:o])
    x = torch.randn(2, inputs, 6)
    found = layer(x, u)
    assert found.shape == (2, o, 6 * stride)
    assert near(found, narrow(x[:, :i])[..., : 6 * stride])
    assert layer.macs(u) == narrow.weight.numel()
    cut = max(layer.context, 2)
    first, second = x[..., :cut], x[..., cut:]
    past = first[..., cut - layer.context :]
    assert near(torch.cat([layer(first, u), layer(second, u, past)], -1), found, 1e-5)


@settings(max_examples=30, deadline=None)
@given(
    inputs=some.integers(1, 6), hidden=some.integers(1, 9), depth=some.integers(1, 2), both=some.booleans(),
    u=some.sampled_from(WIDTHS), full_in=some.booleans(),
)  # fmt: skip
def test_gru_is_a_narrow_gru(inputs, hidden, depth, both, u, full_in):
    layer = SlimGRU(inputs, hidden, layers=depth, bidirectional=both, full_in=full_in)
    i, h = inputs if full_in else active(inputs, u), active(hidden, u)
    narrow = nn.GRU(i, h, depth, batch_first=True, bidirectional=both)
    for name in dict(narrow.named_parameters()):
        value = split_rows(getattr(layer, name), 3, h)
        if name.startswith("weight_hh"):
            value = value[:, :h]
        elif name.startswith("weight_ih_l0"):
            value = value[:, :i]
        elif name.startswith("weight_ih"):
            value = torch.cat([block[:, :h] for block in value.split(hidden, 1)], 1)
        filled(narrow, **{name: value})
    x, state = torch.randn(2, 5, inputs), torch.randn(depth * (1 + both), 2, hidden)
    for start in (None, state):
        expected = narrow(x[..., :i], None if start is None else start[..., :h].contiguous())
        for found in (layer(x, u, start), layer(x, u, start, layer.weights(u))):
            assert near(found[0], expected[0]) and near(found[1], expected[1])
    assert layer.macs(u) == sum(value.numel() for name, value in narrow.named_parameters() if "weight" in name)


@settings(max_examples=20, deadline=None)
@given(channels=some.integers(2, 12), u=some.sampled_from(WIDTHS), axis=some.sampled_from([-1, 1]))
def test_layer_norm_is_a_narrow_layer_norm(channels, u, axis):
    layer = SlimNorm(channels, kind="layer", axis=axis)
    with torch.no_grad():
        layer.gain.normal_()
        layer.bias.normal_()
    n = active(channels, u)
    x = torch.randn(2, channels, 7) if axis == 1 else torch.randn(2, 7, channels)
    last = x.transpose(1, -1) if axis == 1 else x
    expected = nn.functional.layer_norm(last[..., :n], (n,), layer.gain[:n], layer.bias[:n], layer.floor)
    assert near(layer(x, u), expected.transpose(1, -1) if axis == 1 else expected, 1e-5)


def test_rms_norm_is_that_of_the_library():
    layer, x = SlimNorm(8), torch.randn(3, 8)
    assert near(layer(x, 0.5), nn.functional.rms_norm(x[:, :4], (4,), eps=layer.floor))
    assert layer(1e4 * x, 0.5).square().mean(-1).allclose(torch.ones(3), atol=1e-3)
    with pytest.raises(InputError, match="choose rms or layer"):
        SlimNorm(8, kind="batch")


@pytest.mark.parametrize("u", [0.25, 0.5])
def test_weights_beyond_the_width_are_not_read(u):
    """Outputs with NaN in every weight beyond are those without."""
    h, x = int(8 * u), torch.randn(2, 8, 8)
    gate = lambda *rest: [(slice(8 * k, 8 * k + h), *rest) for k in range(3)]
    cases = {
        SlimLinear(8, 8, parts=2): {"weight": [(slice(8 * k, 8 * k + h), slice(h)) for k in range(2)],
                                    "bias": [(slice(8 * k, 8 * k + h),) for k in range(2)]},
        SlimConv1d(8, 8, 4, stride=2): {"weight": [(slice(h), slice(h))], "bias": [(slice(h),)]},
        SlimConvTranspose1d(8, 8, 4, stride=2): {"weight": [(slice(h), slice(h))], "bias": [(slice(h),)]},
        SlimNorm(8, kind="layer"): {"gain": [(slice(h),)], "bias": [(slice(h),)]},
        SlimGRU(8, 8, layers=2): {
            f"{kind}_l{layer}": gate(slice(h)) if "weight" in kind else gate()
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh") for layer in range(2)
        },
    }  # fmt: skip
    for layer, keep in cases.items():
        with torch.no_grad():
            before = layer(x, u)
            poisoned(layer, keep)
            after = layer(x, u)
        before, after = (out[0] if isinstance(out, tuple) else out for out in (before, after))
        assert torch.equal(before, after), type(layer).__name__
        with torch.no_grad():
            wider = layer(x, 2 * u)
        assert not torch.isfinite(wider[0] if isinstance(wider, tuple) else wider).all(), "the poison is none"


def test_every_layer_counts_its_multiplications(monkeypatch):
    """The counter equals what the library is asked to multiply: by hooks on the two functions that do it."""
    seen = []
    for name in ("linear", "conv1d", "conv_transpose1d"):
        given_function = getattr(torch.nn.functional, name)

        def counting(x, weight, *rest, _given=given_function):
            seen.append(weight.numel())
            return _given(x, weight, *rest)

        monkeypatch.setattr(layers.functional, name, counting)
    for layer in (SlimLinear(8, 12, parts=2), SlimConv1d(8, 12, 4, stride=2), SlimConvTranspose1d(8, 12, 4, stride=2)):
        for u in WIDTHS:
            layer(torch.randn(1, 8, 8), u)
            assert layer.macs(u) == seen.pop()
