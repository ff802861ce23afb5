"""Training: resumable, the same for any number of processes, and every part of the network learns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from dsn_lite.training.former import CHECKPOINT, LOG, Trainer, Training
from safetensors.torch import load_file

from dsn_lite.audio import clips, noises
from dsn_lite.audio.spectral import compress, stft
from dsn_lite.data import Corpus, Mixtures
from dsn_lite.data.manifest import Entry, write_manifest
from dsn_lite.errors import InputError
from dsn_lite.network.gates import probability
from dsn_lite.network.weights import save
from dsn_lite.training.labels import label_path
from dsn_lite.training.losses import SpeechLoss, activation
from dsn_lite.zoo import load

SHORT = {
    "network": {"preset": "tiny"}, "steps": 6, "batch": 4, "seconds": 1.0, "lr": 0.002, "warmup_steps": 2,
    "valid_items": 4, "valid_every": 3, "save_every": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A manifest of shipped clips and synthesised noises, and an environment with its own cache."""
    folder = tmp_path_factory.mktemp("corpus")
    entries = []
    for i, name in enumerate(clips.names()[:6]):
        wave = clips.load(name)
        soundfile.write(folder / f"{name}.wav", wave, 16_000)
        split = "valid" if i > 3 else "train"
        entries.append(Entry(str(folder / f"{name}.wav"), "speech", split, "clips", name, "en", len(wave) / 16e3, "CC0"))
    for i, name in enumerate(("fan", "rain", "hum", "traffic")):
        soundfile.write(folder / f"{name}.wav", noises.synthesise(name, 4, seed=i), 16_000)
        split = "valid" if i > 2 else "train"
        entries.append(Entry(str(folder / f"{name}.wav"), "noise", split, "noises", name, "", 4.0, "CC0"))
    write_manifest(entries, folder / "manifest.csv")
    cache = folder / "cache"
    Corpus.open(folder / "manifest.csv", cache)
    return folder / "manifest.csv", {**os.environ, "DSN_LITE_CACHE": str(cache), "OMP_NUM_THREADS": "1"}


def trainer(data, folder: Path, **changes) -> Trainer:
    manifest, environment = data
    training = Training.from_dict({**SHORT, **changes})
    return Trainer(training, Corpus.open(manifest, environment["DSN_LITE_CACHE"]), folder, workers=0)


def command(data, folder: Path, config: Path, *more: str, launcher=("-m", "dsn_lite")) -> list[str]:
    return [sys.executable, *launcher, "train", str(config), "--data", str(data[0]), "--out", str(folder), *more]


def write_config(path: Path, **changes) -> Path:
    path.write_text(yaml.safe_dump({**SHORT, **changes}))
    return path


