"""A training that was killed, moved or typed wrong goes on, or says in one line what is wrong. Small runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from dsn_lite import cli
from dsn_lite.data import Corpus
from dsn_lite.errors import InputError
from dsn_lite.evaluation.statistics import spearman
from dsn_lite.training import labels
from dsn_lite.training.enhancer import EnhancerConfig, EnhancerTrainer
from dsn_lite.training.run_files import CHECKPOINT, LOG, read_log

NETWORK = {
    "channels": [[2, 2], [3, 3], [4, 4]], "heads": [1, 1], "head_width": [2, 2], "hidden": [4, 4], "groups": [1, 1],
    "group_width": [4, 4], "policy_bands": 8, "policy_width": 8,
}  # fmt: skip
SHORT = {
    "task": "enhance", "network": NETWORK, "steps": 6, "batch": 2, "seconds": 0.5, "lr": 0.002, "warmup_steps": 2,
    "valid_items": 1, "valid_every": 3, "save_every": 2,
}  # fmt: skip


def trainer(folder: Path, out: Path, **changes) -> EnhancerTrainer:
    corpus = Corpus.open(folder / "manifest.csv", folder / "cache")
    return EnhancerTrainer(plan_of(**changes), corpus, out, workers=0)


def plan_of(**changes) -> EnhancerConfig:
    return EnhancerConfig.from_dict({name: value for name, value in {**SHORT, **changes}.items() if name != "task"})


def command(folder: Path, out: Path, config: dict | str | bytes, *more: str) -> int:
    path = out.parent / "config.yaml"
    text = config if isinstance(config, str | bytes) else yaml.safe_dump(config)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    data = str(folder / "manifest.csv")
    return cli.main(["train", str(path), "--data", data, "--out", str(out), "--workers", "0", *more])


def same(one: Path, other: Path, names: tuple[str, ...] = (CHECKPOINT, "model.safetensors")) -> bool:
    for name in names:
        a, b = load_file(one / name), load_file(other / name)
        if a.keys() != b.keys() or not all(torch.equal(value, b[key]) for key, value in a.items()):
            return False
    return True


# --------------------------------------------------------------------------------------------------------------- resume
@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory) -> Path:
    """A run that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dsn_lite.training.run_files.draw_curve", lambda *_: None)
        trainer(folder, out).run()
    return out


