"""SOAP: quick where weights depend on each other, in true rotations, and kept in a checkpoint to the last bit."""

import pytest
import torch
from safetensors.torch import load_file

from dsn_lite.data import Corpus
from dsn_lite.training.enhancer import EnhancerConfig, EnhancerTrainer
from dsn_lite.training.soap import Soap

SHORT = {"steps": 14, "batch": 2, "seconds": 0.5, "valid_items": 1, "valid_every": 14, "save_every": 20, "warmup_steps": 1}


def least_squares(optimizer: type, steps: int = 200, rate: float = 0.05) -> float:
    """Loss after some steps on a problem of condition 10^4 whose axes lie askew."""
    torch.manual_seed(0)
    turn = torch.linalg.qr(torch.randn(12, 12))[0]
    mixing, wanted = turn @ torch.diag(torch.logspace(-2, 0, 12)) @ turn.T, torch.randn(8, 12)
    weight = torch.nn.Parameter(torch.zeros(8, 12))
    optimizer = optimizer([weight], lr=rate, betas=(0.9, 0.99), weight_decay=0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        loss = ((weight - wanted) @ mixing).square().mean()
        weight.grad = torch.autograd.grad(loss, weight)[0]
        optimizer.step()
    return loss.item()


def test_it_is_quicker_than_adam_where_weights_depend_on_each_other():
    assert least_squares(Soap) < 0.5 * least_squares(torch.optim.AdamW)


def test_a_vector_is_left_to_adam():
    found = []
    for optimizer in (Soap, torch.optim.AdamW):
        torch.manual_seed(1)
        weight = torch.nn.Parameter(torch.randn(9))
        optimizer = optimizer([weight], lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
        for _ in range(25):
            weight.grad = torch.randn(9) + weight.detach()
            optimizer.step()
        found.append(weight.detach())
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 4), (3, 5, 1, 3), (1, 7), (5, 5)])
def test_bases_stay_rotations_and_the_directions_in_order(shape):
    torch.manual_seed(2)
    weight = torch.nn.Parameter(torch.randn(shape))
    optimizer = Soap([weight], lr=0.01)
    scale = torch.logspace(-2, 1, shape[0]).flip(0).reshape(-1, *[1] * (len(shape) - 1))
    for _ in range(300):
        weight.grad = scale * torch.randn(shape)
        optimizer.step()
    state = optimizer.state[weight]
    for basis, correlations in (("row_basis", "rows"), ("column_basis", "columns")):
        basis = state[basis]
        torch.testing.assert_close(basis.T @ basis, torch.eye(len(basis)), rtol=0, atol=1e-4)
        assert len(basis) == len(state[correlations])
    held = (state["row_basis"].T @ state["rows"] @ state["row_basis"]).diagonal()
    assert held[0] == held.max() and weight.isfinite().all()


def test_weights_without_a_gradient_and_those_without_decay_stay():
    weight, idle = (torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    weight.grad = torch.zeros(2, 2)
    Soap([weight, idle], lr=0.1).step()
    assert weight.equal(torch.ones(2, 2)) and idle.equal(torch.ones(2, 2))
    weight.grad = torch.zeros(2, 2)
    Soap([weight], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), 0.95))


def test_killed_and_resumed_equals_uninterrupted(folder, tmp_path):
    """Stopped between two updates of the basis, one of which has been."""
    plan = EnhancerConfig.from_dict({"network": {"preset": "tiny"}, "optimizer": "soap", **SHORT})
    corpus = Corpus.open(folder / "manifest.csv", folder / "cache")
    run = lambda name: EnhancerTrainer(plan, corpus, tmp_path / name, workers=0)
    run("whole").run()
    run("halves").run(until=12)
    again = run("halves")
    again.resume()
    assert again.step == 12 and isinstance(again.optimiser, Soap)
    again.run()
    whole, halves = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "halves"))
    assert whole.keys() == halves.keys() and all(value.equal(halves[name]) for name, value in whole.items())