def test_killed_and_resumed_equals_uninterrupted(data, tmp_path):
    config = write_config(tmp_path / "config.yaml", steps=14, save_every=3, valid_every=7)
    whole = subprocess.run(command(data, tmp_path / "whole", config), env=data[1], capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(command(data, tmp_path / "killed", config), env=data[1], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / CHECKPOINT).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model.safetensors").exists(), "it finished before it was killed"
    again = subprocess.run(command(data, tmp_path / "killed", config), env=data[1], capture_output=True, text=True)
    assert again.returncode == 2 and "--resume" in again.stderr
    resumed = subprocess.run(
        command(data, tmp_path / "killed", config, "--resume"), env=data[1], capture_output=True, text=True
    )
    assert resumed.returncode == 0, resumed.stderr
    for name in (CHECKPOINT, "model.safetensors"):
        expected, found = load_file(tmp_path / "whole" / name), load_file(tmp_path / "killed" / name)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            assert torch.equal(value, found[key]), f"{name}: {key}"
    steps = [json.loads(line)["step"] for line in (tmp_path / "killed" / LOG).read_text().splitlines()]
    assert steps == [7, 14]


def test_the_weights_of_the_loss_are_options(data, tmp_path):
    made = trainer(data, tmp_path, loss={"waveform": 0.01, "windows": [512]})
    assert made.loss == SpeechLoss(waveform=0.01, windows=(512,))
    assert Training.from_dict(json.loads(json.dumps(made.training.to_dict()))) == made.training
    with pytest.raises(InputError, match="unknown option wave"):
        Training.from_dict({**SHORT, "loss": {"wave": 0.01}})


def test_two_processes_equal_one(data, tmp_path):
    config = write_config(tmp_path / "config.yaml", gating={"policy_from": 0.3})
    one = subprocess.run(command(data, tmp_path / "one", config), env=data[1], capture_output=True, text=True)
    assert one.returncode == 0, one.stderr
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "dsn_lite")
    two = subprocess.run(
        command(data, tmp_path / "two", config, launcher=launcher), env=data[1], capture_output=True, text=True
    )
    assert two.returncode == 0, two.stderr[-2000:]
    start = trainer(data, tmp_path / "start").network.state_dict()
    expected, found = load(tmp_path / "one/model.safetensors"), load(tmp_path / "two/model.safetensors")
    moved = max((value - start[name]).abs().max() for name, value in expected.state_dict().items())
    for name, value in expected.state_dict().items():
        # Sums in another order, and Adam divides by small numbers: equal to a hundredth of what training moved.
        assert (value - found.state_dict()[name]).abs().max() < 0.01 * moved, name


def test_every_weight_learns_and_validation_is_deterministic(data, tmp_path):
    run = trainer(data, tmp_path)
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    run.run()
    for name, value in run.network.state_dict().items():
        assert not torch.equal(value, before[name]), f"{name} has not moved"
    assert run.validate() == run.validate()
    rows = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6]
    assert {"valid_open", "valid_closed", "valid_learned", "gate_rate", "gate_std_frames"} <= set(rows[0])
    assert {"loss", "gradient", "lr", "audio_per_second", "steps_per_second"} <= set(rows[0])
    assert (tmp_path / "curve.png").stat().st_size > 5000
    network = load(tmp_path / "model.safetensors")
    assert network.card["steps"] == 6 and network.card["calibration"]


def test_loss_falls(data, tmp_path):
    """One batch, again and again."""
    always = {"preset": "tiny", "parts": "always"}
    run = trainer(data, tmp_path, steps=60, num_mixtures=4, lr=0.003, network=always, valid_every=10)
    run.run()
    loss = [json.loads(line)["loss"] for line in (tmp_path / LOG).read_text().splitlines()]
    assert loss[-1] < loss[0] - 0.01


def test_policy_meets_its_target(data, tmp_path):
    """With the speech loss out of the way, the pressure alone must bring the activation to the target."""
    plan = {"policy_from": 0.0, "full_pressure_from": 0.1, "weight": 30.0, "usage_weight": 0.0, "target": 0.2,
            "noise_fades": (0.3, 0.8)}  # fmt: skip
    run = trainer(data, tmp_path, steps=80, gating=plan, valid_every=80, lr=0.01)
    assert abs(run.validate()["valid_activation"] - 0.2) > 0.1
    run.run()
    assert abs(run.validate()["valid_activation"] - 0.2) < 0.1


def test_guided_target_needs_labels_and_follows_them(data, tmp_path):
    changes = {"num_mixtures": 8, "seconds": 4.0, "gating": {"guided": True, "target": 0.5}}
    with pytest.raises(InputError, match="dsn-lite label"):
        trainer(data, tmp_path, **changes)
    corpus = Corpus.open(data[0], data[1]["DSN_LITE_CACHE"])
    path = label_path(corpus, "train", 4.0, 1)
    np.save(path, np.linspace(1, 4, 8).astype(np.float32))
    targets = trainer(data, tmp_path, **changes).targets
    path.unlink()
    assert abs(float(targets.mean()) - 0.5) < 1e-3
    assert (targets.diff() <= 0).all() and targets[0] > targets[-1] + 0.5


