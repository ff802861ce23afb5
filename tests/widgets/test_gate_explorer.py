"""The gate explorer: what Python packs, and what a browser makes of it, without any book."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dsn_lite.audio import clips, noises
from dsn_lite.audio.levels import mix_at_snr
from dsn_lite.audio.spectral import FRAMES_PER_SECOND
from dsn_lite.errors import InputError
from dsn_lite.network.config import Config
from dsn_lite.network.macs import count
from dsn_lite.network.model import Network

anywidget = pytest.importorskip("anywidget", reason="anywidget is not installed")
from dsn_lite.widgets import gate_explorer  # noqa: E402
from dsn_lite.widgets.gate_explorer import GateExplorer, explore, frame_snr  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CLIPS = ("moon", "boat")
SECONDS = 1.5


@pytest.fixture(scope="module")
def network(random_network) -> Network:
    return random_network("tiny", seed=3)


@pytest.fixture(scope="module")
def material(network):
    waves = {name: clips.load(name)[8000 : 8000 + round(SECONDS * 16000)] for name in CLIPS}
    noise = noises.synthesise("rain", SECONDS, seed=1)
    return {"clips": waves, "noise": noise, "snrs": [0, 12], "budgets": [0.4, None]}


@pytest.fixture(scope="module")
def explorer(network, material) -> GateExplorer:
    return GateExplorer.from_network(network, **material)


def part(explorer: GateExplorer, place: list[int]) -> bytes:
    return explorer.data[place[0] : place[0] + place[1]]


# -------------------------------------------------------------------------------------------------------------- Python
def test_frame_snr_follows_the_levels():
    speech, noise = np.full(32000, 0.1, np.float32), np.full(32000, 0.1, np.float32)
    noise[16000:] /= 10
    snr = frame_snr(speech, noise)
    assert snr.shape == (126,)
    np.testing.assert_allclose(snr[[10, 100]], [0, 20], atol=1e-3)
    assert frame_snr(0 * speech, noise).tolist() == [-40] * 126


def test_points_are_what_the_network_computes(network, material, explorer):
    scenes = explore(network, **material)
    assert [(scene.clip, scene.snr) for scene in scenes] == [(c, s) for c in CLIPS for s in (0, 12)]
    counted = count(network)
    for scene in scenes:
        names = [point.name for point in scene.points]
        assert names[0] == "all closed" and names[-1] == "all open" and {"budget 0.4", "as trained"} < set(names)
        assert np.all(np.diff([point.mmacs_per_second for point in scene.points]) >= 0)
        np.testing.assert_array_equal(
            scene.noisy, mix_at_snr(material["clips"][scene.clip], material["noise"], scene.snr)
        )
        margins = network.margins(scene.noisy)
        for point in scene.points:
            np.testing.assert_array_equal(point.gates, margins + np.float32(point.shift) > 0)
            direct = network.enhance(scene.noisy, 16000, policy=point.gates)
            np.testing.assert_allclose(point.wave, direct.wave, atol=1e-6)
            costs = counted.closed + point.gates @ counted.gate_macs * FRAMES_PER_SECOND / 1e6
            assert costs.mean() == pytest.approx(point.mmacs_per_second)


def test_packed_is_what_was_computed(network, material, explorer):
    scenes, names = explore(network, **material), network.gate_names
    gain = None
    for scene, packed in zip(scenes, explorer.scenes, strict=True):
        frames, lanes = scene.margins.shape
        assert packed["frames"] == frames and packed["samples"] == len(scene.clean)
        sounds = [(scene.clean, packed["clean_at"]), (scene.noisy, packed["noisy_at"])]
        sounds += [(p.wave, q["sound_at"]) for p, q in zip(scene.points, packed["points"], strict=True)]
        for wave, place in sounds:
            decoded, rate = soundfile.read(io.BytesIO(part(explorer, place)), dtype="float32")
            assert rate == 16000 and len(decoded) == len(wave)
            gain = gain or float(decoded @ wave / (wave @ wave))  # one for all
            np.testing.assert_allclose(decoded, gain * wave, atol=2**-12)
        np.testing.assert_allclose(
            np.frombuffer(part(explorer, packed["snr_at"]), "<f4"),
            frame_snr(scene.clean, scene.noisy - scene.clean),
        )
        margins = np.frombuffer(part(explorer, packed["margins_at"]), "<f4").reshape(frames, lanes)
        np.testing.assert_array_equal(margins, scene.margins)
        for point, packed_point in zip(scene.points, packed["points"], strict=True):
            bits = np.frombuffer(part(explorer, packed_point["gates_at"]), np.uint8)
            unpacked = np.unpackbits(bits, bitorder="little")[: frames * lanes].reshape(frames, lanes)
            np.testing.assert_array_equal(unpacked, point.gates)
            assert packed_point["si_sdr"] == point.si_sdr
    assert [gate["name"] for gate in explorer.gates] == names


def test_clean_speech_is_packed_once_a_clip(explorer):
    places = {scene["clip"]: tuple(scene["clean_at"]) for scene in explorer.scenes}
    assert len(set(places.values())) == len(CLIPS)
    assert all(tuple(scene["clean_at"]) == places[scene["clip"]] for scene in explorer.scenes)


def test_state_is_plain_json_and_small(explorer):
    state = {name: explorer.get_state()[name] for name in ("title", "gates", "levels", "scenes")}
    json.dumps(state, allow_nan=False)  # Infinity is not JSON
    sounds = len(CLIPS) + 2 * len(CLIPS) * (1 + 4)
    assert len(explorer.data) < sounds * SECONDS * 24_000


def test_needs_gates_and_a_scene(network, material):
    static = Network(Config.preset("tiny").static()).eval()
    with pytest.raises(InputError, match="no gates"):
        GateExplorer.from_network(static, **material)
    with pytest.raises(InputError, match="no scene"):
        GateExplorer([], network)


def test_bundle_has_a_picture_for_print(explorer):
    data, _ = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "GateExplorer" in data["text/plain"] and "object at 0x" not in data["text/plain"]
    assert explorer.picture().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["gate_explorer.js", "gate_explorer.css"])
def test_front_end_fetches_nothing(name):
    text = (Path(gate_explorer.__file__).parent / name).read_text()
    for word in ("http:", "https:", "//cdn", "import ", "import(", "fetch(", "url(", "@import"):
        assert word not in text


# ------------------------------------------------------------------------------------------------------------- browser
@pytest.fixture(scope="module")
def page_file(explorer, tmp_path_factory, write_page) -> Path:
    """A page with nothing but the state, the view and the loader, as the book's pages have them."""
    return write_page(tmp_path_factory.mktemp("page") / "page.html", explorer)


