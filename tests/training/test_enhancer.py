"""The trunk with its two answers, and the three ways to teach a policy on it."""

import subprocess
import sys

import networks
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dsn_lite.audio.spectral import stft
from dsn_lite.data import Corpus
from dsn_lite.errors import InputError
from dsn_lite.evaluation.benefit import gain
from dsn_lite.network import weights
from dsn_lite.network.config import Config
from dsn_lite.network.model import Network
from dsn_lite.training.enhancer import EnhancerConfig, EnhancerTrainer
from dsn_lite.training.labels import label_path
from dsn_lite.training.losses import SpeechLoss
from dsn_lite.training.patterns import Mix, spans
from dsn_lite.training.policies import LARGE, PolicyConfig, PolicyTrainer, shift_for

SHORT = {"steps": 4, "batch": 2, "seconds": 0.5, "valid_items": 2, "valid_every": 2, "save_every": 1, "warmup_steps": 1}


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    return networks.save_untaught(Config.preset("tiny"), tmp_path_factory.mktemp("trunk") / "trunk.safetensors")


def run_of(way: str, trunk, corpus: Corpus, out, **changes):
    if way == "trunk":
        plan = EnhancerConfig.from_dict({"network": {"preset": "tiny"}, **SHORT, **changes})
        return EnhancerTrainer(plan, corpus, out, workers=0)
    more = {"start_from": str(trunk), "way": way, **({"num_mixtures": 6} if way == "guided" else {})}
    if way == "guided":
        np.save(label_path(corpus, "train", 0.5, 1), np.linspace(1.2, 3.2, 6, dtype=np.float32))
    return PolicyTrainer(PolicyConfig.from_dict({**SHORT, **more, **changes}), corpus, out, workers=0)


@pytest.mark.parametrize("way", ["trunk", "target", "guided", "benefit"])
def test_killed_and_resumed_equals_uninterrupted(way, trunk, corpus, tmp_path):
    run_of(way, trunk, corpus, tmp_path / "whole").run()
    run_of(way, trunk, corpus, tmp_path / "halves").run(until=2)
    again = run_of(way, trunk, corpus, tmp_path / "halves")
    again.resume()
    assert again.step == 2
    again.run()
    whole, halves = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "halves"))
    assert whole.keys() == halves.keys()
    assert all(whole[name].equal(halves[name]) for name in whole)


RECIPE = """
task: enhance
network: {preset: tiny}
steps: 3
batch: 4
seconds: 0.5
valid_items: 2
lr: 1e-3
freeze_norms: %s
"""


