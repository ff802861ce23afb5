"""Evaluation: the same numbers whatever the jobs; bad files cost a line; policies cost what the learned one costs."""

import csv
import json
import os
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from dsn_lite import audio, cli
from dsn_lite.audio import clips
from dsn_lite.audio.spectral import frame_count
from dsn_lite.errors import InputError
from dsn_lite.evaluation import (
    METRICS,
    Identity,
    drawn_gates,
    evaluate,
    fixed_sets,
    frame_levels,
    gate_shares,
    mean_ci,
    paired_difference,
    pairs,
    provenance,
    read_runs,
    scoring,
    snr_opened,
    spearman,
    verdict,
    write_run,
)
from dsn_lite.evaluation.statistics import gate_statistics

pytest.importorskip("pesq")
pytest.importorskip("speechmos")

SNRS = (-5, 5, 15)
SHARES = np.array([0.1, 0.2, 0.3, 0.4])


class Fake:
    """Changes only the level; gates open more when the input is noisier, that is, when its quiet parts are loud."""

    name = "fake"
    gate_names = ("a", "b", "c", "d")

    def enhance(self, wave, sample_rate, *, budget=None, policy="learned"):
        frames = frame_count(len(wave))
        if isinstance(policy, str):
            floor = np.percentile(np.abs(wave), 20)
            wanted = {"open": 1.0, "closed": 0.0}.get(policy, np.clip(0.15 * np.log(floor / 1e-4), 0.1, 0.9))
            places = (np.arange(frames)[:, None] * 0.618 + np.arange(4) * 0.3) % 1
            gates = (places < wanted * (0.5 if budget is not None else 1)).astype(np.uint8)
        else:
            gates = np.asarray(policy)
            assert gates.shape == (frames, 4) and set(np.unique(gates)) <= {0, 1}
        macs = 20 + 30 * gates @ SHARES
        activation = float((gates @ SHARES).mean())
        return SimpleNamespace(
            wave=(0.9 * wave).astype(np.float32), gates=gates, frame_mmacs=macs, activation=activation,
            mmacs_per_second=float(macs.mean()),
        )  # fmt: skip


class Deadly(Fake):
    """Its process dies on the file whose length is odd."""

    def enhance(self, wave, sample_rate, **options):
        if len(wave) % 2:
            os._exit(9)
        return super().enhance(wave, sample_rate, **options)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DSN_LITE_CACHE", str(folder))
    return folder


