"""ONNX: one step graph, equal to the PyTorch network, whose closed branches are not computed."""

import json

import numpy as np
import pytest
from dsn_lite.export import OnnxEngine

from dsn_lite import cli, export, zoo
from dsn_lite.engine import Stream, TorchEngine
from dsn_lite.errors import InputError
from dsn_lite.network.model import GATES
from dsn_lite.network.weights import WEIGHTS, save

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def spectrum(frames: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((frames, 257)) + 1j * rng.standard_normal((frames, 257))
    values *= 10 ** rng.uniform(-3, 1, (frames, 1))
    values[rng.random(frames) < 0.1] = 0
    return values.astype(np.complex64)


def assert_equal(engine, network, frames, gates):
    expected, expected_gates = TorchEngine(network, 0.0).run(frames, gates)
    output, used = engine.run(frames, gates)
    assert np.array_equal(used, expected_gates)
    assert np.abs(output - expected).max() < 1e-5 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("preset", ["tiny", "base"])
def test_a_minute_on_random_gates(random_network, preset):
    network = random_network(preset)
    gates = np.random.default_rng(0).integers(0, 2, (3750, 10)).astype(np.uint8)
    assert_equal(OnnxEngine(network), network, spectrum(3750), gates)


@pytest.mark.parametrize(
    ("preset", "parts"), [("tiny", "gated"), ("base", "gated"), ("tiny", "always"), ("tiny", "absent")]
)
def test_equals_the_network(random_network, preset, parts):
    network = random_network(preset, parts)
    engine, frames = OnnxEngine(network), spectrum(30)
    assert_equal(engine, network, frames, None)
    if parts == "gated":
        for gates in (np.ones((30, 10), np.uint8), np.zeros((30, 10), np.uint8)):
            engine.reset()
            assert_equal(engine, network, frames, gates)


@pytest.mark.parametrize("index", range(len(GATES)))
def test_each_gate_is_a_branch_that_is_skipped(random_network, index):
    """With NaN in every weight of one branch only, the other gates' patterns stay finite."""
    network = random_network("tiny")
    gates = np.ones((3, 10), np.uint8)
    gates[:, index] = 0
    assert_equal(OnnxEngine(network), network, spectrum(3), gates)
    model = export.build(network)
    branches = [node for node in model.graph.node if node.op_type == "If"]
    assert len(branches) == len(GATES)
    opened = next(attribute.g for attribute in branches[index].attribute if attribute.name == "then_branch")
    closed = next(attribute.g for attribute in branches[index].attribute if attribute.name == "else_branch")
    names = lambda graph: {name for node in graph.node for name in node.input if name.startswith("weight")}
    only_open = names(opened) - names(closed)
    assert only_open
    elsewhere = {
        name
        for node in model.graph.node
        for graph in [node, *(a.g for a in node.attribute if a.g.node)]
        if graph not in (opened, closed)
        for name in ([*graph.input] if isinstance(graph, onnx.NodeProto) else [n for x in graph.node for n in x.input])
    }
    for weight in model.graph.initializer:
        if weight.name in only_open - elsewhere and weight.data_type == onnx.TensorProto.FLOAT:
            values = np.full(list(weight.dims), np.nan, np.float32)
            weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    engine = OnnxEngine(network)
    engine.session = type(engine.session)(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.isfinite(engine.run(spectrum(3), gates)[0]).all()
    assert np.isnan(engine.run(spectrum(1), np.ones((1, 10), np.uint8))[0]).any()


def test_few_nodes(random_network):
    model = export.build(random_network("base"))
    assert export.count_nodes(model) <= 150
    assert model.opset_import[0].version == export.OPSET and model.ir_version == export.IR_VERSION


def test_command_writes_a_graph_that_says_how_to_feed_it(random_network, tmp_path, capsys):
    network = random_network("tiny")
    save(network, tmp_path / "net.safetensors")
    path = tmp_path / "net.onnx"
    assert cli.main(["export", "--model", str(tmp_path / "net.safetensors"), "-o", str(path)]) == 0
    assert "nodes on an open frame" in capsys.readouterr().out
    engine = OnnxEngine(path)
    properties = engine.session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["gate_names"]) == list(GATES)
    assert (properties["sample_rate"], properties["window"], properties["hop"]) == ("16000", "512", "256")
    assert {name: tuple(shape) for name, shape in json.loads(properties["states"]).items()} == {
        item.name: tuple(item.shape)
        for item in engine.session.get_inputs()
        if item.name not in ("spectrum", "gates", "shift")
    }
    assert "MAC" in properties["counting"]
    assert_equal(engine, network, spectrum(20), None)


@pytest.mark.parametrize("path", sorted(WEIGHTS.glob("*.onnx")), ids=lambda path: path.stem)
def test_shipped_graph_is_that_of_the_shipped_weights(path):
    assert_equal(OnnxEngine(path), zoo.load(path.stem), spectrum(100), None)


def test_the_default_network_ships_as_a_graph():
    path = WEIGHTS / f"{zoo.DEFAULT}.onnx"
    assert path.stat().st_size < 1e6


def test_stream_over_onnx(random_network):
    network = random_network("tiny")
    wave = (0.1 * np.random.default_rng(0).standard_normal(4000)).astype(np.float32)
    outputs = []
    for engine in ("onnx", "torch"):
        stream = Stream(network, budget=0.6, engine=engine)
        outputs.append(np.concatenate([stream.feed(wave[:1300]), stream.feed(wave[1300:]), stream.flush()]))
    assert np.abs(outputs[0] - outputs[1]).max() < 1e-5


def test_what_is_no_graph_of_ours(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match="export it again"):
        OnnxEngine(tmp_path / "bad.onnx")
