"""The mixer: what Python packs, and what a browser makes of it, without any book."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dsn_lite.audio import clips, noises
from dsn_lite.audio.levels import mix_at_snr
from dsn_lite.errors import InputError
from dsn_lite.evaluation.metrics import si_sdr
from dsn_lite.network.config import Config
from dsn_lite.network.macs import count
from dsn_lite.network.model import Network

anywidget = pytest.importorskip("anywidget", reason="anywidget is not installed")
from dsn_lite.widgets import mixer as module  # noqa: E402
from dsn_lite.widgets.mixer import Mixer, sweep  # noqa: E402

SECONDS = 1.5
SNRS = (-10, -5, 0, 5, 10, 15, 20)
ENHANCED = (-10, 0, 15)


@pytest.fixture(scope="module")
def network(random_network) -> Network:
    return random_network("tiny", seed=3)


@pytest.fixture(scope="module")
def sounds():
    clean = clips.load("moon")[8000 : 8000 + round(SECONDS * 16000)]
    return clean, noises.synthesise("rain", SECONDS, seed=1)


@pytest.fixture(scope="module")
def mixer(network, sounds) -> Mixer:
    return Mixer.from_network(network, *sounds, snrs=SNRS, enhanced=ENHANCED)


def part(mixer: Mixer, place: list[int]) -> bytes:
    return mixer.data[place[0] : place[0] + place[1]]


def sound(mixer: Mixer, place: list[int]) -> np.ndarray:
    wave, rate = soundfile.read(io.BytesIO(part(mixer, place)))
    assert rate == 16000
    return wave


# -------------------------------------------------------------------------------------------------------------- Python
def test_steps_are_what_the_network_computes(network, sounds):
    clean, noise = sounds
    counted = count(network)
    steps = sweep(network, clean, noise, reversed(SNRS), ENHANCED)
    assert [step.snr for step in steps] == list(SNRS)
    assert len({step.gates.tobytes() for step in steps}) > 1  # the network notices the noise
    for step in steps:
        mixture = mix_at_snr(clean, noise, step.snr)
        result = network.enhance(mixture, 16000)
        np.testing.assert_array_equal(step.gates, result.gates)
        assert step.activation == pytest.approx(result.activation)
        assert step.mmacs_per_second == pytest.approx(result.mmacs_per_second)
        share = (step.mmacs_per_second - counted.closed) / (counted.open - counted.closed)
        assert step.activation == pytest.approx(share)  # one curve, two axes
        if step.snr in ENHANCED:
            np.testing.assert_array_equal(step.wave, result.wave)
            assert step.si_sdr == (si_sdr(clean, mixture), si_sdr(clean, result.wave))
        else:
            assert step.wave is None and step.si_sdr is None


def test_packed_sounds_mix_to_what_mix_at_snr_makes(network, sounds, mixer):
    clean, noise = (sound(mixer, mixer.sounds[name]) for name in ("clean_at", "noise_at"))
    assert len(clean) == len(noise) == mixer.sounds["samples"] == len(sounds[0])
    gain = float(clean @ sounds[0] / (sounds[0] @ sounds[0]))
    peaks = [np.abs(sound(mixer, step["sound_at"])).max() for step in mixer.steps if step["sound_at"]]
    for snr in SNRS:
        mixed = clean + 10 ** ((mixer.sounds["noise_db"] - snr) / 20) * noise
        expected = gain * mix_at_snr(*sounds, snr)
        assert si_sdr(expected, mixed) > 35
        peaks += [np.abs(mixed).max(), np.abs(mixed - clean).max()]
    assert max(peaks) == pytest.approx(0.95, abs=0.01)  # never beyond full scale, and not needlessly quiet
    for step, packed in zip(sweep(network, *sounds, SNRS, ENHANCED), mixer.steps, strict=True):
        assert (packed["snr"], packed["activation"]) == (step.snr, step.activation)
        bits = np.unpackbits(np.frombuffer(part(mixer, packed["gates_at"]), np.uint8), bitorder="little")
        np.testing.assert_array_equal(bits[: step.gates.size].reshape(step.gates.shape), step.gates)
        if step.wave is None:
            assert packed["sound_at"] is None
        else:
            np.testing.assert_allclose(sound(mixer, packed["sound_at"]), gain * step.wave, atol=2**-11)


def test_state_is_plain_json_and_light(mixer):
    state = {name: mixer.get_state()[name] for name in ("snr", "title", "gates", "levels", "steps", "sounds")}
    json.dumps(state, allow_nan=False)
    assert len(mixer.data) < (2 + len(ENHANCED)) * SECONDS * 24_000
    assert mixer.snr == 5  # the middle


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"snrs": [], "enhanced": []}, "no SNR"),
        ({"enhanced": [7]}, r"at \[7\] dB, which the slider does not have"),
        ({"snr": 3}, "cannot begin at 3 dB; choose one of -10, -5"),
    ],
)
def test_bad_settings_are_refused(network, sounds, change, message):
    with pytest.raises(InputError, match=message):
        Mixer.from_network(network, *sounds, **{"snrs": SNRS, "enhanced": ENHANCED} | change)


def test_needs_gates_steps_and_sound(network, sounds):
    with pytest.raises(InputError, match="no gates"):
        Mixer.from_network(Network(Config.preset("tiny").static()).eval(), *sounds)
    with pytest.raises(InputError, match="rising SNR"):
        Mixer(*sounds, [], network)
    with pytest.raises(InputError, match="silent"):
        Mixer.from_network(network, sounds[0], 0 * sounds[1], SNRS, ENHANCED)


def test_bundle_has_a_picture_for_print(mixer):
    data, _ = mixer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/plain"] == "Mixer(snr=5, 7 steps from -10 to 20 dB)"
    assert mixer.picture().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["mixer.js", "mixer.css", "shared.js", "shared.css"])
def test_front_end_fetches_nothing(name):
    text = (Path(module.__file__).parent / name).read_text()
    for word in ("http:", "https:", "//cdn", "import ", "import(", "fetch(", "url(", "@import"):
        assert word not in text


# ------------------------------------------------------------------------------------------------------------- browser
# Plays into memory instead of into the air, so that a test can listen.
EAR = """
window.ears = [];
window.AudioContext = class extends OfflineAudioContext {
  constructor() { super(1, 8000, 16000); window.ears.push(this); }
  resume() { return Promise.resolve(); }
  close() { return Promise.resolve(); }
};
window.listen = async () => Array.from((await window.ears.at(-1).startRendering()).getChannelData(0));
"""


@pytest.fixture(scope="module")
def page_file(mixer, write_page, tmp_path_factory) -> Path:
    return write_page(tmp_path_factory.mktemp("page") / "page.html", mixer)


@pytest.fixture
def shown(watch, page_file):
    """The page, once its sounds are decoded."""
    watched = watch(page_file.as_uri())
    watched.page.wait_for_selector(".dsn-mixer[data-state=ready]")
    yield watched.page
    assert watched.complaints == [] and watched.outside == []


def pixels(page, which="base") -> str:
    return page.evaluate(f"document.querySelector('.dsn-{which}').toDataURL()")


def mode(page, name: str) -> None:
    page.locator(".dsn-modes").get_by_text(name, exact=True).click()


def expect(page, mixer, snr, mode="mixture"):
    """The page must say what Python computed at this SNR."""
    (step,) = (step for step in mixer.steps if step["snr"] == snr)
    said = f"{snr} dB".replace("-", "\u2212")
    assert page.locator(".dsn-snr").text_content() == said
    assert float(page.get_attribute(".dsn-mixer", "data-snr")) == snr
    assert page.get_attribute(".dsn-mixer", "data-mode") == mode
    summary = page.locator(".dsn-summary").text_content()
    assert f"at {said}: activation {100 * step['activation']:.0f}\u202f%, mean {step['mmacs']:.1f} of" in summary
    if step["si_sdr"]:
        before, after = (f"{value:.1f}".replace("-", "\u2212") for value in step["si_sdr"])
        assert f"SI-SDR {before} \u2192 {after} dB" in summary
    current = page.locator(".dsn-words tr[aria-current]")
    assert current.locator("th").text_content() == said
    assert current.locator("td").nth(1).text_content() == f"{step['mmacs']:.1f}"
    y = float(page.get_attribute(".dsn-mixer", "data-marker").split(" ")[1])
    assert y == pytest.approx(150 - 34 - (150 - 10 - 34) * step["activation"], abs=0.1)


def test_slider_moves_everything(shown, mixer):
    slider = shown.get_by_role("slider", name="signal-to-noise ratio")
    expect(shown, mixer, 5)
    pictures, markers = set(), []
    for i, snr in enumerate(SNRS):
        slider.fill(str(i))
        expect(shown, mixer, snr)
        pictures.add((pixels(shown), pixels(shown, "chart")))
        markers.append(float(shown.get_attribute(".dsn-mixer", "data-marker").split(" ")[0]))
    assert len(pictures) == len(SNRS) and np.allclose(np.diff(markers, 2), 0, atol=0.3)
    rows = shown.locator(".dsn-words tbody tr")
    assert rows.count() == len(SNRS)
    assert "at 20 dB; now" in shown.get_attribute(".dsn-chart", "aria-label")


def test_switches_what_is_heard_and_seen(shown, mixer):
    pictures = {}
    for name in ("mixture", "speech", "noise"):
        mode(shown, name)
        pictures[name] = pixels(shown)
    assert len(set(pictures.values())) == 3
    shown.get_by_role("slider", name="signal-to-noise ratio").fill("0")
    mode(shown, "speech")
    for key, name in zip("1234", ("mixture", "enhanced", "clean", "noise"), strict=True):
        shown.keyboard.press(key)
        assert shown.get_attribute(".dsn-mixer", "data-mode") == name


def test_enhanced_sound_is_only_where_it_was_computed(shown, mixer):
    slider = shown.get_by_role("slider", name="signal-to-noise ratio")
    hint = shown.locator(".dsn-hint")
    assert hint.is_hidden()
    slider.fill("4")  # 10 dB
    mode(shown, "enhanced")
    expect(shown, mixer, 15, "enhanced")  # the nearest
    assert "\u221210, 0, 15 dB" in hint.text_content() and hint.is_visible()
    slider.focus()
    for key, snr in (("ArrowLeft", 0), ("ArrowLeft", -10), ("ArrowLeft", -10), ("ArrowRight", 0), ("End", 15)):
        shown.keyboard.press(key)
        expect(shown, mixer, snr, "enhanced")
    shown.keyboard.press("-")
    expect(shown, mixer, 0, "enhanced")
    mode(shown, "mixture")
    expect(shown, mixer, 0)
    shown.keyboard.press("+")
    expect(shown, mixer, 5)


def heard(watch, page_file, act) -> np.ndarray:
    """The first half second that is heard after `act(page)` and a press of the button."""
    path = page_file.with_name("ear.html")
    path.write_text(page_file.read_text().replace("<head>", f"<head><script>{EAR}</script>", 1))
    watched = watch(path.as_uri())
    watched.page.wait_for_selector(".dsn-mixer[data-state=ready]")
    act(watched.page)
    watched.page.click(".dsn-play")
    watched.page.wait_for_selector(".dsn-mixer[data-playing=true]")
    wave = np.array(watched.page.evaluate("listen()"))
    assert watched.complaints == []
    return wave


@pytest.mark.parametrize(
    ("snr", "name"), [(-10, "mixture"), (15, "mixture"), (0, "noise"), (5, "speech"), (15, "enhanced")]
)
def test_sound_is_that_of_python(watch, page_file, mixer, sounds, network, snr, name):
    def act(page):
        page.get_by_role("slider", name="signal-to-noise ratio").fill(str(SNRS.index(snr)))
        mode(page, name)

    wave = heard(watch, page_file, act)
    start = round(0.03 * 16000)  # the player takes a breath
    clean, noise = sounds
    mixture = mix_at_snr(clean, noise, snr)
    expected = {"mixture": mixture, "noise": mixture - clean, "speech": clean}.get(name)
    if expected is None:
        expected = network.enhance(mixture, 16000).wave
    assert np.abs(wave[: start - 1]).max() == 0
    assert si_sdr(expected[: 8000 - start], wave[start:]) > 30
    packed = sound(mixer, mixer.sounds["clean_at"])
    gain = float(packed @ clean / (clean @ clean))
    ratio = np.linalg.norm(wave[start:]) / np.linalg.norm(expected[: 8000 - start])
    assert ratio == pytest.approx(gain, rel=0.02)  # as loud as it should be beside the others


def test_plays_while_the_slider_moves(shown, mixer):
    shown.click(".dsn-play")
    now = "Number(document.querySelector('.dsn-plot').ariaValueNow)"
    shown.wait_for_function(f"{now} > 0.1")
    shown.get_by_role("slider", name="signal-to-noise ratio").fill("0")
    mode(shown, "enhanced")
    assert shown.get_attribute(".dsn-mixer", "data-playing") == "true"
    before = shown.evaluate(now)
    shown.wait_for_function(f"before => {now} !== before", arg=before)
    shown.click(".dsn-play")
    assert shown.get_attribute(".dsn-mixer", "data-playing") == "false"
    stopped = shown.evaluate(now)
    shown.wait_for_timeout(200)
    assert shown.evaluate(now) == stopped <= SECONDS


def test_pointer_reads_gates_and_turns_the_chart(shown, mixer):
    box = shown.locator(".dsn-plot").bounding_box()
    frames, step = mixer.sounds["frames"], next(step for step in mixer.steps if step["snr"] == 5)
    bits = np.unpackbits(np.frombuffer(part(mixer, step["gates_at"]), np.uint8), bitorder="little")
    gates = bits[: frames * len(mixer.gates)].reshape(frames, -1)
    for lane, share in ((0, 0.3), (4, 0.5), (7, 0.8)):
        x = box["x"] + 128 + share * (box["width"] - 128 - 44)
        shown.mouse.move(x, box["y"] + 4 + 140 + 8 + 12 * (lane + 0.5))
        words = shown.locator(".dsn-readout").text_content()
        frame = int(words.split("frame ")[1].split(" ")[0])
        assert abs(frame - share * frames) < 2 and words.startswith(mixer.gates[lane]["name"])
        assert ("open" if gates[frame, lane] else "closed") == words.split(": ")[1].split(" ")[0]
    chart = shown.locator(".dsn-chart").bounding_box()
    for share, snr in ((0.0, -10), (0.5, 5), (1.0, 20)):
        shown.mouse.click(chart["x"] + 44 + share * (chart["width"] - 44 - 52), chart["y"] + 60)
        expect(shown, mixer, snr)


def test_click_and_keys_move_the_play_head(shown):
    head = lambda: float(shown.get_attribute(".dsn-plot", "aria-valuenow"))
    box = shown.locator(".dsn-plot").bounding_box()
    shown.mouse.click(box["x"] + 128 + 0.5 * (box["width"] - 128 - 44), box["y"] + 50)
    assert head() == pytest.approx(SECONDS / 2, abs=0.03)
    shown.focus(".dsn-plot")
    at = head()
    shown.keyboard.press("ArrowRight")
    assert head() == pytest.approx(at + 0.016, abs=0.006)
    shown.keyboard.press("Shift+ArrowLeft")
    assert head() == pytest.approx(at + 0.016 - 0.25, abs=0.006)
    shown.keyboard.press("Home")
    assert head() == 0
    shown.keyboard.press(" ")
    assert shown.get_attribute(".dsn-mixer", "data-playing") == "true"


def test_words_say_the_same(shown):
    assert shown.get_attribute(".dsn-mixer", "aria-label").startswith("Mixer")
    assert shown.get_attribute(".dsn-mixer", "data-lm-suppress-shortcuts") == "true"  # JupyterLab keeps its hands off
    assert "gates open" in shown.get_attribute(".dsn-plot", "aria-valuetext")
    slider = shown.get_by_role("slider", name="signal-to-noise ratio")
    assert slider.get_attribute("aria-valuetext").startswith("5 dB, activation")
    assert shown.locator("input[type=radio]").count() == 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_and_themes(watch, page_file, mixer, scheme):
    watched = watch(
        page_file.as_uri(), 390, color_scheme=scheme, has_touch=True, reduced_motion="reduce", device_scale_factor=2
    )
    page = watched.page
    page.wait_for_selector(".dsn-mixer[data-state=ready]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    paper = page.evaluate("getComputedStyle(document.querySelector('.dsn-mixer')).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 200) == (scheme == "dark")
    before = pixels(page), pixels(page, "chart")
    other = "light" if scheme == "dark" else "dark"
    page.evaluate("theme => { document.documentElement.dataset.theme = theme }", other)  # the page's own switch
    page.wait_for_timeout(100)
    assert pixels(page) != before[0] and pixels(page, "chart") != before[1]
    for control in page.locator("button, .dsn-modes span").all():
        assert control.bounding_box()["height"] >= 30  # a finger finds it
    page.locator(".dsn-modes").get_by_text("enhanced").tap()
    page.locator(".dsn-chart").tap(position={"x": 46, "y": 60})
    expect(page, mixer, -10, "enhanced")
    page.locator(".dsn-play").tap()
    page.wait_for_function("Number(document.querySelector('.dsn-plot').ariaValueNow) > 0.5")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert watched.complaints == []


def test_sounds_that_cannot_be_decoded_leave_the_curve(watch, page_file, mixer):
    deaf = page_file.with_name("deaf.html")
    deaf.write_text(page_file.read_text().replace("<head>", "<head><script>delete window.OfflineAudioContext</script>"))
    page = watch(deaf.as_uri()).page
    page.wait_for_selector(".dsn-mixer[data-state=silent]")
    assert "cannot decode" in page.locator(".dsn-readout").text_content()
    assert page.locator(".dsn-play").is_disabled()
    page.get_by_role("slider", name="signal-to-noise ratio").fill("0")
    expect(page, mixer, -10)
    mode(page, "enhanced")
    expect(page, mixer, -10, "enhanced")


def test_settings_of_python_reach_the_page(watch, tmp_path, write_page, network, sounds):
    silent = Mixer.from_network(network, *sounds, snrs=[-3, 4], enhanced=[], snr=-3)
    two = write_page(tmp_path / "page.html", silent, Mixer.from_network(network, *sounds, snrs=[4], enhanced=[4]))
    watched = watch(two.as_uri())
    watched.page.wait_for_function("document.querySelectorAll('.dsn-mixer[data-state=ready]').length === 2")
    shown = {snr: watched.page.locator(f".dsn-mixer[data-snr='{snr}']") for snr in (-3, 4)}
    assert [shown[snr].locator("input[type=radio]").count() for snr in (-3, 4)] == [3, 4]
    shown[4].get_by_text("enhanced", exact=True).click()
    assert shown[-3].get_attribute("data-mode") == "mixture" and shown[4].get_attribute("data-mode") == "enhanced"
    assert shown[-3].locator("input[type=radio]:checked").count() == 1  # two on a page do not meddle
    assert watched.complaints == []
