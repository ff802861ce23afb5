"""The chapters: stripped, with exercises that mark themselves and checks that can fail; and the pages built from them.

The notebooks are executed by nbval (`make test`). The pages are tested where they are: built by `make book` in
`_build/html`, or in the folder that DSN_LITE_BOOK names; where there are none, those tests are skipped.
"""

import contextlib
import http.server
import io
import json
import os
import re
import threading
from functools import cache, partial
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import matplotlib
import pytest

from dsn_lite.audio import clips

matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parent.parent
BOOK = Path(os.environ.get("DSN_LITE_BOOK", ROOT / "_build" / "html")).resolve()
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
PAGES = sorted(
    path
    for path in BOOK.rglob("*.html")
    if not {"_static", "_sources"} & set(path.relative_to(BOOK).parts)
    and not (path == BOOK / "index.html" and "http-equiv" in path.read_text())  # it only sends on to the first page
)
MEGABYTES = 4

every_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
every_page = pytest.mark.parametrize(
    "page",
    PAGES or [pytest.param(None, marks=pytest.mark.skip(reason=f"no built book in {BOOK}; run make book"))],
    ids=lambda path: path.relative_to(BOOK).as_posix() if path else "none",
)


# ----------------------------------------------------------------------------------------------------------- notebooks
def cells(notebook: Path) -> list[dict]:
    found = json.loads(notebook.read_text())["cells"]
    return [{**cell, "source": "".join(cell["source"]), "tags": cell["metadata"].get("tags", [])} for cell in found]


def exercises(notebook: Path) -> dict[str, str]:
    """Code of each exercise by its label; the label is a tag of the cell."""
    return {tag: cell["source"] for cell in cells(notebook) for tag in cell["tags"] if tag.startswith("ex-")}


def solutions(notebook: Path) -> dict[str, str]:
    """Code of each solution, from the text of the chapter."""
    text = "\n".join(cell["source"] for cell in cells(notebook) if cell["cell_type"] == "markdown")
    found = re.findall(r"^(`{3,})\{solution\} (\S+)$(.*?)^\1$", text, re.MULTILINE | re.DOTALL)
    return {
        label: "\n".join(re.findall(r"^```python$(.*?)^```$", body, re.MULTILINE | re.DOTALL))
        for _, label, body in found
    }


def run(notebook: Path) -> dict:
    """What the names of a chapter stand for after all its cells but exercises and widgets."""
    names: dict = {"__name__": "chapter"}
    for cell in cells(notebook):
        if cell["cell_type"] == "code" and not {"widget", "raises-exception"} & set(cell["tags"]):
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(cell["source"], f"{notebook.name}:{cell['id']}", "exec"), names)
    import matplotlib.pyplot as plt

    plt.close("all")
    return names


