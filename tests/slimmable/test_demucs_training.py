"""Training of the slimmable DEMUCS: repeatable, the same for one process or two, every weight learns, the target is met."""

import itertools
import json
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from dsn_lite.errors import InputError
from dsn_lite.slimmable.demucs import teaching
from dsn_lite.slimmable.demucs.network import SlimDemucs
from dsn_lite.slimmable.demucs.teaching import price_of, segment_losses
from dsn_lite.slimmable.demucs.train import SHOWN, DemucsPlan, DemucsTraining
from dsn_lite.training.loop import CHECKPOINT, LOG
from dsn_lite.zoo import load

SHORT = {
    "network": {"channels": [8, 8, 8, 8], "recurrent_layers": 1, "router_bands": 6, "router_width": 8},
    "steps": 6, "batch": 2, "seconds": 0.5, "warmup_steps": 1, "router_from": 0.5, "valid_items": 2, "valid_every": 3,
    "save_every": 2,
}  # fmt: skip


def training(corpus, folder, **changes) -> DemucsTraining:
    return DemucsTraining(DemucsPlan.from_dict({**SHORT, **changes}), corpus, folder, workers=0)


def test_every_weight_learns_and_the_run_says_how_the_router_behaves(two_talkers, tmp_path):
    run = training(two_talkers, tmp_path)
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    run.run(3)
    assert all(torch.equal(v, before[n]) == n.startswith("router") for n, v in run.network.state_dict().items())
    run.run()
    for name, value in run.network.state_dict().items():
        assert not torch.equal(value, before[name]), f"{name} has not moved"
    assert run.validate() == run.validate()
    rows = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6]
    assert {f"valid_{width:g}" for width in run.network.widths} <= set(rows[0])
    for target in SHOWN:
        names = ("valid_at", "utilisation_valid_at", "share_of_macs_at", "std_segments_at", "std_items_at")
        assert {f"{name}_{target:g}" for name in names} <= set(rows[1])
    network = load(tmp_path / "model.safetensors")
    assert isinstance(network, SlimDemucs) and network.card["kind"] == "slim-demucs"
    assert network.card["measure"] == "width" and list(network.card["mmacs_per_second"]) == ["0.125", "0.25", "0.5", "1"]


def test_stopped_and_resumed_equals_uninterrupted(two_talkers, tmp_path):
    training(two_talkers, tmp_path / "whole").run()
    for stop in (1, 4, 6):  # in the first half, and in that of the router
        run = training(two_talkers, tmp_path / "parts")
        if stop > 1:
            run.resume()
        run.run(stop)
    for name in (CHECKPOINT, "model.safetensors"):
        expected, found = load_file(tmp_path / "whole" / name), load_file(tmp_path / "parts" / name)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            assert torch.equal(value, found[key]), f"{name}: {key}"


def test_two_processes_equal_one(talkers, two_talkers, tmp_path):
    manifest, environment = talkers
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"task": "slim-demucs", **SHORT}))
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    command = [sys.executable, *launcher, "-m", "dsn_lite", "train", str(config), "--data", str(manifest)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "two"), "--workers", "0"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    training(two_talkers, tmp_path / "one").run()
    expected, found = (load(tmp_path / name / "model.safetensors").state_dict() for name in ("one", "two"))
    torch.manual_seed(DemucsPlan.from_dict(SHORT).seed)
    start = SlimDemucs(DemucsPlan.from_dict(SHORT).network).state_dict()
    moved = max(float((value - start[name]).abs().max()) for name, value in expected.items())
    for name, value in expected.items():
        assert float((value - found[name]).abs().max()) < 0.02 * moved, name


@pytest.mark.parametrize("measure", ["width", "macs"])
def test_the_pressure_alone_meets_the_target(two_talkers, tmp_path, measure):
    """With the speech loss out of the way, the router learns to spend what it is asked to, for one target and another."""
    run = training(
        two_talkers, tmp_path, steps=160, router_from=0.0, weight=100.0, full_pressure=0.01, spread=0.0, lr=0.01,
        max_grad_norm=10.0, measure=measure, noise_fades=[0.0, 0.5], num_mixtures=4, batch=4, valid_every=1000,
    )  # fmt: skip
    for parameter in run.network.parameters():
        parameter.requires_grad_(False)
    run.network.router.requires_grad_(True)
    object.__setattr__(run.plan, "loss", lambda enhanced, clean: enhanced.new_zeros(enhanced.shape[0], requires_grad=True))
    items = [run.dataset("train", None)[i] for i in range(4)]
    batch = {name: torch.stack([item[name] for item in items]) for name in ("noisy", "clean")}
    run.network.forward = lambda wave, choice: wave  # only what the choices cost matters here
    while run.step < 160:
        run._train_step(batch)
        run.step += 1
    with torch.no_grad():
        logits = {target: run.network.route(batch["noisy"], target) for target in (0.2, 0.4, 0.6)}
    spent = {target: float(each.softmax(-1).mean((0, 1)) @ run.prices) for target, each in logits.items()}
    assert spent[0.2] < spent[0.4] < spent[0.6]
    assert spent == pytest.approx({target: target for target in spent}, abs=0.08 if measure == "width" else 0.2)


