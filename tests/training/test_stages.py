"""Recipes: stages that start from each other, and branches that share the first of them."""

import subprocess
import sys
from pathlib import Path

import pytest

from dsn_lite import cli
from dsn_lite.commands.train import read_recipe
from dsn_lite.errors import InputError
from dsn_lite.network import weights
from dsn_lite.network.macs import count
from dsn_lite.network.model import Network
from dsn_lite.training.stages import stages_of

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "enhancer.yaml"
BRANCHES = ("dsn", "mgt-dsn", "static", "static-narrow", "static-only")


@pytest.mark.parametrize(
    ("recipe", "branch", "words"),
    [
        ({"steps": 3}, "dsn", "no stages, so no branch dsn"),
        ({"stages": {"a": {}}, "steps": 3}, None, "steps: beside `stages`"),
        ({"stages": {"a": {}}}, "dsn", "no branch 'dsn'; known are none"),
        ({"stages": {"a": {}}, "branches": {"b": {"c": {}}}}, "b", "branches.b: no stage c; known are a"),
        ({"stages": {True: {}}}, None, "YAML reads the name True as no text"),
        ({"stages": ["a"]}, None, "stages: give a table"),
        ({"stages": {"a": 3}}, None, "3 is no stage"),
    ],
)
def test_a_recipe_that_does_not_hold_together_is_one_line(recipe, branch, words):
    with pytest.raises(InputError, match=words) as caught:
        stages_of(recipe, branch, "r.yaml")
    assert "\n" not in str(caught.value)


def test_what_a_branch_changes_is_inside_tables_too():
    recipe = {"all": {"loss": {"waveform": 1, "magnitude": 2}}, "stages": {"a": {"network": {"preset": "tiny"}}}}
    recipe["branches"] = {"b": {"a": {"network": {"gated": False}, "loss": {"waveform": 3}}}}
    assert stages_of(recipe, "b")[0].values == {
        "loss": {"waveform": 3, "magnitude": 2}, "network": {"preset": "tiny", "gated": False},
    }  # fmt: skip
    assert stages_of(recipe)[0].values["loss"] == {"waveform": 1, "magnitude": 2}  # the recipe itself is as it was


@pytest.mark.parametrize("branch", [None, *BRANCHES])
def test_every_branch_of_the_enhancer_can_be_read(branch):
    stages = read_recipe(RECIPE, branch)
    folders = [str(stage.folder) for stage, _, _ in stages]
    policy = {None: "policy", "dsn": "dsn/policy", "mgt-dsn": "mgt-dsn/policy"}
    rival = [f"{branch}/trunk" if branch == "static-narrow" else "trunk", f"{branch}/refine"]
    assert folders == (["trunk", "first-policy", "refine", policy[branch]] if branch in policy else rival)


def test_rivals_see_as_much_and_cost_what_they_should():
    rivals = (None, *BRANCHES[2:])
    stages = {branch: {stage.name: plan for stage, plan, _ in read_recipe(RECIPE, branch)} for branch in rivals}
    cost = {branch: count(Network(stages[branch]["refine"].network)) for branch in rivals}
    for stage in ("trunk", "refine"):
        plans = [stages[branch][stage] for branch in rivals]
        assert len({(plan.steps, plan.batch, plan.seconds, plan.seed, plan.lr) for plan in plans}) == 1
    dynamic = cost[None]
    assert cost["static"].open == cost["static"].closed == pytest.approx(dynamic.open - dynamic.policy)
    assert cost["static-only"].open == pytest.approx(dynamic.closed - dynamic.policy)
    middle = dynamic.closed + 0.5 * (dynamic.open - dynamic.closed)  # what the policy is to spend on average
    assert cost["static-narrow"].open == pytest.approx(middle, rel=0.06)


TINY = """
all: {batch: 2, seconds: 0.5, valid_items: 2, valid_every: 2, save_every: 1}
stages:
  trunk: {task: enhance, network: {preset: tiny}, steps: 3, lr: 1e-3}
  longer: {task: enhance, network: {preset: tiny}, steps: 2, lr: 1e-3, freeze_norms: true, only_refinement: true}
  policy: {task: policy, way: benefit, steps: 2}
branches:
  dsn: {policy: {way: target}}
"""


def test_two_processes_go_from_stage_to_stage(tmp_path, folder):
    """The second process waits until the first has written the weights of a stage."""
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(TINY)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "dsn_lite"]
    command += ["train", str(recipe), "--data", str(folder / "manifest.csv"), "--out", str(run), "--workers", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (run / "policy" / "model.safetensors").exists()


def test_a_recipe_runs_from_nothing_to_the_end_and_branches_share_it(tmp_path, folder, capsys):
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(TINY)
    command = ["train", str(recipe), "--data", str(folder / "manifest.csv"), "--out", str(run), "--workers", "0"]
    assert cli.main([*command, "--stop-at", "2"]) == 0
    assert not (run / "trunk" / "model.safetensors").exists() and not (run / "longer").exists()
    assert cli.main([*command, "--resume"]) == 0
    assert cli.main(command) == 2
    assert "holds a run already" in capsys.readouterr().err
    made = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    assert cli.main([*command, "--resume", "--branch", "dsn"]) == 0
    assert all(path.stat().st_mtime_ns == then for path, then in made.items())  # shared stages are left alone

    trunk, longer, policy, dsn = (
        weights.read(run / folder / "model.safetensors", Network) for folder in ("trunk", "longer", "policy", "dsn/policy")
    )
    assert dsn.card["training"]["start_from"] == str(run / "longer" / "model.safetensors")
    for name, value in longer.state_dict().items():
        before = trunk.state_dict()[name]
        if ".dynamic" not in name:  # the small network and the policy stay as they are
            assert value.equal(before), name
        if not name.startswith("policy."):  # a policy is taught on frozen weights
            assert policy.state_dict()[name].equal(value) and dsn.state_dict()[name].equal(value), name
    assert any(not longer.state_dict()[name].equal(value) for name, value in trunk.state_dict().items())
    assert not policy.policy.margins.weight.equal(dsn.policy.margins.weight)
    shifts = [row["shift"] for row in policy.card["calibration"]]
    assert shifts == sorted(shifts) and len(shifts) == 19
