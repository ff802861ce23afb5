"""Whole frames: what the network sees, the table of operations, what its mask makes of the spectrum."""

from __future__ import annotations

import numpy as np

from dsn_lite.audio.spectral import COMPRESSION, HOP
from dsn_lite.engine.kernel import ops
from dsn_lite.engine.kernel.products import view
from dsn_lite.engine.kernel.transforms import block_offset, to_samples, to_spectrum
from dsn_lite.network.compiled import exp, f32, jit, log
from dsn_lite.network.model import RELEASE

ALWAYS, MEAN, LEVEL, HEADER = 0, 1, 4, 16
"""Cells of the memory: one that is never zero, the running mean (3 of them), the level; then what a network needs."""
(
    WIDTH, BANDS, PHASES, STATIC, DYNAMIC, END, POLICY, SEEN, SPECTRUM, MASK, PAST, OVERLAP, ROOM,
    FORWARD_1, FORWARD_2, BACKWARD_2, BACKWARD_1, TWIDDLE, WINDOWED, SIGNS, ORDER,
) = range(21)  # fmt: skip
PLAN = 21
"""Entries of the plan: sizes, the first operation of each part, and where what lies in the blocks."""
_RELEASE, _LOWEST = f32(RELEASE), f32(1e-3)
_DOWN, _UP = f32((COMPRESSION - 1) / 2), f32((1 / COMPRESSION - 1) / 2)
_FLOOR, _TINY, _ONE = f32(1e-20), f32(1.2e-38), f32(1)


@jit
def _see(spectrum, seen, memory, phases):
    """Compress a spectrum [2 * P, W] in place; write what the network sees of it to seen [6 * P, W], and age what it saw.

    A phase has six rows: real part, imaginary part and magnitude over the running level, then those of the frame before.
    """
    flat = spectrum.reshape(2, -1)
    real, imaginary, total = flat[0], flat[1], f32(0)
    width = spectrum.shape[1]
    for i in range(len(real)):
        re, im = real[i], imaginary[i]
        scale = exp(_DOWN * log(re * re + im * im + _FLOOR))
        real[i], imaginary[i] = re * scale, im * scale
    for p in range(phases):
        rows = seen[6 * p : 6 * p + 6].reshape(-1)
        for i in range(3 * width):
            rows[3 * width + i] = rows[i]
        re, im, magnitude = spectrum[p], spectrum[phases + p], seen[6 * p + 2]
        for f in range(len(magnitude)):
            magnitude[f] = np.sqrt(re[f] * re[f] + im[f] * im[f])
        for first in range(0, width, 8):
            total += (
                ((magnitude[first] + magnitude[first + 1]) + (magnitude[first + 2] + magnitude[first + 3]))
                + ((magnitude[first + 4] + magnitude[first + 5]) + (magnitude[first + 6] + magnitude[first + 7]))
            )  # fmt: skip
    mean = total / f32(HOP)
    level = max(max(mean, _RELEASE * memory[LEVEL] + (_ONE - _RELEASE) * mean), _LOWEST)
    memory[LEVEL] = level
    share = _ONE / level
    for p in range(phases):
        re, im, rows = spectrum[p], spectrum[phases + p], seen[6 * p : 6 * p + 3]
        for f in range(width):
            rows[0, f], rows[1, f], rows[2, f] = re[f] * share, im[f] * share, rows[2, f] * share


@jit
def _answer(mask, spectrum, phases):
    """Apply a mask [2 * P, W] (real and imaginary row of each phase) to the compressed spectrum, undo the compression."""
    for p in range(phases):
        mask_re, mask_im, real, imaginary = mask[2 * p], mask[2 * p + 1], spectrum[p], spectrum[phases + p]
        for f in range(len(real)):
            re = mask_re[f] * real[f] - mask_im[f] * imaginary[f]
            im = mask_re[f] * imaginary[f] + mask_im[f] * real[f]
            scale = exp(_UP * log(re * re + im * im + _TINY))
            real[f], imaginary[f] = re * scale, im * scale


@jit
def _run_table(first, last, gates, weights, memory, numbers, width, bands):
    """Operations first .. last, in turn; those behind a closed gate do no more than hand on what they were given."""
    for number in range(first, last):
        op = view(numbers, PLAN + number * ops.FIELDS, 1, ops.FIELDS)[0]
        kind, gate = op[ops.KIND], op[ops.GATE]
        is_open = gate < 0 or gates[gate] != 0
        if kind == ops.CONVOLVE:
            ops.convolve(op, is_open, weights, memory, width)
        elif kind == ops.GATHER:
            ops.gather(op, is_open, memory, width, bands)
        elif kind == ops.BANDS:
            ops.add_bands(op, weights, memory, width)
        elif not is_open:
            ops.pass_on(op, memory, weights, width)
        elif kind == ops.ATTENTION:
            ops.attend(op, weights, memory, width, bands)
        elif kind == ops.LINEAR:
            ops.feed_forward(op, weights, memory, width)
        else:
            ops.recur(op, weights, memory, width)


