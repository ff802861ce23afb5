"""The block viewer: what Python takes apart, and what a browser makes of it, without any book."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dsn_lite import macs
from dsn_lite.audio import clips, noises
from dsn_lite.audio.levels import mix_at_snr
from dsn_lite.audio.spectral import BINS, FRAMES_PER_SECOND
from dsn_lite.config import Config
from dsn_lite.errors import InputError
from dsn_lite.model import Network

anywidget = pytest.importorskip("anywidget", reason="anywidget is not installed")
from dsn_lite.widgets import block_viewer as module  # noqa: E402
from dsn_lite.widgets.block_viewer import BlockViewer, blocks_of, most_divided, take_apart  # noqa: E402

GATES = ("frequency 2 hidden", "encoder 2", "decoder 3", "time groups", "frequency 1 heads")
FRAMES = 24


@pytest.fixture(scope="module")
def network(random_network) -> Network:
    return random_network("tiny", seed=3)


@pytest.fixture(scope="module")
def noisy():
    clean = clips.load("moon")[8000:32000]
    return mix_at_snr(clean, noises.synthesise("rain", 1.5, seed=1), 5)


@pytest.fixture(scope="module")
def viewer(network, noisy) -> BlockViewer:
    return BlockViewer.from_network(network, noisy, FRAMES)


def block_at(network: Network, gate: str) -> tuple[torch.nn.Module, int, tuple[int, int]]:
    """The block behind a gate, its input bands, and its MACs by the rule of the package."""
    bands, wide = network.bands, network.encoder_1.out_bands(BINS)
    block, inputs, rule = {
        "frequency 2 hidden": (network.frequency_2.feed_forward, bands, macs.feed_forward),
        "encoder 2": (network.encoder_2, wide, macs.convolution),
        "decoder 3": (network.decoder_3, bands, macs.transposed_convolution),
        "time groups": (network.time.gru, bands, macs.recurrence),
        "frequency 1 heads": (network.frequency_1.attention, bands, macs.attention),
    }[gate]
    return block, inputs, rule(block, inputs)


def stored(block: torch.nn.Module, matrix: module.Matrix) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(weight, bias) of the module that a drawn matrix shows; a GRU keeps one for each group."""
    if hasattr(block, "groups") and matrix.name != "out":
        kind = {"input": "ih", "recurrent": "hh"}[matrix.name]
        return [(getattr(g, f"weight_{kind}_l0"), getattr(g, f"bias_{kind}_l0")) for g in block.groups]
    name = {"kernel": "conv", "query, key, value": "query_key_value"}.get(matrix.name, matrix.name)
    layer = getattr(block, name)
    return [(layer.weight, layer.bias)]


# -------------------------------------------------------------------------------------------------------------- Python
@pytest.mark.parametrize("gate", GATES)
def test_macs_are_those_of_the_package(network, gate):
    (block,) = (block for block in blocks_of(network) if block.gate == gate)
    _, _, by_rule = block_at(network, gate)
    assert (block.static, block.dynamic) == by_rule
    assert block.dynamic == macs.count(network).gate_macs[network.gate_names.index(gate)]
    for is_open in (False, True):  # each weight that is read is used once in each band
        read = sum(matrix.read(is_open).sum() for matrix in block.matrices)
        products = block.products[0] + is_open * block.products[1]
        assert read * block.uses + products == block.static + is_open * block.dynamic


