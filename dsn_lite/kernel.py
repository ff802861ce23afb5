"""The network compiled for one frame at a time: what is closed is not computed, not read and not waited for.

PyTorch spends most of a 16 ms frame between its operations. Here the whole frame, with its Fourier transforms, is one
function compiled by Numba: loops over contiguous float32 rows that become vector instructions.

How it is laid out, and why:

- Arrays are [C, F], channel by band, and each has 33 bands from the first layer to the last. The bins of a spectrum lie in
  eight rows: row r holds the bins r, 8 + r, 16 + r, ... A layer's stride of two then halves the rows, neighbouring bins
  are in the rows above and below, and each convolution is a few products of whole rows: no columns are gathered. "Our
  order" of a spectrum [2 * 2 * 4, 33] is the real parts of rows 0, 2, 4, 6, their imaginary parts, then the odd rows
  likewise.
- A product is ``weights.T @ rows`` with weights [K, N] and rows [K, F]. The static part of a layer is the first columns of
  its weights and the first rows of its result; the dynamic part lies behind them, and a closed gate just makes the
  product end earlier: there is no masking and no second kernel. What reads a dynamic part ends its sum earlier in the same
  way. Only where channels of several bands alternate in the sum is there a second, static matrix.
- The first row of each input of a product is one: biases are a row of the weights and cost no pass of their own.
- Query weights hold the attention's 1 / sqrt(head width). Queries, keys and values are one product; so are the input
  gates of all open GRU groups; the states of all groups lie in the rows that the output projection reads.
- The layer behind a closed convolution does not read its zero channels. (The count of MACs still contains them.)
- The softmax stands upright: its sums run down the rows, so that all 33 queries are computed at a time.
- The transforms are small matrix products, 512 = 16 x 2 x 16.
- exp, tanh, sigmoid and the power law are polynomials of about 1e-7.
- Products keep their sums in vector registers (:func:`_tile`). BLAS does so too, but takes half a microsecond to begin,
  and a frame has some sixty products of about half a microsecond.
- Of 33 columns 32 are vectors. In the last one the lanes of a vector are rows: value by value it would take a fifth of a
  product's time.
- Loops read their length from an array where it is a constant 33: LLVM unrolls a short constant loop into scalars.
- All that a stream remembers and the room it works in are one block of memory, and a plan says where what lies in it and
  in the block of weights: each array that is handed to the compiled function costs a tenth of a microsecond.

What the steps gave at the size of `base`, in microseconds a frame, fed hop by hop, everything open / everything closed,
on one core of an AMD EPYC (Zen 4) that had other work too (the fastest tenth of the passes): convolutions that gather
their columns, three passes for a normalisation 63 / 38; bins in eight rows, transforms in halves, one plan, no copies in
the stream 60 / 35.5; lanes down the last column 56 / 34; normalisation in registers 55.3 / 33.4; flat loops in the
transforms 54.9 / 32.7; the softmax's maximum in registers 53.5 / 32; matrices found without counting references
50 / 29. With AVX2 alone it is 10 % slower.

Of a closed frame some 10 microseconds do not depend on the gates: Python and the call 3, transforms 2.5, the first and the
last layer 2, normalisation, power law and what it takes to find the matrices 2.5. So it takes 0.58 of the time of an open
one, though 0.46 of its MACs. The policy takes 1.1 more.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from dsn_lite.audio.spectral import BINS, COMPRESSION, HOP, WINDOW
from dsn_lite.model import GATES, Network
from dsn_lite.network.compiled import add_products, exp, f32, jit, log, sigmoid, tanh
from dsn_lite.policy import Policy

BANDS = 33
"""Bands of the bottleneck, and columns of every matrix of bands."""

_HAS_WIDE = bool(llvm.get_host_cpu_features().get("avx512f"))
_LANES, _ROWS = (16, 8) if _HAS_WIDE else (8, 4)
"""A product is computed in tiles of _ROWS by 2 * _LANES values, which fit into the registers."""
_COLUMNS = 2 * _LANES
_REAL = ir.FloatType()
_VECTOR = ir.VectorType(_REAL, _LANES)
_ZERO, _ONE = f32(0), f32(1)


# What the block of weights holds, in this order.
(
    FORWARD_1, FORWARD_2, BACKWARD_2, BACKWARD_1, TWIDDLE, WINDOWED,
    ENCODER_1, ENCODER_2, ENCODER_3, ENCODER_3_STATIC, EMBEDDING,
    HEADS_1, HEADS_OUT_1, UP_1, DOWN_1, GROUPS_IN, GROUPS_OWN, GROUPS_OUT, UP_2, DOWN_2, HEADS_3, HEADS_OUT_3, UP_3, DOWN_3,
    DECODER_3_EVEN, DECODER_3_ODD, DECODER_2_EVEN, DECODER_2_ODD, DECODER_2_EVEN_STATIC, DECODER_2_ODD_STATIC,
    DECODER_1, DECODER_1_BIAS, BIASES, SLOPES, POLICY_POOLING, POLICY_GRU, POLICY_OUT,
) = range(37)  # fmt: skip
# What the block of memory holds: what is remembered from frame to frame, then room to work in.
(
    TAPS, STATES, POLICY_STATE, PAST, OVERLAP,
    SPECTRUM, LEVEL_1, LEVEL_2, DECODED, BOTTLENECK, NORMAL, SOFTMAX, HIDDEN, MIXED, WIDE, OWN_GATES, SCORES, ADDED, MASK,
    GRID, ROWS, HALVES, TURNED, MAGNITUDE, POLICY_GATES, MARGINS,
) = range(37, 63)  # fmt: skip
# The plan has a row for each of them (start, rows, columns); behind them those of `Weights.units`.
UNITS = 63


# ------------------------------------------------------------------------------------------------ products
def _pointers(context, builder, kind, value):
    """Function of a row and a column to the pointer to that value of a matrix, whose strides are in bytes."""
    array = context.make_array(kind)(context, builder, value)
    down, across = cgutils.unpack_tuple(builder, array.strides, 2)
    start = builder.bitcast(array.data, ir.IntType(8).as_pointer())

    def at(row, column, wanted):
        offset = builder.add(builder.mul(row, down), builder.mul(column, across))
        return builder.bitcast(builder.gep(start, [offset]), wanted.as_pointer())

    return at


def _height(context, builder, kind, value):
    """Number of rows of a matrix."""
    return cgutils.unpack_tuple(builder, context.make_array(kind)(context, builder, value).shape)[0]


def _load(builder, pointer):
    value = builder.load(pointer)
    value.align = 4
    return value


def _spread(builder, kind, value):
    """A vector with the value in each lane; or the value itself, where the kind is no vector."""
    if kind == value.type:
        return value
    nothing, lanes = ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), kind.count), None)
    return builder.shuffle_vector(builder.insert_element(nothing, value, ir.IntType(32)(0)), nothing, lanes)


def _gathered(builder, kind, values):
    """A vector of these values."""
    vector = ir.Constant(kind, ir.Undefined)
    for n, value in enumerate(values):
        vector = builder.insert_element(vector, value, ir.IntType(32)(n))
    return vector


def _tile(rows: int, tail: bool):
    """Compiled piece of a product: out[i : i + rows, j : j + _COLUMNS (+ 1 with a tail)] = (a.T @ b)[the same].

    The sums stay in vector registers while the loop runs along K: loops in Python would write them to memory each time.
    They begin with zero or, where it `adds`, with what `out` holds. The lanes of a vector are neighbouring columns; in
    the tail, which is one column, they are the rows. The rows of b and out are contiguous; with a tail those of a are
    too, or it is the transpose of a contiguous matrix.
    """
    one, wide, column = _REAL, _VECTOR, ir.VectorType(_REAL, rows)

    @intrinsic
    def tile(context, a, b, out, i, j, adds):
        def generate(context, builder, signature, args):
            at_a, at_b, at_out = (
                _pointers(context, builder, *pair) for pair in zip(signature.args[:3], args[:3], strict=True)
            )
            inner = _height(context, builder, signature.args[1], args[1])
            at = [builder.add(args[3], context.get_constant(types.intp, n)) for n in range(rows)]
            halves = [builder.add(args[4], context.get_constant(types.intp, n)) for n in (0, _LANES, _COLUMNS)]
            last = halves.pop()

            def add(total, x, y):
                product = builder.fmul(x, y, flags=("contract",))
                builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)

            zero = lambda kind: cgutils.alloca_once_value(builder, ir.Constant(kind, None))
            sums, tail_sums = [[zero(wide) for _ in halves] for _ in at], zero(column)
            with builder.if_then(args[5]):
                for row, totals in zip(at, sums, strict=True):
                    for total, half in zip(totals, halves, strict=True):
                        builder.store(_load(builder, at_out(row, half, wide)), total)
                if tail:
                    values = [_load(builder, at_out(row, last, one)) for row in at]
                    builder.store(_gathered(builder, column, values), tail_sums)
            with cgutils.for_range(builder, inner) as loop:
                values = [_load(builder, at_b(loop.index, half, wide)) for half in halves]
                weights = [_load(builder, at_a(loop.index, row, one)) for row in at]
                for weight, totals in zip(weights, sums, strict=True):
                    for total, value in zip(totals, values, strict=True):
                        add(total, _spread(builder, wide, weight), value)
                if tail:
                    if signature.args[0].layout == "F":
                        lanes = _gathered(builder, column, weights)
                    else:
                        lanes = _load(builder, at_a(loop.index, at[0], column))
                    add(tail_sums, lanes, _spread(builder, column, _load(builder, at_b(loop.index, last, one))))
            for row, totals in zip(at, sums, strict=True):
                for total, half in zip(totals, halves, strict=True):
                    builder.store(builder.load(total), at_out(row, half, wide), align=4)
            if tail:
                total = builder.load(tail_sums)
                for n, row in enumerate(at):
                    builder.store(builder.extract_element(total, ir.IntType(32)(n)), at_out(row, last, one), align=4)
            return context.get_dummy_value()

        return types.void(a, b, out, types.intp, types.intp, types.boolean), generate

    return tile


# What is left of the rows is done in tiles of four, two and one: a tile of one row waits for its own sums.
_many, _many_and_tail = _tile(_ROWS, False), _tile(_ROWS, True)
_four, _four_and_tail = _tile(4, False), _tile(4, True)
_two, _two_and_tail = _tile(2, False), _tile(2, True)
_one, _one_and_tail = _tile(1, False), _tile(1, True)


@jit
def _product(a, b, out, bands, adds):
    """The first `bands` columns of out [N, F] (+)= a.T @ b of a [K, N] and b [K, F].

    `bands` is a multiple of _COLUMNS or one more, the tail: see :func:`_tile`.
    """
    height, last = a.shape[1], bands - _COLUMNS
    for j in range(0, last + 1, _COLUMNS):
        i = 0
        if j == last - 1:
            for i in range(0, height - _ROWS + 1, _ROWS):
                _many_and_tail(a, b, out, i, j, adds)
            i = height // _ROWS * _ROWS
            if height - i >= 4:
                _four_and_tail(a, b, out, i, j, adds)
                i += 4
            if height - i >= 2:
                _two_and_tail(a, b, out, i, j, adds)
                i += 2
            if height > i:
                _one_and_tail(a, b, out, i, j, adds)
        else:
            for i in range(0, height - _ROWS + 1, _ROWS):
                _many(a, b, out, i, j, adds)
            i = height // _ROWS * _ROWS
            if height - i >= 4:
                _four(a, b, out, i, j, adds)
                i += 4
            if height - i >= 2:
                _two(a, b, out, i, j, adds)
                i += 2
            if height > i:
                _one(a, b, out, i, j, adds)


@jit
def _multiply(a, b, out):
    """out [N, F] = a.T @ b of a [K, N] and b [K, F]."""
    _product(a, b, out, b.shape[1], False)


@jit
def _add_product(a, b, out):
    """out [N, F] += a.T @ b of a [K, N] and b [K, F]."""
    _product(a, b, out, b.shape[1], True)


# ------------------------------------------------------------------------------------------------ pieces of a frame
# Loops below take their length from an array even where it is a constant 33: LLVM would unroll a short loop of known
# length into scalars. Where a block of rows is contiguous they run along all of it, so that few values are left over.


@jit
def _activate(x, bias, slopes, bands):
    """PReLU of x [C, F] + bias [C] in place, in the first `bands` columns, with a slope a row."""
    for c in range(x.shape[0]):
        offset, slope, row = bias[c], slopes[c], x[c]
        for f in range(bands):
            value = row[f] + offset
            row[f] = max(value, _ZERO) + slope * min(value, _ZERO)


@jit
def _activate_onto(x, bias, slopes, target, bands):
    """target [C, F] += PReLU of x [C, F] + bias [C], in the first `bands` columns."""
    for c in range(x.shape[0]):
        offset, slope, row, sums = bias[c], slopes[c], x[c], target[c]
        for f in range(bands):
            value = row[f] + offset
            sums[f] += max(value, _ZERO) + slope * min(value, _ZERO)


@jit
def _shift_right(source, target):
    """target[:, f] = source[:, f - 1], and zero comes in."""
    for c in range(source.shape[0]):
        row, moved = source[c], target[c, 1:]
        target[c, 0] = _ZERO
        for f in range(len(moved)):
            moved[f] = row[f]


@jit
def _shift_left(source, target):
    """target[:, f] = source[:, f + 1]; the last column stays what it is."""
    for c in range(source.shape[0]):
        row, moved = source[c, 1:], target[c]
        for f in range(len(row)):
            moved[f] = row[f]


@jit
def _compress(spectrum):
    """Power compression in place of a spectrum [2 * 2 * 4, BANDS] in our order."""
    power, half = f32(1e-12), f32((COMPRESSION - 1) / 2)
    flat = spectrum.reshape(4, -1)
    for odd in range(2):
        real, imaginary = flat[2 * odd], flat[2 * odd + 1]
        for i in range(len(real)):
            re, im = real[i], imaginary[i]
            scale = exp(half * log(re * re + im * im + power))
            real[i], imaginary[i] = re * scale, im * scale


@jit
def _replace(before, now, values):
    for f in range(len(values)):
        before[f] = now[f]
        now[f] = values[f]


@jit
def _lay_taps(spectrum, taps):
    """Write a compressed frame into taps [11 * 4, BANDS]; what it held becomes the frame before.

    For bins 8 f - 2, 8 f - 1, ..., 8 f + 8: real part of the frame before and of this, then the imaginary parts.
    """
    for q in range(-2, 9):
        for part in range(2):
            row = 4 * (q + 2) + 2 * part
            before, now, values = taps[row], taps[row + 1], spectrum[8 * (q % 2) + 4 * part + q % 8 // 2]
            if q < 0:
                _replace(before[1:], now[1:], values[:-1])
            elif q == 8:
                _replace(before, now, values[1:])
            else:
                _replace(before, now, values)


@jit
def _expand(mask, offset, spectrum):
    """Apply a complex mask plus offset [2] to the compressed spectrum, undo the compression; both are in our order."""
    exponent = f32((1 / COMPRESSION - 1) / 2)
    masks, values = mask.reshape(4, -1), spectrum.reshape(4, -1)
    for odd in range(2):
        mask_re, mask_im, real, imaginary = masks[2 * odd], masks[2 * odd + 1], values[2 * odd], values[2 * odd + 1]
        for i in range(len(real)):
            m_re, m_im = mask_re[i] + offset[0], mask_im[i] + offset[1]
            re, im = m_re * real[i] - m_im * imaginary[i], m_re * imaginary[i] + m_im * real[i]
            scale = exp(exponent * log(re * re + im * im + f32(1e-38)))
            real[i], imaginary[i] = re * scale, im * scale


@jit
def _encode_1(taps, weights, bias, slopes, level):
    """First convolution: taps [11 * 4, BANDS] to groups 0 .. 4 of level [6 * C, BANDS]; weights [5 * 4, C]."""
    channels = weights.shape[1]
    for r in range(4):
        group, bands = level[(1 + r) * channels : (2 + r) * channels], taps.shape[1] - min(r, 1)
        _product(weights, taps[8 * r : 8 * r + 20], group, bands, False)
        _activate(group, bias, slopes, bands)
    _shift_right(level[4 * channels : 5 * channels], level[:channels])


@jit
def _encode_2(level_1, weights, bias, slopes, level_2):
    """Second convolution to level_2 [3 * N, BANDS]: bands 2 f - 1, 2 f, 2 f + 1; weights [3 * C, N]."""
    count, channels, bands = weights.shape[1], weights.shape[0] // 3, level_1.shape[1]
    even, odd = level_2[count : 2 * count], level_2[2 * count :]
    _product(weights, level_1[: 3 * channels], even, bands, False)
    _activate(even, bias, slopes, bands)
    _product(weights, level_1[2 * channels : 5 * channels], odd, bands - 1, False)
    _activate(odd, bias, slopes, bands - 1)
    for c in range(count):
        odd[c, bands - 1] = _ZERO  # there is no band 65
    _shift_right(odd, level_2[:count])


@jit
def _encode_3(level_2, weights, bias, slopes, embedding, x):
    """Third convolution of level_2 [3 * C, BANDS] plus embedding to x [.., BANDS]: its first N rows; weights [3 * C, N]."""
    count = weights.shape[1]
    _multiply(weights, level_2, x[:count])
    _activate(x[:count], bias, slopes, x.shape[1])
    open_, other = x[:count].reshape(-1), embedding[:count].reshape(-1)
    for i in range(len(open_)):
        open_[i] += other[i]
    closed, other = x[count:].reshape(-1), embedding[count:].reshape(-1)
    for i in range(len(closed)):
        closed[i] = other[i]


@jit
def _decode_3(pair, even_weights, odd_weights, bias, slopes, skip, out):
    """Transposed convolution of the bottleneck, plus the skip connection, to out [3 * M, BANDS].

    pair [2 * C, BANDS]: the bottleneck, and room for it shifted left; even_weights [C, N], odd_weights [2 * C, N];
    skip [3 * K, BANDS] is level_2; out: bands 2 f, 2 f + 1, 2 f + 2 of M = max(N, K) channels.
    """
    inputs, count, bands = even_weights.shape[0], even_weights.shape[1], pair.shape[1]
    kept, given = skip.shape[0] // 3, out.shape[0] // 3
    _shift_left(pair[:inputs], pair[inputs:])
    for odd in range(2):
        weights, group = odd_weights if odd else even_weights, out[odd * given : (1 + odd) * given]
        _product(weights, pair[: (1 + odd) * inputs], group[:count], bands - odd, False)
        _activate(group[:count], bias, slopes, bands - odd)
        other = skip[(1 + odd) * kept : (2 + odd) * kept]
        both = min(count, kept)
        sums, rows = group[:both].reshape(-1), other[:both].reshape(-1)
        for i in range(len(sums)):
            sums[i] += rows[i]
        alone, rows = group[both:kept].reshape(-1), other[both:].reshape(-1)
        for i in range(len(alone)):
            alone[i] = rows[i]
    _shift_left(out[:given], out[2 * given :])


@jit
def _decode_2(x, even_weights, odd_weights, bias, slopes, level, room):
    """Transposed convolution of x [3 * M, BANDS] added to the first N channels of level [6 * C, BANDS], which it reorders.

    even_weights [M, N], odd_weights [2 * M, N]; room [C, BANDS].
    """
    inputs, count, channels = even_weights.shape[0], even_weights.shape[1], level.shape[0] // 6
    for r in range(4):
        weights, first, bands = odd_weights if r % 2 else even_weights, r // 2 * inputs, x.shape[1] - min(r, 1)
        _product(weights, x[first : first + (1 + r % 2) * inputs], room[:count], bands, False)
        _activate_onto(room[:count], bias, slopes, level[(1 + r) * channels : (2 + r) * channels], bands)
    _shift_right(level[4 * channels : 5 * channels], level[:channels])
    _shift_left(level[channels : 2 * channels], level[5 * channels :])


@jit
def _decode_1(level, weights, mask):
    """Transposed convolution of level [6 * C, BANDS] to a mask [2 * 2 * 4, BANDS] in our order; weights [3 * C, 2 * 2]."""
    channels = level.shape[0] // 6
    for r in range(4):
        _product(weights, level[r * channels : (r + 3) * channels], mask[r::4], level.shape[1] - min(r, 1), False)


def _normal_tile(tail: bool):
    """Compiled piece of a normalisation: columns j .. j + _COLUMNS (+ 1 with a tail) of :func:`_normalise`.

    The moments are those of the difference from the first row: it keeps the sum of squares exact where the mean is large.
    They stay in registers.
    """
    kinds = [(_VECTOR, 0), (_VECTOR, _LANES)] + [(_REAL, _COLUMNS)] * tail

    @intrinsic
    def tile(context, x, out, j):
        def generate(context, builder, signature, args):
            at, at_out = (_pointers(context, builder, *pair) for pair in zip(signature.args[:2], args[:2], strict=True))
            height = _height(context, builder, signature.args[0], args[0])
            zero, one = (context.get_constant(types.intp, n) for n in (0, 1))
            share = builder.fdiv(ir.Constant(_REAL, 1.0), builder.uitofp(height, _REAL))
            pieces = [(kind, builder.add(args[2], context.get_constant(types.intp, n))) for kind, n in kinds]
            starts = [_load(builder, at(zero, column, kind)) for kind, column in pieces]
            begin = lambda kind: cgutils.alloca_once_value(builder, _spread(builder, kind, ir.Constant(_REAL, 0.0)))
            sums = [(begin(kind), begin(kind)) for kind, _ in kinds]
            with cgutils.for_range(builder, height) as loop:
                for (kind, column), start, (total, squares) in zip(pieces, starts, sums, strict=True):
                    value = builder.fsub(_load(builder, at(loop.index, column, kind)), start)
                    builder.store(builder.fadd(builder.load(total), value), total)
                    square = builder.fmul(value, value, flags=("contract",))
                    builder.store(builder.fadd(builder.load(squares), square, flags=("contract",)), squares)
            scalings = []
            for (kind, _), start, (total, squares) in zip(kinds, starts, sums, strict=True):
                number = lambda value, kind=kind: _spread(builder, kind, ir.Constant(_REAL, value))
                part = _spread(builder, kind, share)
                centre = builder.fmul(builder.load(total), part)
                variance = builder.fsub(builder.fmul(builder.load(squares), part), builder.fmul(centre, centre))
                variance = builder.select(builder.fcmp_ordered("<", variance, number(0.0)), number(0.0), variance)
                name = f"llvm.sqrt.v{_LANES}f32" if kind is _VECTOR else "llvm.sqrt.f32"
                root = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name)
                deviation = builder.call(root, [builder.fadd(variance, number(1e-5))])
                scalings.append((builder.fadd(start, centre), builder.fdiv(number(1.0), deviation)))
            with cgutils.for_range(builder, height) as loop:
                for (kind, column), (mean, scale) in zip(pieces, scalings, strict=True):
                    value = builder.fsub(_load(builder, at(loop.index, column, kind)), mean)
                    target = at_out(builder.add(loop.index, one), column, kind)
                    builder.store(builder.fmul(value, scale), target, align=4)
            return context.get_dummy_value()

        return types.void(x, out, types.intp), generate

    return tile


_normal, _normal_and_tail = _normal_tile(False), _normal_tile(True)


@jit
def _normalise(x, out):
    """Layer normalisation over the channels of x [C, BANDS] into out [1 + C, BANDS], whose first row stays one."""
    last = x.shape[1] - 1 - _COLUMNS
    for j in range(0, last, _COLUMNS):
        _normal(x, out, j)
    _normal_and_tail(x, out, last)


def _lower_tile(tail: bool):
    """Compiled piece of a softmax: subtract from columns j .. j + _COLUMNS (+ 1 with a tail) of x their largest values."""
    kinds = [(_VECTOR, 0), (_VECTOR, _LANES)] + [(_REAL, _COLUMNS)] * tail

    @intrinsic
    def tile(context, x, j):
        def generate(context, builder, signature, args):
            at, height = (make(context, builder, signature.args[0], args[0]) for make in (_pointers, _height))
            pieces = [(kind, builder.add(args[1], context.get_constant(types.intp, n))) for kind, n in kinds]
            first = [_load(builder, at(context.get_constant(types.intp, 0), column, kind)) for kind, column in pieces]
            most = [cgutils.alloca_once_value(builder, value) for value in first]
            with cgutils.for_range(builder, height) as loop:
                for (kind, column), largest in zip(pieces, most, strict=True):
                    value, before = _load(builder, at(loop.index, column, kind)), builder.load(largest)
                    builder.store(builder.select(builder.fcmp_ordered(">", value, before), value, before), largest)
            most = [builder.load(largest) for largest in most]
            with cgutils.for_range(builder, height) as loop:
                for (kind, column), largest in zip(pieces, most, strict=True):
                    place = at(loop.index, column, kind)
                    builder.store(builder.fsub(_load(builder, place), largest), place, align=4)
            return context.get_dummy_value()

        return types.void(x, types.intp), generate

    return tile


_lower, _lower_and_tail = _lower_tile(False), _lower_tile(True)


@jit
def _attend(x, normal, weights, out_weights, heads, projected, mixed, scores, room):
    """x [C, BANDS] += attention of the first `heads` heads over normal [1 + C, BANDS].

    weights [1 + C, 3 * width]: columns head by head, of each its query, key and value; out_weights [1 + heads * width, C].
    projected, mixed (its first row is one), scores [BANDS, BANDS] and room [1, BANDS] are room.
    """
    width = weights.shape[1] // 3 // heads
    total, bands, last, ones = room[0], x.shape[1], x.shape[1] - 1 - _COLUMNS, mixed[:1].T
    _multiply(weights, normal, projected)
    for head in range(heads):
        query = projected[3 * head * width : (3 * head + 1) * width]
        key = projected[(3 * head + 1) * width : (3 * head + 2) * width]
        value = projected[(3 * head + 2) * width : (3 * head + 3) * width]
        _multiply(key, query, scores)  # [key, query]: the softmax runs down the columns, all queries at a time
        for j in range(0, last, _COLUMNS):
            _lower(scores, j)
        _lower_and_tail(scores, last)
        flat = scores.reshape(-1)
        for i in range(len(flat)):
            flat[i] = exp(flat[i])
        _multiply(ones, scores, room)
        result = mixed[1 + head * width : 1 + (head + 1) * width]
        _multiply(value.T, scores, result)
        for i in range(bands):
            total[i] = _ONE / total[i]
        for c in range(width):
            row = result[c]
            for i in range(bands):
                row[i] *= total[i]
    _add_product(out_weights, mixed, x)


@jit
def _feed_forward(x, normal, up, down, hidden):
    """x [C, BANDS] += down.T @ relu(up.T @ normal); hidden [1 + N, BANDS] (its first row is one) is room."""
    _multiply(up, normal, hidden[1:])
    flat = hidden[1:].reshape(-1)
    for i in range(len(flat)):
        flat[i] = max(flat[i], _ZERO)
    _add_product(down, hidden, x)


@jit
def _recur(x, normal, weights, own, out_weights, states, gates, own_gates):
    """x [C, BANDS] += projection of the new states of the groups in states [groups * (1 + H), BANDS].

    Each group's states come after a row of ones. weights [1 + C, groups * 3 H] from the input, own [1 + H, groups * 3 H]
    from the state of the same group, in each reset, update, new; out_weights [groups * (1 + H), C];
    gates [groups * 3 H, BANDS] and own_gates [3 H, BANDS] are room.
    """
    width = own.shape[0] - 1
    _multiply(weights, normal, gates)
    inner = own_gates.reshape(3, -1)
    own_reset, own_update, own_new = inner[0], inner[1], inner[2]
    for group in range(states.shape[0] // (1 + width)):
        first = 3 * width * group
        block = states[group * (1 + width) : (group + 1) * (1 + width)]
        _multiply(own[:, first : first + 3 * width], block, own_gates)
        outer = gates[first : first + 3 * width].reshape(3, -1)
        reset_gate, update_gate, new_gate, state = outer[0], outer[1], outer[2], block[1:].reshape(-1)
        for i in range(len(state)):
            reset = sigmoid(reset_gate[i] + own_reset[i])
            update = sigmoid(update_gate[i] + own_update[i])
            new = tanh(new_gate[i] + reset * own_new[i])
            state[i] = new + update * (state[i] - new)
    _add_product(out_weights, states, x)


@jit
def _decide(spectrum, magnitude, pooling, weights, out_weights, memory, room, margins, shift, gates):
    """The policy: a compressed spectrum and the memory to gates [K] of 0 and 1.

    memory [1, P + 1 + H]: room for the pooled bands, one, the state. magnitude [16, BANDS] is room: magnitudes in our
    order, then in that of the bins. pooling [P, 2 + n]: first bin and number of bins of a band, then their weights.
    weights [P + 1 + 1 + H, 3 H]: new, reset, update from the input; reset, update, new from the state;
    out_weights [1 + H, K..];
    room [1, 4 H] and margins [1, K..] are room.
    """
    values, halves, turned = spectrum.reshape(4, -1), magnitude[:8].reshape(2, -1), magnitude[8:].reshape(-1)
    for odd in range(2):
        real, imaginary, level = values[2 * odd], values[2 * odd + 1], halves[odd]
        for i in range(len(level)):
            level[i] = np.sqrt(real[i] * real[i] + imaginary[i] * imaginary[i] + f32(1e-12))
    for row in range(8):
        level, first = magnitude[row], row % 4 * 2 + row // 4  # even bins come first
        for i in range(len(level)):
            turned[8 * i + first] = level[i]
    bands, pooled = len(pooling), memory[0]
    for band in range(bands):
        row, a, b, c, d = pooling[band], _ZERO, _ZERO, _ZERO, _ZERO
        first, count, i = int(row[0]), int(row[1]), 0
        levels, shares = turned[first : first + count + 3], row[2 : 2 + count + 3]
        while i < count:  # four sums, none of which waits for another
            a += levels[i] * shares[i]
            b += levels[i + 1] * shares[i + 1]
            c += levels[i + 2] * shares[i + 2]
            d += levels[i + 3] * shares[i + 3]
            i += 4
        pooled[band] = a + b + (c + d)
    state, sums = memory[0, bands + 1 :], room[0]
    width = len(state)
    sums[:] = _ZERO
    add_products(sums[: 3 * width], pooled[: bands + 1], weights[: bands + 1])
    add_products(sums[width:], pooled[bands:], weights[bands + 1 :])
    new_gate, reset_gate, update_gate, own_new = (
        sums[:width], sums[width : 2 * width], sums[2 * width : 3 * width], sums[3 * width :]
    )  # fmt: skip
    for j in range(width):
        new = tanh(new_gate[j] + sigmoid(reset_gate[j]) * own_new[j])
        state[j] = new + sigmoid(update_gate[j]) * (state[j] - new)
    _multiply(memory[:, bands:].T, out_weights, margins)
    for k in range(len(gates)):
        gates[k] = margins[0, k] + shift > 0


# ------------------------------------------------------------------------------------------------ Fourier transforms
@jit
def _turn(real, imaginary, cosine, sine):
    """Turn complex numbers back by an angle, in place; with real and imaginary parts exchanged, forth."""
    re, im, c, s = real.reshape(-1), imaginary.reshape(-1), cosine.reshape(-1), sine.reshape(-1)
    for i in range(len(re)):
        re[i], im[i] = re[i] * c[i] + im[i] * s[i], im[i] * c[i] - re[i] * s[i]


@jit
def _to_spectrum(grid, first, twiddle, second, rows, halves, turned, spectrum):
    """Spectrum [2 * 2 * 4, BANDS] in our order of the samples in grid [16, 32]: 16 points by twice 16 points.

    rows, halves and turned [18, 32] are room: nine real and nine imaginary parts (the others are their conjugates); then
    sums and differences of halves, 16 real and 16 imaginary parts in a row; then even and odd bins likewise.
    """
    _multiply(first, grid, rows)
    _turn(rows[:9], rows[9:], twiddle[:9], twiddle[9:])
    half = rows.shape[1] // 2
    for row in range(len(rows)):
        low, high, k, part = rows[row, :half], rows[row, half:], row % 9, row // 9 * half
        sums, differences = halves[k, part : part + half], halves[9 + k, part : part + half]
        for n in range(len(low)):
            sums[n], differences[n] = low[n] + high[n], low[n] - high[n]
    _multiply(halves[:9].T, second[:32], turned[:9])
    _multiply(halves[9:].T, second[32:], turned[9:])
    for q in range(8):  # turned[k, p] is bin 32 p + k, turned[9 + k, p] is bin 32 p + 16 + k
        row = 8 * (q % 2) + q // 2
        re, im = spectrum[row], spectrum[4 + row]
        a, b, c, d = turned[q], turned[17 - q], turned[9 + q], turned[8 - q]
        for p in range(8):
            re[4 * p], re[4 * p + 1], re[4 * p + 2], re[4 * p + 3] = a[p], b[15 - p], c[p], d[15 - p]
            im[4 * p], im[4 * p + 1], im[4 * p + 2], im[4 * p + 3] = a[16 + p], -b[31 - p], c[16 + p], -d[31 - p]
    spectrum[0, 32], spectrum[4, 32] = turned[0, 8], turned[0, 24]


@jit
def _to_samples(spectrum, second, twiddle, first, turned, halves, rows, grid):
    """Samples, left in grid: the inverse of :func:`_to_spectrum`."""
    for q in range(8):
        row = 8 * (q % 2) + q // 2
        re, im = spectrum[row], spectrum[4 + row]
        a, b, c, d = turned[q], turned[17 - q], turned[9 + q], turned[8 - q]
        for p in range(8):
            a[p], b[15 - p], c[p], d[15 - p] = re[4 * p], re[4 * p + 1], re[4 * p + 2], re[4 * p + 3]
            a[16 + p], b[31 - p], c[16 + p], d[31 - p] = im[4 * p], -im[4 * p + 1], im[4 * p + 2], -im[4 * p + 3]
    re, im, a, b, c, d = spectrum[0], spectrum[4], turned[0], turned[9], turned[8], turned[17]
    for p in range(8):  # rows 0 and 8 are conjugates of themselves
        a[8 + p], a[24 + p] = re[32 - 4 * p], -im[32 - 4 * p]
        b[8 + p], b[24 + p] = re[30 - 4 * p], -im[30 - 4 * p]
        c[p], c[16 + p], d[p], d[16 + p] = re[4 * p + 1], im[4 * p + 1], re[4 * p + 3], im[4 * p + 3]
    a[16] = a[24] = _ZERO  # the inverse ignores the imaginary part of the outermost bins
    _multiply(turned[:9].T, second[:32], halves[:9])
    _multiply(turned[9:].T, second[32:], halves[9:])
    half = rows.shape[1] // 2
    for row in range(len(rows)):
        low, high, k, part = rows[row, :half], rows[row, half:], row % 9, row // 9 * half
        even, odd = halves[k, part : part + half], halves[9 + k, part : part + half]
        for n in range(len(low)):
            low[n], high[n] = even[n] + odd[n], even[n] - odd[n]
    _turn(rows[9:], rows[:9], twiddle[:9], twiddle[9:])
    _multiply(first, rows, grid)


@jit
def _split(values, spectrum):
    """Spectrum [2 * 2 * 4, BANDS] in our order of bins [2 * BINS], real and imaginary part in turn."""
    for i in range(BINS):
        row = i % 2 * 8 + i % 8 // 2
        spectrum[row, i // 8], spectrum[4 + row, i // 8] = values[2 * i], values[2 * i + 1]


@jit
def _join(spectrum, values):
    """The inverse of :func:`_split`."""
    for i in range(BINS):
        row = i % 2 * 8 + i % 8 // 2
        values[2 * i], values[2 * i + 1] = spectrum[row, i // 8], spectrum[4 + row, i // 8]


# ------------------------------------------------------------------------------------------------ whole frames
@intrinsic
def _view(context, block, start, rows, columns):
    """Matrix [rows, columns] that begins at `start` of a flat block. It has no owner: nothing is checked or counted."""
    matrix = types.Array(block.dtype, 2, "C")

    def generate(context, builder, signature, args):
        flat = context.make_array(block)(context, builder, args[0])
        view = context.make_array(matrix)(context, builder)
        size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_value_type(block.dtype)))
        strides = [builder.mul(args[3], size), size]
        populate_array(view, builder.gep(flat.data, [args[1]]), args[2:], strides, size, None)
        return view._getvalue()

    return matrix(block, types.intp, types.intp, types.intp), generate


@jit
def _get(block, place):
    """A matrix of a flat block, without a copy; place [3]: start, rows, columns."""
    return _view(block, place[0], place[1], place[2])


@jit
def _frame(gates, decide, shift, weights, memory, plan):
    """One frame, in place: the spectrum in the memory; see :func:`run`."""
    spectrum, taps = _get(memory, plan[SPECTRUM]), _get(memory, plan[TAPS])
    _compress(spectrum)
    if decide:
        _decide(
            spectrum, _get(memory, plan[MAGNITUDE]), _get(weights, plan[POLICY_POOLING]), _get(weights, plan[POLICY_GRU]),
            _get(weights, plan[POLICY_OUT]), _get(memory, plan[POLICY_STATE]), _get(memory, plan[POLICY_GATES]),
            _get(memory, plan[MARGINS]), shift, gates,
        )  # fmt: skip
    # n[k]: how many channels, heads, groups or hidden units run behind gate k
    units = plan[UNITS:]
    n = np.empty(len(gates), np.int64)
    for k in range(len(gates)):
        n[k] = units[k, 1 if gates[k] else 0]
    head_width, group_width = units[10, 0], units[10, 1]
    biases, slopes = _get(weights, plan[BIASES]), _get(weights, plan[SLOPES])

    level_1, level_2 = _get(memory, plan[LEVEL_1]), _get(memory, plan[LEVEL_2])[: 3 * n[0]]
    pair, embedding = _get(memory, plan[BOTTLENECK]), _get(weights, plan[EMBEDDING])
    x = pair[: len(embedding)]
    _lay_taps(spectrum, taps)
    _encode_1(taps, _get(weights, plan[ENCODER_1]), biases[0], slopes[0], level_1)
    _encode_2(level_1, _get(weights, plan[ENCODER_2])[:, : n[0]], biases[1], slopes[1], level_2)
    encoder_3 = _get(weights, plan[ENCODER_3 if gates[0] else ENCODER_3_STATIC])
    _encode_3(level_2, encoder_3[:, : n[1]], biases[2], slopes[2], embedding, x)

    normal, softmax, scores = _get(memory, plan[NORMAL]), _get(memory, plan[SOFTMAX]), _get(memory, plan[SCORES])
    mixed, hiddens, wide = _get(memory, plan[MIXED]), _get(memory, plan[HIDDEN]), _get(memory, plan[WIDE])
    _normalise(x, normal)
    rows = n[2] * head_width
    _attend(
        x, normal, _get(weights, plan[HEADS_1])[:, : 3 * rows],
        _get(weights, plan[HEADS_OUT_1])[: 1 + rows], n[2], wide[: 3 * rows], mixed[: 1 + rows],
        scores, softmax,
    )  # fmt: skip
    _normalise(x, normal)
    _feed_forward(
        x, normal, _get(weights, plan[UP_1])[:, : n[3]], _get(weights, plan[DOWN_1])[: 1 + n[3]],
        hiddens[: 1 + n[3]],
    )  # fmt: skip
    _normalise(x, normal)
    rows = 3 * n[4] * group_width
    _recur(
        x, normal, _get(weights, plan[GROUPS_IN])[:, :rows], _get(weights, plan[GROUPS_OWN])[:, :rows],
        _get(weights, plan[GROUPS_OUT])[: n[4] * (1 + group_width)],
        _get(memory, plan[STATES])[: n[4] * (1 + group_width)], wide[:rows], _get(memory, plan[OWN_GATES]),
    )  # fmt: skip
    _normalise(x, normal)
    _feed_forward(
        x, normal, _get(weights, plan[UP_2])[:, : n[5]], _get(weights, plan[DOWN_2])[: 1 + n[5]],
        hiddens[: 1 + n[5]],
    )  # fmt: skip
    _normalise(x, normal)
    rows = n[6] * head_width
    _attend(
        x, normal, _get(weights, plan[HEADS_3])[:, : 3 * rows],
        _get(weights, plan[HEADS_OUT_3])[: 1 + rows], n[6], wide[: 3 * rows], mixed[: 1 + rows],
        scores, softmax,
    )  # fmt: skip
    _normalise(x, normal)
    _feed_forward(
        x, normal, _get(weights, plan[UP_3])[:, : n[7]], _get(weights, plan[DOWN_3])[: 1 + n[7]],
        hiddens[: 1 + n[7]],
    )  # fmt: skip

    is_wide = gates[0] or gates[8]
    even = _get(weights, plan[DECODER_2_EVEN if is_wide else DECODER_2_EVEN_STATIC])
    odd = _get(weights, plan[DECODER_2_ODD if is_wide else DECODER_2_ODD_STATIC])
    decoded, mask = _get(memory, plan[DECODED])[: 3 * even.shape[0]], _get(memory, plan[MASK])
    _decode_3(
        pair, _get(weights, plan[DECODER_3_EVEN])[:, : n[8]], _get(weights, plan[DECODER_3_ODD])[:, : n[8]], biases[3],
        slopes[3], level_2, decoded,
    )  # fmt: skip
    _decode_2(decoded, even[:, : n[9]], odd[:, : n[9]], biases[4], slopes[4], level_1, _get(memory, plan[ADDED]))
    _decode_1(level_1, _get(weights, plan[DECODER_1]), mask)
    _expand(mask, _get(weights, plan[DECODER_1_BIAS])[0], spectrum)


@jit
def run(given, gates, out, decide, shift, weights, memory, plan):
    """Frames, one after the other: of samples, with the transforms here too, or of a spectrum.

    given [T, HOP] becomes out [T, HOP], late by a hop; or given [T, 2 * BINS] (real and imaginary parts in turn) becomes
    out [T, 2 * BINS]. gates [T, 10] are read, or written where the policy is to `decide`. weights and memory are flat
    blocks; plan [n, 3] says where what lies in them, then `Weights.units`.
    """
    spectrum, grid, rows = _get(memory, plan[SPECTRUM]), _get(memory, plan[GRID]), _get(memory, plan[ROWS])
    halves, turned = _get(memory, plan[HALVES]), _get(memory, plan[TURNED])
    past, overlap = _get(memory, plan[PAST])[0], _get(memory, plan[OVERLAP])[0]
    twiddle, window = _get(weights, plan[TWIDDLE]), _get(weights, plan[WINDOWED])
    earlier, later = grid.reshape(2, -1)
    rising, falling = window[0], window[1]
    for t in range(len(out)):
        source, target = given[t], out[t]
        if len(source) == HOP:
            for i in range(HOP):
                earlier[i], later[i] = past[i] * rising[i], source[i] * falling[i]
                past[i] = source[i]
            forward_1, forward_2 = _get(weights, plan[FORWARD_1]), _get(weights, plan[FORWARD_2])
            _to_spectrum(grid, forward_1, twiddle, forward_2, rows, halves, turned, spectrum)
        else:
            _split(source, spectrum)
        spectrum[8, BANDS - 1] = spectrum[12, BANDS - 1] = _ZERO  # there is no bin 257, whatever its mask was
        _frame(gates[t], decide, shift, weights, memory, plan)
        if len(source) == HOP:
            backward_2, backward_1 = _get(weights, plan[BACKWARD_2]), _get(weights, plan[BACKWARD_1])
            _to_samples(spectrum, backward_2, twiddle, backward_1, turned, halves, rows, grid)
            for i in range(HOP):
                target[i] = overlap[i] + earlier[i] * rising[i]
                overlap[i] = later[i] * falling[i]
        else:
            _join(spectrum, target)


# ------------------------------------------------------------------------------------------------ from the network
def _transforms() -> list[np.ndarray]:
    """Matrices of the Fourier transforms and the window, in the order of the block of weights."""
    k, n, m = np.arange(9), np.arange(32), np.arange(16)
    inner = 2 * np.pi * np.outer(k, m) / 16  # 16 points: bin k, sample m
    # Half of 32 points: even bins from the sums of the halves, odd ones from their differences.
    outer = [2 * np.pi * np.outer(m, bins) / 32 for bins in (2 * m, 2 * m + 1)]
    forward = [np.block([[np.cos(x), -np.sin(x)], [np.sin(x), np.cos(x)]]) for x in outer]
    twiddle = 2 * np.pi * np.outer(k, n) / WINDOW
    # Bins 1 to 7 stand for 9 to 15 as well.
    twice = np.where((k == 0) | (k == 8), 1, 2) / WINDOW
    return [
        np.concatenate([np.cos(inner), -np.sin(inner)]).T,
        np.concatenate(forward),
        np.concatenate([matrix.T for matrix in forward]),
        np.concatenate([twice[:, None] * np.cos(inner), -twice[:, None] * np.sin(inner)]),
        np.concatenate([np.cos(twiddle), np.sin(twiddle)]),
        np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).reshape(2, HOP),
    ]


def _array(tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(np.float32)


def _biased(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """[1 + K, N] of weight [N, K]: the bias is the weight of a first input that is always one."""
    return np.concatenate([bias[None], weight.T])


def _fill(array: np.ndarray, columns: int) -> np.ndarray:
    """`array` with columns of NaN appended up to `columns`: a part that is absent, and never read."""
    return np.pad(array, ((0, 0), (0, columns - array.shape[1])), constant_values=np.nan)


def _outputs(block) -> int:
    return block.static + block.dynamic + block.absent


def _encoder(block, inputs: int) -> np.ndarray:
    """[taps * inputs * times, N] of a convolution of the first `inputs` channels."""
    weight = _array(block.conv.weight).transpose(3, 1, 2, 0)[:, :inputs]
    return _fill(weight.reshape(-1, weight.shape[-1]), _outputs(block))


def _decoder(block, inputs: int) -> list[np.ndarray]:
    """What gives the even bands [C, N] and the odd ones [2 * C, N] of a transposed convolution of C = `inputs` channels."""
    left, even, right = _array(block.conv.weight)[:inputs, :, 0].transpose(2, 0, 1)
    return [_fill(even, _outputs(block)), _fill(np.concatenate([right, left]), _outputs(block))]


def _last_decoder(block) -> np.ndarray:
    """[3 * C, 2 * 2]: real and imaginary part of the even bins, then of the odd ones, from three bands."""
    taps = _array(block.conv.weight)[:, :, 0].transpose(2, 0, 1)  # [5, C, 2]
    even, odd = (taps[4], taps[2], taps[0]), (np.zeros_like(taps[0]), taps[3], taps[1])
    return np.concatenate([np.concatenate(part) for part in (even, odd)], axis=1)


def _attention(block) -> list[np.ndarray]:
    heads, width = block.static + block.dynamic, block.head_width
    weight = _biased(_array(block.query_key_value.weight), _array(block.query_key_value.bias))
    weight = weight.reshape(-1, 3, heads, width).transpose(0, 2, 1, 3).copy()
    weight[:, :, 0] *= width**-0.5
    return [weight.reshape(-1, 3 * heads * width), _biased(_array(block.out.weight), _array(block.out.bias))]


def _linear(block) -> list[np.ndarray]:
    return [_biased(_array(layer.weight), _array(layer.bias)) for layer in (block.up, block.down)]


def _recurrence(block) -> list[np.ndarray]:
    width, inputs, own, out = block.group_width, [], [], []
    for index, group in enumerate(block.groups):
        bias, own_bias = _array(group.bias_ih_l0), _array(group.bias_hh_l0)
        bias[: 2 * width] += own_bias[: 2 * width]
        own_bias[: 2 * width] = 0
        inputs.append(_biased(_array(group.weight_ih_l0), bias))
        own.append(_biased(_array(group.weight_hh_l0), own_bias))
        # Each group has its row of ones; that of the first one, which always runs, brings the bias.
        part = _array(block.out.weight)[:, index * width : (index + 1) * width]
        out.append(_biased(part, _array(block.out.bias) * (index == 0)))
    return [np.concatenate(inputs, axis=1), np.concatenate(own, axis=1), np.concatenate(out)]


def _widen(array: np.ndarray) -> np.ndarray:
    """`array` with columns of zero appended up to a multiple of 32, which a product can have."""
    return np.pad(array, ((0, 0), (0, -array.shape[1] % 32)))


def _policy(policy: Policy | None) -> list[np.ndarray]:
    if policy is None:
        return [np.zeros((0, 0), np.float32)] * 3
    gru, width, bands = policy.recurrent, policy.width, policy.bands
    columns = [np.flatnonzero(column) for column in _array(policy.pooling).T]  # a band's bins are neighbours
    pooling = np.zeros((bands, 2 + max(bins[-1] - bins[0] + 4 for bins in columns)), np.float32)
    for row, bins, column in zip(pooling, columns, _array(policy.pooling).T, strict=True):
        row[0], row[1] = bins[0], bins[-1] - bins[0] + 1
        row[2 : 2 + int(row[1])] = column[bins[0] : bins[-1] + 1]
    new_first = np.r_[2 * width : 3 * width, : 2 * width]  # the library has reset, update, new
    own = _biased(_array(gru.weight_hh_l0), _array(gru.bias_hh_l0))
    # The one that the biases are the weight of lies between the pooled bands and the state.
    inputs = [_array(gru.weight_ih_l0)[new_first].T, _array(gru.bias_ih_l0)[None, new_first]]
    weights = np.concatenate([*inputs, own])
    out = _biased(_array(policy.logits.weight), _array(policy.logits.bias))
    # What decides is the open minus the closed logit.
    return [pooling, weights, _widen(out[:, 1::2] - out[:, ::2])]


def _pack(arrays: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One flat float32 block of matrices and its table [n, 3] of start, rows and columns."""
    starts = np.cumsum([0] + [-(-array.size // 16) * 16 for array in arrays])  # each on a cache line
    block = np.zeros(starts[-1], np.float32)
    for start, array in zip(starts, arrays, strict=False):
        block[start : start + array.size] = array.ravel()
    return block, np.array([(start, *a.shape) for start, a in zip(starts, arrays, strict=False)], np.int64)


def _memory(network: Network) -> list[np.ndarray]:
    """What a stream remembers before its first frame, and room to work in, in the order of the block of memory."""
    c1, c2, c3 = network.config.channels
    gru, policy = network.time.gru, getattr(network, "policy", None)
    groups, heads = gru.static + gru.dynamic, network.frequency_1.attention.out.in_features
    hidden = max(b.feed_forward.up.out_features for b in (network.frequency_1, network.time, network.frequency_2))
    bands, width = (policy.bands, policy.width) if policy else (0, 0)
    shapes = [
        (44, BANDS), (groups * (1 + gru.group_width), BANDS), (1, bands + 1 + width),
        (1, HOP), (1, HOP),
        (16, BANDS), (6 * c1, BANDS), (3 * c2, BANDS), (3 * c2, BANDS), (2 * c3, BANDS), (1 + c3, BANDS), (1, BANDS),
        (1 + hidden, BANDS), (1 + heads, BANDS), (3 * max(heads, groups * gru.group_width), BANDS),
        (3 * gru.group_width, BANDS), (BANDS, BANDS), (c1, BANDS), (16, BANDS),
        (16, 32), (18, 32), (18, 32), (18, 32), (16, BANDS), (1, 4 * width), (1, 32),
    ]  # fmt: skip
    arrays = dict(zip(range(TAPS, UNITS), (np.zeros(shape, np.float32) for shape in shapes), strict=True))
    for index in (NORMAL, HIDDEN, MIXED):
        arrays[index][0] = 1  # the input that the bias is the weight of
    arrays[STATES][:: 1 + gru.group_width] = 1
    arrays[POLICY_STATE][:, bands] = 1
    return list(arrays.values())


class Weights(NamedTuple):
    """A network's weights as the kernel reads them."""

    block: np.ndarray
    table: np.ndarray
    """[37, 3]: start, rows and columns of each matrix in the block."""
    units: np.ndarray
    """[11, 2]: units of each layer that run when its gate is 0 and 1, then the widths of a head and of a group."""


def pack(network: Network) -> Weights:
    """Weights of a network, folded and laid out in the order in which a frame reads them."""
    blocks = [
        network.encoder_2, network.encoder_3, network.frequency_1.attention, network.frequency_1.feed_forward,
        network.time.gru, network.time.feed_forward, network.frequency_2.attention, network.frequency_2.feed_forward,
        network.decoder_3, network.decoder_2,
    ]  # fmt: skip
    units = [(b.static, b.static + b.dynamic + getattr(b, "absent", 0)) for b in blocks]
    units.append((network.frequency_1.attention.head_width, network.time.gru.group_width))
    channels = network.config.channels
    convolutions = [network.encoder_1, network.encoder_2, network.encoder_3, network.decoder_3, network.decoder_2]
    biases, slopes = np.zeros((2, 5, max(channels)), np.float32)
    for row, block in zip(biases, convolutions, strict=True):
        row[: len(block.conv.bias)] = _array(block.conv.bias)
    for row, slope in zip(slopes, network.slopes, strict=True):
        row[: len(slope)] = _array(slope)
    narrow = units[0][0]  # channels that encoder 2 always gives
    block, table = _pack(
        [
            *_transforms(),
            _encoder(network.encoder_1, 2), _encoder(network.encoder_2, channels[0]),
            _encoder(network.encoder_3, channels[1]), _encoder(network.encoder_3, narrow),
            _array(network.band_embedding).T,
            *_attention(network.frequency_1.attention), *_linear(network.frequency_1.feed_forward),
            *_recurrence(network.time.gru), *_linear(network.time.feed_forward),
            *_attention(network.frequency_2.attention), *_linear(network.frequency_2.feed_forward),
            *_decoder(network.decoder_3, channels[2]),
            *_decoder(network.decoder_2, channels[1]), *_decoder(network.decoder_2, narrow),
            _last_decoder(network.decoder_1), _array(network.decoder_1.conv.bias)[None], biases, slopes,
            *_policy(getattr(network, "policy", None)),
        ]
    )  # fmt: skip
    return Weights(block, table, np.array(units, np.int64))


class KernelEngine:
    """Runs frames through the compiled kernel; see `dsn_lite.engine.engines.Engine`.

    Parameters
    ----------
    network : Network
        Its weights are copied: train it further and make a new engine.
    shift : added to each open logit; see `Network.budget_shift`.

    Examples
    --------
    >>> from dsn_lite.config import Config
    >>> engine = KernelEngine(Network(Config.preset("tiny")).eval())
    >>> enhanced, gates = engine.run(np.ones((3, 257), np.complex64), None)
    >>> enhanced.shape, gates.shape
    ((3, 257), (3, 10))
    """

    name = "kernel"

    def __init__(self, network: Network, shift: float = 0.0):
        self.weights, self.shift = pack(network), np.float32(shift)
        self.parts, self.gate_count = network.config.parts, len(network.gate_names)
        self._start, places = _pack(_memory(network))
        # One table for all: each array that is handed over costs time in every call.
        self.plan = np.concatenate([self.weights.table, places, np.pad(self.weights.units, ((0, 0), (0, 1)))])
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.memory = self._start.copy()

    def copy(self) -> KernelEngine:
        """An engine in the same state; the weights are shared."""
        twin = copy.copy(self)
        twin.memory = self.memory.copy()
        return twin

    def run(self, spectrum: np.ndarray, gates: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """See `dsn_lite.engine.engines.Engine`."""
        out, used = self._run(np.array(spectrum, np.complex64, order="C").view(np.float32), gates)
        return out.view(np.complex64), used

    def run_samples(self, samples: np.ndarray, gates: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The same with the transforms inside: float32 samples [T, HOP] to finished samples [T, HOP], late by a hop."""
        # Numba would compile anew for what is read-only or strided.
        return self._run(samples if samples.flags.carray else samples.copy(), gates)

    def _run(self, given: np.ndarray, gates: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        decides = gates is None and self.parts == "gated"
        used = np.empty((len(given), len(GATES)), np.uint8) if decides else self._gates(len(given), gates)
        out = np.empty(given.shape, np.float32)
        run(given, used, out, decides, self.shift, self.weights.block, self.memory, self.plan)
        return out, used if self.gate_count else used[:, :0]

    def _gates(self, frames: int, gates: np.ndarray | None) -> np.ndarray:
        if gates is None or not self.gate_count:
            used = np.empty((frames, len(GATES)), np.uint8)  # np.full would take a microsecond longer
            used.fill(self.parts == "always")
            return used
        if gates.dtype == np.uint8 and gates.flags.carray:  # as it is: the kernel takes whatever is not zero for open
            return gates
        return (np.asarray(gates) != 0).astype(np.uint8)
