"""Training of the separator: resumable, the same for any number of processes, and every part learns."""

import json
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from dsn_lite import zoo
from dsn_lite.errors import InputError
from dsn_lite.slimmable.separator.train import SeparationPlan, SeparationTraining
from dsn_lite.training.loop import CHECKPOINT, LOG

SHORT = {
    "network": {"channels": 12, "hidden": 16, "across": 6, "blocks": 1}, "steps": 6, "batch": 4, "seconds": 1.0,
    "lr": 0.002, "warmup_steps": 2, "valid_items": 6, "valid_every": 3, "save_every": 2, "gate_from": 0.5,
}  # fmt: skip


def training(two_talkers, folder, **changes) -> SeparationTraining:
    return SeparationTraining(SeparationPlan.from_dict({**SHORT, **changes}), two_talkers, folder, workers=0)


def equal(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_interrupted_and_resumed_equals_uninterrupted(two_talkers, tmp_path, stop):
    """Before, at and after the step at which the gating module begins to choose."""
    training(two_talkers, tmp_path / "whole").run()
    training(two_talkers, tmp_path / "cut").run(stop)
    resumed = training(two_talkers, tmp_path / "cut")
    resumed.resume()
    resumed.run()
    for name in (CHECKPOINT, "model.safetensors"):
        assert equal(load_file(tmp_path / "whole" / name), load_file(tmp_path / "cut" / name)), name
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut" / LOG).read_text().splitlines()]
    assert steps == [3, 6]


def test_two_processes_equal_one(talkers, two_talkers, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"task": "separate", **SHORT}))
    rest = ["train", str(config), "--data", str(talkers[0]), "--workers", "0", "--device", "cpu"]
    training(two_talkers, tmp_path / "one").run()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "dsn_lite"]
    two = subprocess.run(
        [sys.executable, *launcher, *rest, "--out", str(tmp_path / "two")], env=talkers[1], capture_output=True, text=True
    )
    assert two.returncode == 0, two.stderr[-2000:]
    start = training(two_talkers, tmp_path / "start").network.state_dict()
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    moved = max(float((value - start[name]).abs().max()) for name, value in expected.items())
    for name, value in expected.items():
        # Sums in another order, and Adam divides by small numbers: equal to a hundredth of what training moved.
        assert (value - found[name]).abs().max() < 0.01 * moved, name


def test_every_weight_learns_and_validation_is_deterministic(two_talkers, tmp_path):
    run = training(two_talkers, tmp_path)
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    run.run()
    for name, value in run.network.state_dict().items():
        assert not torch.equal(value, before[name]), f"{name} has not moved"
    assert run.validate() == run.validate()
    rows = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert {"valid_0.125", "valid_1", "valid_learned", "valid_learned_overlap_0.5", "valid_utilisation"} <= set(rows[0])
    assert {"utilisation_by_talkers", "width_rate", "width_std_chunks", "width_std_items"} <= set(rows[0])
    assert {"loss", "loss_narrowest"} <= set(rows[0]) and {"price", "utilisation", "loss_constant"} <= set(rows[1])
    assert (tmp_path / "curve.png").stat().st_size > 5000
    network = zoo.load(tmp_path / "model.safetensors", kinds=("separator",))
    calibration = network.card["calibration"]
    used = [row["activation"] for row in calibration]
    assert used == sorted(set(used)) and used[0] == 0 and used[-1] == pytest.approx(1)
    assert [row["shift"] for row in calibration] == sorted(row["shift"] for row in calibration)
    assert network.card["steps"] == 6 and network.card["training"]["pivot"] == 10


def test_the_gating_module_waits_for_its_phase(two_talkers, tmp_path):
    run = training(two_talkers, tmp_path, decay=0.0)
    before = {name: value.clone() for name, value in run.network.gating.state_dict().items()}
    run.run(3)
    assert equal(before, run.network.gating.state_dict())
    run.run(4)
    assert not equal(before, run.network.gating.state_dict())


@pytest.mark.parametrize("step", [0, 5])
def test_what_is_random_comes_from_the_generator_alone(two_talkers, tmp_path, step):
    run = training(two_talkers, tmp_path)
    run.step = step
    batch = torch.utils.data.default_collate([run.dataset("train", None)[i] for i in range(4)])
    run.network.train()
    totals = []
    for disturbed in (1, 2):
        torch.manual_seed(disturbed)
        generators = (torch.Generator().manual_seed(seed) for seed in range(8))
        totals.append([run.objective(batch, generator)[0].item() for generator in generators])
    assert totals[0] == totals[1] and len(set(totals[0])) > 1


def overfit(run: SeparationTraining, steps: int) -> list[dict]:
    """Values of steps on one batch, again and again."""
    batch = torch.utils.data.default_collate([run.dataset("train", None)[i] for i in range(4)])
    rows = []
    for _ in range(steps):
        rows.append(run._train_step(batch))
        run.step += 1
    return rows


def test_loss_falls_at_every_width(two_talkers, tmp_path):
    network = {"channels": 32, "hidden": 32, "across": 16, "blocks": 1}
    rows = overfit(training(two_talkers, tmp_path, steps=1000, warmup_steps=5, gate_from=1.0, network=network), 60)
    for name in ("loss", "loss_narrowest"):
        assert rows[-1][name] < rows[0][name] - 1.5


@pytest.mark.parametrize(("pressure", "comes_down"), [(30.0, True), (0.0, False)])
def test_pressure_brings_the_width_down(two_talkers, tmp_path, pressure, comes_down):
    run = training(
        two_talkers, tmp_path, steps=300, warmup_steps=1, gate_from=0.0, full_pressure_from=0.01, pressure=pressure,
        pivot=-30.0, lr=0.01, usage_weight=0.0,
    )  # fmt: skip
    rows = overfit(run, 40)
    used = sum(row["utilisation"] for row in rows[-5:]) / 5
    assert (used < 0.2) == comes_down, used


def test_start_from_takes_the_weights_of_the_same_shape(two_talkers, tmp_path):
    training(two_talkers, tmp_path / "first").run()
    path = tmp_path / "first/model.safetensors"
    taken = training(two_talkers, tmp_path / "second", start_from=str(path))
    assert equal(load_file(path), taken.network.state_dict())
    fresh = training(two_talkers, tmp_path / "fresh", start_from=str(path), fresh_gating=True).network.state_dict()
    kept = {name for name, value in load_file(path).items() if torch.equal(value, fresh[name])}
    assert kept == {name for name in fresh if not name.startswith("gating.")}
    with pytest.raises(InputError, match="another shape"):
        training(two_talkers, tmp_path / "third", start_from=str(path), network={**SHORT["network"], "hidden": 8})


def test_options_are_checked_and_kept():
    plan = SeparationPlan.from_dict({**SHORT, "temperature": [2, 1]})
    assert SeparationPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    with pytest.raises(InputError, match="unknown option pressur"):
        SeparationPlan.from_dict({**SHORT, "pressur": 1})
    with pytest.raises(InputError, match="network: unknown option depth"):
        SeparationPlan.from_dict({**SHORT, "network": {"depth": 1}})
