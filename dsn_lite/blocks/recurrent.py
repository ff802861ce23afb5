"""Grouped GRU along time whose dynamic groups hold their state while the gate is closed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dsn_lite.blocks.frames import is_training_gate, on_open_frames

try:
    from dsn_lite.network.blocks.held_gru import HeldGRU

    HAS_LOOP = True
except ImportError:  # a bare training machine without Numba
    HAS_LOOP = False


class DynamicGRU(nn.Module):
    """Groups of GRUs that run along time in each band, followed by one projection back to C channels.

    Every group reads all input channels and recurs on its own state alone; bands share the weights. The last groups are
    dynamic: on a closed frame they add nothing to the output and hold their state.

    A GRU that is held on some frames is the same GRU run on the other frames alone. So the open frames are gathered to
    the front, the library's GRU runs over them at full speed, and the output of frame t is looked up at the number of
    frames opened up to t. This needs gates that do not depend on the state, which is how our policy works. Training on a
    processor takes a compiled loop instead, which does the same in less time (``dsn_lite.network.blocks.held_gru``).

    Parameters
    ----------
    channels : C, width of input and output.
    group_width : state size of one group.
    static, dynamic : groups that always run, groups behind the gate.

    Examples
    --------
    >>> block = DynamicGRU(8, group_width=4, static=1, dynamic=1)
    >>> y, state = block(torch.randn(2, 10, 3, 8), torch.ones(2, 10))
    >>> y.shape, state.shape  # the state is [B, F, groups, group_width]
    (torch.Size([2, 10, 3, 8]), torch.Size([2, 3, 2, 4]))
    """

    def __init__(self, channels: int, *, group_width: int, static: int, dynamic: int = 0):
        super().__init__()
        self.channels, self.group_width, self.static, self.dynamic = channels, group_width, static, dynamic
        self.groups = nn.ModuleList(
            nn.GRU(channels, group_width, batch_first=True) for _ in range(static + dynamic)
        )
        self.out = nn.Linear((static + dynamic) * group_width, channels)

    def initial_state(self, batch: int, bands: int) -> Tensor:
        """Zero state [B, F, groups, group_width]."""
        return self.out.weight.new_zeros(batch, bands, self.static + self.dynamic, self.group_width)

    def forward(self, x: Tensor, gate: Tensor | None = None, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x [B, T, F, C] to ([B, T, F, C], new state [B, F, groups, group_width]); `gate` [B, T] or None (open)."""
        if state is None:
            state = self.initial_state(x.shape[0], x.shape[2])
        if HAS_LOOP and torch.is_grad_enabled() and x.device.type == "cpu" and x.dtype == torch.float32:
            return self._compiled(x, gate, state)
        always, sometimes = self.groups[: self.static], self.groups[self.static :]
        outputs = [_run(group, x, state[:, :, i]) for i, group in enumerate(always)]
        states = [output[:, -1] for output in outputs]
        width = self.static * self.group_width
        if gate is None or not self.dynamic:
            gate = x.new_ones(x.shape[:2])
        if is_training_gate(gate) or bool(gate.all()):
            for i, group in enumerate(sometimes, start=self.static):
                output, held = _run_held(group, x, gate, state[:, :, i])
                outputs.append(output * gate[:, :, None, None])
                states.append(held)
            return self.out(torch.cat(outputs, dim=-1)), torch.stack(states, dim=2)
        y = nn.functional.linear(torch.cat(outputs, dim=-1), self.out.weight[:, :width], self.out.bias)
        if not gate.any():
            states += [state[:, :, i] for i in range(self.static, self.static + self.dynamic)]
            return y, torch.stack(states, dim=2)
        outputs = []
        for i, group in enumerate(sometimes, start=self.static):
            output, held = _run_held(group, x, gate, state[:, :, i])
            outputs.append(output)
            states.append(held)
        addition = on_open_frames(
            lambda frames: nn.functional.linear(frames, self.out.weight[:, width:]),
            torch.cat(outputs, dim=-1), gate, x.shape[2:],
        )  # fmt: skip
        return y + addition, torch.stack(states, dim=2)

    def _compiled(self, x: Tensor, gate: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """What :meth:`forward` returns; bands and batch lie next to each other, N = B * F, as the compiled loop wants."""
        batch, frames, bands, _ = x.shape
        is_used = gate is None or is_training_gate(gate) or bool(gate.any())
        groups = list(self.groups)[: None if is_used else self.static]

        def stacked(name: str, axis: int) -> Tensor:
            return torch.stack([getattr(group, name).unflatten(0, (3, self.group_width)) for group in groups], axis)

        weight, bias = stacked("weight_ih_l0", 1), stacked("bias_ih_l0", 1)  # [3, G, H, ...]
        frames_first = x.transpose(0, 1).reshape(-1, self.channels)
        products = torch.addmm(bias.reshape(-1, 1), weight.flatten(0, 2), frames_first.T)
        opened = x.new_ones(len(groups), frames, batch * bands)
        per_band = x.new_ones(1) if gate is None else gate.T.repeat_interleave(bands, 1).to(x.dtype)  # [T, N]
        opened[self.static :] = per_band.detach()
        output, last = HeldGRU.apply(
            products.view(3, len(groups), self.group_width, frames, -1), stacked("weight_hh_l0", 0),
            stacked("bias_hh_l0", 0), state[:, :, : len(groups)].permute(2, 3, 0, 1).flatten(2), opened,
        )  # fmt: skip
        if gate is not None:
            always, sometimes = output[:, : self.static], output[:, self.static :]
            output = torch.cat([always, sometimes * per_band[:, None, None]], dim=1)
        output = output.flatten(1, 2).transpose(1, 2)  # [T, N, G * H]
        y = nn.functional.linear(output, self.out.weight[:, : output.shape[-1]], self.out.bias)
        last = last.unflatten(-1, (batch, bands)).permute(2, 3, 0, 1)
        return y.unflatten(1, (batch, bands)).transpose(0, 1), torch.cat([last, state[:, :, len(groups) :]], dim=2)


def _run(group: nn.GRU, x: Tensor, state: Tensor) -> Tensor:
    """States [B, T, F, H] of one group over x [B, T, F, C] from state [B, F, H]; bands are a batch."""
    batch, frames, bands, _ = x.shape
    sequences = x.transpose(1, 2).flatten(0, 1)  # [B * F, T, C]
    output, _ = group(sequences, state.flatten(0, 1).unsqueeze(0).contiguous())
    return output.reshape(batch, bands, frames, -1).transpose(1, 2)


def _run_held(group: nn.GRU, x: Tensor, gate: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs [B, T, F, H] and last state [B, F, H] of one group that runs on the open frames and holds elsewhere.

    On a closed frame the output is the state that the group would have reached had it run there: the caller multiplies
    it by a gate of zero, but the gate's gradient needs to know what opening would have added.
    """
    is_open = gate.detach().bool()
    opened = is_open.sum(1)  # frames that each item runs on
    if bool(is_open.all()):
        output = _run(group, x, state)
        return output, output[:, -1]
    longest = int(opened.max())
    if is_training_gate(gate):
        longest = max(longest, 1)  # one frame at least, so that every weight has a gradient, if only of zero
    rows = torch.arange(x.shape[0], device=x.device)[:, None]
    if longest:
        order = torch.argsort((~is_open).to(torch.uint8), dim=1, stable=True)[:, :longest]
        reached = torch.cat([state.unsqueeze(1), _run(group, x[rows, order], state)], dim=1)
    else:
        reached = state.unsqueeze(1)
    # reached[b, n] is the state after n open frames; n counts the open frames up to and including t.
    count = is_open.cumsum(1)
    output = reached[rows, count]
    last = reached[rows[:, 0], opened]
    if is_training_gate(gate):
        with torch.no_grad():
            reached_if_opened = torch.gru_cell(
                x.flatten(0, 2), output.detach().flatten(0, 2), group.weight_ih_l0, group.weight_hh_l0,
                group.bias_ih_l0, group.bias_hh_l0,
            ).reshape(output.shape)  # fmt: skip
        output = torch.where(is_open[:, :, None, None], output, reached_if_opened)
    return output, last