def test_loss_falls_at_every_width(two_talkers, tmp_path):
    """The same mixtures, again and again."""
    run = training(two_talkers, tmp_path, steps=40, num_mixtures=2, lr=0.01, router_from=1.0, valid_every=10)
    run.run(40)
    rows = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    for width in ("0.125", "1"):
        assert rows[-1][f"loss_{width}"] < rows[0][f"loss_{width}"] - 0.0002, width


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"router_form": 1}, "unknown option router_form"), ({"measure": "time"}, "give one of width, macs"),
        ({"network": {"size": 1}}, "network: unknown option size"), ({"loss": {"wave": 1}}, "unknown option wave"),
        ({"router_from": 2}, "from 0 to 1"),
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_one_line(changes, message):
    with pytest.raises(InputError, match=message):
        DemucsPlan.from_dict({**SHORT, **changes})


def test_the_plan_survives_json():
    plan = DemucsPlan.from_dict({**SHORT, "loss": {"windows": [320]}, "noise_fades": [0.1, 0.2]})
    assert DemucsPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_starts_from_weights_of_its_own_kind(two_talkers, tmp_path):
    training(two_talkers, tmp_path / "first").run()
    again = training(two_talkers, tmp_path / "second", start_from=str(tmp_path / "first" / "model.safetensors"))
    expected = load_file(tmp_path / "first" / "model.safetensors")
    assert all(torch.equal(value, expected[name]) for name, value in again.network.state_dict().items())
    other = {**SHORT["network"], "channels": [8, 8, 8, 16]}
    with pytest.raises(InputError, match="weights of another shape"):
        training(two_talkers, tmp_path, network=other, start_from=str(tmp_path / "first" / "model.safetensors"))


def test_a_taught_router_is_wide_where_it_is_worth_it_and_leaves_the_widths_alone(two_talkers, tmp_path, monkeypatch):
    wide = {**SHORT["network"], "router_width": 48}
    run = training(two_talkers, tmp_path, network=wide, router_from=0.0, teach_items=16, teach_steps=500, measure="macs")
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    gains = itertools.cycle((1.0, 0.6, 0.3, 0.0))

    def level(wave):
        segments = torch.nn.functional.pad(wave, (0, -wave.shape[-1] % 2048)).unflatten(-1, (-1, 2048))
        return segments.square().mean(-1).add(1e-9).log10()  # loud segments gain most by width

    monkeypatch.setattr(teaching, "segment_losses", lambda enhanced, clean: next(gains) * (level(clean) + 9))
    run.prepare()
    assert all(torch.equal(v, before[n]) != n.startswith("router") for n, v in run.network.state_dict().items())
    assert all(torch.equal(value, run.average[name]) for name, value in run.network.state_dict().items())
    items = [run.dataset("train", None)[i] for i in range(16)]
    noisy, clean = (torch.stack([item[name] for item in items]) for name in ("noisy", "clean"))
    with torch.no_grad():
        spent = [run.network.route(noisy, target).softmax(-1) @ run.prices for target in (0.1, 0.3, 0.75)]
    means = [float(each.mean()) for each in spent]
    assert means == sorted(means) and means[2] > means[0] + 0.1
    is_loud = level(clean) > level(clean).median()
    assert spent[1][is_loud].mean() > spent[1][~is_loud].mean() + 0.02


@pytest.mark.parametrize("target", [0.1, 0.4, 0.9])
def test_the_price_meets_the_target(target):
    losses = torch.rand(4000, 4, generator=torch.Generator().manual_seed(2)).cumsum(-1).flip(-1)
    costs = torch.tensor([0.02, 0.07, 0.26, 1.0])
    price = price_of(losses, costs, target)
    assert costs[(losses + price * costs).argmin(-1)].mean() == pytest.approx(target, abs=0.01)


def test_a_segment_is_charged_for_what_is_wrong_in_it():
    clean = torch.randn(1, 3 * 2048 + 100, generator=torch.Generator().manual_seed(1))
    enhanced = clean.clone()
    enhanced[:, 2500:3600] = 0
    found = segment_losses(enhanced, clean)
    assert found.shape == (1, 4) and found.argmax() == 1 and found[0, 3] < 1e-6
