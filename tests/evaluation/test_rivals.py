"""Gates of equal cost: those of another recording, late ones, and the ceiling that knows the clean speech."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from dsn_lite.audio.spectral import frame_count
from dsn_lite.evaluation.folders import Pair, read_pair
from dsn_lite.evaluation.rivals import EQUAL, LATE, best_set, equal_activation, fixed_sets, opening_gain
from dsn_lite.evaluation.runs import read_runs, write_run


class Halver:
    """A model with two gates of equal cost; where both are open it halves the error of its input, elsewhere nothing."""

    gate_names = ("one", "two")

    def __init__(self, clean: dict[int, np.ndarray]):
        self.clean = clean

    def enhance(self, wave, sample_rate, *, budget=None, policy="learned"):
        """The wave, its error halved where all is open; a frame costs 1 and each open gate 1."""
        frames = frame_count(len(wave))
        if isinstance(policy, str):
            policy = np.full((frames, 2), policy == "open")
        gates = np.asarray(policy, float)
        is_open = np.repeat(gates.all(1), 256)[: len(wave)]
        clean = self.clean.get(len(wave), wave)
        wave = np.where(is_open, (wave + clean) / 2, wave)
        return SimpleNamespace(wave=wave.astype(np.float32), gates=gates, frame_mmacs=1 + gates.sum(1))


@pytest.fixture
def place(tmp_path):
    """Three recordings of different lengths, whose noise is loud in the second half only, and the model."""
    rng, found, clean = np.random.default_rng(0), [], {}
    for kind in ("clean", "noisy"):
        (tmp_path / kind).mkdir()
    for number in range(3):
        samples = 16_000 * (4 + number)
        speech = 0.1 * rng.standard_normal(samples).astype(np.float32)
        noise = 0.1 * rng.standard_normal(samples) * np.where(np.arange(samples) < samples // 2, 0.01, 1)
        paths = [Path(tmp_path / kind / f"{number}.wav") for kind in ("clean", "noisy")]
        for path, wave in zip(paths, (speech, speech + noise), strict=True):
            soundfile.write(path, wave, 16_000, subtype="FLOAT")
        found.append(Pair(f"{number}.wav", *paths, 5.0))
        clean[samples] = read_pair(found[-1])[0]
    return found, Halver(clean)


def learned(found, share=0.5):
    rng = np.random.default_rng(1)
    return {pair.name: rng.random((frame_count(len(read_pair(pair)[1])), 2)) < share for pair in found}


def test_another_recording_and_two_seconds_late(place):
    found, model = place
    own = learned(found)
    plans, _ = equal_activation("other", model, found, own, 0)
    for number, pair in enumerate(found):
        given, other = plans[pair.name].gates(len(read_pair(pair)[1]), 2), own[found[(number + 1) % 3].name]
        frames = min(len(given), len(other))
        assert (given[:frames] == other[:frames]).all() and given.shape == own[pair.name].shape
    plans, _ = equal_activation("shifted", model, found, own, 0)
    for pair in found:
        given = plans[pair.name].gates(len(read_pair(pair)[1]), 2)
        assert (given[LATE:] == own[pair.name][:-LATE]).all() and LATE == 125


def test_the_ceiling_opens_where_opening_gains(place):
    found, model = place
    plans, detail = equal_activation("known", model, found, learned(found), 0)
    assert detail["target_activation"] == pytest.approx(0.5, abs=0.05)
    shares = []
    for pair in found:
        given = plans[pair.name].gates(len(read_pair(pair)[1]), 2)
        half = len(given) // 2
        assert given[half + 2 :].mean() > 0.9 and given[: half - 2].mean() < 0.1  # the noise is in the second half
        shares.append(given.mean())
        gains = opening_gain(model, *read_pair(pair))
        assert gains[half + 2 :].min() > gains[: half - 2].max()
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("policy", [policy for policy in EQUAL if policy not in ("energy", "frozen")])
def test_all_cost_the_same(place, policy):
    found, model = place
    own = learned(found)
    plans, detail = equal_activation(policy, model, found, own, 0)
    spent = [plans[pair.name].gates(len(read_pair(pair)[1]), 2).mean() for pair in found]
    assert np.mean(spent) == pytest.approx(detail["target_activation"], abs=0.09)


def test_the_fixed_set_is_the_best_of_all_that_cost_as_much(place):
    found, halver = place
    recordings = [read_pair(pair) for pair in found]

    class Four(Halver):
        """Of its four gates only b and d together do anything."""

        gate_names = tuple("abcd")

        def enhance(self, wave, sample_rate, *, budget=None, policy="learned"):
            if not isinstance(policy, str):
                policy = np.asarray(policy)[:, [1, 3]]
            return super().enhance(wave, sample_rate, policy=policy)

    model, sets = Four(halver.clean), fixed_sets(np.full(4, 0.25), 0.5)
    assert len(sets) == 7  # all pairs and the empty set
    assert best_set(model, sets, recordings).tolist() == [0, 1, 0, 1]

    class Spoils(Four):
        """Opening b and d doubles the error."""

        def enhance(self, wave, sample_rate, *, budget=None, policy="learned"):
            result = super().enhance(wave, sample_rate, policy=policy)
            result.wave = (wave + 2 * (wave - result.wave)).astype(np.float32)
            return result

    rest = [one for one in sets if one[1] * one[3] == 1 or not one.any()]
    assert not best_set(Spoils(halver.clean), np.array(rest), recordings).any()


def test_runs_are_kept_by_name_and_inputs_once(tmp_path):
    path = tmp_path / "test.jsonl"
    rows = [{"file": name, "pesq": 1.23456, "noisy": {"pesq": 1.0}} for name in "ab"]
    for name, found in (("one", rows), ("two", rows), ("one", rows), ("few", rows[:1])):
        write_run(path, name, {"pesq": 2.0, "per_file": found})
    assert sorted(read_runs(path)) == ["few", "one", "two"] and len(path.read_text().splitlines()) == 4
    assert read_runs(path)["one"]["per_file"][1] == {"file": "b", "pesq": 1.2346, "noisy": {"pesq": 1.0}}
