"""Configurations: presets, variants, plain values there and back, and what is refused."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsn_lite.config import PRESETS, Config
from dsn_lite.errors import InputError

BASE = Config.preset("base")


def test_presets():
    assert list(PRESETS) == ["tiny", "base", "paper"]
    assert all(preset.parts == "gated" and preset.share == 0.5 for preset in PRESETS.values())
    widths = [[*preset.channels, preset.head_width, preset.hidden, preset.group_width] for preset in PRESETS.values()]
    assert all(
        a < b for small, large in zip(widths[:-1], widths[1:], strict=True) for a, b in zip(small, large, strict=True)
    )


def test_variants_change_nothing_but_the_parts():
    for variant, parts in ((BASE.static(), "always"), (BASE.static_only(), "absent")):
        assert variant.parts == parts and dataclasses.replace(variant, parts="gated") == BASE


@pytest.mark.parametrize("config", [*PRESETS.values(), BASE.static(), BASE.static_only(), BASE.scaled(0.7)])
def test_there_and_back_through_json(config):
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_preset_with_changes():
    assert Config.from_dict({"preset": "tiny"}) == Config.preset("tiny")
    changed = Config.from_dict({"preset": "base", "parts": "always", "hidden": 64, "channels": [8, 8, 8]})
    assert changed == dataclasses.replace(BASE, parts="always", hidden=64, channels=(8, 8, 8))


def test_from_dict_leaves_its_argument_alone():
    values = {"preset": "base", "channels": [8, 8, 8]}
    Config.from_dict(values)
    assert values == {"preset": "base", "channels": [8, 8, 8]}


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        BASE.hidden = 3


@given(factor=st.floats(0.01, 3))
def test_scaled(factor):
    scaled = BASE.scaled(factor)
    assert scaled.channels == tuple(max(2, round(width * factor)) for width in BASE.channels)
    for name in ("head_width", "hidden", "group_width"):
        assert getattr(scaled, name) == max(2, round(getattr(BASE, name) * factor))
    for name in ("heads", "groups", "policy_bands", "policy_width", "share", "parts"):
        assert getattr(scaled, name) == getattr(BASE, name)
    assert BASE.scaled(1) == BASE


@given(width=st.integers(2, 500), share=st.floats(0.001, 0.999))
def test_each_part_of_a_width_gets_something(width, share):
    dynamic = dataclasses.replace(BASE, share=share).dynamic(width)
    assert 1 <= dynamic <= width - 1 and abs(dynamic - width * share) <= 1


def test_half_is_half():
    assert [BASE.dynamic(width) for width in (2, 4, 24, 32, 48)] == [1, 2, 12, 16, 24]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parts": "sometimes"}, "parts.*gated, always, absent"),
        ({"share": 0.0}, "share"),
        ({"share": 1.0}, "share"),
        ({"share": "half"}, "share"),
        ({"share": float("nan")}, "share"),
        ({"heads": 1}, "heads.*from 2"),
        ({"groups": 1}, "groups.*from 2"),
        ({"hidden": 0}, "hidden.*from 2"),
        ({"hidden": 48.5}, "hidden.*whole"),
        ({"hidden": "many"}, "hidden"),
        ({"head_width": 0}, "head_width"),
        ({"group_width": -4}, "group_width"),
        ({"policy_bands": 1}, "policy_bands"),
        ({"policy_width": 0}, "policy_width"),
        ({"channels": [16, 24]}, "3 values"),
        ({"channels": [16, 24, 32, 40]}, "3 values"),
        ({"channels": [16, 1, 32]}, "channels.*from 2"),
        ({"channels": [16, 24, "wide"]}, "channels"),
        ({"channels": 32}, "channels"),
        ({"depth": 3}, "unknown.*depth.*known.*hidden"),
        ({"preset": "huge"}, "no preset 'huge'.*tiny, base, paper"),
    ],
)
def test_what_is_refused_and_how(changes, words):
    with pytest.raises(InputError, match=words) as error:
        Config.from_dict({"preset": "base", **changes})
    assert "\n" not in str(error.value)


def test_a_missing_option_is_named():
    values = BASE.to_dict()
    del values["hidden"], values["heads"]
    with pytest.raises(InputError, match="heads, hidden is missing"):
        Config.from_dict(values)
    values = BASE.to_dict()
    del values["share"], values["parts"]
    assert Config.from_dict(values) == BASE