@pytest.mark.parametrize("gate", GATES)
def test_what_is_drawn_grey_is_not_read(network, gate):
    """Not a number goes wherever the viewer draws grey: the closed block must not notice, the open one must."""
    (drawn,) = (block for block in blocks_of(network) if block.gate == gate)
    healthy, bands, _ = block_at(network, gate)
    block = copy.deepcopy(healthy)
    x = torch.randn(1, 6, bands, getattr(block, "inputs", 0) or block.channels)
    first = lambda result: result[0] if isinstance(result, tuple) else result
    opened, closed = torch.ones(1, 6), torch.zeros(1, 6)
    with torch.inference_mode():
        before = first(block(x, closed))
        for matrix in drawn.matrices:
            grey, grey_bias = ~matrix.read(False), ~matrix.bias_read(False)
            at = at_bias = 0
            for weight, bias in stored(block, matrix):
                flat = weight.flatten(1)
                np.testing.assert_allclose(matrix.weight[at : at + len(flat)], flat.numpy(), atol=1e-7)
                np.testing.assert_allclose(matrix.bias[at_bias : at_bias + len(bias)], bias.numpy(), atol=1e-7)
                poison = torch.from_numpy(grey[at : at + len(flat)].copy()).reshape(weight.shape)
                weight[poison] = torch.nan
                bias[torch.from_numpy(grey_bias[at_bias : at_bias + len(bias)].copy())] = torch.nan
                at, at_bias = at + len(flat), at_bias + len(bias)
            assert at == len(matrix.weight) and at_bias == len(matrix.bias)
        assert torch.equal(first(block(x, closed)), before)
        assert first(block(x, opened)).isnan().any()
    # and what is coloured is read: one poisoned number in any of the matrices is noticed
    for matrix in drawn.matrices:
        for number, is_bias in ((0, False), (0, True)):
            sick = copy.deepcopy(healthy)
            target = stored(sick, matrix)[0][is_bias]
            with torch.no_grad():
                target.view(-1)[number] = torch.nan
            with torch.inference_mode():
                assert first(sick(x, closed)).isnan().any(), (matrix.name, is_bias)


def test_packed_is_what_was_taken_apart(network, viewer):
    for block, packed in zip(blocks_of(network), viewer.blocks, strict=True):
        assert {name: packed[name] for name in ("name", "gate", "static", "dynamic", "uses")} == {
            name: getattr(block, name) for name in ("name", "gate", "static", "dynamic", "uses")
        }
        for matrix, dense in zip(block.matrices, packed["matrices"], strict=True):
            for values, place in ((matrix.weight, dense["weight_at"]), (matrix.bias, dense["bias_at"])):
                numbers = np.frombuffer(viewer.data[place[0] : sum(place)], "<i2") * dense["scale"]
                np.testing.assert_allclose(numbers, values.ravel(), atol=0.51 * dense["scale"])
            lines = np.zeros(len(matrix.dynamic), bool)
            for first, end in dense["slices"]:
                lines[first:end] = True
            np.testing.assert_array_equal(lines, matrix.dynamic)


def test_lanes_are_what_the_policy_chose(network, noisy, viewer):
    gates = network.enhance(noisy, 16000).gates
    columns = gates[:, [network.gate_names.index(gate) for gate in GATES]]
    start = most_divided(columns, FRAMES)
    assert {gate: columns[start : start + FRAMES, k].tolist() for k, gate in enumerate(GATES)} == viewer.lanes
    counted = {layer.gate: layer for layer in macs.count(network).layers}
    for gate in GATES:
        opened = sum(viewer.lanes[gate])
        assert viewer.lane_macs(gate) == FRAMES * counted[gate].static + opened * counted[gate].dynamic


def test_state_is_plain_json_and_light(viewer):
    state = {name: viewer.get_state()[name] for name in ("title", "lanes", "chosen", "blocks", "frames_per_second")}
    json.dumps(state, allow_nan=False)
    assert len(viewer.data) < 100_000


def test_bad_settings_are_refused(network):
    blocks = blocks_of(network)
    lanes = {gate: [0, 1] for gate in GATES}
    with pytest.raises(InputError, match="no gates"):
        blocks_of(Network(Config.preset("tiny").static()))
    with pytest.raises(InputError, match="no block"):
        BlockViewer([], lanes)
    with pytest.raises(InputError, match="each block needs one"):
        BlockViewer(blocks, {"frequency 2 hidden": [0, 1]})
    with pytest.raises(InputError, match="nothing but 0 and 1"):
        BlockViewer(blocks, lanes | {"encoder 2": [0, 2]})
    with pytest.raises(InputError, match="one length"):
        BlockViewer(blocks, lanes | {"encoder 2": [0]})
    with pytest.raises(InputError, match="too few"):
        most_divided(np.zeros((3, 2)), 4)
    with pytest.raises(InputError, match="not a block with a gate"):
        take_apart("policy", "frequency 2 hidden", _NoBlock(), "", network)