@pytest.mark.parametrize("frozen", ["true", "false"])
def test_two_processes_equal_one(frozen, folder, tmp_path):
    """With running statistics; those of the batch are of each process's share, and change the run a little."""
    (tmp_path / "recipe.yaml").write_text(RECIPE % frozen)
    found = {}
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    for name, launcher in (("one", ["-m"]), ("two", two)):
        command = [sys.executable, *launcher, "dsn_lite", "train", str(tmp_path / "recipe.yaml"), "--workers", "0"]
        command += ["--data", str(folder / "manifest.csv"), "--out", str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        found[name] = load_file(tmp_path / name / "model.safetensors")
    far = max(float((found["two"][name] - value).abs().max()) for name, value in found["one"].items())
    assert far < (1e-5 if frozen == "true" else 0.05)


def test_the_small_answer_is_taught_in_every_step(corpus, tmp_path):
    run = run_of("trunk", None, corpus, tmp_path, patterns={"open": 0.0, "closed": 1.0, "random": 0.0}, weight_decay=0.0)
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    run.run()
    after = run.network.state_dict()
    moved = {name for name, _ in run.network.named_parameters() if not after[name].equal(before[name])}
    assert any(".static" in name for name in moved)
    assert not any(".dynamic" in name or name.startswith("policy.") for name in moved)  # closed throughout


def test_frozen_norms_keep_their_statistics(corpus, tmp_path):
    run = run_of("trunk", None, corpus, tmp_path, freeze_norms=True)
    before = {name: value.clone() for name, value in run.network.named_buffers()}
    run.run()
    assert all(value.equal(before[name]) for name, value in run.network.named_buffers())


def test_items_of_the_policy_take_its_gates(corpus, tmp_path):
    run = run_of("trunk", None, corpus, tmp_path, patterns={"open": 0.0, "closed": 0.0, "random": 0.0})
    assert run.plan.patterns == Mix(open=0.0, closed=0.0, random=0.0)
    seen = []
    run.network.register_forward_hook(lambda *call: seen.append(call[-1]))
    run.run(until=1)
    output = seen[0]
    assert output.gates.equal((output.margins > 0).float())
    assert not output.gates.requires_grad


def test_each_item_of_the_policy_asks_for_a_budget_of_its_own(trunk, corpus, tmp_path):
    """Between the two that are named, by the calibration of the weights that the run starts from."""
    run_of("benefit", trunk, corpus, tmp_path / "policy", seconds=4.0).run()
    plan = {"start_from": str(tmp_path / "policy" / "model.safetensors"), "budgets": [0.3, 0.7], "batch": 8}
    run = run_of("trunk", None, corpus, tmp_path / "run", patterns={"open": 0.0, "closed": 0.0, "random": 0.0}, **plan)
    seen = []
    run.network.register_forward_hook(lambda *call: seen.append(call[-1]))
    run.run(until=1)
    least, most = (run.network.budget_shift(budget) for budget in (0.3, 0.7))
    assert least < most
    gates, margins = seen[0].gates, seen[0].margins
    assert (gates >= (margins + least > 0)).all() and (gates <= (margins + most > 0)).all()
    shifts = run._shifts(torch.Generator().manual_seed(0))
    assert len(set(shifts.tolist())) == 8 and least <= shifts.min() and shifts.max() <= most


@pytest.mark.parametrize("shape", [Config.static, Config.static_only])
def test_rivals_go_on_from_the_trunk(shape, trunk, corpus, tmp_path):
    run = run_of("trunk", None, corpus, tmp_path, start_from=str(trunk), network=shape(Config.preset("tiny")).to_dict())
    shared = weights.read(trunk, Network).state_dict()
    assert run.network.policy is None
    assert all(value.equal(shared[name]) for name, value in run.network.state_dict().items())
    with pytest.raises(InputError, match="another shape"):
        run_of("trunk", None, corpus, tmp_path, start_from=str(trunk), network={"preset": "base"})


@pytest.mark.parametrize("way", ["target", "guided", "benefit"])
def test_a_policy_leaves_the_network_alone(way, trunk, corpus, tmp_path):
    run_of(way, trunk, corpus, tmp_path).run()
    before, after = load_file(trunk), load_file(tmp_path / "model.safetensors")
    assert all(after[name].equal(value) for name, value in before.items() if not name.startswith("policy."))


def test_a_policy_needs_a_network_and_guidance_needs_labels(trunk, corpus, tmp_path):
    with pytest.raises(InputError, match="start_from is missing"):
        PolicyTrainer(PolicyConfig.from_dict({**SHORT, "way": "target"}), corpus, tmp_path)
    with pytest.raises(InputError, match="num_mixtures"):
        run_of("guided", trunk, corpus, tmp_path, num_mixtures=None)


def test_gains_sum_to_the_fall_of_the_loss():
    torch.manual_seed(0)
    clean = torch.randn(3, 32_000) * torch.linspace(0.02, 0.3, 32_000)
    near, far = (clean + size * torch.randn(3, 32_000) for size in (0.02, 0.1))
    loss = SpeechLoss(windows=(512,), waveform=0.05)
    frames = gain(stft(near), stft(far), clean, loss)
    assert torch.allclose(frames.sum(1), loss(far, clean) - loss(near, clean), rtol=0.02)
    swapped = gain(stft(far), stft(near), clean, loss)
    assert torch.allclose(swapped, -frames, rtol=1e-3, atol=1e-7)
    assert bool((gain(stft(near), stft(near), clean, loss) == 0).all())


def test_gain_lies_where_the_answers_differ():
    torch.manual_seed(0)
    clean = torch.randn(1, 32_000)
    far = clean.clone()
    far[:, 10_000:12_000] += torch.randn(1, 2_000)
    frames = gain(stft(clean), stft(far), clean, SpeechLoss(waveform=0.05))[0]
    inside = torch.arange(len(frames)) * 256
    inside = (inside > 10_000 - 256) & (inside < 12_000 + 256)
    assert frames[inside].sum() > 0.999 * frames.abs().sum()


def test_benefit_decides_for_all_gates_at_once(trunk, corpus, tmp_path):
    run = run_of("benefit", trunk, corpus, tmp_path / "run")
    run.run()
    margins = weights.read(tmp_path / "run" / "model.safetensors", Network).policy.margins
    assert bool((margins.weight == margins.weight[0]).all()) and bool((margins.bias == margins.bias[0]).all())
    with pytest.raises(InputError, match="bound: way benefit decides for all gates at once"):
        run_of("benefit", trunk, corpus, tmp_path, bound=[["decoder 2", "heads"]])


def test_gates_of_a_group_decide_together(trunk, corpus, tmp_path):
    run = run_of("target", trunk, corpus, tmp_path, bound=[["decoder 2", "heads"], ["middle 2"]])
    names = run.network.gate_names
    first, second, third = (names.index(name) for name in ("decoder 2", "heads", "middle 2"))
    run.run()
    policy = weights.read(tmp_path / "model.safetensors", Network).policy
    assert policy.margins.weight[first].equal(policy.margins.weight[second])
    assert not policy.margins.weight[first].equal(policy.margins.weight[third])


@pytest.mark.parametrize(
    ("bound", "words"),
    [([["hedas"]], "no gate 'hedas'; known are .*heads"), ([["heads", "groups"], ["heads"]], "'heads' stands there twice")],
)
def test_groups_of_gates_that_cannot_be_are_refused(bound, words, trunk, corpus, tmp_path):
    with pytest.raises(InputError, match=words):
        run_of("target", trunk, corpus, tmp_path, bound=bound)


def test_benefit_is_taught_the_gain_of_the_frames_that_were_tried(trunk, corpus, tmp_path):
    run = run_of("benefit", trunk, corpus, tmp_path)
    batch = run.dataset("valid", 2)
    noisy, clean = (torch.stack([batch[i][name] for i in range(2)]) for name in ("noisy", "clean"))
    gains = torch.randn(2, stft(noisy).shape[1])
    gains[0, :8] = torch.tensor([0.5, -0.5, 3.0, 4.5, 9.0, -9.0, 60.0, 0.0])
    run._gained = lambda output, clean: gains * run.unit
    loss, values = run.objective({"noisy": noisy, "clean": clean}, torch.Generator().manual_seed(3))
    tried = spans(2, gains.shape[1], torch.Generator().manual_seed(3))
    told = run.network(stft(noisy), lambda m: tried[..., None].expand_as(m)).margins.mean(-1)
    by_hand = 0.0
    for gained, said, was in zip(gains.flatten().tolist(), told.flatten().tolist(), tried.flatten().tolist(), strict=True):
        far = abs(gained - said)
        by_hand += was * (far**2 / 2 if far <= LARGE else LARGE * (far - LARGE / 2))
    assert 0 < tried.sum() < tried.numel()
    assert loss.item() == pytest.approx(by_hand / gains.numel(), rel=1e-4)
    assert values["gain"] == pytest.approx(float((gains * run.unit * tried).mean()), rel=1e-4)


def test_the_shift_meets_the_activation_asked_for():
    torch.manual_seed(1)
    margins, shares = torch.randn(4, 200, 3), torch.tensor([0.5, 0.3, 0.2])
    for target in (0.05, 0.4, 0.95):
        spent = ((margins + shift_for(margins, shares, target) > 0).float() @ shares).mean()
        assert float(spent) == pytest.approx(target, abs=0.002)


def test_spans_are_open_and_closed_and_hold():
    tried = spans(64, 300, torch.Generator().manual_seed(2))
    assert set(tried.unique().tolist()) == {0, 1}
    changes = (tried[:, 1:] != tried[:, :-1]).float().mean(1)
    assert changes.min() < 0.05 and changes.max() > 0.45
