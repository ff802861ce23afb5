"""Mixtures of two talkers: what the numbers of a recipe promise is what sounds."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsn_lite.data.manifest import Entry
from dsn_lite.data.mixing import active_rms, rms
from dsn_lite.errors import InputError
from dsn_lite.slimmable.separator.fixed import fixed_list, render_fixed
from dsn_lite.slimmable.separator.mixtures import (
    CELLS,
    LEVELS_DB,
    SNR_DB,
    PairMixtures,
    activity,
    chunk_talkers,
    mix,
    pair_recipe,
    render_pair,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(index=st.integers(0, 10_000), split=st.sampled_from(["train", "valid"]), seconds=st.sampled_from([1.0, 2.5]))
def test_a_recipe_keeps_what_it_promises(two_talkers, index, split, seconds):
    recipe = pair_recipe(two_talkers, 3, index, seconds, split)
    assert recipe == pair_recipe(two_talkers, 3, index, seconds, split)
    assert recipe != pair_recipe(two_talkers, 4, index, seconds, split)
    assert (recipe.overlap, recipe.noise is not None) == CELLS[index % 6]
    speakers = [{two_talkers.entries[p.file].speaker for p in talker.pieces} for talker in recipe.talkers]
    assert len(speakers[0]) == len(speakers[1]) == 1 and speakers[0] != speakers[1]
    assert {two_talkers.entries[p.file].split for t in recipe.talkers for p in t.pieces} == {split}
    one, other = sorted(recipe.talkers, key=lambda talker: talker.start)
    talk = max(t.start + t.length for t in recipe.talkers) - one.start
    both = one.start + one.length - other.start
    assert both / talk == pytest.approx(recipe.overlap, abs=0.001)
    assert one.length == other.length and one.start >= 0 and one.start + talk <= recipe.samples
    assert talk >= 0.79 * recipe.samples

    mixture, sources = render_pair(two_talkers, recipe)
    assert mixture.dtype == sources.dtype == np.float32 and sources.shape == (2, recipe.samples)
    again = render_pair(two_talkers, recipe)
    assert np.array_equal(mixture, again[0]) and np.array_equal(sources, again[1])
    assert np.abs(mixture).max() <= 0.9901
    level = 20 * np.log10(active_rms(sources[0]) / active_rms(sources[1]))
    first, second = (talker.gain_db for talker in recipe.talkers)
    assert level == pytest.approx(first - second, abs=0.05) and LEVELS_DB[0] - 0.1 <= level <= LEVELS_DB[1] + 0.1
    rest = mixture - sources.sum(0)
    if recipe.noise is None:
        assert np.abs(rest).max() < 1e-6
    else:
        snr = 20 * np.log10(active_rms(sources.sum(0)) / rms(rest))
        assert snr == pytest.approx(recipe.snr_db, abs=0.05) and SNR_DB[0] - 0.1 <= snr <= SNR_DB[1] + 0.1
    if recipe.room < 0:
        for talker, source in zip(recipe.talkers, sources, strict=True):
            outside = np.r_[source[: talker.start], source[talker.start + talker.length :]]
            # An equaliser is symmetric in time: it may ring a little before and after.
            assert np.abs(outside).max(initial=0) <= (0.1 if talker.eq else 0) * np.abs(source).max()


def test_items_have_what_training_needs(two_talkers):
    items = PairMixtures(two_talkers, "train", 1.5, seed=1)
    item = items[7]
    assert item["mixture"].shape == (24_000,) and item["sources"].shape == (2, 24_000)
    assert item["activity"].shape == (2, 94) and item["activity"].dtype == torch.bool
    assert (item["overlap"], item["noisy"], item["index"]) == (0.5, False, 7)
    assert torch.equal(items[7]["mixture"], item["mixture"])
    assert len(PairMixtures(two_talkers, "valid", 1.5, seed=1, size=3)) == 3
    with pytest.raises(IndexError):
        PairMixtures(two_talkers, "valid", 1.5, seed=1, size=3)[3]


def test_unlabelled_files_of_a_source_are_never_two_talkers(two_talkers, monkeypatch):
    unlabelled = [
        dataclasses.replace(entry, speaker="unknown", source="crowd" if i % 2 else entry.source)
        if entry.kind == "speech" else entry for i, entry in enumerate(two_talkers.entries)
    ]  # fmt: skip
    monkeypatch.setattr(two_talkers, "entries", unlabelled)
    for index in range(20):
        recipe = pair_recipe(two_talkers, 1, index, 1.0)
        sources = [{unlabelled[p.file].source for p in talker.pieces} for talker in recipe.talkers]
        assert sources[0] != sources[1]
    alike = [Entry(**{**dataclasses.asdict(entry), "source": "crowd"}) for entry in unlabelled]
    monkeypatch.setattr(two_talkers, "entries", alike)
    with pytest.raises(InputError, match="two known speakers"):
        pair_recipe(two_talkers, 1, 0, 1.0)


def test_too_short_is_refused(two_talkers):
    with pytest.raises(InputError, match="at least 1 s"):
        pair_recipe(two_talkers, 1, 0, 0.5)


def test_activity_and_talkers_of_chunks():
    sources = np.zeros((2, 256 * 8), np.float32)
    sources[0, : 256 * 4] = 1
    sources[0, 256 * 4 : 256 * 5] = 0.0099  # 40.09 dB below
    sources[1, 256 * 2 : 256 * 7] = 0.5
    active = activity(sources)
    assert active.astype(int).tolist() == [[1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1, 0]]
    assert chunk_talkers(active, 4, 2).tolist() == [1, 2, 1, 1]
    assert chunk_talkers(np.stack([active, ~active]), 3, 4).tolist() == [[2, 1, 0], [1, 1, 0]]
    assert activity(np.zeros((2, 300))).tolist() == [[False, False]] * 2


def test_mix_of_silence_is_silence():
    mixture, sources = mix(np.zeros((2, 4000), np.float32), None, 0.0, -20.0)
    assert not mixture.any() and not sources.any()


def test_the_fixed_list_is_fixed_and_its_speakers_differ(few_pairs):
    found = fixed_list(few_pairs, each=5)
    assert found == fixed_list(few_pairs, each=5) != fixed_list(few_pairs, each=5, seed=1)
    assert len(found) == 30 and len({pair.name for pair in found}) == 30
    assert [(pair.overlap, pair.noise is not None) for pair in found[::5]] == list(CELLS)
    assert fixed_list(few_pairs, each=2) == [pair for pair in found if int(pair.name[-2:]) < 2]

    def speaker(file):
        return int(file[1:-5]) // 2

    for pair in found:
        who = {speaker(file) for file in (*pair.talkers, *([pair.noise] if pair.noise else []))}
        assert len(who) == (3 if pair.noise else 2)


def test_a_fixed_mixture_is_made_as_listed(few_pairs):
    for pair in fixed_list(few_pairs, each=2):
        mixture, sources = render_fixed(few_pairs, pair)
        assert np.array_equal(mixture, render_fixed(few_pairs, pair)[0])
        level = 20 * np.log10(active_rms(sources[0]) / active_rms(sources[1]))
        assert level == pytest.approx(pair.level_db, abs=0.1)
        assert 20 * np.log10(rms(mixture)) == pytest.approx(-26, abs=0.01)
        rest = mixture - sources.sum(0)
        if pair.noise is None:
            assert np.abs(rest).max() < 1e-6
        else:
            assert 20 * np.log10(active_rms(sources.sum(0)) / rms(rest)) == pytest.approx(pair.snr_db, abs=0.1)
        stretch = min(16_000 + 800 * int(file[1:-5]) for file in pair.talkers)
        silence = sum(round(16_000 * seconds) for seconds in pair.silence)
        assert len(mixture) == round(2 * stretch / (1 + pair.overlap)) + silence


@pytest.mark.parametrize(
    "text", ["", "file,speaker\na,b\n", "file,speaker,snr_db\na,b,loud\n", "file,speaker,snr_db\na,b,5\n"]
)
def test_a_bad_list_is_one_clear_line(tmp_path, text):
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(InputError, match=r"pairs\.csv"):
        fixed_list(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        fixed_list(tmp_path / "nowhere")
