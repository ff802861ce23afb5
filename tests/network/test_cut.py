"""Networks cut out of one with gates: their answers, their weights, and what they leave alone."""

import pytest
import torch
from networks import CONFIGS, random_network, spectrum

from dsn_lite.network.cut import small_alone, without_gates

GATED = [name for name, config in CONFIGS.items() if config.gated and config.is_dynamic]
X = torch.from_numpy(spectrum(12, 3))[None]


@pytest.mark.parametrize("config", GATED)
@torch.no_grad()
def test_they_answer_as_all_open_and_all_closed(config):
    network = random_network(config)
    gates = torch.ones(1, 12, len(network.gate_names))
    whole, small = without_gates(network), small_alone(network)
    assert torch.equal(whole(X).spectrum, network(X, gates).spectrum)
    assert torch.equal(small(X).spectrum, network(X, 0 * gates).spectrum)
    assert not torch.allclose(whole(X).spectrum, small(X).spectrum)
    assert whole.policy is small.policy is None and whole.gate_names == small.gate_names == []
    assert whole.config == network.config.static() and small.config == network.config.static_only()


@torch.no_grad()
def test_the_small_one_is_in_the_whole_one_and_both_are_in_themselves():
    network = random_network("tiny")
    whole, small = without_gates(network), small_alone(network)
    for one, other in ((small_alone(whole), small), (small_alone(small), small), (without_gates(whole), whole)):
        assert torch.equal(one(X).spectrum, other(X).spectrum)
    with pytest.raises(RuntimeError, match="Missing key"):
        small.load_state_dict({})


def test_what_it_was_cut_from_and_the_random_state_stay_as_they_are():
    network = random_network("tiny").train()
    network.name, network.card = "mine", {"calibration": [1]}
    before, state = torch.get_rng_state(), {name: value.clone() for name, value in network.state_dict().items()}
    cut = without_gates(network)
    assert torch.equal(torch.get_rng_state(), before)
    assert (cut.name, cut.card, cut.training) == ("mine", {"calibration": [1]}, True) and cut.card is not network.card
    with torch.no_grad():
        for value in cut.parameters():
            value.zero_()
    assert all(value.equal(state[name]) for name, value in network.state_dict().items())
