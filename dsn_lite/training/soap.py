"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al., arXiv 2409.11321).

Adam gives each weight a step size of its own, as if weights did not depend on each other. Here the gradient of a matrix is
turned first into the basis in which its rows, and its columns, are uncorrelated; Adam works there, and its step is turned
back. For matrices as small as ours it costs little; what it gains in short runs stands in ``results/comparisons.jsonl``.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Soap(torch.optim.Optimizer):
    """Adam in the eigenbasis of the gradients' correlations; vectors are left to Adam.

    Tensors of more than two axes count as matrices [first axis, all others].

    Parameters
    ----------
    params : tensors, or groups of them.
    lr : learning rate.
    betas : decay of the mean of the gradients and of their squares.
    weight_decay : decoupled from the gradient, as in AdamW.
    memory : decay of the correlations.
    every : steps between two updates of the basis.

    Examples
    --------
    >>> mixing = torch.tensor([[3.0, 2.9], [2.9, 3.0]])  # what Adam finds hard: weights that depend on each other
    >>> def loss_after(optimizer, steps=60):
    ...     weight = torch.nn.Parameter(torch.tensor([[4.0, -1.0]]))
    ...     optimizer = optimizer([weight], lr=0.1, weight_decay=0.0)
    ...     for _ in range(steps):
    ...         loss = (weight @ mixing).square().sum()
    ...         weight.grad = torch.autograd.grad(loss, weight)[0]
    ...         optimizer.step()
    ...     return loss.item()
    >>> loss_after(Soap) < loss_after(torch.optim.AdamW)
    True
    """

    def __init__(
        self, params: Iterable, lr: float = 3e-3, *, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0,
        memory: float = 0.95, every: int = 10,
    ):  # fmt: skip
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "memory": memory, "every": every}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._change(weight, group)

    def _change(self, weight: Tensor, group: dict) -> None:
        state, (slow, fast) = self.state[weight], group["betas"]
        gradient = weight.grad.flatten(1) if weight.dim() > 1 else weight.grad
        if not state:
            _begin(state, gradient)
        state["step"] += 1
        count = int(state["step"])
        state["mean"].lerp_(gradient, 1 - slow)
        turned, mean = (_turn(state, x) for x in (gradient, state["mean"]))
        state["square"].lerp_(turned.square(), 1 - fast)
        change = mean / (1 - slow**count) / ((state["square"] / (1 - fast**count)).sqrt() + 1e-8)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.sub_(group["lr"] * _turn_back(state, change).view_as(weight))
        if "row_basis" in state:
            state["rows"].lerp_(gradient @ gradient.T, 1 - group["memory"])
            state["columns"].lerp_(gradient.T @ gradient, 1 - group["memory"])
            if count % group["every"] == 0:
                _renew(state, "row_basis", "rows", 0)
                _renew(state, "column_basis", "columns", 1)


def _begin(state: dict, gradient: Tensor) -> None:
    # Everything row by row, as a checkpoint has it: the order in memory decides how products are rounded.
    gradient = gradient.contiguous()
    state |= {"step": torch.zeros(()), "mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
    if gradient.dim() > 1:
        rows, columns = gradient @ gradient.T, gradient.T @ gradient
        state |= {"rows": rows, "columns": columns}
        row_basis, column_basis = (torch.linalg.eigh(each)[1].flip(1).contiguous() for each in (rows, columns))
        state |= {"row_basis": row_basis, "column_basis": column_basis}


def _turn(state: dict, x: Tensor) -> Tensor:
    return state["row_basis"].T @ x @ state["column_basis"] if "row_basis" in state else x


def _turn_back(state: dict, x: Tensor) -> Tensor:
    return state["row_basis"] @ x @ state["column_basis"].T if "row_basis" in state else x


def _renew(state: dict, basis: str, correlations: str, axis: int) -> None:
    """One step of the power iteration, with the directions in the order of what they hold."""
    held = ((state[correlations] @ state[basis]) * state[basis]).sum(0)
    order = held.argsort(descending=True)
    state["square"] = state["square"].index_select(axis, order)
    state[basis] = torch.linalg.qr(state[correlations] @ state[basis][:, order])[0].contiguous()
