"""The ONNX graph as a file: what it says of itself, how large it is, that it stays equal for a minute."""

import json

import numpy as np
import pytest
from networks import random_network, spectrum

from dsn_lite import cli, zoo
from dsn_lite.engine.engines import TorchEngine
from dsn_lite.network.macs import count
from dsn_lite.network.weights import WEIGHTS, save

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from dsn_lite.engine import onnx as graphs  # noqa: E402
from dsn_lite.engine.graph import count_nodes  # noqa: E402


def assert_equal(engine, network, frames: int, gates: np.ndarray | None) -> None:
    given = spectrum(frames, 4)
    expected, expected_gates = TorchEngine(network, 0.0).run(given, gates)
    found, used = engine.run(given, gates)
    assert np.array_equal(used, expected_gates)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_a_minute_on_random_gates():
    network = random_network("tiny")
    gates = np.random.default_rng(0).integers(0, 2, (3750, 8)).astype(np.uint8)
    assert_equal(graphs.OnnxEngine(network), network, 3750, gates)


def test_few_nodes_and_fewer_where_closed():
    model = graphs.build(random_network("base"))
    assert count_nodes(model.graph, is_open=False) < count_nodes(model.graph) <= 300
    assert model.opset_import[0].version == graphs.OPSET and model.ir_version == graphs.IR_VERSION


def test_command_writes_a_graph_that_says_how_to_feed_it(tmp_path, capsys):
    network = random_network("tiny")
    save(network, tmp_path / "net.safetensors")
    path = tmp_path / "net.onnx"
    assert cli.main(["export", "--model", str(tmp_path / "net.safetensors"), "-o", str(path)]) == 0
    assert "nodes on an open frame" in capsys.readouterr().out
    engine = graphs.OnnxEngine(path)
    properties = engine.session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["gate_names"]) == network.gate_names
    assert (properties["sample_rate"], properties["window"], properties["hop"]) == ("16000", "512", "256")
    assert {name: tuple(shape) for name, shape in json.loads(properties["states"]).items()} == {
        item.name: tuple(item.shape)
        for item in engine.session.get_inputs()
        if item.name not in ("spectrum", "gates", "shift")
    }
    assert json.loads(properties["mmacs_per_second"])["closed"] == pytest.approx(count(network).closed)
    assert "MAC" in properties["counting"]
    assert_equal(engine, network, 20, None)


def test_without_the_package_it_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    assert cli.main(["export", "--model", "tiny", "-o", str(tmp_path / "x.onnx")]) == 2
    assert "pip install onnx" in capsys.readouterr().err and not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize("path", sorted(WEIGHTS.glob("*.onnx")), ids=lambda path: path.stem)
def test_a_shipped_graph_is_that_of_the_shipped_weights(path):
    assert path.stat().st_size < 1e6
    assert_equal(graphs.OnnxEngine(path), zoo.load(path.stem), 100, None)