@pytest.fixture
def quick(monkeypatch):
    """Scores that cost nothing; counts how often they are asked for."""
    calls = Counter()

    def score(clean, wave, mos=True):
        calls["score"] += 1
        value = float(np.sqrt(np.mean((wave - clean) ** 2)) * 100)
        return {name: value + index if mos or index < 4 else None for index, name in enumerate(METRICS)}

    monkeypatch.setattr(scoring, "score", score)
    return calls


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six pairs of 2.5 s: two voices, three SNRs."""
    return make_folder(tmp_path_factory.mktemp("pairs"), seconds=2.5)


def make_folder(folder, seconds=2.5, voices=2):
    rng = np.random.default_rng(0)
    rows = []
    for voice, name in enumerate(clips.names()[:voices]):
        clean = clips.load(name)[: int(seconds * 16000)]
        for snr in SNRS:
            file = f"{voice}_{snr}.flac" if voice else f"{voice}_{snr}.wav"
            noise = rng.standard_normal(len(clean)).astype(np.float32)
            audio.write(folder / "clean" / file, clean, 16000)
            audio.write(folder / "noisy" / file, audio.mix_at_snr(clean, noise, snr), 16000)
            rows.append((file, snr))
    write_csv(folder, rows)
    return folder


def write_csv(folder, rows):
    with open(folder / "pairs.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file", "snr_db"), *rows])


# ------------------------------------------------------------------------------ the pairs of a folder
def test_pairs(folder):
    found, errors = pairs(folder)
    assert [pair.name for pair in found] == sorted(pair.name for pair in found) and len(found) == 6
    assert errors == [] and {pair.snr_db for pair in found} == set(SNRS)


def test_pairs_without_a_table_have_no_snr(tmp_path):
    make_folder(tmp_path, voices=1)
    (tmp_path / "pairs.csv").unlink()
    assert [pair.snr_db for pair in pairs(tmp_path)[0]] == [None] * 3


def test_pairs_names_what_does_not_fit(tmp_path):
    make_folder(tmp_path, voices=1)
    (tmp_path / "clean" / "alone.wav").write_bytes(b"")
    (tmp_path / "noisy" / "widow.FLAC").write_bytes(b"")
    for ignored in ("._hidden.wav", "notes.txt"):
        (tmp_path / "noisy" / ignored).write_bytes(b"")
    write_csv(tmp_path, [("0_5.wav", "loud"), ("0_15.wav", 15), ("gone.wav", 0)])
    found, errors = pairs(tmp_path)
    assert {pair.name: pair.snr_db for pair in found} == {"0_-5.wav": None, "0_5.wav": None, "0_15.wav": 15.0}
    assert len(errors) == 4 and all("\n" not in line for line in errors)
    for start in (
        "pairs.csv: the SNR 'loud'",
        "clean/alone.wav",
        "noisy/widow.FLAC",
        "pairs.csv: lists gone.wav",
    ):
        assert any(line.startswith(start) for line in errors)


def test_pairs_refuses_what_holds_none(tmp_path):
    with pytest.raises(InputError, match="no folder clean/"):
        pairs(tmp_path / "nowhere")
    for kind in ("clean", "noisy"):
        (tmp_path / kind).mkdir()
    with pytest.raises(InputError, match="no pair"):
        pairs(tmp_path)
    (tmp_path / "pairs.csv").write_text("name,snr\na.wav,5\n")
    with pytest.raises(InputError, match="lacks the columns file and snr_db"):
        pairs(tmp_path)


# ------------------------------------------------------------------------------ the results
def test_results_have_the_promised_shape(folder, quick):
    results = evaluate(Fake(), folder, jobs=1)
    assert results["files"] == 6 and results["errors"] == [] and results["policy"] == "learned"
    for key in (*METRICS, "mmacs_per_second", "activation"):
        values = [row[key] for row in results["per_file"]]
        assert results[key] == pytest.approx(np.mean(values), abs=1e-6)
        low, high = results[f"{key}_ci"]
        assert min(values) <= low <= results[key] <= high <= max(values)
    assert results["noisy"]["files"] == 6 and results["noisy"]["pesq_ci"][0] <= results["noisy"]["pesq"]
    assert list(results["by_snr"]) == ["-5", "5", "15"]
    for snr, group in results["by_snr"].items():
        rows = [row for row in results["per_file"] if row["snr_db"] == float(snr)]
        assert group["files"] == len(rows) == 2
        assert group["activation"] == pytest.approx(np.mean([row["activation"] for row in rows]), abs=1e-6)
        assert group["noisy"]["pesq"] == pytest.approx(
            np.mean([row["noisy"]["pesq"] for row in rows]), abs=1e-6
        )
    assert set(results) >= {
        "command",
        "commit",
        "data_hash",
        "seed",
        "machine",
        "versions",
        "date",
        "spearman",
        "gates",
    }
    assert results["spearman"]["activation_snr_db"] < -0.8  # the fake opens more where it is noisier
    for pair, row in zip(pairs(folder)[0], results["per_file"], strict=True):
        clean, noisy = (audio.read(path).wave[0] for path in (pair.clean, pair.noisy))
        assert row["noisy"]["pesq"] == pytest.approx(100 * np.sqrt(np.mean((noisy - clean) ** 2)), rel=1e-4)
        assert row["pesq"] == pytest.approx(100 * np.sqrt(np.mean((0.9 * noisy - clean) ** 2)), rel=1e-4)
    json.dumps(results, allow_nan=False)


def test_jobs_do_not_change_the_results(random_network, tmp_path):
    """With the real metrics and the real network: both must survive the way to another process."""
    folder = make_folder(tmp_path, voices=1)
    torch = pytest.importorskip("torch")
    network = random_network("tiny")
    threads = torch.get_num_threads()
    two = evaluate(network, folder, jobs=2, policy="random", seed=3)
    again = evaluate(
        network, folder, jobs=1, policy="random", seed=3
    )  # the noisy scores now come from the cache
    assert torch.get_num_threads() == threads
    for results in (two, again):
        for key in ("date", "command"):
            results.pop(key)
    assert two == again
    assert len(two["gates"]) == len(network.gate_names) == len(two["per_file"][0]["gate_rates"])
    assert all(
        1 <= row["pesq"] <= 4.65 and 0 < row["stoi"] <= 1 and 1 <= row["ovrl"] <= 5 for row in two["per_file"]
    )
    assert two["by_snr"]["15"]["noisy"]["pesq"] > two["by_snr"]["-5"]["noisy"]["pesq"]


def test_the_input_alone_scores_as_the_input(folder, quick):
    results = evaluate(Identity(), folder, jobs=1)
    assert quick["score"] == 6  # and not once more for an output that is the input
    assert {key: results[key] for key in results["noisy"]} == results["noisy"]
    assert results["mmacs_per_second"] == 0 and results["activation"] is None and results["gates"] == {}


def test_scores_of_the_input_are_kept(folder, quick, cache):
    first = evaluate(Identity(), folder, jobs=1)
    assert quick["score"] == 6 and len(list(cache.rglob("*.json"))) == 6
    next(cache.rglob("*.json")).write_text("{broken")
    second = evaluate(Fake(), folder, jobs=1)
    assert quick["score"] == 6 + 6 + 1
    assert first["noisy"] == second["noisy"] and first["data_hash"] == second["data_hash"]


def test_a_cache_that_cannot_be_written_does_no_harm(folder, quick, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DSN_LITE_CACHE", str(tmp_path / "file" / "below"))
    assert evaluate(Identity(), folder, jobs=1)["files"] == 6


def test_without_dnsmos_the_rest_is_the_same_and_nothing_incomplete_is_kept(folder, quick, cache, tmp_path, capsys):
    quick_one, whole = (evaluate(Fake(), folder, jobs=1, mos=mos) for mos in (False, True))
    assert all(quick_one[name] == whole[name] for name in METRICS[:4])
    assert quick_one["ovrl"] is None and quick_one["noisy"]["sig"] is None and whole["noisy"]["bak"] is not None
    assert evaluate(Fake(), folder, jobs=1, mos=False)["noisy"] == whole["noisy"]  # kept by then
    for name, values in (("whole", whole), ("quick", quick_one)):
        write_run(tmp_path / "runs.jsonl", name, values)
    runs = read_runs(tmp_path / "runs.jsonl")
    assert runs["quick"]["per_file"][0]["ovrl"] is None and runs["quick"]["per_file"][0]["noisy"]["ovrl"] is not None
    assert cli.main(["evaluate", str(folder), "--model", "noisy", "--no-dnsmos", "--jobs", "1"]) == 0
    assert "no value" not in capsys.readouterr().out


def test_dnsmos_is_not_asked_where_it_is_left_out(monkeypatch):
    monkeypatch.setattr(scoring.dnsmos, "score", lambda _: 1 / 0)
    wave = clips.load(clips.names()[0])[:16000]
    found = scoring.score(wave, 0.9 * wave, mos=False)
    assert found["si_sdr"] == 100 and found["sig"] is found["bak"] is found["ovrl"] is None


def test_missing_values_are_counted_and_left_out(folder, monkeypatch):
    values = iter([None, 2.0, 3.0, 4.0, 5.0, 6.0])
    monkeypatch.setattr(
        scoring, "score", lambda *_: {**dict.fromkeys(METRICS, 1.0), "pesq": next(values)}
    )
    results = evaluate(Identity(), folder, jobs=1)
    assert results["pesq"] == 4.0 and results["missing"] == {"pesq": 1} and results["stoi"] == 1.0


def test_other_rates_and_channels(tmp_path, quick):
    clean = clips.load(clips.names()[0])[:16000]
    for kind, wave in (("clean", clean), ("noisy", clean + 0.01)):
        audio.write(tmp_path / kind / "a.wav", np.stack([audio.resample(wave, 16000, 44100)] * 2), 44100)
    assert evaluate(Fake(), tmp_path, jobs=1)["per_file"][0]["seconds"] == 1.0


# ------------------------------------------------------------------------------ bad files
def test_bad_files_cost_a_line_each_and_the_others_are_done(tmp_path, quick):
    make_folder(tmp_path)
    audio.write(tmp_path / "noisy" / "0_5.wav", np.zeros(100, np.float32), 16000)
    whole = (tmp_path / "noisy" / "1_5.flac").read_bytes()
    (tmp_path / "noisy" / "1_5.flac").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noisy" / "1_15.flac").write_bytes(b"no sound")
    (tmp_path / "clean" / "0_15.wav").unlink()
    results = evaluate(Fake(), tmp_path, jobs=1, policy="frozen")
    assert [row["file"] for row in results["per_file"]] == ["0_-5.wav", "1_-5.flac"]
    assert len(results["errors"]) == 4
    for name in ("0_5.wav", "1_5.flac", "1_15.flac", "0_15.wav"):
        assert sum(name in line for line in results["errors"]) == 1
    assert all("\n" not in line and str(tmp_path) not in line for line in results["errors"])


def test_nothing_to_score_is_an_error(tmp_path, quick):
    make_folder(tmp_path, voices=1)
    for path in (tmp_path / "noisy").iterdir():
        path.write_bytes(b"no sound")
    with pytest.raises(InputError, match=r"0_5\.wav"):
        evaluate(Fake(), tmp_path, jobs=1)


def test_a_process_that_dies_takes_no_other_file_along(tmp_path):
    make_folder(tmp_path, voices=1)
    for kind in ("clean", "noisy"):
        audio.write(tmp_path / kind / "0_5.wav", np.ones(20001, np.float32) * 0.1, 16000)
    results = evaluate(Deadly(), tmp_path, jobs=2)
    assert [row["file"] for row in results["per_file"]] == ["0_-5.wav", "0_15.wav"]
    assert len(results["errors"]) == 1 and results["errors"][0].startswith(
        "0_5.wav: the process that scored it died"
    )


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (Fake(), {"policy": "clever"}, "no policy 'clever'; choose one of learned"),
        (Identity(), {"policy": "random"}, "noisy has no gates"),
        (Fake(), {"policy": "open", "budget": 0.5}, "takes no budget"),
        (Fake(), {"budget": 1.5}, "between 0"),
    ],
)
def test_options_that_do_not_fit(folder, model, options, message):
    with pytest.raises(InputError, match=message):
        evaluate(model, folder, **options)


def test_the_oracle_needs_the_snr(tmp_path, quick):
    make_folder(tmp_path, voices=1)
    write_csv(tmp_path, [("0_5.wav", 5)])
    with pytest.raises(InputError, match="needs the SNR of every file"):
        evaluate(Fake(), tmp_path, policy="snr", jobs=1)


# ------------------------------------------------------------------------------ policies
def test_gate_shares_are_measured():
    assert gate_shares(Fake()) == pytest.approx(SHARES)


@pytest.mark.parametrize("budget", [None, 0.3])
@pytest.mark.parametrize("policy", ["random", "snr", "energy"])
def test_policies_cost_what_the_learned_one_costs(folder, quick, policy, budget):
    learned = evaluate(Fake(), folder, jobs=1, budget=budget)
    other = evaluate(Fake(), folder, jobs=1, budget=budget, policy=policy)
    assert other["target_activation"] == pytest.approx(learned["activation"], abs=1e-4)
    assert other["activation"] == pytest.approx(learned["activation"], abs=0.02)
    assert 0 < learned["activation"] < 1


def test_open_and_closed(folder, quick):
    assert evaluate(Fake(), folder, jobs=1, policy="open")["activation"] == 1
    closed = evaluate(Fake(), folder, jobs=1, policy="closed")
    assert closed["activation"] == 0 and closed["mmacs_per_second"] == 20


def test_random_gates_follow_the_rates_and_the_seed(folder, quick):
    learned = evaluate(Fake(), folder, jobs=1)
    one, same, other = (evaluate(Fake(), folder, jobs=1, policy="random", seed=seed) for seed in (1, 1, 2))
    assert one["per_file"] == same["per_file"] != other["per_file"]
    for name, gate in one["gates"].items():
        assert gate["rate"] == pytest.approx(learned["gates"][name]["rate"], abs=0.06)
        assert gate["std_utterances"] < 0.1 < gate["std_within_utterance"]
    bound = [np.repeat([[0, 0, 1], [1, 1, 1]], 50, axis=0), np.repeat([[1, 1, 0]], 100, axis=0)]
    gates = np.concatenate([drawn_gates(bound, 2500, str(file)) for file in range(4)])
    assert (gates[:, 0] == gates[:, 1]).all()  # what opens together in the learned gates opens together here
    assert gates.mean(axis=0) == pytest.approx([0.75, 0.75, 0.5], abs=0.02)
    assert abs(np.corrcoef(gates[1:, 0], gates[:-1, 0])[0, 1]) < 0.06  # and one frame says nothing of the next


def test_energy_opens_on_loud_frames(folder, quick):
    energy = evaluate(Fake(), folder, jobs=1, policy="energy")
    assert len({gate["rate"] for gate in energy["gates"].values()}) == 1 and np.isfinite(energy["threshold_db"])
    loud = frame_levels(np.r_[np.full(16000, 0.01), np.full(16000, 0.1), np.full(16000, 0.01)]) > 0
    assert not loud[:60].any() and loud[66:120].all() and not loud[130:].any()


def test_frozen_gates_never_move_and_the_oracle_follows_the_snr(folder, quick):
    frozen = evaluate(Fake(), folder, jobs=1, policy="frozen")
    assert all(gate["std_frames"] == 0 and gate["rate"] in (0, 1) for gate in frozen["gates"].values())
    assert frozen["activation"] <= frozen["target_activation"] + 0.02
    assert frozen["open_gates"] == [name for name, gate in frozen["gates"].items() if gate["rate"] == 1]
    oracle = evaluate(Fake(), folder, jobs=1, policy="snr")
    assert sum(0 < row["activation"] < 1 for row in oracle["per_file"]) <= 1
    activations = [group["activation"] for group in oracle["by_snr"].values()]
    assert activations == sorted(activations, reverse=True) and activations[0] > activations[-1] + 0.3


def test_rivals_meet_the_target():
    rng = np.random.default_rng(0)
    for _ in range(20):
        shares, snr = rng.dirichlet(np.ones(10)), rng.uniform(-5, 20, 60)
        target, frames = rng.uniform(0.2, 0.8), rng.integers(50, 900, 60)
        opened = snr_opened(snr, frames, target)
        assert np.mean([each.mean() for each in opened]) == pytest.approx(target, abs=0.001)
        assert max(snr[[each.any() for each in opened]]) <= min(snr[[not each.all() for each in opened]])
        sets = fixed_sets(shares, target)
        assert (sets @ shares <= target + 0.02).all() and not sets[0].any()
        for one in sets[1:]:
            assert all(one @ shares + share > target + 0.02 for share in shares[one == 0])
    assert fixed_sets(SHARES, 1.0)[-1].all() and len(fixed_sets(SHARES, 0.0)) == 1


def test_gate_statistics_are_finite_where_rounding_leaves_the_range():
    """Weights of 376 and 211 frames once summed to 1.0000000000000002, and its deviation was no number."""
    for files in range(1, 200):
        decided = [SimpleNamespace(frames=200 + 7 * i % 177, rates=np.ones(1), switches=np.zeros(1)) for i in range(files)]
        assert gate_statistics(["a"], decided)["a"]["std_frames"] == 0


def test_gate_statistics_show_a_collapsed_gate(folder, quick):
    class Stuck(Fake):
        def enhance(self, wave, sample_rate, **options):
            gates = np.zeros((frame_count(len(wave)), 4))
            gates[:, 0] = 1  # always
            gates[::2, 1] = 1  # every other frame
            gates[:, 2] = np.abs(wave).mean() > 0.05  # a whole utterance or not at all
            return super().enhance(wave, sample_rate, **{**options, "policy": gates})

    gates = evaluate(Stuck(), folder, jobs=1)["gates"]
    columns = ("std_frames", "std_within_utterance", "std_utterances", "switches_per_second")
    assert gates["a"] == {"rate": 1.0, **dict.fromkeys(columns, 0.0)}
    assert gates["d"] == {"rate": 0.0, **dict.fromkeys(columns, 0.0)}
    assert gates["b"]["std_within_utterance"] > 0.49 and gates["b"]["std_utterances"] < 0.01
    assert gates["b"]["switches_per_second"] == pytest.approx(62.5, rel=0.02)
    assert 0 < gates["c"]["rate"] < 1
    assert (
        gates["c"]["std_within_utterance"] == 0
        and gates["c"]["std_frames"] > 0.3 < gates["c"]["std_utterances"]
    )


# ------------------------------------------------------------------------------ statistics
def test_the_interval_covers_the_mean():
    rng = np.random.default_rng(0)
    samples = rng.normal(3, 1, (200, 40))
    inside = [low <= 3 <= high for low, high in (mean_ci(row)[1] for row in samples)]
    assert 0.88 <= np.mean(inside) <= 0.99
    low, high = mean_ci(samples.ravel()[:400])[1]
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert mean_ci([None, np.nan]) == (None, None, 2)
    assert mean_ci(samples[0]) == mean_ci(samples[0]) != mean_ci(samples[0], seed=1)


def test_spearman_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 50), rng.integers(0, 9, 50)  # with ties
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-6)
    assert spearman([1, 2, None], [1, 2, 3]) is None


def test_pairing_sees_what_the_means_do_not():
    rng = np.random.default_rng(0)
    before = rng.normal(2, 1, 50)
    rows_a = [{"file": f"{i}", "pesq": value} for i, value in enumerate(before)]
    rows_b = [{"file": f"{i}", "pesq": value + 0.1 + 0.01 * rng.normal()} for i, value in enumerate(before)][
        ::-1
    ]
    result = paired_difference(
        rows_a, [*rows_b, {"file": "else", "pesq": 9.0}, {"file": "none", "pesq": None}], "pesq"
    )
    assert result["files"] == 50 and result["difference"] == pytest.approx(0.1, abs=0.01)
    assert 0.09 < result["difference_ci"][0] < result["difference_ci"][1] < 0.11
    low, high = mean_ci(before)[1]
    assert high - low > 0.3
    with pytest.raises(InputError, match="no file has a pesq"):
        paired_difference(rows_a, [{"file": "else", "pesq": 1.0}], "pesq")


def test_many_snrs_are_rounded(tmp_path, quick):
    make_folder(tmp_path, seconds=0.5, voices=5)
    write_csv(tmp_path, [(pair.name, -4.4 + index) for index, pair in enumerate(pairs(tmp_path)[0])])
    by_snr = evaluate(Identity(), tmp_path, jobs=1)["by_snr"]
    assert list(by_snr) == ["-5", "0", "5", "10"] and sum(group["files"] for group in by_snr.values()) == 15


# ------------------------------------------------------------------------------ command line
def test_command(folder, quick, tmp_path, capsys):
    target = tmp_path / "results" / "noisy.json"
    options = ["evaluate", str(folder), "--model", "noisy", "--jobs", "1", "--json", str(target)]
    assert cli.main(options) == 0
    results = json.loads(target.read_text())
    assert results["files"] == 6 and list(target.parent.iterdir()) == [target]
    assert str(folder) not in target.read_text() and os.uname().nodename not in target.read_text()
    shown = capsys.readouterr()
    assert "PESQ" in shown.out and "15 dB" in shown.out and "dsn-lite:" not in shown.err


def test_command_with_a_bad_file(tmp_path, quick, capsys):
    make_folder(tmp_path, voices=1)
    (tmp_path / "noisy" / "0_5.wav").write_bytes(b"no sound")
    assert cli.main(["evaluate", str(tmp_path), "--model", "noisy", "--jobs", "1"]) == 2
    shown = capsys.readouterr()
    assert "15 dB" in shown.out
    assert any(line.startswith("dsn-lite: noisy/0_5.wav") for line in shown.err.splitlines())


def test_command_refuses(tmp_path, capsys):
    for options in (
        ["nowhere"],
        ["nowhere", "--model", "no-such-model"],
        ["nowhere", "--json", str(tmp_path)],
    ):
        assert cli.main(["evaluate", *options]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_table_of_a_gated_model(folder, quick):
    from dsn_lite.commands.evaluate import table

    lines = table(evaluate(Fake(), folder, jobs=1, policy="random")).splitlines()
    assert sum("fake" in line for line in lines) >= 4 and sum("noisy" in line for line in lines) >= 4
    assert any(line.startswith("policy random: in each frame the gates") for line in lines)
    assert any("rank correlation of activation with SNR" in line for line in lines)
    assert max(map(len, lines)) < 160


def test_the_commit_is_marked_where_files_differ():
    commit = provenance.commit()
    assert commit is None or len(commit.rstrip("+")) == 12


def test_what_an_interval_says():
    assert [verdict(interval) for interval in ([0.1, 0.2], [-0.2, -0.1], [-0.1, 0.1], [0.0, 0.2])] == [
        "better", "worse", "undecided", "undecided"
    ]  # fmt: skip
