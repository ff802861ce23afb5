"""Frozen dataclasses from the plain values of a file; what does not fit is one line: file, key, value, what is allowed.

A field says beside its type what it may be, and the class what its fields were called before:

>>> @dataclass(frozen=True, kw_only=True)
... class Plan:
...     RENAMED: ClassVar[dict[str, str]] = {"rate": "lr"}
...     lr: Annotated[Positive, CHANGEABLE] = 2e-3
...     measure: Literal["width", "macs"] = "width"
>>> build(Plan, {"rate": "1e-3"}, "plan.yaml")
Plan(lr=0.001, measure='width')
>>> build(Plan, {"lr": -1}, "plan.yaml")
Traceback (most recent call last):
dsn_lite.errors.InputError: plan.yaml: lr: -1 does not fit; give a number above 0

Own code and no library (pydantic and msgspec were tried): training has to run where little more than torch is installed, a
bool is no number, an empty section is one of defaults, and none of their messages holds file, key, value and cure.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from dsn_lite.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """What a number may be: `ge` or more, above `gt`, `le` or less, below `lt`; never infinite, and never not a number."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def __contains__(self, number: float) -> bool:
        low = (self.ge is None or number >= self.ge) and (self.gt is None or number > self.gt)
        return low and (self.le is None or number <= self.le) and (self.lt is None or number < self.lt)

    def __str__(self) -> str:
        if self.ge is not None and self.le is not None:
            return f"from {self.ge:.12g} to {self.le:.12g}"
        words = {"{:g} or more": self.ge, "above {:g}": self.gt, "{:g} or less": self.le, "below {:g}": self.lt}
        return " and ".join(word.format(limit) for word, limit in words.items() if limit is not None)


CHANGEABLE = "may change when a run is resumed"
"""Mark of a field, as in ``Annotated[Positive, CHANGEABLE]``; see :func:`changes`."""
Count = Annotated[int, Range(ge=1, le=2**31 - 1)]
Whole = Annotated[int, Range(ge=0, le=2**31 - 1)]
Positive = Annotated[float, Range(gt=0)]
Amount = Annotated[float, Range(ge=0)]
Share = Annotated[float, Range(ge=0, le=1)]


class _MisfitError(Exception):
    """A value that does not fit, with its keys from the inside out; without a `text`, its field says what is allowed."""

    def __init__(self, text: str = ""):
        super().__init__(text)
        self.text, self.keys = text, []

    def within(self, *keys: str) -> _MisfitError:
        """The same from further outside."""
        self.keys = [*keys, *self.keys]
        return self


def build(kind: type[T], values: Any, source: str = "configuration") -> T:
    """A dataclass `kind`, and those in it, from plain values that were read from `source`.

    Old names are those of the class's ``RENAMED``, old to new; its ``expand(values) -> values``, if it has one, goes first.
    A text that reads as a number is that number, as YAML takes ``1e-3`` for a text. A section without values has defaults.
    """
    try:
        return _dataclass(kind, values)
    except _MisfitError as error:
        raise InputError(": ".join(part for part in (source, ".".join(error.keys), error.text) if part)) from None


def check(config: Any) -> None:
    """Refuse a dataclass whose fields are not what their types say: the ``__post_init__`` of one made by hand as well."""
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        if get_origin(hint) is not ClassVar:
            try:
                _field(hint, getattr(config, name), name)
            except _MisfitError as error:
                raise InputError(f"{'.'.join(error.keys)}: {error.text}") from None


def plain(config: Any) -> Any:
    """Plain values, for JSON or YAML, of what :func:`build` made."""
    if is_dataclass(config):
        return {item.name: plain(getattr(config, item.name)) for item in fields(config)}
    if isinstance(config, Mapping):
        return {name: plain(value) for name, value in config.items()}
    return [plain(value) for value in config] if isinstance(config, tuple | list) else config


def changes(old: Any, new: Any, *, key: str = "", is_free: bool = False) -> Iterator[tuple[str, Any, Any, bool]]:
    """Where two configurations differ: key, old value, new value, and whether the field is CHANGEABLE."""
    if is_dataclass(old) and type(old) is type(new):
        hints = get_type_hints(type(old), include_extras=True)
        for name in (item.name for item in fields(old)):
            free = is_free or CHANGEABLE in getattr(hints[name], "__metadata__", ())
            pair = getattr(old, name), getattr(new, name)
            yield from changes(*pair, key=f"{key}.{name}" if key else name, is_free=free)
    elif isinstance(old, Mapping) and isinstance(new, Mapping) and old.keys() == new.keys():
        for name in old:
            yield from changes(old[name], new[name], key=f"{key}.{name}", is_free=is_free)
    elif old != new:
        yield key, plain(old), plain(new), is_free