@cache
def chapter(notebook: Path) -> dict:
    return run(notebook)


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
class TestChapters:
    @every_notebook
    def test_form(self, notebook):
        book = json.loads(notebook.read_text())
        assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
        assert book["metadata"]["kernelspec"]["name"] == "python3"
        assert "widgets" not in book["metadata"]
        for cell in book["cells"]:
            if cell["cell_type"] == "code":
                assert cell["outputs"] == [] and cell["execution_count"] is None
                assert len(cell["source"]) <= 25, f"cell {cell['id']} is long: split it, with a paragraph before each part"
        before = "markdown"
        for cell in book["cells"]:
            assert "markdown" in (before, cell["cell_type"]), f"no text before cell {cell['id']}"
            before = cell["cell_type"]

    @every_notebook
    def test_every_exercise_has_a_solution(self, notebook):
        assert len(exercises(notebook)) >= 3
        assert exercises(notebook).keys() == solutions(notebook).keys()
        text = notebook.read_text()
        assert all(f":label: {label}\\n" in text for label in exercises(notebook))

    @every_notebook
    def test_exercises_unsolved_and_solved(self, notebook):
        for label, code in exercises(notebook).items():
            with pytest.raises(NotImplementedError):
                exec(code, dict(chapter(notebook)))
            _, check = code.split("# check\n")
            with contextlib.redirect_stdout(io.StringIO()):
                exec(solutions(notebook)[label] + check, dict(chapter(notebook)))

    @pytest.mark.parametrize("broken", ["always open", "always closed", "detached"])
    def test_a_broken_gate_turns_the_first_chapter_red(self, broken, monkeypatch):
        from dsn_lite.engine import TorchEngine, stream
        from dsn_lite.model import Network
        from dsn_lite.network import gates

        # The compiled engine has a policy of its own; the reference is what can be broken here.
        monkeypatch.setattr(stream, "make_engine", lambda name, *settings: TorchEngine(*settings))
        if broken == "detached":  # shown, but everything runs
            masked = Network._mask
            monkeypatch.setattr(Network, "_mask", lambda self, x, gates, state: masked(self, x, 0 * gates + 1, state))
        else:
            constant = float(broken == "always open")
            monkeypatch.setattr(gates, "decide", lambda logits, shift=0.0: 0 * logits[..., 0] + constant)
        with pytest.raises((AssertionError, RuntimeError)):
            run(ROOT / "book" / "01-listen.ipynb")


# --------------------------------------------------------------------------------------------------------------- pages
def links(page: Path) -> list[str]:
    return [unescape(link) for link in re.findall(r'(?:href|src)="([^"]*)"', page.read_text())]


@cache
def anchors(page: Path) -> frozenset[str]:
    return frozenset(re.findall(r'\bid="([^"]*)"', page.read_text()))


@every_page
def test_links_inside_the_book_lead_somewhere(page):
    for link in links(page):
        parts = urlsplit(link)
        if parts.scheme or link.startswith("//"):
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        assert target.exists(), f"{link} leads nowhere"
        if parts.fragment and target.suffix == ".html":
            assert unquote(parts.fragment) in anchors(target), f"{link}: no such place on that page"


@every_page
def test_page_is_light(page):
    pictures = {(page.parent / unquote(link)).resolve() for link in links(page) if "_images/" in link}
    weight = page.stat().st_size + sum(path.stat().st_size for path in pictures)
    assert weight < MEGABYTES * 1e6


@every_page
def test_page_works_from_disk(page, watch):
    """Nothing is fetched from elsewhere, the console is clean, players have sound, widgets are drawn."""
    watched = watch(page.as_uri())
    durations = watched.page.evaluate("""() => Promise.all([...document.querySelectorAll("audio")].map(player =>
        new Promise(resolve => {
            const done = () => resolve(player.duration);
            if (player.readyState) return done();
            player.onloadedmetadata = done;
            player.onerror = player.querySelector("source").onerror = () => resolve(-1);
            player.load();
        })))""")
    assert all(0.5 < duration < 600 for duration in durations)
    views = page.read_text().count('type="application/vnd.jupyter.widget-view+json"')
    watched.page.wait_for_function("n => document.querySelectorAll('.dsn-widget > *').length === n", arg=views)
    watched.page.wait_for_timeout(300)
    assert watched.outside == []
    assert watched.complaints == []


