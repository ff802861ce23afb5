"""What several tests need."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import networks
import numpy as np
import pytest
import soundfile
import torch

from dsn_lite.network.config import Config
from dsn_lite.network.model import Network


def _network(preset: str = "tiny", parts: str = "gated", seed: int = 0) -> Network:
    config = Config.preset(preset)
    config = {"gated": config, "always": config.static(), "absent": config.static_only()}[parts]
    return networks.random_network(config, seed)


@pytest.fixture(scope="session")
def random_network():
    """Maker of networks (preset, parts, seed) by :func:`networks.random_network`; parts are gated, always or absent."""
    return _network


@pytest.fixture(scope="session")
def random_separator():
    """Maker of small separators (seed) with random weights, whose gating module takes several widths."""
    from dsn_lite.slimmable.separator import Separator, SeparatorConfig

    config = SeparatorConfig(channels=12, hidden=16, across=6, blocks=2, chunk=4, gating_channels=6, gating_hidden=5)

    def make(seed: int = 0) -> Separator:
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            network = Separator(config).eval()
            for parameter in network.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
            network.gating.logits.weight.mul_(20)
            logits = network(0.1 * torch.randn(1, 48_000) * torch.linspace(0, 30, 48_000).sin(), ()).logits
            network.gating.logits.bias.sub_(logits.mean((0, 1)))
        return network

    return make


@pytest.fixture(scope="session")
def random_demucs():
    """Maker of small slimmable networks (seed) whose every part shows in the output, and whose router takes all widths."""
    from dsn_lite.slimmable.demucs.network import DemucsConfig, SlimDemucs

    config = DemucsConfig(channels=(8, 8, 12, 16), router_bands=6, router_width=6)

    def make(seed: int = 0) -> SlimDemucs:
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            network = SlimDemucs(config).eval()
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            network.router.logits.weight.mul_(30)
            logits = network.route(0.1 * torch.randn(1, 96_000) * torch.linspace(0, 60, 96_000).sin(), 0.25)
            network.router.logits.bias.sub_(logits.mean((0, 1)))
        return network

    return make


@pytest.fixture(scope="session")
def few_pairs(tmp_path_factory):
    """A folder of clean and noisy pairs: four speakers, s0 to s3, with two utterances each; t2 and t3 are by s1."""
    folder, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    (folder / "clean").mkdir()
    (folder / "noisy").mkdir()
    lines = ["file,speaker,noise,snr_db,seconds"]
    for number in range(8):
        samples = 16_000 + 800 * number
        wave = rng.standard_normal(samples) * 0.1 * (np.sin(np.arange(samples) / 2000) > 0)
        soundfile.write(folder / "clean" / f"t{number}.flac", wave, 16_000)
        soundfile.write(folder / "noisy" / f"t{number}.flac", wave + 0.02 * rng.standard_normal(samples), 16_000)
        lines.append(f"t{number}.flac,s{number // 2},hiss,5,{samples / 16_000}")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def talkers(tmp_path_factory):
    """A manifest of eight talkers, two of them to validate, and three noises; and a cache with a quick bank of rooms."""
    from dsn_lite.audio import clips, noises
    from dsn_lite.data import Corpus
    from dsn_lite.data import rirs as rooms
    from dsn_lite.data.manifest import Entry, write_manifest

    folder = tmp_path_factory.mktemp("talkers")
    entries = []

    def add(name: str, wave: np.ndarray, kind: str, split: str) -> None:
        soundfile.write(folder / f"{name}.wav", wave, 16_000)
        entries.append(Entry(str(folder / f"{name}.wav"), kind, split, kind, name, "", len(wave) / 16e3, "CC0"))

    for i, name in enumerate(clips.names()[:8]):
        add(name, clips.load(name), "speech", "valid" if i > 5 else "train")
    for i, name in enumerate(("fan", "hum", "traffic")):
        add(f"noise-{name}", noises.synthesise(name, 4, seed=i), "noise", "valid" if i > 1 else "train")
    write_manifest(entries, folder / "manifest.csv")
    cache = folder / "cache"
    cache.mkdir()
    decay = np.random.default_rng(0).normal(size=(rooms.ROOMS, rooms.RESPONSES, 800)) * np.exp(-np.arange(800) / 100) / 10
    decay[..., 0] = 1
    for method in ("image-source", "decay"):
        np.savez(cache / f"rooms-{method}-1-{rooms.SEED}-{rooms.ROOMS}.npz", responses=decay.astype(np.float32))
    Corpus.open(folder / "manifest.csv", cache)
    return folder / "manifest.csv", {**os.environ, "DSN_LITE_CACHE": str(cache), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def two_talkers(talkers):
    """The corpus of `talkers`."""
    from dsn_lite.data import Corpus

    return Corpus.open(talkers[0], talkers[1]["DSN_LITE_CACHE"])


# -------------------------------------------------------------------------------- a browser, for the book and the widgets
BROWSER = os.environ.get("DSN_LITE_BROWSER") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [  # kept from calling its maker
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def launch():
    """Launcher of Chromium under Playwright, with flags of its own; skips where either is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not BROWSER:
        pytest.skip("no chromium here (apt install chromium, or set DSN_LITE_BROWSER)")
    with playwright.sync_playwright() as driver, contextlib.ExitStack() as opened:

        def start(*flags: str):
            browser = driver.chromium.launch(executable_path=BROWSER, args=[*FLAGS, *flags], timeout=120_000)
            opened.callback(browser.close)
            return browser

        yield start


@pytest.fixture(scope="module")
def browser(launch):
    """Chromium as it is."""
    return launch()


class Watched:
    """A page that notes `complaints` of its console and requests that would leave the machine, `outside`."""

    def __init__(self, browser, url: str, width: int = 1280, **options):
        self.context = browser.new_context(viewport={"width": width, "height": 844}, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(90_000)  # patience for a machine that does much else
        self.complaints: list[str] = []
        self.outside: list[str] = []
        self.asked: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._listen)
        self.page.on("request", self._watch)
        self.page.goto(url)

    def _listen(self, message) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _watch(self, request) -> None:
        self.asked.append(request.url)
        if not request.url.startswith(("file:", "data:", "blob:", "about:", "http://127.0.0.1:")):
            self.outside.append(request.url)


@pytest.fixture
def watch(browser):
    """Open pages: ``watch(url, width=390)`` gives a `Watched` page, `using` another browser; closed after the test."""
    opened = []

    def open_page(url: str, width: int = 1280, using=browser, **options) -> Watched:
        opened.append(Watched(using, url, width, **options))
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
