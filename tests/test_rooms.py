"""The ground plan: which room may import which, no circle, and how long things may be; read from the syntax trees.

    errors <- settings <- audio <- { plots, data, network } <- { engine, evaluation } <- training <- slimmable
           <- { zoo, book, widgets } <- commands <- cli

A room imports from rooms to its left, not from its right and not from its neighbour inside the braces. Imports inside
functions and those for types alone count.
"""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dsn_lite._names import _MOVED

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "dsn_lite"
FLOORS = [
    {"errors"}, {"settings"}, {"audio"}, {"plots", "data", "network"}, {"engine", "evaluation"}, {"training"},
    {"slimmable"}, {"zoo", "book", "widgets"}, {"commands"}, {"cli"}, {"__main__"},
]  # fmt: skip
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
LONG_MODULES: set[str] = set()


# ------------------------------------------------------------------------------------------------------------ reading
def name_of(path: Path) -> str:
    """Dotted name of a module inside the package, without `dsn_lite`; empty for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def imported(tree: ast.AST) -> set[str]:
    """Modules of the package that a tree imports anywhere in it, as named in `MODULES`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            root, _, inside = name.partition(".")
            while root == "dsn_lite" and inside and inside not in MODULES:
                inside = inside.rpartition(".")[0]  # a name of the module
            if root == "dsn_lite" and inside:
                found.add(inside)
    return found - {"_names"}


ARROWS = {(name, other) for name, tree in TREES.items() for other in imported(tree)}


def room(name: str) -> str:
    return name.partition(".")[0]


def arrow(one: str, other: str) -> str:
    return f"{one} -> {other}"


# --------------------------------------------------------------------------------------------------------------- rules
def test_every_module_has_a_room():
    rooms = {room(name) for name in MODULES} - {"", "_names"}
    assert rooms <= set(FLOOR)


def test_rooms_import_from_the_left_alone():
    wrong = {
        arrow(one, other) for one, other in ARROWS
        if one and room(one) != room(other) and FLOOR[room(other)] >= FLOOR[room(one)]
    }  # fmt: skip
    assert not wrong


def test_a_module_does_not_import_the_face_of_its_own_room():
    assert not {arrow(one, other) for one, other in ARROWS if one.startswith(f"{other}.")}


def circles(arrows: set[tuple[str, str]]) -> set[str]:
    """Modules that reach themselves, joined to the sets in which each reaches the others."""
    reach = {one: {b for a, b in arrows if a == one} for one in {a for a, _ in arrows}}
    while True:
        wider = {one: seen.union(*(reach.get(other, set()) for other in seen)) for one, seen in reach.items()}
        if wider == reach:
            break
        reach = wider
    inside = {one for one, seen in reach.items() if one in seen}
    return {" ".join(sorted(b for b in inside if b in reach[one] and one in reach[b])) for one in inside}


def test_there_is_no_circle():
    assert not circles(ARROWS)


def test_a_circle_is_seen():
    assert circles({("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "e"), ("f", "a")}) == {"a b c"}
    tree = ast.parse("def f():\n    from dsn_lite.audio import files, read\n    import dsn_lite.errors\n")
    assert imported(tree) == {"audio.files", "audio", "errors"}


# -------------------------------------------------------------------------------------------------------------- bounds
def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_modules_are_short():
    assert {name for name, path in MODULES.items() if lines(path) > 300} == LONG_MODULES


def test_functions_are_short():
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    long = {
        f"{name}.{node.name}" for name, tree in TREES.items() for node in ast.walk(tree)
        if isinstance(node, functions) and node.end_lineno - node.lineno >= 60
    }  # fmt: skip
    assert not long


def lines_of_code(path: Path) -> int:
    """Lines that are neither empty nor comment nor docstring nor a note beside a field."""
    text, notes = path.read_text(), set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            notes |= set(range(node.lineno, node.end_lineno + 1))
    rows = enumerate(text.splitlines(), 1)
    return sum(bool(row.strip()) and not row.strip().startswith("#") and number not in notes for number, row in rows)


def test_the_package_is_at_most_11000_lines_of_code():
    assert sum(map(lines_of_code, MODULES.values())) <= 11_000


def test_a_line_of_code_is_told_from_a_note(tmp_path):
    text = '"""Doc.\n\nMore."""\n\n# why\nx = 1\n"""Of x."""\n\ndef f():\n    """Doc."""\n    return """a\nb"""\n'
    (tmp_path / "a.py").write_text(text)
    assert lines_of_code(tmp_path / "a.py") == 4


def test_the_reading_path_is_there_and_short():
    found, home = [], None
    for line in (PACKAGE / "README.md").read_text().splitlines():
        step = re.match(r"\d\. \*\*(\w+)\*\*", line)
        home = step[1] if step else home
        found += [PACKAGE / home / name for name in re.findall(r"`([\w/]+\.py)`", line) if home]
    assert len(found) > 25 and len(set(found)) == len(found)
    assert sum(map(lines, found)) <= 5_000


def test_the_readme_is_at_most_150_lines():
    assert lines(ROOT / "README.md") <= 150


# --------------------------------------------------------------------------------------------------------------- names
FACES = [name for name, path in MODULES.items() if path.name == "__init__.py" and "_HOMES" in path.read_text() and name]


@pytest.mark.parametrize("name", FACES)
def test_a_face_shows_what_it_says(name):
    face = importlib.import_module(f"dsn_lite.{name}")
    shown = " ".join(face._HOMES.values()).split()
    assert len(shown) == len(set(shown)) and set(shown) <= set(dir(face))
    for each in shown:
        assert getattr(face, each) is not None
        assert f"{name}.{each}" not in MODULES, "once imported, the module would hide it"
    with pytest.raises(AttributeError, match=f"dsn_lite.{name}.*no_such_name"):
        face.no_such_name  # noqa: B018


def test_faces_wait_for_their_modules():
    code = f"import sys\nfor name in {FACES}:\n    __import__('dsn_lite.' + name)\n"
    code += "import dsn_lite.cli\ndsn_lite.cli.make_parser()\n"
    code += "assert not {'torch', 'scipy', 'matplotlib'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("former", sorted(_MOVED))
def test_former_names_work_and_warn(former):
    sys.modules.pop(f"dsn_lite.{former}", None)
    with pytest.warns(DeprecationWarning, match=f"dsn_lite.{former} is now dsn_lite.{_MOVED[former]};"):
        found = importlib.import_module(f"dsn_lite.{former}")
    assert found is importlib.import_module(f"dsn_lite.{_MOVED[former]}")
    assert found.__spec__.name == found.__name__ == f"dsn_lite.{_MOVED[former]}"


def test_nothing_here_uses_a_former_name():
    sources = [path for folder in ("dsn_lite", "tests", "tools") for path in (ROOT / folder).rglob("*.py")]
    sources += (ROOT / "book").glob("*.ipynb")
    former = [f"dsn_lite.{name}" for name in _MOVED]
    used = set()
    for path in sources:
        for home, names in re.findall(r"\bfrom (dsn_lite[\w.]*) import ([\w, ]*)", path.read_text()):
            found = {home, *(f"{home}.{part.split()[0]}" for part in names.split(",") if part.strip())}
            used |= {f"{path.name}: {name}" for name in found.intersection(former)}
    assert not used


def test_the_page_of_the_package_is_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    api = importlib.import_module("api")
    assert api.PAGE.read_text(encoding="utf-8") == api.page(), "run python tools/api.py"
