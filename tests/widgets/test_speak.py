"""Speak to it, in a browser from disk: a microphone, a file, keys, a phone, refusals; and nothing leaves the page."""

import io

import numpy as np
import pytest
import soundfile
import torch

from dsn_lite.audio.spectral import SAMPLE_RATE, stft
from dsn_lite.errors import InputError
from dsn_lite.network.config import Config
from dsn_lite.network.macs import count

pytest.importorskip("anywidget", reason="anywidget is not installed")
from dsn_lite.widgets.speak import SpeakToIt, book_clips

SECONDS = 1.5


def sound(seconds: float = SECONDS, seed: int = 0) -> np.ndarray:
    """Noise that comes and goes, with a tone [samples]."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.random.default_rng(seed).standard_normal(len(time)) * 0.05 * (1 + np.sin(7 * time))
    return (noise + 0.1 * np.sin(2 * np.pi * 440 * time) * (np.sin(5 * time) > 0)).astype(np.float32)


@pytest.fixture(scope="module")
def network(random_enhancer):
    return random_enhancer(Config.preset("tiny"), seed=2)


@pytest.fixture(scope="module")
def widget(network):
    return SpeakToIt(network, {"one": sound(), "two": sound(1.0, 1)})


@pytest.fixture(scope="module")
def page_file(tmp_path_factory, widget, write_page):
    return write_page(tmp_path_factory.mktemp("speak") / "speak.html", widget)


@pytest.fixture
def shown(watch, page_file):
    """The page, ready; nothing may be complained of and no request may leave it."""
    watched = watch(page_file.as_uri())
    ready(watched.page)
    yield watched.page
    assert watched.complaints == [] and watched.outside == []
    # Not one file is asked for but the page itself: the rest is data: and blob:, made in it.
    assert {url for url in watched.asked if url.startswith(("file:", "http"))} == {page_file.as_uri()}


def ready(page) -> None:
    page.wait_for_selector(".dsn-speak[data-state=ready]")


def bill(page) -> str:
    return page.get_by_role("status").inner_text()


def spent(page) -> float:
    return float(bill(page).split("(")[1].split(" MMAC/s")[0])


def head(page) -> float:
    return float(page.get_attribute(".dsn-plot", "aria-valuenow"))


def pictures(page) -> str:
    return page.evaluate("document.querySelector('.dsn-plot canvas').toDataURL()")


# -------------------------------------------------------------------------------------------------------------- Python
def test_book_clips_are_noisy_in_parts():
    for name, wave in book_clips().items():
        power = np.square(wave[: len(wave) // 16 * 16]).reshape(16, -1).mean(1)
        assert 3 < len(wave) / SAMPLE_RATE < 6 and np.abs(wave).max() < 1, name
        assert power.max() > 20 * power.min()


def test_budget_is_calibrated_on_the_clips(network, widget):
    rows = widget.table["calibration"]
    activations = [row["activation"] for row in rows]
    assert activations == sorted(activations) and activations[0] < 0.1 and activations[-1] > 0.9
    row, costs = rows[len(rows) // 2], count(network).gate_macs
    with torch.inference_mode():
        spectra = [stft(torch.from_numpy(wave))[None] for wave in (sound(), sound(1.0, 1))]
        gates = [network(spectrum, shift=row["shift"]).gates[0] for spectrum in spectra]
    assert float((torch.cat(gates).numpy() @ costs).mean()) / costs.sum() == pytest.approx(row["activation"], abs=0.02)


def test_refuses_what_it_cannot_show(network):
    with pytest.raises(InputError, match="no clip"):
        SpeakToIt(network, {})
    with pytest.raises(InputError, match="table of layers"):
        SpeakToIt(torch.nn.Linear(1, 1), {"one": sound()})


def test_picture_for_print(widget):
    assert widget.picture().startswith(b"\x89PNG")


# ------------------------------------------------------------------------------------------------------------- browser
def test_untouched_it_has_computed_a_clip(shown, network, widget):
    """What the page says of the first clip is what PyTorch finds."""
    with torch.inference_mode():
        wave = torch.from_numpy(blocked(sound()))
        gates = network(stft(wave)[None]).gates[0].numpy()
    assert spent(shown) == pytest.approx(count(network).of_frames(gates).mean(), abs=0.06)
    assert f"of {round(count(network).open)} million multiplications a second" in bill(shown)
    assert shown.get_by_role("button", name="Record").is_visible()
    assert shown.locator("input[type=file]").count() == 1
    assert widget.hint in shown.locator(".dsn-speak").inner_text()


def blocked(wave: np.ndarray) -> np.ndarray:
    from dsn_lite.audio.offset import blocked_hops
    from dsn_lite.audio.spectral import frame_count

    return blocked_hops(wave, frame_count(len(wave))).reshape(-1)[: len(wave)]


def test_policies_and_budget_recompute(shown, network):
    counted = count(network)
    learned = spent(shown)
    for key, cost in (("4", counted.open), ("5", counted.closed), ("6", learned), ("3", learned)):
        shown.focus(".dsn-plot")
        before = pictures(shown)
        shown.keyboard.press(key)
        ready(shown)
        assert spent(shown) == pytest.approx(cost, abs=0.06)
        assert pictures(shown) != before
    slider, costs = shown.get_by_role("slider", name="budget"), []
    for value in ("0", "30", "60", "100"):
        slider.fill(value)
        ready(shown)
        costs.append(spent(shown))
    assert costs == sorted(costs)
    assert costs[0] == pytest.approx(counted.closed, abs=0.06) and costs[-1] == pytest.approx(counted.open, abs=0.06)


def test_a_file_is_chosen_and_the_result_downloaded(shown, network, tmp_path):
    wave, path = sound(2.0, 7), tmp_path / "mine.wav"
    soundfile.write(path, np.stack([wave, wave], 1), SAMPLE_RATE, subtype="FLOAT")
    shown.locator("input[type=file]").set_input_files(str(path))
    shown.wait_for_function("document.querySelector('.dsn-plot').ariaValueMax === '2.00'")
    ready(shown)
    with shown.expect_download() as download:
        shown.get_by_role("button", name="Download WAV").click()
    assert download.value.suggested_filename == "mine-enhanced.wav"
    found, rate = soundfile.read(str(download.value.path()), dtype="float32")
    expected = network.enhance(wave, SAMPLE_RATE).wave
    assert rate == SAMPLE_RATE and len(found) == len(wave)
    np.testing.assert_allclose(found, np.clip(expected, -1, 1), atol=1e-4 * max(1, np.abs(expected).max()))


DROP = """([bytes, name]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], name));
    document.querySelector(".dsn-speak").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
}"""


def test_a_file_is_dropped(shown):
    file = io.BytesIO()
    soundfile.write(file, sound(0.8, 3), 44_100, format="FLAC")
    shown.evaluate(DROP, [list(file.getvalue()), "dropped.flac"])
    shown.wait_for_function("Math.abs(document.querySelector('.dsn-plot').ariaValueMax - 0.8 * 16 / 44.1) < 0.02")
    ready(shown)
    for name, data in (("text.wav", list(b"no sound at all")), ("empty.wav", [])):
        shown.evaluate(DROP, [data, name])
        shown.get_by_role("alert").get_by_text(name).wait_for()
        assert "choose a WAV" in shown.get_by_role("alert").inner_text()
        assert "MMAC/s" in bill(shown)  # the clip of before is still there


def test_keyboard_alone(shown):
    reached = []
    for _ in range(14):
        shown.keyboard.press("Tab")
        name = "document.activeElement.textContent.trim() || document.activeElement.ariaLabel || ''"
        reached.append(shown.evaluate(name))
        style = "getComputedStyle({}).outlineStyle"
        focused = "document.activeElement.matches('input[type=radio], input[type=file]') ? " \
            "document.activeElement.nextElementSibling : document.activeElement"
        assert shown.evaluate(style.format(focused)) != "none"
        if shown.evaluate("document.activeElement.matches('.dsn-plot')"):
            break
    assert "Record" in reached[0] and any("play head" in name for name in reached)
    shown.keyboard.press("ArrowRight")
    shown.keyboard.press("ArrowRight")
    assert head(shown) == pytest.approx(0.5, abs=0.01)
    assert "0.5 of 1.5 seconds, enhanced" in shown.get_attribute(".dsn-plot", "aria-valuetext")
    shown.keyboard.press("a")
    shown.keyboard.press("ArrowRight")
    shown.keyboard.press("b")
    assert "repeats 0.5\u20130.8 s" in shown.locator(".dsn-loop").inner_text()
    shown.keyboard.press(" ")
    shown.wait_for_function("document.querySelector('.dsn-speak').dataset.playing === 'true'")
    for _ in range(8):
        shown.wait_for_timeout(60)
        assert 0.4 < head(shown) < 0.85
    shown.keyboard.press("1")
    assert "noisy" in shown.get_attribute(".dsn-plot", "aria-valuetext")
    assert shown.get_attribute(".dsn-speak", "data-playing") == "true"
    shown.keyboard.press(" ")
    shown.keyboard.press("c")
    assert shown.locator(".dsn-loop").is_hidden()
    shown.keyboard.press("End")
    assert head(shown) > SECONDS - 0.05


def test_switching_keeps_the_sample(shown):
    """Both sounds run from one start; a switch moves gains and starts nothing anew."""
    shown.evaluate("""() => { window.starts = 0; const start = AudioScheduledSourceNode.prototype.start;
        AudioBufferSourceNode.prototype.start = function (...all) { window.starts++; return start.apply(this, all); } }""")
    shown.get_by_role("button", name="play").click()
    shown.wait_for_function("Number(document.querySelector('.dsn-plot').ariaValueNow) > 0.1")
    started = shown.evaluate("starts")
    for key in "1212":
        shown.keyboard.press(key)
    assert shown.evaluate("starts") == started
    assert shown.get_attribute(".dsn-speak", "data-playing") == "true"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone(watch, page_file, scheme):
    watched = watch(page_file.as_uri(), 360, color_scheme=scheme, has_touch=True, reduced_motion="reduce")
    page = watched.page
    ready(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    paper = page.evaluate("getComputedStyle(document.querySelector('.dsn-speak')).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 200) == (scheme == "dark")
    page.locator(".dsn-play").tap()
    page.wait_for_function("Number(document.querySelector('.dsn-plot').ariaValueNow) > 0.3")
    assert watched.complaints == []


@pytest.mark.parametrize("name", ["static", "static-only"])
def test_a_network_without_gates(name, random_enhancer, watch, write_page, tmp_path):
    config = Config.preset("tiny")
    network = random_enhancer(config.static() if name == "static" else config.static_only(), seed=3)
    watched = watch(write_page(tmp_path / "static.html", SpeakToIt(network, {"one": sound()})).as_uri())
    ready(watched.page)
    assert spent(watched.page) == pytest.approx(count(network).open, abs=0.06)
    assert watched.page.get_by_role("slider", name="budget").count() == 0
    assert watched.complaints == []


# ---------------------------------------------------------------------------------------------------------- microphone
@pytest.fixture(scope="module")
def spoken(launch, tmp_path_factory):
    """A browser whose microphone plays a file, in a loop."""
    path = tmp_path_factory.mktemp("voice") / "voice.wav"
    soundfile.write(path, np.tile(np.repeat(sound(), 3), 3), 48_000, subtype="PCM_16")
    return launch("--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={path}")


def test_speaking_into_the_microphone(watch, spoken, page_file):
    watched = watch(page_file.as_uri(), using=spoken, permissions=["microphone"])
    page = watched.page
    ready(page)
    before = bill(page)
    page.get_by_role("button", name="Record").click()
    page.get_by_role("status").get_by_text("Recording").wait_for()
    page.wait_for_timeout(1200)
    page.get_by_role("button", name="Stop").click()
    ready(page)
    assert 0.9 < float(page.get_attribute(".dsn-plot", "aria-valuemax")) <= 15.1
    assert "MMAC/s" in bill(page) and bill(page) != before
    assert page.get_by_role("button", name="Record").is_visible()
    assert watched.complaints == [] and watched.outside == []


def test_live_behind_headphones(watch, spoken, page_file):
    watched = watch(page_file.as_uri(), using=spoken, permissions=["microphone"])
    page = watched.page
    ready(page)
    assert page.get_by_role("button", name="Live").is_disabled()
    page.get_by_label("I wear headphones").check()
    page.get_by_role("button", name="Live").click()
    page.wait_for_selector(".dsn-speak[data-state=live]")
    page.wait_for_function("document.querySelector('.dsn-meter').ariaValueNow > 0 && "
        "document.querySelector('[role=status]').textContent.startsWith('Live')")
    drawn = pictures(page)
    page.wait_for_function("before => document.querySelector('.dsn-plot canvas').toDataURL() !== before", arg=drawn)
    assert page.get_attribute(".dsn-speak", "data-underruns") is not None
    page.get_by_label("I wear headphones").uncheck()  # ends it
    ready(page)
    assert watched.complaints == [] and watched.outside == []


def test_refusals_are_one_sentence_with_the_way_out(watch, page_file):
    watched = watch(page_file.as_uri())  # headless, and nothing was granted
    page = watched.page
    ready(page)
    page.get_by_role("button", name="Record").click()
    page.get_by_role("alert").get_by_text("choose a file").wait_for()
    assert page.get_attribute(".dsn-speak", "data-state") == "ready"
    page.evaluate("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    page.get_by_role("button", name="Record").click()
    page.get_by_role("alert").get_by_text("gives this page no microphone").wait_for()
