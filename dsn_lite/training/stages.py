"""A recipe: the stages that take a model from nothing to what ships, and branches that share their first ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsn_lite.errors import InputError


@dataclass(frozen=True)
class Stage:
    """One run of a recipe."""

    name: str
    folder: Path
    """Below the folder of the recipe's run."""
    values: dict[str, Any]
    """Its configuration, ``task`` and all."""


def stages_of(recipe: Mapping[str, Any], branch: str | None = None, source: str = "recipe") -> list[Stage]:
    """The stages of a recipe or of one of its branches, in order; each starts from the weights of the one before.

    A recipe holds ``stages``, name to configuration; ``all``, what every stage has unless it says otherwise; and
    ``branches``, name to the stages that differ: options to change, or nothing to leave the stage out. A branch shares the
    folders of the stages before its first difference. A recipe without ``stages`` is one stage in the folder itself.

    >>> recipe = {"all": {"batch": 4}, "stages": {"trunk": {"steps": 9}, "policy": {"way": "benefit"}},
    ...     "branches": {"dsn": {"policy": {"way": "target"}}, "static": {"trunk": {"steps": 5}, "policy": None}}}
    >>> [(str(stage.folder), stage.values) for stage in stages_of(recipe, "dsn")]
    [('trunk', {'batch': 4, 'steps': 9}), ('dsn/policy', {'batch': 4, 'way': 'target'})]
    >>> [str(stage.folder) for stage in stages_of(recipe, "static")]
    ['static/trunk']
    """
    if "stages" not in recipe:
        if branch is not None:
            raise InputError(f"{source}: has no stages, so no branch {branch}; leave --branch out")
        return [Stage("", Path(), dict(recipe))]
    stages, common = _table(recipe, "stages", source), _table(recipe, "all", source)
    if unknown := sorted(set(recipe) - {"stages", "branches", "all"}):
        raise InputError(f"{source}: {', '.join(unknown)}: beside `stages` only `all` and `branches` may stand")
    changes = {} if branch is None else _branch(recipe, branch, stages, source)
    found, folder = [], Path()
    for name, own in stages.items():
        if name in changes:
            folder = Path(branch or "")
            if changes[name] is None:
                continue
        found.append(Stage(name, folder / name, _merged(_merged(common, own or {}), changes.get(name) or {})))
    return found


def _branch(recipe: Mapping, branch: str, stages: Mapping, source: str) -> dict:
    branches = _table(recipe, "branches", source)
    if branch not in branches:
        raise InputError(f"{source}: no branch {branch!r}; known are {', '.join(branches) or 'none'}")
    changes = dict(branches[branch] or {})
    if unknown := sorted(set(changes) - set(stages)):
        raise InputError(f"{source}: branches.{branch}: no stage {', '.join(unknown)}; known are {', '.join(stages)}")
    return changes


def _table(recipe: Mapping, name: str, source: str) -> dict:
    values = recipe.get(name) or {}
    if not isinstance(values, Mapping):
        raise InputError(f"{source}: {name}: give a table of names and what belongs to them")
    if odd := [key for key in values if not isinstance(key, str)]:
        raise InputError(f"{source}: {name}: YAML reads the name {odd[0]} as no text; put it in quotes")
    return dict(values)


def _merged(base: Mapping, changes: Any) -> dict:
    """`base` with `changes` in it, tables within tables too."""
    if not isinstance(changes, Mapping):
        raise InputError(f"{changes!r} is no stage; give a table of options")
    merged = dict(base)
    for name, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merged(merged[name], value) if both else value
    return merged
