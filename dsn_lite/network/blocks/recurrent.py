"""Grouped GRU along time; the dynamic groups hold their state while their gate is closed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dsn_lite.network.blocks.convolution import join
from dsn_lite.network.blocks.frames import where_open
from dsn_lite.network.blocks.norm import Norm

try:
    from dsn_lite.network.blocks.held_gru import HeldGRU
except ImportError:  # a bare training machine without Numba
    HeldGRU = None


class Groups(nn.Module):
    """Groups of GRUs in every band, and one projection: x [B, T, F, inputs] to [B, T, F, outputs].

    Every group reads all inputs and recurs on its own state alone; bands share the weights.

    A GRU that is held on some frames is the same GRU run on the other frames alone. So the open frames are gathered to the
    front, the library's GRU runs over them at full speed, and the output of frame t is looked up at the number of frames
    opened up to t. This needs gates that do not depend on this state, which is how our policies work. Training on a
    processor takes a compiled loop instead, which does the same in less time (``held_gru``).
    """

    def __init__(self, inputs: int, groups: int, width: int, outputs: int):
        super().__init__()
        self.count, self.width = groups, width
        self.norm = Norm(inputs)
        self.groups = nn.ModuleList(nn.GRU(inputs, width, batch_first=True) for _ in range(groups))
        self.out = nn.Linear(groups * width, outputs)

    def initial_state(self, batch: int, bands: int) -> Tensor:
        """Zero state [B, F, groups, width]."""
        return self.out.weight.new_zeros(batch, bands, self.count, self.width)

    def forward(self, x: Tensor, gate: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """Output [B, T, F, outputs], zero where `gate` [B, T] is closed, and the new state [B, F, groups, width]."""
        x = self.norm(x)
        if HeldGRU is not None and torch.is_grad_enabled() and x.device.type == "cpu" and x.dtype == torch.float32:
            hidden, state = self._compiled(x, gate, state)
        else:
            pairs = [_run_held(group, x, gate, state[:, :, i]) for i, group in enumerate(self.groups)]
            hidden, state = torch.cat([pair[0] for pair in pairs], -1), torch.stack([pair[1] for pair in pairs], 2)
        return where_open(self.out, hidden, gate, (x.shape[2], self.out.out_features)), state

    def _compiled(self, x: Tensor, gate: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states [B, T, F, groups * width] and last state; N = B * F sequences lie side by side for the loop."""
        batch, frames, bands, channels = x.shape

        def stacked(name: str, axis: int) -> Tensor:
            return torch.stack([getattr(group, name).unflatten(0, (3, self.width)) for group in self.groups], axis)

        weight, bias = stacked("weight_ih_l0", 1), stacked("bias_ih_l0", 1)  # [3, G, H, ...]
        products = torch.addmm(bias.reshape(-1, 1), weight.flatten(0, 2), x.transpose(0, 1).reshape(-1, channels).T)
        opened = x.new_ones(self.count, frames, batch * bands)
        if gate is not None:
            opened[:] = gate.detach().T.repeat_interleave(bands, 1)
        output, last = HeldGRU.apply(
            products.view(3, self.count, self.width, frames, -1), stacked("weight_hh_l0", 0), stacked("bias_hh_l0", 0),
            state.permute(2, 3, 0, 1).flatten(2), opened,
        )  # fmt: skip
        hidden = output.flatten(1, 2).transpose(1, 2).unflatten(1, (batch, bands)).transpose(0, 1)
        return hidden, last.unflatten(-1, (batch, bands)).permute(2, 3, 0, 1)

    def macs(self, bands: int) -> int:
        """Products of one frame: input, recurrence, projection."""
        recurrent = sum(group.weight_ih_l0.numel() + group.weight_hh_l0.numel() for group in self.groups)
        return bands * (recurrent + self.out.weight.numel())