class _NoBlock(torch.nn.Module):
    static, dynamic = 1, 1


def test_bundle_has_a_picture_for_print(viewer):
    data, _ = viewer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/plain"] == "BlockViewer('untrained', 5 blocks, 24 frames)"
    assert viewer.picture().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["block_viewer.js", "block_viewer.css"])
def test_front_end_fetches_nothing(name):
    text = (Path(module.__file__).parent / name).read_text()
    for word in ("http:", "https:", "//cdn", "import ", "import(", "fetch(", "url(", "@import"):
        assert word not in text


# ------------------------------------------------------------------------------------------------------------- browser
@pytest.fixture(scope="module")
def page_file(viewer, write_page, tmp_path_factory) -> Path:
    return write_page(tmp_path_factory.mktemp("page") / "page.html", viewer)


@pytest.fixture
def shown(watch, page_file):
    watched = watch(page_file.as_uri())
    watched.page.wait_for_selector(".dsn-block canvas")
    yield watched.page
    assert watched.complaints == [] and watched.outside == []


def number(text: str) -> int:
    return int(text.replace("\u202f", ""))


def choose(page, name: str) -> None:
    page.locator(".dsn-modes").get_by_text(name, exact=True).click()


def expect(page, viewer: BlockViewer, gate: str, lane: list[int], frame: int):
    """The page must say what Python counts."""
    (block,) = (block for block in viewer._blocks.values() if block.gate == gate)
    is_open = bool(lane[frame])
    root = page.locator(".dsn-block")
    assert root.get_attribute("data-gate") == gate and root.get_attribute("data-frame") == str(frame)
    assert page.locator(".dsn-bit").all_text_contents() == [str(value) for value in lane]
    pressed = page.eval_on_selector_all(".dsn-cell", "all => all.map(one => one.getAttribute('aria-pressed'))")
    assert pressed == [str(bool(value)).lower() for value in lane]
    words = page.locator(".dsn-frame").text_content()
    assert f"Frame {frame}, gate {'open' if is_open else 'closed'}:" in words
    read, everything = (sum(int(matrix.read(state).sum()) for matrix in block.matrices) for state in (is_open, True))
    assert number(words.split(": ")[1].split(" of ")[0]) == read
    assert number(words.split(" of ")[1].split(" weights")[0]) == everything
    assert number(words.split("= ")[1].removesuffix(" MACs.")) == block.static + is_open * block.dynamic
    total = len(lane) * block.static + sum(lane) * block.dynamic
    said = page.locator(".dsn-total").text_content()
    assert said.startswith(f"{sum(lane)} of {len(lane)} frames open: ")
    assert number(said.split("open: ")[1].split(" of ")[0]) == total
    assert f"{total / len(lane) * FRAMES_PER_SECOND / 1e6:.2f} MMAC/s" in said
    share = total / len(lane) / (block.static + block.dynamic)
    assert float(page.get_attribute(".dsn-meter", "aria-valuenow")) == pytest.approx(100 * share, abs=0.06)
    labels = page.eval_on_selector_all("canvas[role=img]", "all => all.map(one => one.getAttribute('aria-label'))")
    assert len(labels) == len(block.matrices)
    for label, matrix in zip(labels, block.matrices, strict=True):
        assert label.startswith(f"{matrix.name}: {matrix.weight.shape[0]} by {matrix.weight.shape[1]} weights; ")
        kept, behind = (~matrix.dynamic).sum(), matrix.dynamic.sum()
        closed = f"{kept} {matrix.slice_axis} are read, the {behind} behind the gate are not."
        assert label.endswith("all are read." if is_open else closed)


def colours(page, index: int) -> np.ndarray:
    """Colours [height, width, 3] of a drawn matrix, at the resolution of the screen."""
    code = """index => { const c = document.querySelectorAll("canvas[role=img]")[index];
        const copy = new OffscreenCanvas(c.width, c.height).getContext("2d", { willReadFrequently: true });
        copy.drawImage(c, 0, 0);
        return [c.height, c.width, [...copy.getImageData(0, 0, c.width, c.height).data]]; }"""
    height, width, data = page.evaluate(code, index)
    return np.array(data).reshape(height, width, 4)[..., :3]