@pytest.fixture(scope="module")
def stopped(folder, tmp_path_factory) -> Path:
    """A run that stopped after four of its six steps."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dsn_lite.training.run_files.draw_curve", lambda *_: None)
        trainer(folder, out).run(4)
    return out


@pytest.fixture
def begun(stopped, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(stopped, tmp_path / "run"))


@pytest.mark.parametrize(
    "tail", ["", '{"step": 3, "lr": 0.0', '{"loss": 3}\n{"st', "\x00\x00\x00", "[1]\n", '{"step": 99}\n', "\ufffd\n\n"],
)
def test_half_a_last_line_of_the_log_is_no_hindrance(folder, whole, begun, tail):
    with (begun / LOG).open("a") as log:
        log.write(tail)
    assert command(folder, begun, SHORT, "--resume") == 0
    assert same(whole, begun)
    assert [json.loads(line)["step"] for line in (begun / LOG).read_text().splitlines()] == [3, 6]


def test_after_a_change_it_goes_on_exactly_where_it_was(folder, begun, tmp_path, capsys):
    """Other rate, steps, saving, validation and workers: as if the run had been told so at that step."""
    changes = {"lr": 0.01, "steps": 8, "warmup_steps": 1, "save_every": 5, "valid_every": 4, "valid_items": 2}
    told = trainer(folder, tmp_path / "told")
    told.run(4)
    told.plan = replace(told.plan, **changes)
    told.run()
    assert command(folder, tmp_path / "run", {**SHORT, **changes}, "--resume", "--workers", "1") == 0
    assert same(tmp_path / "told", tmp_path / "run")
    said = capsys.readouterr().err
    assert "from step 4 on: steps 8 (was 6), lr 0.01 (was 0.002)" in said and "valid_items 2 (was 1)" in said
    assert [row["step"] for row in read_log(tmp_path / "run" / LOG)] == [3, 8]
    once_more = trainer(folder, tmp_path / "run", **changes)
    once_more.resume()
    assert once_more.step == 8 and once_more.optimiser.param_groups[0]["lr"] > 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 2}, "seed was 1 and is 2"),
        ({"batch": 4, "lr": 1}, "batch was 2 and is 4"),
        ({"network": {**NETWORK, "hidden": [4, 10]}}, "network.hidden was [4, 4] and is [4, 10]"),
        ({"loss": {"waveform": 0.5}}, "loss.waveform was 0.03 and is 0.5"),
        ({"patterns": {"open": 0.25, "closed": 0, "random": 0.5}}, "patterns.open was 0.5 and is 0.25"),
        ({"seconds": 1, "ema_decay": 0.5}, "seconds was 0.5 and is 1.0; ema_decay was 0.999 and is 0.5"),
        ({"steps": 3}, "4 steps are done; steps is 3; give 4 or more"),
    ],
)
def test_what_may_not_change_is_named_with_both_values(folder, begun, capsys, changes, words):
    before = (begun / CHECKPOINT).read_bytes()
    assert command(folder, begun, {**SHORT, **changes}, "--resume") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert words in last and last.startswith("dsn-lite: ") and CHECKPOINT in last
    assert (begun / CHECKPOINT).read_bytes() == before


def test_a_checkpoint_with_the_old_names_is_resumed(folder, whole, begun):
    run = trainer(folder, begun)
    run.resume()
    old = {"lr": "rate", "ema_decay": "average", "max_grad_norm": "clip", "weight_decay": "decay", "num_mixtures": "items",
           "warmup_steps": "warmup"}  # fmt: skip
    plan = {old.get(name, name): value for name, value in run.plan.to_dict().items()}
    run.plan = type("Old", (), {"to_dict": lambda self: plan})()
    run.save()
    assert '"rate"' in (begun / CHECKPOINT).read_bytes()[:20000].decode(errors="replace").replace("\\", "")
    assert command(folder, begun, SHORT, "--resume") == 0
    assert same(whole, begun)


def test_another_sound_under_the_same_name_is_another_corpus(folder, tmp_path, capsys):
    copy = tmp_path / "corpus"
    copy.mkdir()
    for path in folder.glob("*.*"):
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "cache").mkdir()
    for path in (folder / "cache").glob("*.npz"):
        (copy / "cache" / path.name).write_bytes(path.read_bytes())
    run = trainer(copy, tmp_path / "run")
    run.run(2)
    (copy / "0.flac").write_bytes((copy / "2.flac").read_bytes())
    with pytest.raises(InputError, match="holds other sound now"):
        trainer(copy, tmp_path / "run").resume()
    (copy / "0.flac").unlink()
    trainer(copy, tmp_path / "run")  # what was decoded is used
    assert "not there any more" in capsys.readouterr().err


def test_labels_of_other_sound_do_not_count(folder, tmp_path, monkeypatch):
    corpus = Corpus.open(folder / "manifest.csv", folder / "cache")
    monkeypatch.setattr("dsn_lite.evaluation.dnsmos.ovrl_label", lambda wave: float(np.abs(wave).max()))
    made = labels.make_labels(corpus, "train", 4.0, 7, 3, save_every=1)
    assert np.allclose(labels.read_labels(corpus, "train", 4.0, 7, 3), made)
    labels.label_path(corpus, "train", 4.0, 7).with_suffix(".json").unlink()  # of before: taken as they are
    assert np.allclose(labels.read_labels(corpus, "train", 4.0, 7, 3), made)
    labels.make_labels(corpus, "train", 4.0, 7, 4)
    corpus.cache.contents = "another"
    with pytest.raises(InputError, match="0 of 3 mixtures have an OVRL label"):
        labels.read_labels(corpus, "train", 4.0, 7, 3)


# -------------------------------------------------------------------------------------------------------------- signals
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_end_and_saves(folder, whole, tmp_path, monkeypatch, capsys, number):
    """In the middle of the optimiser's step, where a half would be lost."""
    update, seen, before = torch.optim.AdamW.step, [], signal.getsignal(number)

    def step(self, *args, **options):
        seen.append(1)
        if len(seen) == 3:
            os.kill(os.getpid(), number)
        return update(self, *args, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    assert command(folder, tmp_path / "run", SHORT) == 128 + number
    assert "stopped at step 3; go on with --resume" in capsys.readouterr().err
    assert signal.getsignal(number) == before
    monkeypatch.undo()
    monkeypatch.setattr("dsn_lite.training.run_files.draw_curve", lambda *_: None)
    monkeypatch.setenv("DSN_LITE_CACHE", str(folder / "cache"))
    assert command(folder, tmp_path / "run", SHORT, "--resume") == 0
    assert same(whole, tmp_path / "run")


def test_a_run_in_a_thread_leaves_signals_alone(folder, whole, tmp_path):
    thread = threading.Thread(target=trainer(folder, tmp_path / "run").run)
    thread.start()
    thread.join()
    assert same(whole, tmp_path / "run")


# ---------------------------------------------------------------------------------------------------------- typed wrong
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch": 0}, "batch: 0 does not fit; give a whole number from 1"),
        ({"valid_every": 0}, "valid_every: 0 does not fit; give a whole number from 1"),
        ({"save_every": -5}, "save_every: -5 does not fit"),
        ({"seed": "abc"}, "seed: 'abc' does not fit; give a whole number from 0"),
        ({"network": "tiny"}, "network: 'tiny' does not fit; give a table of channels, strides"),
        ({"network": {"preset": 3}}, "network: no preset 3; choose one of"),
        ({"network": None}, "network: channels, heads"),
        ({"lr": "fast"}, "lr: 'fast' does not fit; give a number above 0"),
        ({"seconds": 0.1}, "seconds: 0.1 does not fit; give a number from 0.5 to 600"),
        ({"patterns": {"open": 1, "closed": 1, "random": 0}}, "patterns: open 1, closed 1, random 0"),
        ({"optimizer": "adam"}, "optimizer: 'adam' does not fit; give one of adamw, soap"),
        ({"falls_from": 2}, "falls_from: 2 does not fit"),
        ({"small": -1}, "small: -1 does not fit"),
        ({"loss": {"windows": []}}, "loss: windows: none are given"),
        ({"task": "enhnce"}, "task: 'enhnce' does not fit; give one of "),
        ({"start_from": "nowhere"}, "no network 'nowhere'"),
    ],
)
def test_what_is_typed_wrong_is_one_line(folder, tmp_path, capsys, changes, words):
    assert command(folder, tmp_path / "run", {**SHORT, **changes}) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dsn-lite: ")]
    assert words in line


