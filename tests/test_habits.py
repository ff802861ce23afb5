"""What keeps the repository small, honest and installable, checked on the files that git tracks."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Names of modules that are not the names of their distributions.
DISTRIBUTION = {"yaml": "pyyaml", "IPython": "ipython", "sphinx_book_theme": "sphinx-book-theme"}


def tracked() -> list[Path]:
    """The files git tracks or would track; all files where there is no git, as in an unpacked archive."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        left_out = {".venv", "_build", "runs", "__pycache__", ".git", "build", "dist"}
        return [p for p in ROOT.rglob("*") if p.is_file() and not left_out & set(p.relative_to(ROOT).parts)]
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


FILES = tracked()
MODULES = [path for path in FILES if path.suffix == ".py"]
NOTEBOOKS = [path for path in FILES if path.suffix == ".ipynb"]


def pins() -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    pairs = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines if line]
    assert all(pairs), "every line of requirements.txt is name==version, nothing else"
    assert len({canonicalize_name(pair[1]) for pair in pairs}) == len(pairs), "a name is pinned twice"
    return {canonicalize_name(pair[1]): pair[2] for pair in pairs}


def ranges() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(text) for group in (PROJECT["dependencies"], *extras) for text in group]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --------------------------------------------------------------------------------------------------------------- size
def test_clips_are_under_three_megabytes():
    sizes = [path.stat().st_size for path in FILES if relative(path).startswith("dsn_lite/audio/clips/")]
    assert len(sizes) > 16 and sum(sizes) < 3e6


def test_no_file_is_large():
    # Weights are as large as their networks; nothing else has to be.
    limits = {path: 8e6 if path.suffix == ".safetensors" else 1.5e6 for path in FILES}
    large = {relative(path): path.stat().st_size for path, limit in limits.items() if path.stat().st_size > limit}
    assert not large, "every reader downloads these"


# ------------------------------------------------------------------------------------------------------------ content
def test_no_path_of_one_machine():
    # Written so that this file does not find itself.
    path_of_a_machine = re.compile(r"(?<![\w.~:/-])/(?:" + "|".join(["work", "root", "home", "Users", "farm"]) + r")/\w")
    found = []
    for path in FILES:
        data = path.read_bytes()
        if b"\0" not in data:  # not sound, weights, pictures
            lines = enumerate(data.decode("utf-8").splitlines(), 1)
            found += [f"{relative(path)}:{n}: {text[:120]}" for n, text in lines if path_of_a_machine.search(text)]
    assert not found


def test_every_module_says_what_it_is():
    silent = [relative(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not silent


def test_spelling():
    pytest.importorskip("codespell_lib")
    found = subprocess.run([sys.executable, "-m", "codespell_lib"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=relative)
def test_notebooks_are_stripped(notebook):
    content = json.loads(notebook.read_text())
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code), "run nbstripout on it"
    assert "widgets" not in content["metadata"]


def test_changelog_speaks_of_this_version():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changelog
    assert re.search(rf"(?<![\d.]){re.escape(PROJECT['version'])}(?!\.?\d)", changelog)


def test_versions_agree():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {PROJECT['version']}\n" in citation
    import dsn_lite

    assert getattr(dsn_lite, "__version__", PROJECT["version"]) == PROJECT["version"]


def test_what_the_package_needs_at_run_time_is_packed():
    """Every tracked file of the package that is not code is named by the patterns of the package data."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["dsn_lite"]
    package = ROOT / "dsn_lite"
    packed = {path for pattern in patterns for path in package.glob(pattern)}
    data = [path for path in FILES if package in path.parents and path.suffix != ".py"]
    assert not [relative(path) for path in data if path not in packed]
    folders = {path.parent for path in MODULES if package in path.parents}
    assert not [relative(folder) for folder in folders if not (folder / "__init__.py").exists()]


# ------------------------------------------------------------------------------------------------------- requirements
def test_pins_lie_in_the_ranges():
    pinned = pins()
    for requirement in ranges():
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"requirements.txt lacks {name}"
        assert requirement.specifier.contains(pinned[name]), f"{requirement} excludes the pinned {pinned[name]}"


def test_pins_install_on_the_oldest_python():
    """A pin that needs, say, 3.11.5 cannot be installed with the Python of Debian 12."""
    oldest = PROJECT["requires-python"].removeprefix(">=") + ".0"
    for name, version in pins().items():
        try:
            found = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            continue  # pesq without a compiler
        if found["Version"].split("+")[0] == version and found["Requires-Python"]:
            needed = Requirement(f"python{found['Requires-Python'].replace(' ', '')}").specifier
            assert needed.contains(oldest), f"{name}=={version} needs Python {found['Requires-Python']}"


def imports(path: Path) -> set[str]:
    """The top-level names that a module imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_what_is_imported_is_required():
    known = {canonicalize_name(requirement.name) for requirement in ranges()}
    pinned = pins()
    own = {"dsn_lite", "tests", "tools", "conftest"} | {path.stem for path in MODULES}
    for path in MODULES:
        for name in imports(path) - own - set(sys.stdlib_module_names):
            distribution = canonicalize_name(DISTRIBUTION.get(name, name))
            assert distribution in pinned, f"{relative(path)} imports {name}, which requirements.txt lacks"
            if relative(path).startswith("dsn_lite/"):
                assert distribution in known, f"{relative(path)} imports {name}, which pyproject.toml lacks"


def test_what_trains_needs_little():
    """On a bare machine with an accelerator these must be enough to import what trains."""
    code = (
        "import sys\n"
        "for name in ('librosa', 'soxr', 'pesq', 'pystoi', 'speechmos', 'onnxruntime', 'matplotlib', 'scipy',"
        " 'pyroomacoustics', 'anywidget', 'pandas', 'numba', 'onnx', 'sounddevice'):\n"
        "    sys.modules[name] = None\n"
        "import dsn_lite.cli, dsn_lite.network.model, dsn_lite.audio.clips, dsn_lite.audio.noises, dsn_lite.data.mixtures\n"
        "import dsn_lite.training.enhancer, dsn_lite.training.policies, dsn_lite.training.stages\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
