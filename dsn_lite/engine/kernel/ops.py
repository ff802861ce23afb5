"""The operations of a frame, one for each kind of layer; :mod:`pack` writes the rows of numbers they are told by.

Arrays are rows of bands. A layer with P times as many bands as the middle has P phases: band P f + p lies in phase p,
column f, and the channels of a phase are neighbouring rows. So a convolution with a stride is a few products of whole
rows and no columns are gathered. Rows of the phases below 0 and above P - 1, which its outermost taps read, are copies
shifted by a column. Columns behind the last band, where there are any, are room up to a whole vector: what stands in
them is finite and never reaches a band.

Each function takes a row of the table of operations, the flat blocks of weights and memory, and W columns of a row.
"""

from __future__ import annotations

import numpy as np

from dsn_lite.engine.kernel.products import layer, product, view
from dsn_lite.network.compiled import add_products, exp, f32, jit, sigmoid, tanh

KIND, GATE = 0, 1
FIELDS = 20
"""Numbers in a row of the table: kind, gate (-1: none), then what the function of the kind unpacks."""
GATHER, CONVOLVE, BANDS, ATTENTION, LINEAR, RECURRENT = range(6)
_ZERO, _ONE = f32(0), f32(1)


@jit
def gather(op, is_open, memory, width, bands):
    """Lay the phases -low .. P - 1 + high of an input: its own rows, copied where they lie elsewhere, and shifted ones."""
    source, target, channels, phases, low, high, alive = op[2], op[3], op[4], op[5], op[6], op[7], op[8]
    if not is_open or memory[alive] == _ZERO:
        return
    size = channels * width
    for q in range(-low, phases + high):
        shift = q // phases  # columns to the left
        if shift == 0 and source == target:
            continue
        rows = view(memory, source + (q - shift * phases) * size, 1, size)[0]
        moved = view(memory, target + q * size, channels, width)
        # All rows at once, as if they were one; then what came over from the neighbouring row is no band.
        first, last = min(max(-shift, 0), size), max(min(size - shift, size), 0)
        values, out = rows[first + shift : last + shift], moved.reshape(-1)[first:last]
        for i in range(len(out)):
            out[i] = values[i]
        for c in range(channels):
            for f in range(min(-shift, bands)):
                moved[c, f] = _ZERO
            for f in range(max(bands - shift, 0), bands):
                moved[c, f] = _ZERO


@jit
def _lay(target, source, count, memory, weights, is_weight):
    """Copy `count` values within the memory, or from the weights."""
    out = view(memory, target, 1, count)[0]
    values = view(weights if is_weight else memory, source, 1, count)[0]
    for i in range(count):
        out[i] = values[i]


@jit
def convolve(op, is_open, weights, memory, width):
    """One convolution of whole rows, phase by phase: down with a step in its input, up with a step in its output."""
    w, units, bends, count = op[2], op[3], op[4], op[5]
    x, x_step, x_rows, y, y_step, y_rows = op[6], op[7], op[8], op[9], op[10], op[11]
    out, out_step, base, base_step = op[12], op[13], op[14], op[15]
    y_alive, base_alive, out_alive = op[16], op[17], op[18]
    adds = base >= 0 and memory[base_alive] != _ZERO
    if not is_open:
        memory[out_alive] = _ONE if adds else _ZERO
        if adds and base != out:
            for p in range(count):
                _lay(out + p * out_step, base + p * base_step, units * width, memory, weights, False)
        return
    matrix = view(weights, w, 1 + x_rows + y_rows + bends, units)
    rows = y_rows if memory[y_alive] != _ZERO else 0
    for p in range(count):
        first = view(memory, x + p * x_step, x_rows, width)
        second = view(memory, y + p * y_step, rows, width)
        result = view(memory, out + p * out_step, units, width)
        other = view(memory, base + p * base_step, units, width) if adds else result
        layer(matrix, first, second, result, other, bends != 0, adds)
    memory[out_alive] = _ONE


