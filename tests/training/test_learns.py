"""That training does what it is for, and that a kill at any moment costs nothing: small runs, but whole ones."""

import os
import signal
import subprocess
import sys
import time

import networks
import numpy as np
import pytest
import yaml
from safetensors.torch import load_file

from dsn_lite.network import weights
from dsn_lite.network.config import Config
from dsn_lite.network.model import Network
from dsn_lite.training import run_files
from dsn_lite.training.enhancer import EnhancerConfig, EnhancerTrainer
from dsn_lite.training.policies import PolicyConfig, PolicyTrainer
from dsn_lite.training.run_files import CHECKPOINT

NETWORK = {
    "channels": [[4, 4], [4, 4], [6, 6]], "heads": [1, 1], "head_width": [2, 4], "hidden": [8, 8], "groups": [1, 1],
    "group_width": [6, 6], "policy_bands": 8, "policy_width": 8,
}  # fmt: skip
SHORT = {"batch": 4, "seconds": 0.5, "valid_items": 2, "num_mixtures": 4}


@pytest.mark.parametrize("optimizer", ["adamw", "soap"])
def test_both_losses_fall(optimizer, corpus, tmp_path):
    """On four mixtures, seen again and again: whoever learns anything learns these."""
    plan = {"network": NETWORK, **SHORT, "steps": 60, "lr": 5e-3, "warmup_steps": 5, "optimizer": optimizer}
    run = EnhancerTrainer(EnhancerConfig.from_dict({**plan, "valid_every": 60}), corpus, tmp_path, workers=0)
    found, step = [], run._train_step
    run._train_step = lambda batch: found.append(step(batch)) or found[-1]
    run.run()
    for name in ("loss", "small"):
        first, last = (np.mean([values[name] for values in part]) for part in (found[:6], found[-6:]))
        assert last < first - 0.05, name


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    return networks.save_untaught(Config.from_dict(NETWORK), tmp_path_factory.mktemp("trunk") / "trunk.safetensors")


def policy_run(way: str, trunk, corpus, out, steps: int, target: float, **changes) -> tuple[dict, dict]:
    """What is found on the validation mixtures at the last step, and when the price has been set."""
    plan = {"way": way, "start_from": str(trunk), "target": target, **SHORT, "steps": steps, "lr": 1e-2, **changes}
    run = PolicyTrainer(PolicyConfig.from_dict({**plan, "valid_every": steps}), corpus, out, workers=0)
    run.run()
    card = weights.read(out / "model.safetensors", Network).card
    return run_files.read_log(out / run_files.LOG)[-1], card["validation"]


@pytest.mark.parametrize("way", ["benefit", "target"])
@pytest.mark.parametrize("target", [0.25, 0.6])
def test_a_policy_is_priced_so_that_the_target_is_spent(target, way, trunk, corpus, tmp_path):
    _, settled = policy_run(way, trunk, corpus, tmp_path, 4, target)
    assert settled["valid_activation"] == pytest.approx(target, abs=0.01)


@pytest.mark.parametrize("target", [0.25, 0.6])
def test_a_policy_with_one_target_learns_to_meet_it(target, trunk, corpus, tmp_path):
    alone = [[name] for name in Network(Config.from_dict(NETWORK)).gate_names]
    last, _ = policy_run("target", trunk, corpus, tmp_path, 80, target, bound=alone)
    assert last["valid_activation"] == pytest.approx(target, abs=0.15)


def test_killed_at_any_moment_it_goes_on_as_if_nothing_had_been(folder, tmp_path):
    """SIGKILL as soon as the checkpoint has changed once more: between two steps, in a step or while it is written."""
    plan = {"task": "enhance", "network": NETWORK, **SHORT, "steps": 12, "lr": 2e-3, "save_every": 1, "valid_every": 4}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(plan))
    command = [sys.executable, "-m", "dsn_lite", "train", str(tmp_path / "recipe.yaml"), "--workers", "0", "--resume"]
    command += ["--data", str(folder / "manifest.csv"), "--out"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    checkpoint, kills = tmp_path / "killed" / CHECKPOINT, 0
    for delay in (0.0, 0.02, 0.05):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
        with subprocess.Popen([*command, str(checkpoint.parent)], stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before):
                time.sleep(0.002)
            time.sleep(delay)
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
    assert kills, "every run was over before it could be killed"
    subprocess.run([*command, str(checkpoint.parent)], check=True, capture_output=True)
    whole, killed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(value.equal(killed[name]) for name, value in whole.items())
