"""The dynamic part is called with the open frames, with no other, and not at all where there is none."""

import torch

from dsn_lite.blocks.frames import is_training_gate, on_open_frames, per_frame


def recorder(seen):
    def function(frames):
        seen.append(frames.clone())
        return 2 * frames[..., :2]

    return function


def test_only_open_frames_are_seen():
    x, gate, seen = torch.randn(2, 3, 4, 5), torch.tensor([[1.0, 0, 1], [0, 0, 1]]), []
    y = on_open_frames(recorder(seen), x, gate, (4, 2))
    assert len(seen) == 1 and torch.equal(seen[0], torch.stack([x[0, 0], x[0, 2], x[1, 2]]))
    assert torch.equal(y, 2 * x[..., :2] * gate[:, :, None, None])


def test_all_open_and_all_closed():
    x, seen = torch.randn(2, 3, 4, 5), []
    assert torch.equal(on_open_frames(recorder(seen), x, torch.ones(2, 3), (4, 2)), 2 * x[..., :2])
    assert len(seen) == 1
    closed = on_open_frames(recorder(seen), x, torch.zeros(2, 3), (4, 2))
    assert len(seen) == 1 and closed.shape == (2, 3, 4, 2) and not closed.any()


def test_what_counts_as_a_training_gate():
    gate = torch.ones(1, 2, requires_grad=True)
    assert is_training_gate(gate)
    assert not is_training_gate(None) and not is_training_gate(torch.ones(1, 2))
    with torch.no_grad():
        assert not is_training_gate(gate)


def test_per_frame_multiplies_whole_frames():
    gate = torch.tensor([[True, False, True]])
    assert torch.equal(per_frame(gate, torch.zeros(1, 3, 4, 5)).expand(1, 3, 4, 5)[0, :, 2, 3], gate[0].float())
