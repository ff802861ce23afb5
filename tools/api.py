"""Write book/api.md: every public module of the package, room by room, in the order in which rooms build on each other.

    python tools/api.py
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, PAGE = ROOT / "dsn_lite", ROOT / "book" / "api.md"
ROOMS = ("audio", "plots", "data", "network", "engine", "evaluation", "training", "slimmable")
LEFT_OUT = ("network.compiled", "network.blocks.fused_norm", "network.blocks.held_gru", "engine.kernel.")
"""Compiled functions, which autodoc cannot read."""
MORE = {
    "audio.noises": ".. autodata:: dsn_lite.audio.noises.NAMES",
    "evaluation.statistics": ".. autodata:: dsn_lite.evaluation.statistics.METRICS",
}
HEAD = """\
# The package

The public names of `dsn_lite`, taken from the docstrings of the code itself. What most people need stands first; then
come the rooms of the package, each of which uses only those before it. The examples are run by the tests.

Shapes are written with the letters of the page on [notation](notation): B batch, T frame, F frequency, C channel, K
gate. What cannot be used ends in one {py:class}`~dsn_lite.errors.InputError`, whose message is one line that names the
thing and the cure.

## `dsn_lite`

```python
import dsn_lite

model = dsn_lite.load("mgt-dsn")
result = model.enhance(wave, sample_rate)
result.wave, result.gates, result.mmacs_per_second

stream = dsn_lite.Stream(model)
out = stream.feed(chunk)
tail = stream.flush()
```

```{eval-rst}
.. py:module:: dsn_lite

.. autofunction:: dsn_lite.load

.. autofunction:: dsn_lite.available
```

`dsn_lite.Network` is {py:class}`NETWORK`, `dsn_lite.Config` is {py:class}`CONFIG`, `dsn_lite.Stream` is
{py:class}`dsn_lite.engine.stream.Stream`, and `dsn_lite.InputError` is {py:class}`dsn_lite.errors.InputError`.
"""
WIDGETS = """\
## Widgets: `dsn_lite.widgets`

The interactive pictures of the book; they need `pip install 'dsn-lite[book]'`.

```{eval-rst}
.. py:module:: dsn_lite.widgets.speak

.. autofunction:: book_clips

.. autoclass:: SpeakToIt
   :members: figure

.. py:module:: dsn_lite.widgets.gate_explorer

.. autofunction:: frame_snr

.. autoclass:: GateExplorer
   :members: from_network, figure

.. py:module:: dsn_lite.widgets.gumbel_playground

.. autoclass:: GumbelPlayground

.. py:module:: dsn_lite.widgets.mixer

.. autofunction:: sweep

.. autoclass:: Mixer
   :members: from_network, figure

.. py:module:: dsn_lite.widgets.block_viewer

.. autofunction:: blocks_of

.. autofunction:: take_apart

.. autoclass:: BlockViewer
   :members: from_network, lane_macs, figure
```
"""


def automodule(name: str, *options: str) -> str:
    """A section on one module, under its name."""
    lines = [f"### `dsn_lite.{name}`", "", "```{eval-rst}", f".. automodule:: dsn_lite.{name}", "   :members:"]
    more = ["", MORE[name]] if name in MORE else []
    return "\n".join([*lines, *(f"   {option}" for option in options), *more, "```"]) + "\n"


def modules(room: str) -> list[str]:
    """Public modules of a room that have something to document, by name."""
    names = []
    for path in sorted((PACKAGE / room).rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        has_names = any(isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_" for node in tree.body)
        if has_names and not name.startswith(LEFT_OUT):
            names.append(name)
    return names


def page() -> str:
    """The text of the page."""
    homes = ast.literal_eval(next(
        node.value for node in ast.parse((PACKAGE / "__init__.py").read_text()).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_HOMES"
    ))  # fmt: skip
    home = {name: f"dsn_lite.{module}.{name}" for module, names in homes.items() for name in names.split()}
    parts = [HEAD.replace("NETWORK", home["Network"]).replace("CONFIG", home["Config"])]
    parts += ["## Errors and settings\n", automodule("errors"), automodule("settings")]
    for room in ROOMS:
        about = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))) or ""
        parts.append(f"## `dsn_lite.{room}`\n\n{about.splitlines()[0]}\n")
        parts += map(automodule, modules(room))
    parts.append("## By name, and for the chapters\n")
    parts += [automodule("zoo", ":exclude-members: load, available"), automodule("book")]
    return "\n".join([*parts, WIDGETS])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
