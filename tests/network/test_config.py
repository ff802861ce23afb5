"""Configurations: presets, variants, plain values there and back, and what is refused."""

import dataclasses
import json

import pytest
from networks import CONFIGS

from dsn_lite.errors import InputError
from dsn_lite.network.config import PRESETS, Config

BASE = Config.preset("base")


def test_presets():
    assert list(PRESETS) == ["tiny", "base", "paper"]
    for preset in PRESETS.values():
        assert preset.gated and preset.is_dynamic and 256 // preset.stride == 32
    widths = [[sum(pair) for pair in (*p.channels, p.head_width, p.hidden, p.group_width)] for p in PRESETS.values()]
    assert all(
        a <= b for small, large in zip(widths[:-1], widths[1:], strict=True) for a, b in zip(small, large, strict=True)
    )


def test_variants():
    static, small = BASE.static(), BASE.static_only()
    assert dataclasses.replace(static, gated=True, policy_width=BASE.policy_width) == BASE
    assert not small.is_dynamic and small.blocks == 1 and small.policy_width == 0 and not small.gated
    for name in ("heads", "head_width", "hidden", "groups", "group_width"):
        assert getattr(small, name) == (getattr(BASE, name)[0], 0)
    assert [pair[0] for pair in small.channels] == [pair[0] for pair in BASE.channels]
    assert small.static_only() == small == static.static_only()


@pytest.mark.parametrize("config", [*CONFIGS.values(), *PRESETS.values()])
def test_there_and_back_through_json(config):
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_preset_with_changes():
    values = {"preset": "base", "gated": False, "hidden": [8, 64]}
    changed = Config.from_dict(values)
    assert changed == dataclasses.replace(BASE, gated=False, hidden=(8, 64))
    assert values == {"preset": "base", "gated": False, "hidden": [8, 64]}  # left alone
    with pytest.raises(dataclasses.FrozenInstanceError):
        changed.hidden = 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gated": "sometimes"}, "gated"),
        ({"heads": 1}, "heads"),
        ({"heads": [0, 2]}, r"heads: \[0, 2\] does not fit; give 2 values"),
        ({"hidden": [24, -1]}, r"hidden: \[24, -1\] does not fit"),
        ({"hidden": [24, 48.5]}, "hidden.*whole"),
        ({"hidden": ["many", 3]}, "hidden"),
        ({"blocks": 0}, "blocks.*from 1"),
        ({"policy_bands": 0}, "policy_bands"),
        ({"policy_width": -1}, "policy_width"),
        ({"channels": [[8, 8], [8, 12]]}, "strides.*give 2, one for each convolution"),
        ({"channels": [[8, 8]], "strides": [2], "kernels": [3]}, "at least two convolutions"),
        ({"channels": [[8, 8], [8, 12], [12, "wide"]]}, "channels"),
        ({"channels": 32}, "channels"),
        ({"kernels": [5, 3, 4]}, "kernels.*odd"),
        ({"strides": [2, 2, 3]}, "strides.*divide 256"),
        ({"heads": [2, 0]}, "every pair has a dynamic part or none has"),
        ({"depth": 3}, "unknown.*depth"),
        ({"preset": "huge"}, "no preset 'huge'.*tiny, base, paper"),
        ({"preset": 3}, "no preset 3"),
    ],
)
def test_what_is_refused_and_how(changes, words):
    with pytest.raises(InputError, match=words) as error:
        Config.from_dict({"preset": "base", **changes})
    assert "\n" not in str(error.value)


def test_a_missing_option_is_named():
    values = BASE.to_dict()
    del values["hidden"], values["heads"], values["blocks"]
    with pytest.raises(InputError, match="heads, hidden is missing"):
        Config.from_dict(values)