@pytest.fixture
def shown(watch, page_file):
    """The page, once its sounds are decoded."""
    watched = watch(page_file.as_uri())
    watched.page.wait_for_selector(".dsn-gates[data-state=ready]")
    yield watched.page
    assert watched.complaints == [] and watched.outside == []


def pixels(page) -> str:
    return page.evaluate("document.querySelector('.dsn-base').toDataURL()")


def head(page) -> float:
    return float(page.get_attribute(".dsn-plot", "aria-valuenow"))


def place(page, lane: int, share: float) -> tuple[float, float]:
    """Where lane `lane` is at `share` of the clip, in the desktop layout of gate_explorer.js."""
    box = page.locator(".dsn-plot").bounding_box()
    top = 4 + 2 * (96 + 8) + 48 + 8
    return box["x"] + 128 + share * (box["width"] - 128 - 44), box["y"] + top + 16 * (lane + 0.5)


def test_draws_and_switches(shown):
    pictures = {}
    for mode in ("dynamic", "noisy", "all open", "all closed", "clean"):
        shown.get_by_text(mode, exact=True).click()
        pictures[mode] = pixels(shown)
    assert len(set(pictures.values())) == 5
    assert shown.get_attribute(".dsn-gates", "data-mode") == "clean"
    for key, mode in zip("12345", ("noisy", "dynamic", "open", "closed", "clean"), strict=True):
        shown.keyboard.press(key)
        assert shown.get_attribute(".dsn-gates", "data-mode") == mode


def test_plays_and_keeps_its_place_when_switched(shown, explorer):
    shown.click(".dsn-play")
    shown.wait_for_function("Number(document.querySelector('.dsn-plot').ariaValueNow) > 0.1")
    shown.keyboard.press("4")
    assert shown.get_attribute(".dsn-gates", "data-playing") == "true"
    before = head(shown)
    shown.wait_for_function(
        "before => Number(document.querySelector('.dsn-plot').ariaValueNow) !== before", arg=before
    )
    shown.click(".dsn-play")
    assert shown.get_attribute(".dsn-gates", "data-playing") == "false"
    stopped = head(shown)
    shown.wait_for_timeout(200)
    assert head(shown) == stopped <= SECONDS


def test_slider_and_lists_choose(shown, explorer):
    scene = explorer.scenes[0]
    words = lambda: shown.locator(".dsn-summary").text_content()
    slider = shown.locator(".dsn-budget input")
    for i, point in enumerate(scene["points"]):
        slider.fill(str(i))
        assert point["name"] in words() and f"mean {point['mmacs']:.1f} of" in words()
    assert shown.get_attribute(".dsn-gates", "data-mode") == "dynamic"
    before = pixels(shown)
    shown.locator("select").nth(1).select_option("12")
    shown.wait_for_selector(".dsn-gates[data-state=ready]")
    assert pixels(shown) != before
    shown.locator("select").nth(0).select_option("1")
    shown.wait_for_selector(".dsn-gates[data-state=ready]")
    last = explorer.scenes[3]["points"][-1]
    assert f"{last['si_sdr']:.1f} dB".replace("-", "\u2212") in words()