def test_a_guided_policy_learns_to_hear_quality_first(data, tmp_path):
    """Two kinds of mixtures, told apart by their SNR: the policy must give the worse ones more, before step 0."""
    corpus = Corpus.open(data[0], data[1]["DSN_LITE_CACHE"])
    mixtures = Mixtures(corpus, "train", 4.0, 1)
    snr = np.array([mixtures.recipe(i).snr_db for i in range(24)])
    path = label_path(corpus, "train", 4.0, 1)
    np.save(path, np.interp(snr, [-5, 30], [1, 3.5]).astype(np.float32))
    plan = {"guided": True, "target": 0.5, "policy_steps": 200}
    run = trainer(data, tmp_path, num_mixtures=24, seconds=4.0, gating=plan)
    path.unlink()
    weights = {name: value.clone() for name, value in run.network.state_dict().items()}
    noisy = torch.stack([mixtures[i]["noisy"] for i in range(24)])

    def missed() -> float:
        logits = run.network.policy(compress(stft(noisy)).abs())[0]
        return float((activation(probability(logits), run.weights) - run.targets).detach().square().mean())

    before = missed()
    run.teach_policy()
    assert missed() < 0.85 * before
    for name, value in run.network.state_dict().items():
        assert torch.equal(value, weights[name]) != name.startswith("policy."), name
        assert torch.equal(value, run.average[name])


def test_warm_start_takes_all_but_the_policy(data, tmp_path):
    run = trainer(data, tmp_path / "static", network={"preset": "tiny", "parts": "always"}, steps=3)
    run.run()
    path = tmp_path / "static" / "model.safetensors"
    warm = trainer(data, tmp_path / "warm", start_from=str(path)).network.state_dict()
    for name, value in load_file(path).items():
        assert torch.equal(warm[name], value)
    with pytest.raises(InputError, match="another shape"):
        trainer(data, tmp_path / "wrong", start_from=str(path), network={"preset": "tiny", "hidden": 20})


def test_resume_refuses_what_does_not_fit(data, tmp_path):
    run = trainer(data, tmp_path)
    run.run(2)
    with pytest.raises(InputError, match="seed was 1 and is 2"):
        trainer(data, tmp_path, seed=2).resume()
    (tmp_path / CHECKPOINT).write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="cannot be read"):
        trainer(data, tmp_path).resume()


def test_bad_configurations_name_the_option(tmp_path):
    for change, word in (
        ({"stepz": 3}, "stepz"),
        ({"gating": {"gumbel": 1}}, "gumbel"),
        ({"network": {"preset": "huge"}}, "huge"),
        ({"network": {"preset": "tiny", "head": 3}}, "head"),
    ):
        path = write_config(tmp_path / "config.yaml", **change)
        with pytest.raises(InputError, match=word):
            Training.read(path)
    with pytest.raises(InputError, match=r"missing\.yaml"):
        Training.read(tmp_path / "missing.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(InputError, match="no table of options"):
        Training.read(tmp_path / "empty.yaml")
    (tmp_path / "short.yaml").write_text("network: {preset: tiny}")
    with pytest.raises(InputError, match="steps is missing"):
        Training.read(tmp_path / "short.yaml")


def test_a_policy_can_begin_anew(data, tmp_path):
    given = trainer(data, tmp_path / "first", seed=7).network
    save(given, tmp_path / "first.safetensors")
    for fresh in (False, True):
        source = str(tmp_path / "first.safetensors")
        made = trainer(data, tmp_path / "next", start_from=source, gating={"fresh_policy": fresh})
        for name, value in made.network.named_parameters():
            if name.endswith("weight") and value.ndim > 1:  # others may begin as a constant
                assert torch.equal(value, given.get_parameter(name)) != (fresh and name.startswith("policy.")), name


def test_the_policy_can_learn_alone(data, tmp_path):
    made = trainer(data, tmp_path, gating={"network_rate": 0.0, "policy_from": 0.0}, lr=0.01)
    before = {name: value.clone() for name, value in made.network.state_dict().items()}
    made.run()
    for name, value in made.network.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("policy."), name
