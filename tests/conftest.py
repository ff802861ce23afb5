"""What several tests need."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from dsn_lite.config import Config
from dsn_lite.model import Network


def _network(preset: str = "tiny", parts: str = "gated", seed: int = 0) -> Network:
    config = Config.preset(preset)
    config = {"gated": config, "always": config.static(), "absent": config.static_only()}[parts]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(config).eval()
        with torch.no_grad():
            # As initialised a network is the identity, and nothing inside it would be tested.
            network.decoder_1.conv.weight.normal_(0, 0.3)
            network.decoder_1.conv.bias.normal_(0, 0.3)
            network.band_embedding.normal_(0, 1)
            for slope in network.slopes:
                slope.uniform_(0, 0.5)
            if parts == "gated":
                network.policy.logits.weight.normal_(0, 2)
    return network


@pytest.fixture(scope="session")
def random_network():
    """Maker of networks (preset, parts, seed) whose every part shows in the output; the same seed, the same weights."""
    return _network


# -------------------------------------------------------------------------------- a browser, for the book and the widgets
BROWSER = os.environ.get("DSN_LITE_BROWSER") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [  # kept from calling its maker
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    """Chromium under Playwright; skips where either is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not BROWSER:
        pytest.skip("no chromium here (apt install chromium, or set DSN_LITE_BROWSER)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=FLAGS, timeout=120_000)
        yield browser
        browser.close()


class Watched:
    """A page that notes `complaints` of its console and requests that would leave the machine, `outside`."""

    def __init__(self, browser, url: str, width: int = 1280, **options):
        self.context = browser.new_context(viewport={"width": width, "height": 844}, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(90_000)  # patience for a machine that does much else
        self.complaints: list[str] = []
        self.outside: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._listen)
        self.page.on("request", self._watch)
        self.page.goto(url)

    def _listen(self, message) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _watch(self, request) -> None:
        if not request.url.startswith(("file:", "data:", "blob:", "about:", "http://127.0.0.1:")):
            self.outside.append(request.url)


@pytest.fixture
def watch(browser):
    """Open pages: ``watch(url, width=390)`` gives a `Watched` page; all are closed after the test."""
    opened = []

    def open_page(url: str, width: int = 1280, **options) -> Watched:
        opened.append(Watched(browser, url, width, **options))
        return opened[-1]

    yield open_page
    for watched in opened:
        watched.context.close()


@pytest.fixture(scope="session")
def write_page():
    """Writer of a page (path, *widgets) with nothing but their state, their views and the loader of the book."""

    def write(path: Path, *widgets) -> Path:
        from ipywidgets.embed import embed_data

        data = embed_data(views=list(widgets), drop_defaults=False)
        state = json.dumps(data["manager_state"]).replace("</", "<\\/")
        views = "".join(
            f'<script type="application/vnd.jupyter.widget-view+json">{json.dumps(view)}</script>'
            for view in data["view_specs"]
        )
        loader = (Path(__file__).parent.parent / "book" / "assets" / "widget-loader.js").read_text()
        path.write_text(
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>page</title>'
            '<meta name="viewport" content="width=device-width">'
            f'<script type="application/vnd.jupyter.widget-state+json">{state}</script>'
            f"<script>{loader}</script></head><body>{views}</body></html>"
        )
        return path

    return write
