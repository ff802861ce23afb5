"""Evaluation of widths: constant ones, and policies of equal MACs that take nothing but widths that exist."""

import json
from functools import partial

import numpy as np
import pytest

from dsn_lite import cli
from dsn_lite.errors import InputError
from dsn_lite.evaluation import scoring as evaluation
from dsn_lite.evaluation.scoring import Plan, evaluate
from dsn_lite.network.weights import save
from dsn_lite.slimmable.demucs.stream import SEGMENT_FRAMES

pytest.importorskip("pesq")
pytest.importorskip("speechmos")


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    """Scores that cost nothing."""
    monkeypatch.setenv("DSN_LITE_CACHE", str(tmp_path / "cache"))

    def score(clean, wave):
        return {name: float(np.abs(wave - clean).mean()) + index for index, name in enumerate(evaluation.METRICS)}

    monkeypatch.setattr(evaluation, "score", score)


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


def test_the_routed_model_and_its_rivals_of_equal_macs(one, few_pairs, random_demucs):
    learned = one(few_pairs)
    assert one(few_pairs) == learned, "evaluation is not deterministic"
    assert 0.125 < learned["utilisation"] < 1 and set(learned["gates"]) == {"over 1/8", "over 1/4", "over 1/2"}
    random = one(few_pairs, policy="random")
    assert random["target_mmacs_per_second"] == pytest.approx(learned["mmacs_per_second"], rel=1e-3)
    assert random["mmacs_per_second"] == pytest.approx(learned["mmacs_per_second"], rel=0.35)  # 6 segments a file
    frozen = one(few_pairs, policy="frozen")
    assert frozen["mmacs_per_second"] == pytest.approx(learned["mmacs_per_second"], rel=1e-3)
    low, high = frozen["between"]
    share = frozen["share_of_wider"]
    narrow, wide = one(few_pairs, width=low), one(few_pairs, width=high)
    for key in ("pesq", "si_sdr", "utilisation", "mmacs_per_second"):
        assert frozen[key] == pytest.approx((1 - share) * narrow[key] + share * wide[key], abs=1e-5)


def test_budget_is_the_target_of_the_router(one, few_pairs):
    assert one(few_pairs, budget=0.0)["utilisation"] == 0.125 and one(few_pairs, budget=1.0)["utilisation"] == 1


def test_random_widths_are_nested_and_last_for_a_segment():
    rates = np.array([0.9, 0.5, 0.1])
    gates = Plan(rates=rates, hold=SEGMENT_FRAMES).gates("a", np.zeros(256 * 8 * 4000), 3)
    assert (np.diff(gates, axis=1) <= 0).all() and np.abs(gates.mean(0) - rates).max() < 0.03
    whole = gates[: len(gates) // SEGMENT_FRAMES * SEGMENT_FRAMES].reshape(-1, SEGMENT_FRAMES, 3)
    assert (whole == whole[:, :1]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0.3}, "width 0.3: not one of the widths"), ({"policy": "snr"}, "no policy 'snr'"),
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