@jit
def add_bands(op, weights, memory, width):
    """Add the offsets of the bands to rows, or begin the rows with them where nothing came before."""
    offsets, rows, units, alive = op[2], op[3], op[4], op[5]
    if memory[alive] == _ZERO:
        _lay(rows, offsets, units * width, memory, weights, True)
        return
    values, others = view(memory, rows, 1, units * width)[0], view(weights, offsets, 1, units * width)[0]
    for i in range(len(values)):
        values[i] += others[i]


@jit
def pass_on(op, memory, weights, width):
    """What a closed residual layer does: its rows go on as they are."""
    units, base, out = op[3], op[4], op[5]
    if base != out:
        _lay(out, base, units * width, memory, weights, False)


@jit
def _softmax(scores, most, total):
    """exp(scores - most) in place, of scores [keys, W]; the sums down the rows go to `total` [W]."""
    keys, columns = scores.shape
    whole = keys // 4 * 4
    for f in range(columns):
        most[f], total[f] = scores[0, f], _ZERO
    for i in range(0, whole, 4):
        a, b, c, d = scores[i], scores[i + 1], scores[i + 2], scores[i + 3]
        for f in range(len(most)):
            most[f] = max(most[f], max(max(a[f], b[f]), max(c[f], d[f])))
    for i in range(whole, keys):
        for f in range(len(most)):
            most[f] = max(most[f], scores[i, f])
    for i in range(keys):
        row = scores[i]
        for f in range(len(most)):
            row[f] = exp(row[f] - most[f])
    for i in range(0, whole, 4):
        a, b, c, d = scores[i], scores[i + 1], scores[i + 2], scores[i + 3]
        for f in range(len(total)):
            total[f] += (a[f] + b[f]) + (c[f] + d[f])
    for i in range(whole, keys):
        for f in range(len(total)):
            total[f] += scores[i, f]


@jit
def attend(op, weights, memory, width, bands):
    """out = base + attention of some heads over the rows x; the softmax runs down the rows, all queries at a time."""
    inputs, units, base, out, x = op[2], op[3], op[4], op[5], op[6]
    w, w_out, heads, size = op[7], op[8], op[9], op[10]
    room = op[11]
    third = heads * size
    given, nothing = view(memory, x, inputs, width), view(memory, x, 0, width)
    projected = view(memory, room, 3 * third, width)
    mixed = view(memory, room + 3 * third * width, third, width)
    scores = view(memory, room + 4 * third * width, bands, width)
    rest = view(memory, room + (4 * third + bands) * width, 2, width)
    most, total = rest[0], rest[1]
    layer(view(weights, w, 1 + inputs, 3 * third), given, nothing, projected, projected, False, False)
    for head in range(heads):
        query = projected[head * size : (head + 1) * size]
        key = projected[third + head * size : third + (head + 1) * size]
        value = projected[2 * third + head * size : 2 * third + (head + 1) * size]
        product(key[:, :bands], query, scores)
        _softmax(scores, most, total)
        result = mixed[head * size : (head + 1) * size]
        product(value[:, :bands].T, scores, result)
        for f in range(len(total)):
            total[f] = _ONE / total[f]
        for c in range(size):
            row = result[c]
            for f in range(len(total)):
                row[f] *= total[f]
    layer(
        view(weights, w_out, 1 + third, units), mixed, nothing, view(memory, out, units, width),
        view(memory, base, units, width), False, True,
    )  # fmt: skip


@jit
def feed_forward(op, weights, memory, width):
    """out = base + down(relu(up(x)))."""
    inputs, units, base, out, x = op[2], op[3], op[4], op[5], op[6]
    up, down, hidden, room = op[7], op[8], op[9], op[10]
    given, nothing, between = view(memory, x, inputs, width), view(memory, x, 0, width), view(memory, room, hidden, width)
    # A PReLU whose slopes are zero is a ReLU.
    layer(view(weights, up, 1 + inputs + 1, hidden), given, nothing, between, between, True, False)
    layer(
        view(weights, down, 1 + hidden, units), between, nothing, view(memory, out, units, width),
        view(memory, base, units, width), False, True,
    )  # fmt: skip


