"""Cutting a smaller static network out of a larger one."""

from dataclasses import replace

import pytest
import torch

from dsn_lite.config import Config
from dsn_lite.errors import InputError
from dsn_lite.macs import count
from dsn_lite.pruning import can_prune, prune

TINY = Config.preset("tiny")
K = 10


@pytest.fixture(scope="module")
def spectrum():
    return torch.randn(2, 7, 257, dtype=torch.complex64, generator=torch.Generator().manual_seed(3))


def test_with_its_own_shares_it_is_the_closed_network(random_network, spectrum):
    gated = random_network("tiny").eval()
    closed = gated(spectrum, torch.zeros(2, 7, K)).spectrum
    torch.testing.assert_close(prune(gated, TINY.static_only())(spectrum).spectrum, closed, rtol=1e-5, atol=1e-6)


def test_from_a_static_network_as_well(random_network, spectrum):
    static, gated = random_network("tiny", "always"), random_network("tiny")
    gated.load_state_dict(static.state_dict(), strict=False)
    a, b = prune(static, TINY.static_only())(spectrum), prune(gated, TINY.static_only())(spectrum)
    assert torch.equal(a.spectrum, b.spectrum)


def test_smaller_shares_keep_more_and_cost_more(random_network, spectrum):
    gated = random_network("tiny")
    kept = prune(gated, replace(TINY, share=0.25, group_share=0.5, parts="absent"))
    assert count(gated).closed - count(gated).policy < count(kept).open < count(gated).open
    # What is kept is computed: the leading heads, groups, units and channels beyond the static part.
    closed = prune(gated, TINY.static_only())
    assert not torch.allclose(kept(spectrum).spectrum, closed(spectrum).spectrum, atol=1e-3)
    weight = gated.frequency_1.attention.query_key_value.weight.unflatten(0, (3, 16))
    own = kept.frequency_1.attention.query_key_value.weight.unflatten(0, (3, 12))
    assert torch.equal(own, weight[:, :12])


def test_only_what_fits_is_cut_out(random_network):
    base = Config.preset("base")
    assert not can_prune(TINY, base.static_only()) and not can_prune(TINY, TINY.static())
    assert not can_prune(TINY.static_only(), TINY.static_only())
    with pytest.raises(InputError, match="cut out"):
        prune(random_network("tiny"), base.static_only())