def test_each_block_is_counted(shown, viewer):
    for block in viewer.blocks:
        choose(shown, block["name"])
        lane = viewer.lanes[block["gate"]]
        expect(shown, viewer, block["gate"], lane, 0)
        shown.get_by_role("button", name="all open").click()
        expect(shown, viewer, block["gate"], [1] * FRAMES, 0)
        shown.get_by_role("button", name="all closed").click()
        expect(shown, viewer, block["gate"], [0] * FRAMES, 0)
        shown.get_by_role("button", name="as at first").click()
        expect(shown, viewer, block["gate"], lane, 0)
        note = shown.locator(".dsn-note").text_content()
        assert note == block["note"]


def test_clicks_flip_one_gate(shown, viewer):
    lane = list(viewer.lanes["frequency 2 hidden"])
    for frame in (3, 3, 10, FRAMES - 1):
        shown.locator(".dsn-cell").nth(frame).click()
        lane[frame] = 1 - lane[frame]
        expect(shown, viewer, "frequency 2 hidden", lane, frame)
    choose(shown, "grouped GRU")  # has a lane of its own
    expect(shown, viewer, "time groups", viewer.lanes["time groups"], FRAMES - 1)
    choose(shown, "fully connected")
    expect(shown, viewer, "frequency 2 hidden", lane, FRAMES - 1)


@pytest.mark.parametrize("gate", GATES)
def test_unread_weights_are_grey(shown, viewer, gate):
    block = viewer._blocks[gate]
    choose(shown, block.name)
    for is_open in (False, True):
        shown.get_by_role("button", name="all open" if is_open else "all closed").click()
        for index, matrix in enumerate(block.matrices):
            picture = colours(shown, index)
            rows, columns = matrix.weight.shape
            # the bias lies beyond a gap of 5 pixels: 3 pixels or one cell wide
            across = matrix.bias_axis == "rows"
            longer = picture.shape[1] if across else picture.shape[0]
            cell = picture.shape[0] / rows if across else picture.shape[1] / columns
            assert longer == pytest.approx((columns if across else rows) * cell + 5 + max(cell, 3), abs=1)
            y = ((np.arange(rows) + 0.5) * cell).astype(int)
            x = ((np.arange(columns) + 0.5) * cell).astype(int)
            middle = picture[np.ix_(y, x)]
            is_grey = np.ptp(middle, axis=-1) == 0
            read = matrix.read(is_open)
            assert is_grey[~read].all()
            clear = read & (np.abs(matrix.weight) > 0.01 * np.abs(matrix.weight).max())
            assert not is_grey[clear].any()
            blue = middle[..., 2] > middle[..., 0]
            np.testing.assert_array_equal(blue[clear], matrix.weight[clear] > 0)


def test_pointer_reads_a_weight(shown, viewer):
    block = viewer._blocks["frequency 2 hidden"]
    shown.get_by_role("button", name="all closed").click()
    for index, matrix in enumerate(block.matrices):
        box = shown.locator("canvas[role=img]").nth(index).bounding_box()
        rows, columns = matrix.weight.shape
        cell = box["height"] / rows
        for row, column in ((0, 0), (rows - 1, columns - 1)):
            shown.mouse.move(box["x"] + (column + 0.5) * cell, box["y"] + (row + 0.5) * cell)
            words = shown.locator(".dsn-readout").text_content()
            assert words.startswith(f"{matrix.name}, row {row}, column {column}: ")
            value = float(words.split(": ")[1].split(",")[0].replace("\u2212", "-"))
            assert value == pytest.approx(matrix.weight[row, column], abs=6e-4)
            assert ("not read" in words) == (not matrix.read(False)[row, column])
        shown.mouse.move(box["x"] + box["width"] - 1, box["y"] + 0.5 * cell)
        assert shown.locator(".dsn-readout").text_content().startswith(f"{matrix.name}, bias 0: ")