def test_pointer_names_gate_frame_and_margin(shown, explorer):
    shown.locator(".dsn-budget input").fill("1")  # a point at which the policy decides
    frames, scene = explorer.scenes[0]["frames"], explorer.scenes[0]
    point = scene["points"][1]
    bits = np.unpackbits(np.frombuffer(part(explorer, point["gates_at"]), np.uint8), bitorder="little")
    margins = np.frombuffer(part(explorer, scene["margins_at"]), "<f4").reshape(frames, -1)
    for lane, share in ((0, 0.3), (4, 0.5), (7, 0.8)):
        shown.mouse.move(*place(shown, lane, share))
        words = shown.locator(".dsn-readout").text_content()
        frame = int(words.split("frame ")[1].split(" ")[0])
        assert abs(frame - share * frames) < 2
        assert words.startswith(explorer.gates[lane]["name"])
        assert ("open" if bits[frame * len(explorer.gates) + lane] else "closed") == words.split(": ")[1].split(",")[0]
        margin = margins[frame, lane] + point["shift"]
        assert f"margin {margin:.3f}".replace("-", "−") in words


def test_click_and_keys_move_the_play_head(shown, explorer):
    shown.mouse.click(*place(shown, 2, 0.5))
    assert head(shown) == pytest.approx(SECONDS / 2, abs=0.03)
    shown.focus(".dsn-plot")
    at = head(shown)
    shown.keyboard.press("ArrowRight")
    assert head(shown) == pytest.approx(at + 0.016, abs=0.006)
    shown.keyboard.press("Shift+ArrowLeft")
    assert head(shown) == pytest.approx(at + 0.016 - 0.25, abs=0.006)
    shown.keyboard.press("Home")
    assert head(shown) == 0
    shown.keyboard.press("ArrowDown")
    shown.keyboard.press("ArrowDown")
    assert shown.locator(".dsn-readout").text_content().startswith(explorer.gates[1]["name"])
    shown.keyboard.press(" ")
    assert shown.get_attribute(".dsn-gates", "data-playing") == "true"


def test_words_say_the_same(shown, explorer):
    assert shown.locator(".dsn-gates").get_attribute("aria-label").startswith("Gate explorer")
    assert shown.locator(".dsn-gates").get_attribute("data-lm-suppress-shortcuts") == "true"
    assert "gates open" in shown.get_attribute(".dsn-plot", "aria-valuetext")
    rows = shown.locator(".dsn-words tbody tr")
    assert rows.count() == len(explorer.gates)
    assert shown.locator("input[type=radio]").count() == 5
    assert shown.get_attribute(".dsn-meter", "aria-valuenow") is not None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_and_themes(watch, page_file, scheme):
    watched = watch(
        page_file.as_uri(), 320, color_scheme=scheme, has_touch=True, reduced_motion="reduce", device_scale_factor=2
    )
    page = watched.page
    page.wait_for_selector(".dsn-gates[data-state=ready]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    paper = page.evaluate("getComputedStyle(document.querySelector('.dsn-gates')).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 200) == (scheme == "dark")
    before = pixels(page)
    other = "light" if scheme == "dark" else "dark"
    page.evaluate("theme => { document.documentElement.dataset.theme = theme }", other)  # the page's own switch
    page.wait_for_timeout(100)
    assert pixels(page) != before
    box = page.locator(".dsn-plot").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + 50)
    assert 0.3 < head(page) < SECONDS
    page.locator(".dsn-play").tap()
    page.wait_for_function("Number(document.querySelector('.dsn-plot').ariaValueNow) > 1.0")
    assert watched.complaints == []


def test_sounds_that_cannot_be_decoded_leave_the_gates(watch, page_file, tmp_path):
    deaf = tmp_path / "deaf.html"
    deaf.write_text(page_file.read_text().replace("<head>", "<head><script>delete window.OfflineAudioContext</script>"))
    page = watch(deaf.as_uri()).page
    page.wait_for_selector(".dsn-gates[data-state=silent]")
    assert "cannot decode" in page.locator(".dsn-readout").text_content()
    assert page.locator(".dsn-play").is_disabled()


def test_damaged_module_is_said_on_the_page(watch, page_file, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(page_file.read_text().replace("export default { render };", "export default {"))
    page = watch(broken.as_uri()).page
    page.get_by_text("could not be shown").wait_for()
