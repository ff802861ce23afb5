"""Weights and their card: there and back, and one line for everything that is wrong."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import dsn_lite
from dsn_lite import zoo
from dsn_lite.errors import InputError
from dsn_lite.network import weights
from dsn_lite.network.config import Config
from dsn_lite.network.model import Network

TINY = Config.preset("tiny")


def network(config=TINY, seed=0):
    torch.manual_seed(seed)
    return Network(config)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "runs" / "mine.safetensors"
    weights.save(network(), path, {"data": "CC BY 4.0", "seed": 3})
    return path


DEEP = Config.from_dict({"preset": "tiny", "blocks": 3})


@pytest.mark.parametrize("config", [TINY, TINY.static(), TINY.static_only(), DEEP])
def test_there_and_back(tmp_path, config):
    before = network(config)
    weights.save(before, tmp_path / "x.safetensors")
    torch.manual_seed(99)
    after = zoo.load(tmp_path / "x.safetensors")
    assert after.config == config and not after.training
    assert before.state_dict().keys() == after.state_dict().keys()
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name
    x = torch.randn(1, 4, 257, dtype=torch.complex64)
    assert torch.equal(before.eval()(x).spectrum, after(x).spectrum)


def test_the_card(saved):
    loaded = zoo.load(saved)
    assert loaded.name == "mine" and loaded.card["data"] == "CC BY 4.0" and loaded.card["seed"] == 3
    assert Config.from_dict(loaded.card["network"]) == TINY
    weights.save(network(), saved, {"name": "named"})
    assert zoo.load(saved).name == "named"
    assert zoo.load(str(saved)).name == "named"


def test_nothing_else_is_left_behind(saved):
    assert sorted(path.name for path in saved.parent.iterdir()) == ["mine.json", "mine.safetensors"]


def test_a_failed_save_keeps_what_was_there(saved, monkeypatch):
    before = saved.read_bytes()

    def fail(path, data):
        with open(path, "wb") as file:
            file.write(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(InputError, match=r"mine.*No space left"):
        weights.save(network(seed=1), saved)
    monkeypatch.undo()
    assert sorted(path.name for path in saved.parent.iterdir()) == ["mine.json", "mine.safetensors"]
    assert saved.read_bytes() == before and zoo.load(saved).name == "mine"


def test_shipped_networks_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path)
    assert zoo.available() == []
    with pytest.raises(InputError, match="no network 'benefit'; known are none are shipped"):
        zoo.load()
    for name in ("b-net", "a-net"):
        weights.save(network(), tmp_path / f"{name}.safetensors")
    assert [card["name"] for card in zoo.available()] == ["a-net", "b-net"]
    assert zoo.load("a-net").name == "a-net"
    with pytest.raises(InputError, match="no network 'c-net'; known are a-net, b-net; or give a .safetensors file"):
        zoo.load("c-net")


def test_every_shipped_network_loads():
    for card in zoo.available():
        loaded = dsn_lite.load(card["name"])
        assert loaded.card == card and {"name", "network", "licence"} <= card.keys()


def damaged(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("not weights at all")


def foreign(path):
    save_file({"layer.weight": torch.zeros(3, 3)}, path)


def pickled(path):
    torch.save({"layer": torch.zeros(3)}, path)


def another_shape(path):
    shutil.copy(path.with_suffix(".json"), path.parent / "card.json")
    weights.save(network(Config.preset("base")), path)
    shutil.copy(path.parent / "card.json", path.with_suffix(".json"))


def no_weights(path):
    path.unlink()


def no_card(path):
    path.with_suffix(".json").unlink()


def card(content):
    def change(path):
        path.with_suffix(".json").write_text(content if isinstance(content, str) else json.dumps(content))

    return change


@pytest.mark.parametrize(
    "harm",
    [
        damaged, empty, text, foreign, pickled, another_shape, no_weights, no_card,
        card("{broken"), card(""), card([]), card({}), card("3"), card({"network": 3}), card({"network": []}),
        card({"network": {"preset": "huge"}}), card({"network": {"preset": "tiny", "depth": 3}}),
        card({"network": {"preset": "tiny", "channels": [8, 12]}}), card({"network": {"preset": "tiny", "heads": "four"}}),
        card({"network": {"preset": "tiny", "gated": False}}), card({"network": {"channels": [8, 12, 16]}}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(saved, harm):
    harm(saved)
    with pytest.raises(InputError) as error:
        zoo.load(saved)
    message = str(error.value)
    assert "\n" not in message and "mine" in message and len(message) < 700
    assert "again" in message or "needs" in message or "need " in message


def test_a_folder_is_not_weights(tmp_path):
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(InputError, match="not found"):
        zoo.load(tmp_path / "x.safetensors")


def test_another_kind_of_file(tmp_path):
    with pytest.raises(InputError, match="give a .safetensors file"):
        zoo.load(tmp_path / "model.pt")