@jit
def _frame(gates, decides, shift, weights, memory, numbers):
    """One frame, in place: the spectrum [2 * P, W] in the memory."""
    plan = numbers[:PLAN]
    width, bands, phases = plan[WIDTH], plan[BANDS], plan[PHASES]
    spectrum, mask = view(memory, plan[SPECTRUM], 2 * phases, width), view(memory, plan[MASK], 2 * phases, width)
    _see(spectrum, view(memory, plan[SEEN], 6 * phases, width), memory, phases)
    _run_table(plan[STATIC], plan[DYNAMIC], gates, weights, memory, numbers, width, bands)
    if decides:
        op = view(numbers, PLAN + plan[POLICY] * ops.FIELDS, 1, ops.FIELDS)[0]
        ops.decide(op, shift, gates, weights, memory, width, bands)
    is_needed = len(gates) == 0
    for k in range(len(gates)):
        is_needed |= gates[k] != 0
    if is_needed:
        _run_table(plan[DYNAMIC], plan[END], gates, weights, memory, numbers, width, bands)
    _answer(mask, spectrum, phases)


@jit
def run_spectra(given, gates, out, decides, shift, weights, memory, numbers):
    """Frames of spectra given [T, 2 * 257] (real and imaginary parts in turn) to out [T, 2 * 257]; see :func:`run_hops`."""
    plan, places = numbers[:PLAN], view(numbers, numbers[ORDER], 4, 288)[0]
    phases = plan[PHASES]
    flat = view(memory, plan[SPECTRUM], 2, phases * plan[WIDTH])
    for t in range(len(out)):
        for i in range(HOP):
            flat[0, places[i]], flat[1, places[i]] = given[t, 2 * i], given[t, 2 * i + 1]
        _frame(gates[t], decides, shift, weights, memory, numbers)
        for i in range(HOP):
            out[t, 2 * i], out[t, 2 * i + 1] = flat[0, places[i]], flat[1, places[i]]
        out[t, 2 * HOP] = out[t, 2 * HOP + 1] = 0


@jit
def run_hops(given, gates, out, decides, shift, weights, memory, numbers):
    """Frames, one after the other: hops of samples given [T, 256] to out [T, 256], late by a hop.

    gates [T, K] are read, or written where the policy `decides`. weights and memory are flat blocks, numbers say what lies
    where in them and what is done with it: the plan, the table of operations, the order of the bins.
    """
    plan, order = numbers[:PLAN], view(numbers, numbers[ORDER], 4, 288)
    flat, room = view(memory, plan[SPECTRUM], 2, plan[PHASES] * plan[WIDTH]), plan[ROOM]
    grid, rows = view(memory, room, 16, 32), view(memory, room + 512, 18, 32)
    halves, turned = view(memory, room + 1088, 18, 32), view(memory, room + 1664, 18, 32)
    past, overlap = view(memory, plan[PAST], 1, HOP)[0], view(memory, plan[OVERLAP], 1, HOP)[0]
    window, twiddle = view(weights, plan[WINDOWED], 2, HOP), view(weights, plan[TWIDDLE], 18, 32)
    forward_1, forward_2 = view(weights, plan[FORWARD_1], 16, 18), view(weights, plan[FORWARD_2], 64, 32)
    backward_1, backward_2 = view(weights, plan[BACKWARD_1], 18, 16), view(weights, plan[BACKWARD_2], 64, 32)
    signs = view(weights, plan[SIGNS], 3, 288)
    samples = view(memory, room, 2, HOP)
    earlier, later, rising, falling = samples[0], samples[1], window[0], window[1]
    fresh = view(memory, room + 2240, 1, HOP)[0]
    for t in range(len(out)):
        block_offset(given[t], memory[MEAN : MEAN + 3], fresh)
        for i in range(HOP):
            earlier[i], later[i] = past[i] * rising[i], fresh[i] * falling[i]
            past[i] = fresh[i]
        to_spectrum(grid, forward_1, twiddle, forward_2, rows, halves, turned, order, signs, flat[0], flat[1])
        _frame(gates[t], decides, shift, weights, memory, numbers)
        to_samples(flat[0], flat[1], backward_2, twiddle, backward_1, turned, halves, rows, order, signs, grid)
        target = out[t]
        for i in range(HOP):
            target[i] = overlap[i] + earlier[i] * rising[i]
            overlap[i] = later[i] * falling[i]
