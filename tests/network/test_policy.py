"""The policy reads the past and the present."""

import pytest
import torch
from torch import nn

from dsn_lite.network.config import PRESETS
from dsn_lite.network.policy import Policy, erb_pooling

GATES, CHANNELS, BANDS, WIDTH = 5, 3, 9, 6


def policy() -> Policy:
    torch.manual_seed(0)
    return Policy(GATES, channels=CHANNELS, bands=BANDS, width=WIDTH).double()


def seen(batch: int, frames: int, seed: int = 1) -> list[torch.Tensor]:
    """Magnitude, answer and static channels."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (256,), (256,), (32, CHANNELS)
    return [torch.rand(batch, frames, *shape, generator=generator, dtype=torch.float64) for shape in shapes]


def test_it_is_a_gru_and_a_linear_layer_on_pooled_features():
    made, (magnitude, answer, middle) = policy(), seen(2, 7)
    pooling = erb_pooling(BANDS).double()
    features = torch.cat([magnitude @ pooling, answer @ pooling, middle.mean(2)], -1)
    torch.testing.assert_close(made.features(magnitude, answer, middle), features)
    gru = nn.GRU(2 * BANDS + CHANNELS, WIDTH, batch_first=True).double()
    gru.load_state_dict(made.recurrent.state_dict())
    hidden, last = gru(features)
    margins, state = made(features)
    torch.testing.assert_close(margins, hidden @ made.margins.weight.T + made.margins.bias, rtol=0, atol=1e-12)
    torch.testing.assert_close(state, last[0], rtol=0, atol=1e-12)


def test_frame_by_frame_is_the_whole_and_nothing_looks_ahead():
    made = policy()
    x = made.features(*seen(3, 8))
    whole, last = made(x)
    state, steps = None, []
    for t in range(8):
        margins, state = made(x[:, t : t + 1], state)
        steps.append(margins)
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(state, last, rtol=0, atol=1e-12)
    x[:, 5:] = torch.nan
    after = made(x)[0]
    torch.testing.assert_close(after[:, :5], whole[:, :5], rtol=0, atol=1e-12)
    assert after[:, 5:].isnan().all()  # the present frame counts


@pytest.mark.parametrize("bands", sorted({preset.policy_bands for preset in PRESETS.values()} | {9}))
def test_pooling(bands):
    weights = erb_pooling(bands)
    assert weights.shape == (256, bands) and (weights >= 0).all()
    torch.testing.assert_close(weights.sum(0), torch.ones(bands))
    centres = torch.arange(256).float() @ weights
    assert (centres.diff() > 0).all()  # every band sees something of its own, from low to high
    assert (centres.diff()[-3:] > centres.diff()[:3]).all()  # and the high ones are wider
    assert weights[1].any() and weights[-1].any()


def test_pooling_is_neither_trained_nor_saved():
    made = policy()
    assert not any("pooling" in name for name in [*made.state_dict(), *dict(made.named_parameters())])
