"""Configurations from plain values: what fits, what does not and what is said of it, and what may change."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args, get_origin, get_type_hints

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dsn_lite.commands.train import TASKS, read_recipe
from dsn_lite.errors import InputError
from dsn_lite.settings import (
    CHANGEABLE,
    Amount,
    Count,
    Positive,
    Range,
    Share,
    Whole,
    build,
    changes,
    check,
    plain,
    read_yaml,
)

ROOT = Path(__file__).resolve().parent.parent
TRAINERS = {*TASKS.values(), "dsn_lite.training.enhancer:EnhancerTrainer"}
PLANS = [getattr(importlib.import_module(name), task).PLAN for name, task in (of.split(":") for of in sorted(TRAINERS))]


@dataclass(frozen=True, kw_only=True)
class Stage:
    RENAMED: ClassVar[dict[str, str]] = {"rate": "lr"}
    steps: Annotated[Count, CHANGEABLE]
    lr: Annotated[Positive, CHANGEABLE] = 1e-3
    shares: tuple[Share, Share] = (0.25, 0.5)

    def __post_init__(self):
        check(self)
        if self.shares[0] > self.shares[1]:
            raise InputError("shares: must rise")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    name: str
    seed: Whole = 1
    weight: Amount = 0.0
    margin: Annotated[float, Range(gt=0, lt=1)] = 0.5
    mode: Literal["fast", "good"] = "fast"
    is_guided: bool = False
    start: str | None = None
    first: Stage = field(default_factory=lambda: Stage(steps=1))
    stages: dict[str, Stage] = field(default_factory=dict)
    more: tuple[Stage, ...] = ()

    @staticmethod
    def expand(values: dict) -> dict:
        return {"name": "short", **values} if values.pop("is_short", False) else values


GOOD = {"name": "n", "stages": {"one": {"steps": 3}, "two": {"steps": 4, "lr": 0.5}}, "more": [{"steps": 2}]}


def test_nested_values_there_and_back():
    made = build(Recipe, GOOD)
    assert made.stages["two"] == Stage(steps=4, lr=0.5) and made.more == (Stage(steps=2),)
    assert build(Recipe, json.loads(json.dumps(plain(made)))) == made
    assert build(Recipe, yaml.safe_load(yaml.safe_dump(plain(made)))) == made
    assert build(Recipe, {"is_short": True}).name == "short"
    assert build(Stage, Stage(steps=3)) == Stage(steps=3)


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e-3", 1e-3), ("1E-3", 1e-3), ("2", 2.0), (" 0.5 ", 0.5), ("5e-1", 0.5), (3, 3.0), ("+1.5", 1.5)],
)
def test_a_text_that_reads_as_a_number_is_that_number(text, number):
    made = build(Stage, {"steps": 1, "lr": text})
    assert made.lr == number and isinstance(made.lr, float)


@pytest.mark.parametrize("text", ["1e3", 1000, 1000.0, "1000"])
def test_a_whole_number_may_be_written_in_any_way(text):
    made = build(Stage, {"steps": text})
    assert made.steps == 1000 and isinstance(made.steps, int)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"steps": 0}, "f.yaml: steps: 0 does not fit; give a whole number from 1 to 2147483647"),
        ({"steps": "abc"}, "f.yaml: steps: 'abc' does not fit; give a whole number from 1 to 2147483647"),
        ({"steps": True}, "f.yaml: steps: true does not fit; give a whole number from 1 to 2147483647"),
        ({"steps": 1.5}, "f.yaml: steps: 1.5 does not fit; give a whole number from 1 to 2147483647"),
        ({"steps": None}, "f.yaml: steps: no value does not fit; give a whole number from 1 to 2147483647"),
        ({"steps": 10**400}, None),
        ({"lr": -1}, "f.yaml: lr: -1 does not fit; give a number above 0"),
        ({"lr": ".nan"}, None),
        ({"lr": math.nan}, "f.yaml: lr: nan does not fit; give a number above 0"),
        ({"lr": math.inf}, "f.yaml: lr: inf does not fit; give a number above 0"),
        ({"lr": "inf"}, "f.yaml: lr: 'inf' does not fit; give a number above 0"),
        ({"lr": "1e-3x"}, "f.yaml: lr: '1e-3x' does not fit; give a number above 0"),
        ({"rate": [1]}, "f.yaml: lr: [1] does not fit; give a number above 0"),
        ({"rate": 1, "lr": 1}, "f.yaml: rate and lr are the same option; give lr alone"),
        ({"shares": 0.3}, "f.yaml: shares: 0.3 does not fit; give 2 values, each a number from 0 to 1"),
        ({"shares": [0.3]}, "f.yaml: shares: [0.3] does not fit; give 2 values, each a number from 0 to 1"),
        ({"shares": [0.3, "a"]}, "f.yaml: shares: [0.3, 'a'] does not fit; give 2 values, each a number from 0 to 1"),
        ({"shares": [0.3, 1.1]}, "f.yaml: shares: [0.3, 1.1] does not fit; give 2 values, each a number from 0 to 1"),
        ({"shares": [0.3, 0.2]}, "f.yaml: shares: must rise"),
        ({"step": 3}, "f.yaml: unknown option step, did you mean steps? known are lr, shares, steps"),
        ({3: 3}, "f.yaml: unknown option 3; known are lr, shares, steps"),
        ({"gibberish": 3}, "f.yaml: unknown option gibberish; known are lr, shares, steps"),
    ],
)
def test_what_does_not_fit_is_one_line(values, line):
    with pytest.raises(InputError) as caught:
        build(Stage, {"steps": 1, **values}, "f.yaml")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
    assert line is None or str(caught.value) == line


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"first": {"steps": 0}}, "first.steps: 0 does not"),
        ({"first": None}, "first: steps is missing; give a whole number"),
        ({"first": "tiny"}, "first: 'tiny' does not fit; give a table of steps, lr, shares"),
        ({"stages": {"one": {"steps": 1, "lr": 0}}}, "stages.one.lr: 0 does not"),
        ({"stages": {"one": {"stps": 1}}}, "stages.one: unknown option stps, did you mean steps?"),
        ({"stages": [1]}, "stages: [1] does not fit; give a table of names, each with a table of steps, lr, shares"),
        ({"more": [{"steps": 1}, {"steps": 0}]}, "more.[1].steps: 0 does not"),
        ({"more": 3}, "more: 3 does not fit; give a list, each a table of steps, lr, shares"),
        ({"mode": "quick"}, "mode: 'quick' does not fit; give one of fast, good"),
        ({"mode": True}, "mode: true does not"),
        ({"is_guided": "yes"}, "is_guided: 'yes' does not fit; give true or false"),
        ({"is_guided": 1}, "is_guided: 1 does not fit; give true or false"),
        ({"start": 3}, "start: 3 does not fit; give text or null"),
        ({"margin": 0}, "margin: 0 does not fit; give a number above 0 and below 1"),
        ({"seed": "abc"}, "seed: 'abc' does not"),
        ({"name": "a" * 500, "start": 5 * ["long text"] * 9}, "start: ['long text', "),
    ],
)
def test_the_key_is_told_from_the_outside_in(values, line):
    with pytest.raises(InputError) as caught:
        build(Recipe, {"name": "n", **values}, "f.yaml")
    assert str(caught.value).startswith(f"f.yaml: {line}") and "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [None, "text", 3, [1], True])
def test_what_is_no_table(values):
    with pytest.raises(InputError, match=r"^f.yaml: .*(give a table|is missing)"):
        build(Recipe, values, "f.yaml")


def test_what_may_change_is_told_apart():
    old = build(Recipe, GOOD)
    new = build(Recipe, {**GOOD, "seed": 2, "stages": {"one": {"steps": 9}, "two": {"steps": 4, "shares": [0, 1]}}})
    assert list(changes(old, new)) == [
        ("seed", 1, 2, False), ("stages.one.steps", 3, 9, True), ("stages.two.lr", 0.5, 1e-3, True),
        ("stages.two.shares", [0.25, 0.5], [0.0, 1.0], False),
    ]  # fmt: skip
    assert list(changes(old, old)) == []
    assert [key for key, *_ in changes(old, build(Recipe, {**GOOD, "stages": {}}))] == ["stages"]


def test_made_by_hand_it_is_checked_as_well():
    with pytest.raises(InputError, match="^steps: 0 does not fit"):
        Stage(steps=0)


# -------------------------------------------------------------------------------------------------------------- files
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("steps: 3 # Größe\n".encode("latin-1"), "not UTF-8 text"),
        ("steps: 3\n".encode("utf-16"), "not UTF-8 text"),
        (b"steps: [3\n", "not valid YAML"),
        (b"steps:\t3\n  a: b: c\n", "not valid YAML"),
        (b"steps: 3\nlr: 1\nsteps: 4\n", "steps is given twice"),
        (b"gating: {a: 1, a: 2}\n", "a is given twice"),
        (b"when: 2026-99-99\n", "not valid YAML"),
        (b"{[1]: 2}\n", "not valid YAML"),
        (b"x: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
        (b"\x00\x01\x02", "not valid YAML"),
        (b"- 1\n", "no table"),
        (b"", "no table"),
        (b"[" * 5000, "not valid YAML"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path, content, words):
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_no_file_and_a_folder(tmp_path):
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(InputError, match="cannot be read"):
            read_yaml(path)


def test_a_byte_order_mark_and_merged_tables(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfone: &one {a: 1}\ntwo:\n  <<: *one\n  b: 2\n")
    assert read_yaml(path)["two"] == {"a": 1, "b": 2}


# -------------------------------------------------------------------------------------- the configurations of the trainers
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
    st.sampled_from([-1, 0, 0.0, "1e-3", "tiny", 10**30, "ä"]),
)  # fmt: skip


def least_of(kind: type) -> dict:
    """The values that a plan cannot do without."""
    hints, values = get_type_hints(kind), {"steps": 2}
    if "network" in hints:
        values["network"] = {"preset": "tiny"} if hasattr(hints["network"], "preset") else {}
    return {**values, "way": "benefit"} if "way" in hints else values


def keys_of(kind: type) -> list[tuple[str, ...]]:
    """Paths of all fields, those of inner dataclasses too."""
    found = []
    for name, hint in get_type_hints(kind, include_extras=True).items():
        inner = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if get_origin(hint) is not ClassVar:
            deeper = [(name, *keys) for keys in keys_of(inner)] if dataclasses.is_dataclass(inner) else []
            found += [(name,), *deeper]
    return found


@pytest.mark.parametrize("kind", PLANS, ids=lambda kind: kind.__name__)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_value_at_any_key_is_taken_or_refused_in_one_line(kind, data):
    values = least_of(kind)
    keys = data.draw(st.sampled_from(keys_of(kind)))
    inner = values
    for key in keys[:-1]:
        inner = inner.setdefault(key, {})
    inner[keys[-1]] = data.draw(ODD)
    try:
        made = kind.from_dict(values, "f.yaml")
    except InputError as error:
        text = str(error)
        assert text.startswith("f.yaml: ") and "\n" not in text and keys[0] in text
    else:
        assert kind.from_dict(json.loads(json.dumps(made.to_dict(), allow_nan=False))) == made
        for key, old, new, _ in changes(kind.from_dict({**values, keys[0]: _default(kind, keys[0], values)}), made):
            assert key.startswith(keys[0]) and old != new


def _default(kind: type, name: str, values: dict):
    """What stands at a key where the configuration says nothing of it."""
    item = next(item for item in dataclasses.fields(kind) if item.name == name)
    if item.default is not dataclasses.MISSING:
        return item.default
    return item.default_factory() if item.default_factory is not dataclasses.MISSING else values[name]


@pytest.mark.parametrize("kind", PLANS, ids=lambda kind: kind.__name__)
def test_old_names_are_read_and_new_ones_written(kind):
    old = {"rate": 0.5, "average": 0.5, "clip": 2.0, "decay": 0.3, "items": 7, "warmup": 3}
    written = kind.from_dict({**least_of(kind), **old}).to_dict()
    new = {"lr": 0.5, "ema_decay": 0.5, "max_grad_norm": 2.0, "weight_decay": 0.3, "num_mixtures": 7, "warmup_steps": 3}
    assert {name: written[name] for name in new} == new and not set(old) & set(written)


@pytest.mark.parametrize("path", sorted(ROOT.glob("[cr]*/*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_configurations_that_ship_can_be_read(path):
    read_recipe(path)
