"""Evaluation of a network of widths: what its router decides, and constant widths."""

import json
from functools import partial

import numpy as np
import pytest

from dsn_lite import cli
from dsn_lite.errors import InputError
from dsn_lite.evaluation import METRICS, evaluate, scoring
from dsn_lite.network.weights import save

pytest.importorskip("pesq")
pytest.importorskip("speechmos")


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    """Scores that cost nothing."""
    monkeypatch.setenv("DSN_LITE_CACHE", str(tmp_path / "cache"))

    def score(clean, wave, mos=True):
        return {name: float(np.abs(wave - clean).mean()) + index for index, name in enumerate(METRICS)}

    monkeypatch.setattr(scoring, "score", score)


@pytest.fixture
def one(random_demucs):
    return partial(evaluate, random_demucs(), jobs=1)


def test_constant_widths(one, few_pairs, random_demucs):
    costs = random_demucs().count().width_mmacs
    results = [one(few_pairs, width=width) for width in (0.125, 0.25, 0.5, 1.0)]
    for width, cost, result in zip((0.125, 0.25, 0.5, 1.0), costs, results, strict=True):
        assert result["policy"] == "width" and result["utilisation"] == pytest.approx(width)
        assert result["mmacs_per_second"] == pytest.approx(cost, abs=1e-5) and result["errors"] == []
    for policy, same in (("closed", results[0]), ("open", results[-1])):
        found = one(few_pairs, policy=policy)
        assert found["per_file"] == same["per_file"] and found["pesq"] == same["pesq"]


def test_the_routed_model(one, few_pairs):
    learned, again = one(few_pairs), one(few_pairs)
    assert {**again, "date": learned["date"]} == learned, "evaluation is not deterministic"
    assert 0.125 < learned["utilisation"] < 1 and set(learned["gates"]) == {"over 1/8", "over 1/4", "over 1/2"}


def test_budget_is_the_target_of_the_router(one, few_pairs):
    assert one(few_pairs, budget=0.0)["utilisation"] == 0.125 and one(few_pairs, budget=1.0)["utilisation"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0.3}, "width 0.3: not one of the widths"), ({"policy": "snr"}, "no policy 'snr'"),
        ({"policy": "random"}, "no policy 'random'"),
        ({"width": 0.5, "policy": "open"}, "leave them out"), ({"width": 0.5, "budget": 0.5}, "leave them out"),
        ({"policy": "closed", "budget": 0.5}, "takes no budget"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_for(one, few_pairs, options, message):
    with pytest.raises(InputError, match=message):
        one(few_pairs, **options)


def test_gates_have_no_width(few_pairs, random_network):
    with pytest.raises(InputError, match="which are none"):
        evaluate(random_network(), few_pairs, width=0.5, jobs=1)


def test_the_command(few_pairs, random_demucs, tmp_path, capsys):
    save(random_demucs(), tmp_path / "small.safetensors")
    command = ["evaluate", str(few_pairs), "--model", str(tmp_path / "small.safetensors"), "--jobs", "1"]
    assert cli.main([*command, "--width", "0.25", "--json", str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["utilisation"] == 0.25
    assert "over 1/8" in capsys.readouterr().out
