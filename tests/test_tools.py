"""The tools that turn measurements into evidence, on numbers whose answer is known."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

TOOLS = Path(__file__).resolve().parent.parent / "tools"


def tool(name: str):
    specification = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_frames_are_told_apart_by_speech_and_bursts():
    meaning, rng = tool("meaning"), np.random.default_rng(0)
    half = 16_000
    speech = np.concatenate([np.zeros(2 * half), rng.standard_normal(2 * half)])
    noise = 1e-3 * rng.standard_normal(4 * half)
    noise[int(1.5 * half) : int(2.5 * half)] *= 30
    kinds = meaning.frame_kinds(speech, noise)
    at = lambda seconds: meaning.KINDS[kinds[round(seconds * 62.5)]]
    assert [at(0.5), at(1.75), at(3.5), at(2.25)] == list(meaning.KINDS)


def test_a_change_of_the_recipe_leads_into_its_tables():
    compare = tool("compare")
    values = {"lr": 0.1, "loss": {"waveform": 0.05, "perceptual": 0}}
    assert compare.changed(values, "loss.waveform=0.2") == {"lr": 0.1, "loss": {"waveform": 0.2, "perceptual": 0}}
    assert compare.changed(values, "budgets=[0.2, 0.8]")["budgets"] == [0.2, 0.8]
    with pytest.raises(SystemExit, match="give KEY=VALUE"):
        compare.changed(values, "lr")


def rows(values, mmacs, metric="pesq"):
    found = {"per_file": [{"file": str(i), metric: value} for i, value in enumerate(values)]}
    return {**found, metric: float(np.mean(values)), "mmacs_per_second": mmacs}


def test_equal_quality_is_read_from_the_constant_widths():
    demucs = tool("demucs")
    widths = {0.25: rows([1.0, 2.0], 10.0), 1.0: rows([2.0, 3.0], 50.0)}
    costs = np.array([10.0, 50.0])
    routed = rows([1.5, 2.5], 15.0)  # a constant width of that mean, 2.0, costs 30
    assert demucs.equal_quality(widths, routed, "pesq", costs) == pytest.approx(0.5)
    assert demucs.equal_quality(widths, rows([9.0, 9.0], 15.0), "pesq", costs) is None


def test_a_missing_score_is_no_number():
    assert np.isnan(tool("demucs").column(rows([1.0], 1.0) | {"per_file": [{"pesq": None}]}, "pesq")).all()


def test_what_seams_cost(random_demucs):
    """Choices that know more than the mean are below the constant width; what the routed network adds is the seam."""
    seams, network = tool("seams"), random_demucs()
    generator = torch.Generator().manual_seed(0)
    hard = torch.randint(2, (40, 8, 1), generator=generator).float()  # where width helps, and where it does not
    widths = 1 - hard * torch.linspace(0, 0.9, 4)
    choice = torch.nn.functional.one_hot((3 * hard[..., 0]).long(), 4).float()
    routed = (widths * choice).sum(-1, keepdim=True) + 0.25
    found = seams.compare(network, torch.cat([widths, routed], -1), {0.5: choice})["0.5"]
    assert found["chosen"] < found["constant"] and found["best_segments"] <= found["chosen"] + 1e-5
    assert found["best_segments"] < found["best_mixtures"] <= found["constant"] + 1e-5
    assert found["routed"] - found["chosen"] == pytest.approx(0.25, abs=1e-4)
    changed = (hard[:, 1:] != hard[:, :-1]).float().mean() * 16_000 / 2048
    assert found["changes_a_second"] == pytest.approx(float(changed), abs=1e-3)


def test_throughput_of_every_trainer(two_talkers, tmp_path):
    throughput = tool("throughput")
    common = {"preset": "tiny", "workers": 0, "steps": throughput.WARM_UP + 2, "batch": 2, "seconds": 0.5}
    found = {name: throughput.measure(run) for name, run in throughput.trainers(two_talkers, tmp_path, **common)}
    assert list(found) == ["gated", "static", "policy"]
    for values in found.values():
        low, high = values["step_seconds_quartiles"]
        assert low - 0.002 <= 1 / values["steps_per_second"] <= high + 0.002
        assert values["audio_seconds_per_second"] == pytest.approx(values["steps_per_second"], abs=0.01)  # 2 times 0.5 s
    assert found["static"]["parameters"] < found["gated"]["parameters"] == found["policy"]["parameters"]


def test_what_is_foretold_is_judged_between_chance_and_the_best_frames():
    foresight = tool("foresight")
    gained = torch.from_numpy(np.random.default_rng(0).exponential(size=(8, 400)))
    noise = torch.rand(8, 400, generator=torch.Generator().manual_seed(0))
    assert foresight.share(gained, gained, 0.4) == pytest.approx(1)
    assert foresight.share(noise, gained, 0.4) == pytest.approx(0, abs=0.05)
    assert foresight.share(-gained, gained, 0.4) < -0.4
    assert 0.3 < foresight.share(gained + noise * 2, gained, 0.4) < 0.95


def test_what_a_feature_says_is_learnt_either_way():
    foresight = tool("foresight")
    features = torch.randn(48, 60, 3, generator=torch.Generator().manual_seed(0)).half()
    kept = foresight.Kept(features, torch.stack([features[..., 0].float(), torch.zeros(48, 60)], -1), [])
    for whether in (False, True):
        told = foresight.teach(whether, kept, 0.05, 120)(features.float()).detach()
        assert foresight.share(told, kept.gain(0.05), 0.4) > 0.8
