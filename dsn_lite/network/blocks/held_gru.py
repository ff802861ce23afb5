"""A grouped GRU that holds its state on closed frames, forward and backward, compiled for training on a processor.

The library's GRU does a dozen small operations a frame and group, and a training step of a small network waits for them
more than for anything else. Here one loop does them all. It follows the same equations as ``torch.nn.GRU`` (Cho et al.,
arXiv 1406.1078, with the reset gate behind the recurrent product); where a gate is closed it carries the state on.

Axes: T frames, G groups, H units of a group, N sequences side by side (batch times bands), which lie next to each other in
memory so that each line below works on 8 or 16 of them at once.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dsn_lite.network.compiled import add_products, f32, jit, sigmoid, tanh

_ONE = f32(1)


class HeldGRU(torch.autograd.Function):
    """Outputs of G groups that run on every frame and remember the open ones.

    ``HeldGRU.apply(given, weight, bias, state, opened)`` takes

    * given [3, G, H, T, N], input products with their bias: reset, update, new
    * weight [G, 3, H, H] and bias [G, 3, H], recurrent
    * state [G, H, N] before the first frame
    * opened [G, T, N], 1 where the state is replaced and 0 where it is held; it gets no gradient

    and returns outputs [T, G, H, N], on a closed frame the state that an open gate would have led to, and the state
    [G, H, N] after the last frame. All are float32 on the CPU.
    """

    @staticmethod
    def forward(ctx, given: Tensor, weight: Tensor, bias: Tensor, state: Tensor, opened: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        _, groups, width, frames, sequences = given.shape
        states = given.new_empty(frames + 1, groups, width, sequences)
        states[0] = state
        output, *gates = given.new_empty(5, frames, groups, width, sequences)
        _forward(*_arrays(given, weight, bias, states, opened, output, *gates))
        ctx.save_for_backward(weight, opened, states, *gates)
        return output, states[-1].clone()

    @staticmethod
    def backward(ctx, d_output: Tensor, d_state: Tensor):
        """Gradients of everything but `opened`."""
        weight, opened, states, *gates = ctx.saved_tensors
        frames, groups, width, sequences = d_output.shape
        d_given = d_output.new_empty(3, groups, width, frames, sequences)
        d_own = d_output.new_empty(groups, 3, width, frames, sequences)
        d_state = d_state.clone(memory_format=torch.contiguous_format)
        _backward(*_arrays(d_output, d_state, weight.transpose(2, 3), opened, states, *gates, d_given, d_own))
        before = states[:-1].permute(1, 0, 3, 2).reshape(groups, frames * sequences, width)
        d_weight = (d_own.view(groups, 3 * width, -1) @ before).view_as(weight)
        return d_given, d_weight, d_own.sum((3, 4)), d_state, None


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


@jit
def _forward(given, weight, bias, states, opened, output, resets, updates, news, owns):
    """Fill states [T + 1, G, H, N] from the first row on, the outputs, and what the gradient needs: [T, G, H, N] each."""
    frames, groups, width, _ = output.shape
    for t in range(frames):
        for g in range(groups):
            is_open = opened[g, t]
            for j in range(width):
                reset, update, new, own = resets[t, g, j], updates[t, g, j], news[t, g, j], owns[t, g, j]
                reset[:], update[:], own[:] = bias[g, 0, j], bias[g, 1, j], bias[g, 2, j]
                add_products(reset, weight[g, 0, j], states[t, g])
                add_products(update, weight[g, 1, j], states[t, g])
                add_products(own, weight[g, 2, j], states[t, g])
                for k in range(len(reset)):
                    reset[k] = sigmoid(given[0, g, j, t, k] + reset[k])
                for k in range(len(reset)):
                    update[k] = sigmoid(given[1, g, j, t, k] + update[k])
                for k in range(len(reset)):
                    new[k] = tanh(given[2, g, j, t, k] + reset[k] * own[k])
                before, after, out = states[t, g, j], states[t + 1, g, j], output[t, g, j]
                for k in range(len(reset)):
                    out[k] = new[k] + update[k] * (before[k] - new[k])
                    after[k] = before[k] + is_open[k] * (out[k] - before[k])


@jit
def _backward(d_output, d_state, weight, opened, states, resets, updates, news, owns, d_given, d_own):
    """Fill the gradients of the input products and of the recurrent products; `weight` comes as [G, 3, H in, H out].

    ``d_state`` [G, H, N] holds the gradient of the last state, and in the end that of the first.
    """
    frames, groups, width, sequences = d_output.shape
    products, carried = np.empty((3, width, sequences), f32), np.empty((width, sequences), f32)
    for t in range(frames - 1, -1, -1):
        for g in range(groups):
            is_open = opened[g, t]
            for j in range(width):
                reset, update, new, own = resets[t, g, j], updates[t, g, j], news[t, g, j], owns[t, g, j]
                before, d_out, d_after, past = states[t, g, j], d_output[t, g, j], d_state[g, j], carried[j]
                d_reset, d_update, d_new = products[0, j], products[1, j], products[2, j]
                for k in range(sequences):
                    d = d_out[k] + is_open[k] * d_after[k]
                    past[k] = d * update[k] + (_ONE - is_open[k]) * d_after[k]
                    d_update[k] = d * (before[k] - new[k]) * update[k] * (_ONE - update[k])
                    d_new[k] = d * (_ONE - update[k]) * (_ONE - new[k] * new[k])
                    d_reset[k] = d_new[k] * own[k] * reset[k] * (_ONE - reset[k])
                d_given[0, g, j, t, :], d_given[1, g, j, t, :], d_given[2, g, j, t, :] = d_reset, d_update, d_new
                for k in range(sequences):
                    d_new[k] *= reset[k]
                d_own[g, 0, j, t, :], d_own[g, 1, j, t, :], d_own[g, 2, j, t, :] = d_reset, d_update, d_new
            for i in range(width):
                for part in range(3):
                    add_products(carried[i], weight[g, part, i], products[part])
            d_state[g] = carried