@jit
def recur(op, weights, memory, width):
    """out = base + projection of the new states of some groups of GRUs over the rows x."""
    inputs, units, base, out, x = op[2], op[3], op[4], op[5], op[6]
    w, w_step, w_out, groups, size, states, room = op[7], op[8], op[9], op[10], op[11], op[12], op[13]
    given, nothing = view(memory, x, inputs, width), view(memory, x, 0, width)
    gates, flat = view(memory, room, 4 * size, width), view(memory, room, 4, size * width)
    both, new, own = gates[: 2 * size], gates[2 * size : 3 * size], gates[3 * size :]
    resets, updates, news, owns = flat[0], flat[1], flat[2], flat[3]
    for group in range(groups):
        first = w + group * w_step
        past = view(memory, states + group * size * width, size, width)
        layer(view(weights, first, 1 + inputs + size, 2 * size), given, past, both, both, False, False)
        first += (1 + inputs + size) * 2 * size
        layer(view(weights, first, 1 + inputs, size), given, nothing, new, new, False, False)
        layer(view(weights, first + (1 + inputs) * size, 1 + size, size), past, nothing, own, own, False, False)
        state = past.reshape(-1)
        for i in range(len(state)):
            candidate = tanh(news[i] + sigmoid(resets[i]) * owns[i])
            state[i] = candidate + sigmoid(updates[i]) * (state[i] - candidate)
    layer(
        view(weights, w_out, 1 + groups * size, units), view(memory, states, groups * size, width), nothing,
        view(memory, out, units, width), view(memory, base, units, width), False, True,
    )  # fmt: skip


@jit
def decide(op, shift, gates, weights, memory, width, bands):
    """The policy: pooled magnitudes of input and small answer, and the static middle, to gates [K] of 0 and 1."""
    phases, seen, mask, middle, channels, state = op[2], op[3], op[4], op[5], op[6], op[7]
    w_pool, pooled, w, w_out, size, room = op[8], op[9], op[10], op[11], op[12], op[13]
    memory_row = view(memory, state, 1, 2 * pooled + channels + 1 + size)[0]
    before, after = memory_row[:pooled], memory_row[pooled : 2 * pooled]
    before[:], after[:] = _ZERO, _ZERO
    answer = view(memory, room, 1, width)[0]
    for phase in range(phases):
        magnitude = view(memory, seen + (6 * phase + 2) * width, 1, width)[0]
        parts = view(memory, mask + 2 * phase * width, 2, width)
        real, imaginary = parts[0], parts[1]
        for f in range(len(answer)):
            answer[f] = magnitude[f] * np.sqrt(real[f] * real[f] + imaginary[f] * imaginary[f])
        pooling = view(weights, w_pool + phase * bands * pooled, bands, pooled)
        add_products(before, magnitude, pooling)
        add_products(after, answer, pooling)
    rows = view(memory, middle, channels, width)
    for c in range(channels):
        total = _ZERO
        for f in range(bands):
            total += rows[c, f]
        memory_row[2 * pooled + c] = total / f32(bands)
    inputs = 2 * pooled + channels
    memory_row[inputs] = _ONE  # what the biases are the weights of
    hidden = memory_row[inputs + 1 :]
    matrix, sums = view(weights, w, inputs + 2 + size, 3 * size), view(memory, room + width, 1, 4 * size)[0]
    sums[:] = _ZERO
    add_products(sums[: 3 * size], memory_row[: inputs + 1], matrix[: inputs + 1])
    add_products(sums[size:], memory_row[inputs:], matrix[inputs + 1 :])
    news, resets, updates, owns = sums[:size], sums[size : 2 * size], sums[2 * size : 3 * size], sums[3 * size :]
    for i in range(size):
        candidate = tanh(news[i] + sigmoid(resets[i]) * owns[i])
        hidden[i] = candidate + sigmoid(updates[i]) * (hidden[i] - candidate)
    margins = view(memory, room + width + 4 * size, 1, len(gates))[0]
    margins[:] = _ZERO
    add_products(margins, memory_row[inputs:], view(weights, w_out, 1 + size, len(gates)))
    for k in range(len(gates)):
        gates[k] = margins[k] + shift > 0