def test_what_means_a_number_or_nothing_is_taken(folder, tmp_path):
    text = yaml.safe_dump(SHORT).replace("lr: 0.002", "lr: 2e-3") + "loss:\n"
    assert "2e-3" in text and command(folder, tmp_path / "run", "\ufeff" + text, "--stop-at", "1") == 0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (yaml.safe_dump(SHORT).encode() + "# Größe".encode("latin-1"), "not UTF-8"),
        (b"steps: 3\nsteps: 4\n", "steps is given twice"),
        (b"", "no table of options"),
    ],
)
def test_a_file_that_is_no_configuration(folder, tmp_path, capsys, config, words):
    assert command(folder, tmp_path / "run", config) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workers", "-1"], "--workers: '-1' does not fit; give a whole number, 0 or more"),
        (["--workers", "many"], "--workers: 'many' does not fit"),
        (["--threads", "0"], "--threads: '0' does not fit; give a whole number, 1 or more"),
        (["--stop-at", "0"], "--stop-at: '0' does not fit"),
        (["--device", "gpu"], "--device: invalid choice"),
    ],
)
def test_arguments_say_what_is_allowed(folder, tmp_path, capsys, arguments, words):
    with pytest.raises(SystemExit) as ended:
        command(folder, tmp_path / "run", SHORT, *arguments)
    assert ended.value.code == 2 and words in capsys.readouterr().err


def test_a_device_that_is_not_there(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command(folder, tmp_path / "run", SHORT, "--device", "cuda") == 2
    assert "--device cuda: this machine" in capsys.readouterr().err


def test_out_that_is_a_file_or_lies_in_one(folder, tmp_path, capsys):
    out = tmp_path / "mine.txt"
    out.write_text("mine")
    assert command(folder, out, SHORT) == 2
    assert f"{out}: cannot be the folder of a run" in capsys.readouterr().err
    with pytest.raises(InputError, match="cannot be the folder of a run"):
        trainer(folder, out / "run").run(1)
    assert out.read_text() == "mine"


def test_a_gradient_that_is_not_finite_ends_in_one_line_and_a_lower_rate_goes_on(folder, tmp_path, capsys, monkeypatch):
    objective = EnhancerTrainer.objective

    def spoiled(self, batch, generator):
        total, values = objective(self, batch, generator)
        return (total * float("nan") if self.step == 3 and self.plan.lr > 0.001 else total), values

    monkeypatch.setattr(EnhancerTrainer, "objective", spoiled)
    assert command(folder, tmp_path / "run", SHORT) == 2
    assert "step 3: the gradient is not finite; lower `lr`" in capsys.readouterr().err
    assert command(folder, tmp_path / "run", {**SHORT, "lr": 0.0005}, "--resume") == 0


# ------------------------------------------------------------------------------------------------------------- manifests
def test_what_validation_needs_is_asked_for_before_the_first_step(folder, tmp_path, capsys):
    text = (folder / "manifest.csv").read_text().replace("speech,valid", "speech,train")
    (folder / "one.csv").write_text(text)
    with pytest.raises(InputError, match=r"one\.csv: no speech with split valid"):
        EnhancerTrainer(plan_of(), Corpus.open(folder / "one.csv"), tmp_path / "run", workers=0).run()
    assert not (tmp_path / "run" / CHECKPOINT).exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_cache_that_vanishes_meanwhile_is_one_line(folder, tmp_path, workers):
    run = trainer(folder, tmp_path / "run")
    run.workers = workers
    run.corpus.cache.folder = tmp_path / "gone"
    with pytest.raises(InputError, match="the cache cannot be read") as caught:
        run.run()
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------------------------- rank correlation
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=30))
def test_ties_share_their_rank_as_they_do_in_scipy(pairs):
    stats = pytest.importorskip("scipy.stats")
    x, y = (list(map(float, column)) for column in zip(*pairs, strict=True))
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert spearman(x, y) is None
    else:
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-6)