def _dataclass(kind: type[T], values: Any) -> T:
    if isinstance(values, kind):
        return values
    known = [item.name for item in fields(kind) if item.init]
    if not isinstance(values, Mapping | None):
        raise _MisfitError(f"{_shown(values)} does not fit; give a table of {', '.join(known)}")
    values = dict(values or {})
    try:
        values = _renamed(kind, kind.expand(values) if hasattr(kind, "expand") else values)  # type: ignore[attr-defined]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1)
                hint = f", did you mean {near[0]}?" if near else ";"
                raise _MisfitError(f"unknown option {name}{hint} known are {', '.join(sorted(known))}")
        hints = get_type_hints(kind, include_extras=True)
        given = {name: _field(hints[name], value, name) for name, value in values.items()}
        needed = [item for item in fields(kind) if item.default is MISSING and item.default_factory is MISSING]
        if missing := [item.name for item in needed if item.name not in given]:
            raise _MisfitError(f"{', '.join(missing)} is missing; give {_allowed(hints[missing[0]])}")
        return kind(**given)
    except InputError as error:  # of `expand` or of the class itself
        raise _MisfitError(str(error)) from None


def _renamed(kind: type, values: dict) -> dict:
    """Values under the names of today."""
    old_names: dict[str, str] = getattr(kind, "RENAMED", {})
    for old, new in old_names.items():
        if old in values and new in values:
            raise _MisfitError(f"{old} and {new} are the same option; give {new} alone")
    return {old_names.get(name, name): value for name, value in values.items()}


def _field(hint: Any, value: Any, name: str) -> Any:
    try:
        return _converted(hint, value)
    except _MisfitError as error:
        text = error.text or f"{_shown(value)} does not fit; give {_allowed(hint)}"
        raise _MisfitError(text).within(name, *error.keys) from None


def _converted(hint: Any, value: Any) -> Any:
    """`value` as what a type hint asks for."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        value = _converted(inner[0], value)
        if any(isinstance(mark, Range) and value is not None and value not in mark for mark in inner[1:]):
            raise _MisfitError
        return value
    if origin in (Union, types.UnionType):  # one type, or nothing
        return None if value is None else _converted(next(kind for kind in inner if kind is not type(None)), value)
    if is_dataclass(hint):
        return _dataclass(hint, value)
    if origin is tuple and isinstance(value, tuple | list):
        kinds = inner[:1] * len(value) if inner[-1] is ... else inner
        if len(kinds) == len(value):
            return tuple(_item(kind, one, f"[{i}]") for i, (kind, one) in enumerate(zip(kinds, value, strict=True)))
    elif origin is dict and isinstance(value, Mapping):
        return {str(name): _item(inner[1], one, str(name)) for name, one in value.items()}
    elif origin is Literal and value in inner and not isinstance(value, bool):
        return value
    elif hint in (int, float) and isinstance(value, int | float | str) and not isinstance(value, bool):
        return _number(hint, value)
    elif hint in (str, bool) and isinstance(value, hint):
        return value
    raise _MisfitError


def _item(hint: Any, value: Any, key: str) -> Any:
    """An item of a list or a table; its key is told where the item says itself what is allowed."""
    try:
        return _converted(hint, value)
    except _MisfitError as error:
        raise (error.within(key) if error.text else error) from None


def _number(kind: type, value: int | float | str) -> float:
    try:
        number = value if isinstance(value, int) else float(value)
        if math.isfinite(number) and number == kind(number):
            return kind(number)
    except (ValueError, OverflowError):
        pass
    raise _MisfitError


def _allowed(hint: Any) -> str:
    """What a field may be, in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = [f", {mark}" if "or" in str(mark) else f" {mark}" for mark in inner[1:] if isinstance(mark, Range)]
        return _allowed(inner[0]) + "".join(limits)
    if origin in (Union, types.UnionType):
        return " or ".join(_allowed(kind) for kind in inner if kind is not type(None)) + " or null"
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is tuple:
        number = "a list" if inner[-1] is ... else f"{len(inner)} values"
        return f"{number}, each {_allowed(inner[0])}"
    if origin is dict:
        return f"a table of names, each with {_allowed(inner[1])}"
    if is_dataclass(hint):
        return f"a table of {', '.join(item.name for item in fields(hint))}"
    return {int: "a whole number", float: "a number", str: "text", bool: "true or false"}[hint]


def _shown(value: Any) -> str:
    """A value in one short line."""
    text = "no value" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class _Loader(yaml.SafeLoader):
    """YAML whose keys are given once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """A table, unless a key stands in it twice."""
        names = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if names.count(key.value) > 1 and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> dict:
    """The table in a YAML file, in UTF-8."""
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8-sig"), _Loader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a YAML file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid YAML ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds no table of options; see recipes/ for examples")
    return values