class DynamicGRU(nn.Module):
    """Residual grouped GRU along time; the dynamic groups read all channels and add to the dynamic ones.

    On a closed frame the dynamic groups add nothing and hold their state.

    Parameters
    ----------
    channels : (static, dynamic) channels of input and output.
    groups : (static, dynamic) groups.
    width : state size of a static and of a dynamic group.

    Examples
    --------
    >>> block = DynamicGRU((8, 8), (1, 2), (8, 16))
    >>> y, state = block.small(torch.randn(2, 10, 32, 8), None)
    >>> y.shape, state.shape
    (torch.Size([2, 10, 32, 8]), torch.Size([2, 32, 1, 8]))
    """

    def __init__(self, channels: tuple[int, int], groups: tuple[int, int], width: tuple[int, int]):
        super().__init__()
        self.static = Groups(channels[0], groups[0], width[0], channels[0]) if groups[0] else None
        self.dynamic = Groups(sum(channels), groups[1], width[1], channels[1]) if groups[1] else None

    def small(self, static: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Static channels [B, T, F, channels[0]] and the new state; `state` None starts anew."""
        if self.static is None:
            return static, None
        state = self.static.initial_state(static.shape[0], static.shape[2]) if state is None else state
        y, state = self.static(static, None, state)
        return static + y, state

    def refine(
        self, static: Tensor, dynamic: Tensor, gate: Tensor | None, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Dynamic channels [B, T, F, channels[1]] and the new state; both unchanged where `gate` [B, T] is closed."""
        state = self.dynamic.initial_state(static.shape[0], static.shape[2]) if state is None else state
        y, state = self.dynamic(join(static, dynamic), gate, state)
        return dynamic + y, state

    def macs(self, bands: int) -> tuple[int, int]:
        """Products of one frame: static, dynamic."""
        static, dynamic = (part.macs(bands) if part else 0 for part in (self.static, self.dynamic))
        return static, dynamic


def _run(group: nn.GRU, x: Tensor, state: Tensor) -> Tensor:
    """States [B, T, F, H] of one group over x [B, T, F, C] from state [B, F, H]; bands are a batch."""
    batch, frames, bands, _ = x.shape
    sequences = x.transpose(1, 2).flatten(0, 1)  # [B * F, T, C]
    output, _ = group(sequences, state.flatten(0, 1).unsqueeze(0).contiguous())
    return output.reshape(batch, bands, frames, -1).transpose(1, 2)


def _run_held(group: nn.GRU, x: Tensor, gate: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs [B, T, F, H] and last state [B, F, H] of one group that runs on the open frames and holds elsewhere.

    On a closed frame the output is, where a gradient is wanted, the state that the group would have reached had it run
    there: the gate multiplies it by zero, but its gradient needs to know what opening would have added.
    """
    is_open = None if gate is None else gate.detach().bool()
    if is_open is None or bool(is_open.all()):
        output = _run(group, x, state)
        return output, output[:, -1]
    opened = is_open.sum(1)  # frames that each item runs on
    longest = int(opened.max())
    if torch.is_grad_enabled():
        longest = max(longest, 1)  # one frame at least, so that every weight has a gradient, if only of zero
    rows = torch.arange(x.shape[0], device=x.device)[:, None]
    reached = state.unsqueeze(1)  # reached[b, n] is the state after n open frames
    if longest:
        order = torch.argsort((~is_open).to(torch.uint8), dim=1, stable=True)[:, :longest]
        reached = torch.cat([reached, _run(group, x[rows, order], state)], dim=1)
    output = reached[rows, is_open.cumsum(1)]
    last = reached[rows[:, 0], opened]
    if torch.is_grad_enabled():
        with torch.no_grad():
            if_opened = torch.gru_cell(
                x.flatten(0, 2), output.detach().flatten(0, 2), group.weight_ih_l0, group.weight_hh_l0,
                group.bias_ih_l0, group.bias_hh_l0,
            ).reshape(output.shape)  # fmt: skip
        output = torch.where(is_open[:, :, None, None], output, if_opened)
    return output, last