def test_keys(shown, viewer):
    assert shown.get_attribute(".dsn-block", "data-lm-suppress-shortcuts") == "true"  # JupyterLab keeps its hands off
    lane = list(viewer.lanes["frequency 2 hidden"])
    shown.locator(".dsn-cell").first.focus()
    shown.keyboard.press("ArrowRight")
    shown.keyboard.press("ArrowRight")
    expect(shown, viewer, "frequency 2 hidden", lane, 2)
    shown.keyboard.press(" ")
    lane[2] = 1 - lane[2]
    expect(shown, viewer, "frequency 2 hidden", lane, 2)
    shown.keyboard.press("ArrowLeft")
    shown.keyboard.press("Enter")
    lane[1] = 1 - lane[1]
    expect(shown, viewer, "frequency 2 hidden", lane, 1)
    shown.keyboard.press("End")
    expect(shown, viewer, "frequency 2 hidden", lane, FRAMES - 1)
    shown.keyboard.press("ArrowRight")  # around the corner
    expect(shown, viewer, "frequency 2 hidden", lane, 0)
    stops = shown.eval_on_selector_all(".dsn-cell", "all => all.map(one => one.tabIndex)")
    assert stops == [0] + [-1] * (FRAMES - 1)  # one stop on the way through the page
    shown.keyboard.press("r")
    shown.wait_for_selector(".dsn-block[data-running=true]")
    shown.wait_for_function("Number(document.querySelector('.dsn-block').dataset.frame) > 1")
    shown.keyboard.press("r")
    assert shown.get_attribute(".dsn-block", "data-running") == "false"


def test_runs_along_the_lane(shown, viewer):
    shown.get_by_role("button", name="run").click()
    shown.wait_for_function("Number(document.querySelector('.dsn-block').dataset.frame) > 2")
    assert shown.get_attribute(".dsn-frame", "aria-live") == "off"
    shown.get_by_role("button", name="stop").click()
    frame = int(shown.get_attribute(".dsn-block", "data-frame"))
    shown.get_by_role("button", name="next frame").click()
    expect(shown, viewer, "frequency 2 hidden", viewer.lanes["frequency 2 hidden"], frame + 1)
    shown.get_by_role("button", name="frame before").click()
    expect(shown, viewer, "frequency 2 hidden", viewer.lanes["frequency 2 hidden"], frame)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_and_themes(watch, page_file, viewer, scheme):
    watched = watch(
        page_file.as_uri(), 390, color_scheme=scheme, has_touch=True, reduced_motion="reduce", device_scale_factor=2
    )
    page = watched.page
    page.wait_for_selector(".dsn-block canvas")
    paper = page.evaluate("getComputedStyle(document.querySelector('.dsn-block')).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 200) == (scheme == "dark")
    before = colours(page, 0)
    other = "light" if scheme == "dark" else "dark"
    page.evaluate("theme => { document.documentElement.dataset.theme = theme }", other)  # the page's own switch
    page.wait_for_timeout(100)
    assert (colours(page, 0) != before).any()
    for button in page.locator(".dsn-block button").all():
        assert button.bounding_box()["height"] >= 38 and button.bounding_box()["width"] >= 24  # a finger finds it
    for block in viewer.blocks:
        page.locator(".dsn-modes").get_by_text(block["name"], exact=True).tap()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        lane = list(viewer.lanes[block["gate"]])
        page.locator(".dsn-cell").nth(5).tap()
        lane[5] = 1 - lane[5]
        expect(page, viewer, block["gate"], lane, 5)
    assert watched.complaints == []


def test_two_on_a_page_do_not_meddle(watch, tmp_path, write_page, network, viewer):
    lanes = {gate: [1, 0, 1] for gate in GATES}
    page = watch(write_page(tmp_path / "page.html", viewer, BlockViewer(blocks_of(network), lanes)).as_uri()).page
    page.wait_for_function("document.querySelectorAll('.dsn-block canvas').length === 4")
    page.locator(".dsn-block").nth(1).locator(".dsn-modes").get_by_text("convolution", exact=True).click()
    gates = page.eval_on_selector_all(".dsn-block", "all => all.map(one => one.dataset.gate)")
    assert gates == ["frequency 2 hidden", "encoder 2"]
    assert page.locator("input[type=radio]:checked").count() == 2
