"""The Gumbel playground: what Python computes, and what a browser makes of it, without any book."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import traitlets

from dsn_lite.errors import InputError
from dsn_lite.network import gates

anywidget = pytest.importorskip("anywidget", reason="anywidget is not installed")
from dsn_lite.widgets import gumbel_playground  # noqa: E402
from dsn_lite.widgets.gumbel_playground import (  # noqa: E402
    BINS,
    LIMIT,
    TEMPERATURES,
    GumbelPlayground,
    expected_histogram,
    gumbel_draws,
    soft_gate,
)

SHOWN = 40  # in gumbel_playground.js


# -------------------------------------------------------------------------------------------------------------- Python
def test_the_draws_are_gumbel_and_repeat():
    noise = gumbel_draws(seed=5, draws=20_000)
    assert np.isfinite(noise).all()
    assert noise.mean(0) == pytest.approx([0.5772, 0.5772], abs=0.04)
    assert noise.var(0) == pytest.approx([math.pi**2 / 6] * 2, abs=0.08)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.03
    np.testing.assert_array_equal(noise[:50], gumbel_draws(5, 50))
    assert not np.array_equal(noise[:50], gumbel_draws(6, 50))


def test_the_generator_is_mulberry32():
    uniform = np.exp(-np.exp(-gumbel_draws(1, 2).ravel()))
    # of the well-known script `mulberry32(1)`
    np.testing.assert_allclose(uniform, [0.62707394, 0.00273572, 0.52744703, 0.98105097], atol=1e-7)


@pytest.mark.parametrize("difference", [-4.0, -0.7, 0.0, 3.0])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_soft_values_are_those_of_the_package(difference, temperature):
    noise = gumbel_draws(2, 200)
    logits = torch.tensor([0.3, 0.3 + difference], dtype=torch.float64).expand(200, 2).clone().requires_grad_()
    soft = soft_gate(noise, difference, temperature)
    hard = gates.sample(logits, temperature, torch.from_numpy(noise))
    np.testing.assert_array_equal(hard.detach().numpy(), soft > 0.5)
    hard.sum().backward()
    np.testing.assert_allclose(logits.grad[:, gates.OPEN], soft * (1 - soft) / temperature, atol=1e-12)


@pytest.mark.parametrize(("difference", "temperature"), [(0.0, 1.0), (1.0, 0.3), (-2.0, 2.0), (0.5, 5.0)])
def test_the_expected_histogram_is_what_many_draws_give(difference, temperature):
    expected = expected_histogram(difference, temperature)
    assert expected.shape == (BINS,) and expected.sum() == pytest.approx(1)
    assert expected[BINS // 2 :].sum() == pytest.approx(1 / (1 + math.exp(-difference)))  # the probability of opening
    soft = soft_gate(gumbel_draws(3, 20_000), difference, temperature)
    counted = np.histogram(soft, np.linspace(0, 1, BINS + 1))[0] / len(soft)
    np.testing.assert_allclose(counted, expected, atol=4 * math.sqrt(0.25 / len(soft)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": 0}, "temperature is 0; it must lie between 0.1 and 5"),
        ({"difference": 9}, "difference is 9"),
        ({"difference": math.nan}, "difference is nan"),
        ({"draws": LIMIT + 1}, "draws is 2001"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_settings_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        GumbelPlayground(**wrong)


def test_settings_are_plain_and_can_be_changed():
    widget = GumbelPlayground(difference=-1, temperature=0.5, noise=False, seed=7, draws=3)
    state = {
        name: widget.get_state()[name] for name in ("difference", "temperature", "noise", "seed", "draws", "ranges")
    }
    assert json.loads(json.dumps(state, allow_nan=False)) == state
    widget.difference = 2
    assert widget.difference == 2.0
    with pytest.raises(traitlets.TraitError):
        widget.temperature = "warm"


@pytest.mark.parametrize("settings", [{}, {"noise": False}, {"draws": 0}, {"temperature": 0.1, "difference": -4}])
def test_bundle_has_a_picture_for_print(settings):
    widget = GumbelPlayground(**settings)
    data, _ = widget._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "object at 0x" not in data["text/plain"]
    assert widget.picture().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["gumbel_playground.js", "gumbel_playground.css"])
def test_front_end_fetches_nothing(name):
    text = (Path(gumbel_playground.__file__).parent / name).read_text()
    for word in ("http:", "https:", "//cdn", "import ", "import(", "fetch(", "url(", "@import"):
        assert word not in text


# ------------------------------------------------------------------------------------------------------------- browser
@pytest.fixture(scope="module")
def page_file(tmp_path_factory, write_page) -> Path:
    return write_page(tmp_path_factory.mktemp("page") / "page.html", GumbelPlayground())


@pytest.fixture
def shown(watch, page_file):
    watched = watch(page_file.as_uri())
    watched.page.wait_for_selector(".dsn-gumbel")
    yield watched.page
    assert watched.complaints == [] and watched.outside == []


def words(page) -> dict[str, str]:
    """The table under the picture."""
    rows = page.locator(".dsn-words tbody tr").all()
    return {row.locator("th").text_content(): row.locator("td").text_content() for row in rows}


def value(text: str) -> float:
    return float(text.replace("\u2212", "-").replace("\u202f%", ""))


def slide(page, label: str, position: float) -> None:
    page.get_by_role("slider", name=label).fill(str(position))


def expect(page, difference, temperature, draws, seed=1, noise=True):
    """The page must say what Python computes from the same noise."""
    drawn = gumbel_draws(seed, draws) * noise
    soft = soft_gate(drawn, difference, temperature)
    said = words(page)
    assert said["draws"] == str(draws)
    assert value(said["open in"]) == pytest.approx(100 * (soft > 0.5).mean(), abs=0.051)
    probability = 1 / (1 + math.exp(-difference)) if noise else float(difference > 0)
    assert value(said["probability of opening"]) == pytest.approx(100 * probability, abs=0.051)
    assert value(said["mean soft value"]) == pytest.approx(soft.mean(), abs=6e-4)
    gradient = (soft * (1 - soft) / temperature).mean()
    assert value(said["mean gradient of the soft gate"]) == pytest.approx(gradient, abs=6e-4)
    slope = probability * (1 - probability)
    assert value(said["slope of the probability"]) == pytest.approx(slope, abs=6e-4)
    bars = page.eval_on_selector_all(".dsn-column", "bars => bars.map(bar => Number(bar.getAttribute('height')))")
    counted = np.histogram(soft, np.linspace(0, 1, BINS + 1))[0]
    np.testing.assert_allclose(np.array(bars) / sum(bars), counted / counted.sum(), atol=1e-6)
    dots = page.locator(".dsn-draws .dsn-hard-dot")
    kinds = ["dsn-is-open" in dot for dot in dots.evaluate_all("dots => dots.map(dot => dot.getAttribute('class'))")]
    assert kinds == (soft[-SHOWN:] > 0.5).tolist()
    assert value(page.get_attribute(".dsn-meter", "aria-valuenow")) == pytest.approx(
        100 * (soft > 0.5).mean(), abs=0.051
    )


def test_draws_what_python_draws(shown):
    expect(shown, 1.0, 1.0, 100)
    shown.get_by_role("button", name="draw", exact=True).click()
    expect(shown, 1.0, 1.0, 101)
    shown.get_by_role("button", name="draw 100").click()
    expect(shown, 1.0, 1.0, 201)
    assert "Draw 201:" in shown.locator(".dsn-readout").text_content()


def test_sliders_move_the_draws_that_are_there(shown):
    slide(shown, "logit difference", -2)
    expect(shown, -2.0, 1.0, 100)
    slide(shown, "temperature", 0)
    expect(shown, -2.0, 0.1, 100)
    slide(shown, "temperature", len(TEMPERATURES) - 1)
    expect(shown, -2.0, 5.0, 100)
    assert "opens with probability 0.12" in shown.get_by_role("slider", name="logit difference").get_attribute(
        "aria-valuetext"
    )
    assert shown.get_by_role("slider", name="temperature").get_attribute("aria-valuetext") == "5.00"


def test_arrow_keys_walk_over_the_whole_range(shown):
    for name, steps, end in (("temperature", len(TEMPERATURES), "5.00"), ("logit difference", 80, "4.0")):
        slider = shown.get_by_role("slider", name=name)
        slider.press("Home")
        seen = []
        for _ in range(steps):
            seen.append(slider.get_attribute("aria-valuetext"))
            slider.press("ArrowRight")
        assert len(set(seen)) == steps  # it is stuck nowhere
        assert slider.get_attribute("aria-valuetext").startswith(end)


def test_without_noise_it_decides_the_same_each_time(shown):
    shown.get_by_label("Gumbel noise").uncheck()
    expect(shown, 1.0, 1.0, 100, noise=False)
    assert "without noise always open" in shown.locator(".dsn-meter-text").text_content()
    assert shown.locator(".dsn-expected").count() == 0
    slide(shown, "logit difference", 0)
    expect(shown, 0.0, 1.0, 100, noise=False)  # undecided: closed, as dsn_lite.network.gates.decide
    assert "always closed" in shown.locator(".dsn-meter-text").text_content()


def test_start_again_repeats_the_draws(shown):
    picture = "document.querySelector('.dsn-panels').innerHTML"
    before = shown.evaluate(picture)
    shown.get_by_role("button", name="start again").click()
    assert words(shown)["draws"] == "0" and words(shown)["open in"] == "\u2013"
    assert shown.evaluate(picture) != before
    assert shown.locator(".dsn-readout").text_content() == "Press draw."
    shown.get_by_role("button", name="draw 100").click()
    assert shown.evaluate(picture) == before


def test_draws_by_itself_and_stops(shown):
    button = shown.locator(".dsn-auto")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    shown.wait_for_function("Number(document.querySelector('.dsn-gumbel').dataset.draws) > 103")
    assert shown.get_attribute(".dsn-readout", "aria-live") == "off"
    button.click()
    count = int(shown.get_attribute(".dsn-gumbel", "data-draws"))
    shown.wait_for_timeout(400)
    assert shown.get_attribute(".dsn-gumbel", "data-draws") == str(count)
    assert button.get_attribute("aria-pressed") == "false"
    expect(shown, 1.0, 1.0, count)


def test_enough_is_enough(shown):
    many = shown.get_by_role("button", name="draw 100")
    for _ in range((LIMIT - 100) // 100):
        many.click()
    assert words(shown)["draws"] == str(LIMIT) and many.is_disabled()
    assert "start again for new ones" in shown.locator(".dsn-readout").text_content()
    share = value(words(shown)["open in"]) / 100
    assert share == pytest.approx(1 / (1 + math.exp(-1)), abs=4 * math.sqrt(0.2 / LIMIT))
    shown.locator(".dsn-gumbel").press("a")  # a full page does not start
    assert shown.get_attribute(".dsn-gumbel", "data-running") == "false"


def test_keys(shown):
    shown.locator(".dsn-draw").focus()
    shown.keyboard.press("d")
    shown.keyboard.press("Enter")
    shown.keyboard.press(" ")
    shown.keyboard.press("h")
    expect(shown, 1.0, 1.0, 203)
    shown.keyboard.press("n")
    assert not shown.get_by_label("Gumbel noise").is_checked()
    shown.keyboard.press("n")
    shown.keyboard.press("a")
    assert shown.get_attribute(".dsn-gumbel", "data-running") == "true"
    shown.keyboard.press("a")
    assert shown.get_attribute(".dsn-gumbel", "data-running") == "false"
    shown.keyboard.press("r")
    assert words(shown)["draws"] == "0"
    shown.keyboard.press("Control+d")  # the browser's own
    assert words(shown)["draws"] == "0"
    shown.get_by_role("slider", name="logit difference").focus()
    shown.keyboard.press("ArrowRight")
    shown.keyboard.press("h")
    expect(shown, 1.1, 1.0, 100)


def test_notebook_keeps_its_hands_off_the_keys(shown):
    """JupyterLab looks at keys before the widget does, and "d d" is "delete the cell" there."""
    assert shown.get_attribute(".dsn-gumbel", "data-lm-suppress-shortcuts") == "true"
    shown.evaluate("() => { window.heard = []; document.addEventListener('keydown', e => window.heard.push(e.key)) }")
    shown.locator(".dsn-draw").focus()
    for letter in "dhaarnx":
        shown.keyboard.press(letter)
    assert shown.evaluate("window.heard") == ["x"]  # what it does not use goes on to the page


def test_words_say_the_same(shown):
    assert shown.get_attribute(".dsn-gumbel", "aria-label").startswith("Gumbel playground")
    labels = shown.eval_on_selector_all("svg[role=img]", "all => all.map(one => one.getAttribute('aria-label'))")
    soft = soft_gate(gumbel_draws(1, 100), 1.0, 1.0)
    assert len(labels) == 4 and f"{(soft[-SHOWN:] > 0.5).sum()} of them open" in labels[0]
    assert f"{100 * (soft <= 0.5).mean():.1f}\u202f% in the lower half" in labels[1]
    assert "rises from 0.12 at \u22122 to 0.88 at 2" in labels[2]
    assert "a bump of height 0.250" in labels[3]
    names = shown.eval_on_selector_all(
        "input", "all => all.map(one => one.getAttribute('aria-label') || one.labels[0].textContent)"
    )
    assert all(names) and shown.get_attribute(".dsn-meter", "aria-valuetext").startswith("open in")


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 2, "draws": 30}, {"difference": 0.5, "temperature": 0.3, "noise": False},
        {"difference": 0.123, "temperature": 0.77},  # between two stops of the sliders
    ],
)  # fmt: skip
def test_settings_of_python_reach_the_page(watch, write_page, tmp_path, settings):
    page = watch(write_page(tmp_path / "page.html", GumbelPlayground(**settings)).as_uri()).page
    page.wait_for_selector(".dsn-gumbel")
    expect(page, **{"difference": 1.0, "temperature": 1.0, "draws": 100} | settings)


def test_two_on_a_page_do_not_meddle(watch, write_page, tmp_path):
    page = watch(write_page(tmp_path / "page.html", GumbelPlayground(), GumbelPlayground(draws=10)).as_uri()).page
    page.wait_for_function("document.querySelectorAll('.dsn-gumbel').length === 2")
    page.locator(".dsn-draw").nth(1).click()
    draws = page.eval_on_selector_all(".dsn-gumbel", "all => all.map(one => one.dataset.draws)")
    assert sorted(draws) == ["100", "11"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_and_themes(watch, page_file, scheme):
    watched = watch(
        page_file.as_uri(), 390, color_scheme=scheme, has_touch=True, reduced_motion="reduce", device_scale_factor=2
    )
    page = watched.page
    page.wait_for_selector(".dsn-gumbel")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    colour = "getComputedStyle(document.querySelector('.dsn-gumbel')).backgroundColor"
    dark = lambda: sum(map(int, page.evaluate(colour)[4:-1].split(","))) < 200
    assert dark() == (scheme == "dark")
    ink = "getComputedStyle(document.querySelector('.dsn-tick')).fill"
    before = page.evaluate(ink)
    page.evaluate("theme => { document.documentElement.dataset.theme = theme }", "light" if dark() else "dark")
    assert dark() == (scheme == "light") and page.evaluate(ink) != before
    for box in [button.bounding_box() for button in page.locator("button").all()]:
        assert box["height"] >= 30  # a finger finds it
    page.locator(".dsn-draw").tap()
    page.locator(".dsn-auto").tap()
    page.wait_for_function("Number(document.querySelector('.dsn-gumbel').dataset.draws) > 101")
    drawn = int(page.get_attribute(".dsn-gumbel", "data-draws"))
    assert (drawn - 101) % 8 == 0  # in bunches: few changes of the picture
    page.locator(".dsn-auto").tap()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert watched.complaints == []


def test_damaged_module_is_said_on_the_page(watch, page_file, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(page_file.read_text().replace("export default { render };", "export default {"))
    page = watch(broken.as_uri()).page
    page.get_by_text("could not be shown").wait_for()