@every_page
def test_page_fits_a_phone(page, watch):
    watched = watch(page.as_uri(), 360, has_touch=True, device_scale_factor=2)
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.fixture
def server():
    """The book on http, as published."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(BOOK))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(params=["file", "http"])
def visit(request, watch, server):
    """Opens a page of the book, from disk and as published; nothing may be fetched from elsewhere or complained of."""
    visited = []

    def open_page(path: str):
        if not (BOOK / path).exists():
            pytest.skip(f"no built page {path} in {BOOK}; run make book")
        visited.append(watch((BOOK / path).as_uri() if request.param == "file" else f"{server}/{path}"))
        return visited[-1].page

    yield open_page
    for watched in visited:
        assert watched.outside == [] and watched.complaints == []


def test_gate_explorer_on_its_page(visit):
    page = visit("book/01-listen.html")
    page.wait_for_selector(".dsn-gates[data-state=ready]")
    drawn = "document.querySelector('.dsn-base').toDataURL()"
    before = page.evaluate(drawn)
    page.get_by_text("all closed", exact=True).last.click()
    assert page.get_attribute(".dsn-gates", "data-mode") == "closed"
    assert page.evaluate(drawn) != before
    page.locator(".dsn-budget input").fill("1")
    assert page.get_attribute(".dsn-gates", "data-mode") == "dynamic"
    page.click(".dsn-play")
    page.wait_for_function("Number(document.querySelector('.dsn-plot').ariaValueNow) > 0.2")
    page.locator(".dsn-gates select").nth(1).select_option(index=1)
    page.wait_for_selector(".dsn-gates[data-state=ready][data-playing=true]")
    page.click(".dsn-play")


def test_gumbel_playground_on_its_page(visit):
    page = visit("book/08-gate.html")
    page.wait_for_selector(".dsn-gumbel[data-draws='100']")
    drawn = lambda: page.locator(".dsn-panels").inner_html()
    opened = lambda: float(page.get_attribute(".dsn-meter", "aria-valuenow"))
    before, share = drawn(), opened()
    page.get_by_role("slider", name="temperature").press("ArrowRight")
    assert drawn() != before and opened() == share  # other soft values, the same decisions
    page.get_by_role("slider", name="logit difference").press("End")
    assert opened() > share
    page.get_by_role("button", name="draw 100").click()
    assert page.get_attribute(".dsn-gumbel", "data-draws") == "200"
    page.get_by_label("Gumbel noise").uncheck()
    assert opened() == 100


def test_mixer_on_its_page(visit):
    page = visit("book/02-sound.html")
    slider = page.locator(".dsn-mixer").get_by_role("slider", name="signal-to-noise ratio")
    noisy = slider.get_attribute("aria-valuetext")
    slider.press("End")
    clean = slider.get_attribute("aria-valuetext")
    activation = [float(re.search(r"activation ([\d.]+)", text)[1]) for text in (noisy, clean)]
    assert activation[0] > activation[1]
    page.locator(".dsn-mixer .dsn-play").click()
    page.wait_for_function("Number(document.querySelector('.dsn-mixer .dsn-plot').ariaValueNow) > 0.2")
    page.locator(".dsn-mixer .dsn-play").click()


def test_block_viewer_on_its_page(visit):
    page = visit("book/09-slices.html")
    viewer = page.locator(".dsn-block")
    viewer.get_by_text("all closed", exact=True).click()
    closed = viewer.inner_text()
    viewer.locator(".dsn-cell").nth(3).click()
    assert "0 of 24 frames open" in closed and "1 of 24 frames open" in viewer.inner_text()
    viewer.get_by_text("grouped GRU", exact=True).click()
    assert "time groups" in viewer.inner_text()


def test_speak_to_it_on_the_front_page(visit):
    """The first page answers before it is asked, above the fold of a small screen, and takes a file."""
    if not (BOOK / "index.html").exists() or "http-equiv" in (BOOK / "index.html").read_text():
        pytest.skip("the front page of this book only sends on (root in _toc.yml)")
    page = visit("index.html")
    page.set_viewport_size({"width": 1280, "height": 800})
    page.wait_for_selector(".dsn-speak[data-state=ready]")
    status = page.get_by_role("status")
    assert "MMAC/s" in status.inner_text()
    assert page.get_by_role("button", name="Record").bounding_box()["y"] < 400
    assert status.bounding_box()["y"] < 800
    before = status.inner_text()
    page.locator("input[type=file]").set_input_files(str(clips.info("owl").path))
    page.wait_for_function("before => document.querySelector('[role=status]').innerText !== before", arg=before)
    assert "MMAC/s" in status.inner_text()
