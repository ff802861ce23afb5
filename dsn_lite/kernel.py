"""The network compiled for one frame at a time: what is closed is not computed, not read and not waited for.

PyTorch spends most of a 16 ms frame between its operations. Here the whole frame, with its Fourier transforms, is one
function compiled by Numba: loops over contiguous float32 rows that become vector instructions.

How it is laid out, and why:

- Arrays are [C, F], channel by band. A product is ``weights [N, K] @ columns [K, F]``, so the static part of a layer is the
  first rows of its weights. The dynamic part lies behind them, and a closed gate just makes the product end earlier:
  there is no masking and no second kernel. Layers that read a dynamic part (its columns) keep two matrices, the full one
  and the static one.
- The first row of each input of a product is one: biases are a column of the weights and cost no pass of their own.
- Query weights hold the attention's 1 / sqrt(head width). Queries, keys and values are one product; so are the input
  gates of all open GRU groups; the states of all groups lie in the rows that the output projection reads.
- The layer behind a closed convolution does not read its zero channels. (The count of MACs still contains them.)
- The softmax stands upright: its sums run down the rows, so that all 33 queries are computed at a time.
- The transforms are two small matrix products each (512 = 16 x 32), one microsecond instead of five for a call of NumPy's.
- exp, tanh, sigmoid and the power law are polynomials of about 1e-7.
- Products keep their sums in vector registers (:func:`_tile`). BLAS does so too, but takes half a microsecond to begin,
  and a frame has some forty products of about one.
- Loops read their length from an array where it is a constant 33: LLVM unrolls a short constant loop into scalars.

What the steps gave at the size of `base`, everything open, in microseconds a frame on one core of an AMD EPYC (Zen 5);
the least of repeated runs of 50 frames a call: this layout over BLAS 76, products in registers 37, loops that vectorise
33 to 34 (51 with AVX2 alone). PyTorch takes 1000 for a single frame and 176 on 625 at once. `dsn-lite bench` gives
medians hop by hop, with Python's share, which went from 9 to 3.

Some 15 of its 41 microseconds hop by hop do not depend on the gates: transforms, normalisation, the first and the last
layer, Python. So a closed frame of `base` takes 0.70 of the time of an open one, though 0.53 of its MACs.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from dsn_lite.model import GATES, Network
from dsn_lite.policy import Policy
from dsn_lite.spectral import BINS, COMPRESSION, HOP, WINDOW

BANDS_1, BANDS_2, BANDS = 129, 65, 33
"""Bands after each encoder convolution."""

_HAS_WIDE = bool(llvm.get_host_cpu_features().get("avx512f"))
_LANES, _ROWS = (16, 8) if _HAS_WIDE else (8, 4)
"""A product is computed in tiles of _ROWS by 2 * _LANES values, which fit into the registers."""
_COLUMNS = 2 * _LANES

# No reassociation: results stay the same on every processor but for fused multiply-adds.
_jit = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz"})
_jit_sum = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz", "reassoc"})

f32, i32 = np.float32, np.int32


# What the block of weights holds, in this order; [rows, columns] of each is in a table beside it.
(
    FORWARD_1, FORWARD_2, BACKWARD_2, BACKWARD_1, TWIDDLE, WINDOWED,
    ENCODER_1, ENCODER_2, ENCODER_3, ENCODER_3_STATIC, EMBEDDING,
    HEADS_1, HEADS_OUT_1, HEADS_OUT_STATIC_1, UP_1, DOWN_1, DOWN_STATIC_1,
    GROUPS_IN, GROUPS_OWN, GROUPS_OWN_BIAS, GROUPS_OUT, GROUPS_OUT_STATIC, UP_2, DOWN_2, DOWN_STATIC_2,
    HEADS_3, HEADS_OUT_3, HEADS_OUT_STATIC_3, UP_3, DOWN_3, DOWN_STATIC_3,
    DECODER_3, DECODER_3_BIAS, DECODER_2, DECODER_2_STATIC, DECODER_2_BIAS, DECODER_1, DECODER_1_BIAS, SLOPES,
    POLICY_POOLING, POLICY_IN, POLICY_OWN, POLICY_BIAS, POLICY_OUT, POLICY_OUT_BIAS,
) = range(45)  # fmt: skip
# What the block of memory holds: what is remembered from frame to frame, then room to work in.
(
    TAPS, STATES, POLICY_STATE,
    COMPRESSED, MAGNITUDE, COLUMNS_2, COLUMNS_3, NORMAL, HIDDEN, MIXED, SKIP_1, SKIP_2, BOTTLENECK, WIDE, OWN_GATES,
    SCORES, SUM, TAPS_3, TAPS_2, TAPS_1, MASK, SPECTRUM, GRID, TURNED, ROWS, COLUMNS,
) = range(26)  # fmt: skip


# ------------------------------------------------------------------------------------------------ functions of numbers
_LOG2E, _LN2_HIGH, _LN2_LOW = f32(1.44269504), f32(0.693359375), f32(-2.12194440e-4)
_ROUND, _ROUND_BITS = f32(12582912.0), i32(0x4B400000)  # 1.5 * 2^23: adding it rounds to a whole number
_E0, _E1, _E2, _E3 = f32(1.9875691500e-4), f32(1.3981999507e-3), f32(8.3334519073e-3), f32(4.1665795894e-2)
_E4, _E5 = f32(1.6666665459e-1), f32(5.0000001201e-1)
_L = tuple(
    f32(c)
    for c in (
        7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
        -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    )
)  # fmt: skip
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8 = _L
_SQRT_HALF_BITS, _MANTISSA = i32(0x3F3504F3), i32(23)
_ZERO, _HALF, _ONE, _TWO = f32(0), f32(0.5), f32(1), f32(2)
_MOST = f32(87.0)


@intrinsic
def _bits(context, x):
    """The 32 bits of a float32 as an int32."""
    return types.int32(types.float32), lambda _, builder, __, args: builder.bitcast(args[0], _llvm(types.int32))


@intrinsic
def _float(context, x):
    """The float32 that has the bits of an int32."""
    return types.float32(types.int32), lambda _, builder, __, args: builder.bitcast(args[0], _llvm(types.float32))


def _llvm(kind):
    return cpu_target.target_context.get_value_type(kind)


@_jit
def exp(x):
    """e^x for float32; what over- or underflows is clipped. After Cephes' expf (relative error 1e-7)."""
    x = min(max(x, -_MOST), _MOST)
    shifted = x * _LOG2E + _ROUND
    whole = shifted - _ROUND
    r = (x - whole * _LN2_HIGH) - whole * _LN2_LOW
    y = ((((_E0 * r + _E1) * r + _E2) * r + _E3) * r + _E4) * r + _E5
    y = y * (r * r) + r + _ONE
    scale = i32(i32(_bits(shifted) - _ROUND_BITS + i32(127)) << _MANTISSA)
    return y * _float(scale)


@_jit
def log(x):
    """Natural logarithm of a positive normal float32. After Cephes' logf (absolute error 1e-7 times its size)."""
    bits = i32(_bits(x) - _SQRT_HALF_BITS)
    exponent = i32(bits >> _MANTISSA)
    f = _float(i32(_bits(x) - i32(exponent << _MANTISSA))) - _ONE
    e = f32(exponent)
    y = (((((((_L0 * f + _L1) * f + _L2) * f + _L3) * f + _L4) * f + _L5) * f + _L6) * f + _L7) * f + _L8
    square = f * f
    y = y * f * square + e * _LN2_LOW - _HALF * square
    return f + y + e * _LN2_HIGH


@_jit
def sigmoid(x):
    """1 / (1 + e^-x), absolute error 1e-7."""
    return _ONE / (_ONE + exp(-x))


@_jit
def tanh(x):
    """Hyperbolic tangent, absolute error 1e-7."""
    return _ONE - _TWO / (_ONE + exp(_TWO * x))



# ------------------------------------------------------------------------------------------------ pieces of a frame
def _tile(rows: int, tail: bool):
    """Compiled piece of a product: out[i : i + rows, j : j + _COLUMNS (+ 1 with a tail)] = a[i : i + rows] @ b[:, ...].

    The sums stay in vector registers while the loop runs along K: loops in Python would write them to memory each time.
    `a` may have any strides, the rows of b and out are contiguous.
    """
    vector = ir.VectorType(ir.FloatType(), _LANES)

    @intrinsic
    def tile(context, a, b, out, i, j):
        def generate(context, builder, signature, args):
            size = context.get_constant(types.intp, 4)
            places = []
            for kind, value in zip(signature.args[:3], args[:3], strict=True):
                array = context.make_array(kind)(context, builder, value)
                places.append((array.data, cgutils.unpack_tuple(builder, array.strides, 2)))
            inner = cgutils.unpack_tuple(builder, context.make_array(signature.args[1])(context, builder, args[1]).shape)[0]

            def at(which, row, column, kind):
                """Pointer to a value of an array, by its strides in bytes."""
                data, (down, across) = places[which]
                offset = builder.add(builder.mul(row, down), builder.mul(column, across if which == 0 else size))
                start = builder.gep(builder.bitcast(data, ir.IntType(8).as_pointer()), [offset])
                return builder.bitcast(start, kind.as_pointer())

            def plus(x, n):
                return builder.add(x, context.get_constant(types.intp, n))

            def load(which, row, column, kind):
                value = builder.load(at(which, row, column, kind))
                value.align = 4
                return value

            kinds = [(vector, 0), (vector, _LANES)] + [(ir.FloatType(), _COLUMNS)] * tail
            zeros = [ir.Constant(kind, None if kind is vector else 0.0) for kind, _ in kinds]
            sums = [[cgutils.alloca_once_value(builder, zero) for zero in zeros] for _ in range(rows)]
            with cgutils.for_range(builder, inner) as loop:
                values = [load(1, loop.index, plus(args[4], first), kind) for kind, first in kinds]
                for row in range(rows):
                    weight = load(0, plus(args[3], row), loop.index, ir.FloatType())
                    single = builder.insert_element(ir.Constant(vector, ir.Undefined), weight, ir.IntType(32)(0))
                    everywhere = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), None)
                    wide = builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), everywhere)
                    for total, value, (kind, _) in zip(sums[row], values, kinds, strict=True):
                        product = builder.fmul(wide if kind is vector else weight, value, flags=("contract",))
                        builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
            for row in range(rows):
                for total, (kind, first) in zip(sums[row], kinds, strict=True):
                    target = at(2, plus(args[3], row), plus(args[4], first), kind)
                    builder.store(builder.load(total), target, align=4)
            return context.get_dummy_value()

        return types.void(a, b, out, types.intp, types.intp), generate

    return tile


_many, _many_and_tail = _tile(_ROWS, False), _tile(_ROWS, True)
_one, _one_and_tail = _tile(1, False), _tile(1, True)


@_jit
def _multiply(a, b, out):
    """out [N, F] = a [N, K] @ b [K, F], where F is a multiple of _COLUMNS or one more, as all of ours are."""
    height, last = a.shape[0], b.shape[1] - _COLUMNS
    is_odd = b.shape[1] % _COLUMNS == 1
    for j in range(0, last + 1, _COLUMNS):
        if is_odd and j == last - 1:
            for i in range(0, height - _ROWS + 1, _ROWS):
                _many_and_tail(a, b, out, i, j)
            for i in range(height // _ROWS * _ROWS, height):
                _one_and_tail(a, b, out, i, j)
        else:
            for i in range(0, height - _ROWS + 1, _ROWS):
                _many(a, b, out, i, j)
            for i in range(height // _ROWS * _ROWS, height):
                _one(a, b, out, i, j)


@_jit_sum
def _apply(weights, x, out):
    """out [N] = weights [N, K] @ x [K]."""
    for i in range(len(out)):
        total = _ZERO
        for k in range(len(x)):
            total += weights[i, k] * x[k]
        out[i] = total


@_jit
def _activate(x, slopes):
    """PReLU in place on x [C, F] with a slope a row."""
    for c in range(x.shape[0]):
        slope, row = slopes[c], x[c]
        for f in range(x.shape[1]):
            row[f] = max(row[f], _ZERO) + slope * min(row[f], _ZERO)


@_jit
def _compress(spectrum, columns, compressed, magnitude):
    """Compress one frame and lay its taps out for the first convolution.

    spectrum [2F] interleaved; columns [1 + 2 * 2 * 5, BANDS_1]: ones, taps of the frame before, taps of this frame;
    compressed [2, 2 + F + 2] real and imaginary, zeros at the edges; magnitude [F] compressed.
    """
    power, half = f32(1e-12), f32((COMPRESSION - 1) / 2)
    real, imaginary = compressed[0], compressed[1]
    for f in range(BINS):
        re, im = spectrum[2 * f], spectrum[2 * f + 1]
        scale = exp(half * log(re * re + im * im + power))
        re, im = re * scale, im * scale
        real[2 + f], imaginary[2 + f] = re, im
        magnitude[f] = np.sqrt(re * re + im * im + power)
    before, now = columns[1:11].reshape(-1), columns[11:].reshape(-1)
    for i in range(len(now)):
        before[i] = now[i]
    for part in range(2):
        for tap in range(5):
            source, target = compressed[part, tap:], columns[11 + 5 * part + tap]
            for f in range(BANDS_1):
                target[f] = source[2 * f]


@_jit
def _expand(mask_taps, compressed, spectrum, offset, mask):
    """Sum the taps of the last convolution to a complex mask, apply it, undo the compression.

    mask_taps [2 * 5, BANDS_1]: product of each tap with each input band; compressed [2, 2 + F + 2]; spectrum [2F] (out);
    offset [2]: bias of the mask; mask [2, F] is room.
    """
    for part in range(2):
        t0, t1, t2, t3, t4 = (mask_taps[5 * part], mask_taps[5 * part + 1], mask_taps[5 * part + 2],
                              mask_taps[5 * part + 3], mask_taps[5 * part + 4])  # fmt: skip
        row, bias = mask[part], offset[part]
        last = BANDS_1 - 1
        row[0] = t2[0] + t0[1] + bias
        for i in range(1, last):
            row[2 * i] = t4[i - 1] + t2[i] + t0[i + 1] + bias
        for i in range(last):
            row[2 * i + 1] = t3[i] + t1[i + 1] + bias
        row[2 * last] = t4[last - 1] + t2[last] + bias
    real, imaginary = compressed[0], compressed[1]
    exponent = f32((1 / COMPRESSION - 1) / 2)
    for f in range(BINS):
        re = mask[0, f] * real[2 + f] - mask[1, f] * imaginary[2 + f]
        im = mask[0, f] * imaginary[2 + f] + mask[1, f] * real[2 + f]
        scale = exp(exponent * log(re * re + im * im + f32(1e-38)))
        spectrum[2 * f], spectrum[2 * f + 1] = re * scale, im * scale


@_jit
def _encode(x, weights, slopes, columns, out):
    """Strided convolution and PReLU of x [C, F] into out [N, F']; weights [N, 1 + 3 C], columns [1 + 3 C, F'] is room."""
    last = out.shape[1] - 1
    for c in range(x.shape[0]):
        source = x[c]
        left, middle, right = columns[1 + 3 * c], columns[2 + 3 * c], columns[3 + 3 * c]
        left[0] = right[last] = _ZERO
        for f in range(last):
            middle[f] = source[2 * f]
            right[f] = source[2 * f + 1]
            left[f + 1] = source[2 * f + 1]
        middle[last] = source[2 * last]
    _multiply(weights, columns, out)
    _activate(out, slopes)


@_jit
def _decode(x, weights, bias, slopes, taps, skip):
    """Transposed convolution and PReLU of x [C, F], added to the first N rows of skip [N.., 2 F - 1].

    weights [3 N, C] and taps [3 N, F] (room): left, middle and right tap of each output channel.
    """
    _multiply(weights, x, taps)
    last = x.shape[1] - 1
    for c in range(weights.shape[0] // 3):
        left, middle, right, target = taps[3 * c], taps[3 * c + 1], taps[3 * c + 2], skip[c]
        slope, offset = slopes[c], bias[c]
        for f in range(last):
            even = middle[f] + offset
            odd = right[f] + left[f + 1] + offset
            target[2 * f] += max(even, _ZERO) + slope * min(even, _ZERO)
            target[2 * f + 1] += max(odd, _ZERO) + slope * min(odd, _ZERO)
        even = middle[last] + offset
        target[2 * last] += max(even, _ZERO) + slope * min(even, _ZERO)


@_jit
def _normalise(x, out, room):
    """Layer normalisation over the channels of x [C, F] into out [1 + C, F], whose first row stays one; room [2, F]."""
    # The number of bands is read from the array on purpose: loops of a constant 33 would be unrolled, not vectorised.
    mean, scale, bands = room[0], room[1], x.shape[1]
    share = _ONE / f32(x.shape[0])
    for f in range(bands):
        mean[f], scale[f] = _ZERO, _ZERO
    for c in range(x.shape[0]):
        row = x[c]
        for f in range(bands):
            mean[f] += row[f]
    for f in range(bands):
        mean[f] *= share
    for c in range(x.shape[0]):
        row, target = x[c], out[1 + c]
        for f in range(bands):
            centred = row[f] - mean[f]
            target[f] = centred
            scale[f] += centred * centred
    for f in range(bands):
        scale[f] = _ONE / np.sqrt(scale[f] * share + f32(1e-5))
    for c in range(x.shape[0]):
        target = out[1 + c]
        for f in range(bands):
            target[f] *= scale[f]


@_jit
def _add(x, y):
    """x += y, both [C, BANDS]."""
    flat, other = x.reshape(-1), y.reshape(-1)
    for i in range(len(flat)):
        flat[i] += other[i]


@_jit
def _attend(x, normal, weights, out_weights, heads, projected, mixed, scores, y, room):
    """x [C, BANDS] += attention of the first `heads` heads over normal [1 + C, BANDS].

    weights [3 * width, 1 + C]: rows head by head, of each its query, key and value; out_weights [C, 1 + heads * width].
    projected, mixed (its first row is one), scores [BANDS, BANDS], y and room [2, BANDS] are room.
    """
    width = weights.shape[0] // 3 // heads
    most, total, bands = room[0], room[1], x.shape[1]
    _multiply(weights, normal, projected)
    for head in range(heads):
        query = projected[3 * head * width : (3 * head + 1) * width]
        key = projected[(3 * head + 1) * width : (3 * head + 2) * width]
        value = projected[(3 * head + 2) * width : (3 * head + 3) * width]
        _multiply(key.T, query, scores)  # [key, query]: the softmax runs down the columns, all queries at a time
        for i in range(bands):
            most[i], total[i] = scores[0, i], _ZERO
        for j in range(1, bands):
            row = scores[j]
            for i in range(bands):
                most[i] = max(most[i], row[i])
        for j in range(bands):
            row = scores[j]
            for i in range(bands):
                row[i] = exp(row[i] - most[i])
                total[i] += row[i]
        result = mixed[1 + head * width : 1 + (head + 1) * width]
        _multiply(value, scores, result)
        for i in range(bands):
            total[i] = _ONE / total[i]
        for c in range(width):
            row = result[c]
            for i in range(bands):
                row[i] *= total[i]
    _multiply(out_weights, mixed, y)
    _add(x, y)


@_jit
def _feed_forward(x, normal, up, down, hidden, y):
    """x [C, BANDS] += down @ relu(up @ normal); hidden [1 + N, BANDS] (its first row is one) and y are room."""
    _multiply(up, normal, hidden[1:])
    flat = hidden[1:].reshape(-1)
    for i in range(len(flat)):
        flat[i] = max(flat[i], _ZERO)
    _multiply(down, hidden, y)
    _add(x, y)


@_jit
def _recur(x, normal, weights, own, own_bias, out_weights, states, gates, own_gates, y):
    """x [C, BANDS] += projection of the new states of the groups in states [1 + groups * H, BANDS].

    weights [groups * 3 H, 1 + C] from the input, own [groups * 3 H, H] from the state of the same group, in each reset,
    update, new; own_bias [groups * H, 1] of the new part; gates [groups * 3 H, BANDS], own_gates [3 H, BANDS], y are room.
    """
    width = own.shape[1]
    _multiply(weights, normal, gates)
    for group in range(weights.shape[0] // 3 // width):
        first = 3 * width * group
        state = states[1 + group * width : 1 + (group + 1) * width]
        _multiply(own[first : first + 3 * width], state, own_gates)
        for j in range(width):
            bias, row = own_bias[group * width + j, 0], state[j]
            reset_row, update_row, new_row = gates[first + j], gates[first + width + j], gates[first + 2 * width + j]
            own_reset, own_update, own_new = own_gates[j], own_gates[width + j], own_gates[2 * width + j]
            for f in range(len(row)):
                reset = sigmoid(reset_row[f] + own_reset[f])
                update = sigmoid(update_row[f] + own_update[f])
                new = tanh(new_row[f] + reset * (own_new[f] + bias))
                row[f] = new + update * (row[f] - new)
    _multiply(out_weights, states, y)
    _add(x, y)


@_jit
def _decide(magnitude, pooling, weights, own, bias, out_weights, out_bias, state, shift, gates):
    """The policy: magnitude [F] and its state [H] to gates [K] of 0 and 1."""
    width = len(state)
    pooled, gate, own_gate = np.empty(len(pooling), f32), np.empty(3 * width, f32), np.empty(3 * width, f32)
    _apply(pooling, magnitude, pooled)
    _apply(weights, pooled, gate)
    _apply(own, state, own_gate)
    for j in range(width):
        reset = sigmoid(gate[j] + own_gate[j] + bias[0, j])
        update = sigmoid(gate[width + j] + own_gate[width + j] + bias[0, width + j])
        new = tanh(gate[2 * width + j] + bias[0, 2 * width + j] + reset * (own_gate[2 * width + j] + bias[1, j]))
        state[j] = new + update * (state[j] - new)
    for k in range(len(gates)):
        margin = shift + out_bias[0, k]
        for j in range(width):
            margin += out_weights[k, j] * state[j]
        gates[k] = margin > 0


# ------------------------------------------------------------------------------------------------ Fourier transforms
@_jit
def _to_spectrum(samples, window, first, twiddle, second, grid, rows, turned, spectrum):
    """Spectrum [2F] of samples [WINDOW] times window [1, WINDOW], as a 16-point and a 32-point transform.

    grid [16, 32], rows [18, 32] (9 real parts, 9 imaginary ones) and turned [18, 64] are room.
    """
    flat = grid.reshape(-1)
    for n in range(WINDOW):
        flat[n] = samples[n] * window[0, n]
    _multiply(first, grid, rows)
    before, result = turned[:9], turned[9:]
    for k in range(9):
        for n in range(32):
            re, im, c, s = rows[k, n], rows[9 + k, n], twiddle[k, n], twiddle[9 + k, n]
            before[k, n], before[k, 32 + n] = re * c + im * s, im * c - re * s
    _multiply(before, second, result)  # [k, 32 real and 32 imaginary parts]: bin k + 16 m
    for m in range(16):
        for k in range(9):
            spectrum[2 * (16 * m + k)], spectrum[2 * (16 * m + k) + 1] = result[k, m], result[k, 32 + m]
        for k in range(1, 8):
            bin_ = 16 * m + 16 - k
            spectrum[2 * bin_], spectrum[2 * bin_ + 1] = result[k, 31 - m], -result[k, 63 - m]
    spectrum[2 * BINS - 2], spectrum[2 * BINS - 1] = result[0, 16], result[0, 48]


@_jit
def _to_samples(spectrum, window, second, twiddle, first, grid, rows, turned):
    """Samples [WINDOW] times window [1, WINDOW], left in grid: the inverse of :func:`_to_spectrum`."""
    before, result = turned[:9], turned[9:]
    for m in range(16):
        for k in range(9):
            before[k, m], before[k, 32 + m] = spectrum[2 * (16 * m + k)], spectrum[2 * (16 * m + k) + 1]
            mirror = 2 * (WINDOW - 16 * (m + 16) - k)  # bins above the middle are conjugates
            before[k, 16 + m], before[k, 48 + m] = spectrum[mirror], -spectrum[mirror + 1]
    before[0, 32] = before[0, 48] = _ZERO  # the inverse ignores the imaginary part of the outermost bins
    _multiply(before, second, result)
    for k in range(9):
        for n in range(32):
            re, im, c, s = result[k, n], result[k, 32 + n], twiddle[k, n], twiddle[9 + k, n]
            rows[k, n], rows[9 + k, n] = re * c - im * s, im * c + re * s
    _multiply(first, rows, grid)
    flat = grid.reshape(-1)
    for n in range(WINDOW):
        flat[n] *= window[0, n]


# ------------------------------------------------------------------------------------------------ whole frames
@_jit
def _get(block, place):
    """A matrix of a flat block, without a copy; place [3]: start, rows, columns."""
    start, rows, columns = place
    return block[start : start + rows * columns].reshape(rows, columns)


@_jit
def _frame(spectrum, gates, decide, shift, weights, table, units, memory, places, out):
    """One frame: spectrum [2F] to out [2F]; see :func:`run`."""
    taps, compressed, magnitude = (
        _get(memory, places[TAPS]), _get(memory, places[COMPRESSED]), _get(memory, places[MAGNITUDE])[0]
    )  # fmt: skip
    skip_1, skip_2 = _get(memory, places[SKIP_1]), _get(memory, places[SKIP_2])
    x, y, normal = _get(memory, places[BOTTLENECK]), _get(memory, places[SUM]), _get(memory, places[NORMAL])
    mixed, hiddens = _get(memory, places[MIXED]), _get(memory, places[HIDDEN])
    wide, scores = _get(memory, places[WIDE]), _get(memory, places[SCORES])
    columns = _get(memory, places[COLUMNS])
    columns_2, columns_3 = _get(memory, places[COLUMNS_2]), _get(memory, places[COLUMNS_3])
    taps_3, taps_2, taps_1 = _get(memory, places[TAPS_3]), _get(memory, places[TAPS_2]), _get(memory, places[TAPS_1])
    _compress(spectrum, taps, compressed, magnitude)
    if decide:
        _decide(
            magnitude, _get(weights, table[POLICY_POOLING]), _get(weights, table[POLICY_IN]),
            _get(weights, table[POLICY_OWN]), _get(weights, table[POLICY_BIAS]), _get(weights, table[POLICY_OUT]),
            _get(weights, table[POLICY_OUT_BIAS]), _get(memory, places[POLICY_STATE])[0], shift, gates,
        )  # fmt: skip
    slopes = _get(weights, table[SLOPES])
    # n[k]: how many channels, heads, groups or hidden units run behind gate k
    n = np.empty(len(gates), np.int64)
    for k in range(len(gates)):
        n[k] = units[k, 1 if gates[k] else 0]

    _multiply(_get(weights, table[ENCODER_1]), taps, skip_1)
    _activate(skip_1, slopes[0])
    skip_2[n[0] :] = _ZERO
    _encode(skip_1, _get(weights, table[ENCODER_2])[: n[0]], slopes[1], columns_2, skip_2[: n[0]])
    x[n[1] :] = _ZERO
    encoder_3 = _get(weights, table[ENCODER_3]) if gates[0] else _get(weights, table[ENCODER_3_STATIC])
    _encode(skip_2[: n[0]], encoder_3[: n[1]], slopes[2], columns_3[: 1 + 3 * n[0]], x[: n[1]])
    _add(x, _get(weights, table[EMBEDDING]))

    _normalise(x, normal, columns)
    rows = 3 * n[2] * units[10, 0]
    _attend(
        x, normal, _get(weights, table[HEADS_1])[:rows],
        _get(weights, table[HEADS_OUT_1]) if gates[2] else _get(weights, table[HEADS_OUT_STATIC_1]),
        n[2], wide[:rows], mixed[: 1 + rows // 3], scores, y, columns,
    )  # fmt: skip
    _normalise(x, normal, columns)
    _feed_forward(
        x, normal, _get(weights, table[UP_1])[: n[3]],
        _get(weights, table[DOWN_1]) if gates[3] else _get(weights, table[DOWN_STATIC_1]), hiddens[: 1 + n[3]], y,
    )  # fmt: skip
    _normalise(x, normal, columns)
    rows = 3 * n[4] * units[10, 1]
    _recur(
        x, normal, _get(weights, table[GROUPS_IN])[:rows], _get(weights, table[GROUPS_OWN])[:rows],
        _get(weights, table[GROUPS_OWN_BIAS]),
        _get(weights, table[GROUPS_OUT]) if gates[4] else _get(weights, table[GROUPS_OUT_STATIC]),
        _get(memory, places[STATES])[: 1 + rows // 3], wide[:rows], _get(memory, places[OWN_GATES]), y,
    )  # fmt: skip
    _normalise(x, normal, columns)
    _feed_forward(
        x, normal, _get(weights, table[UP_2])[: n[5]],
        _get(weights, table[DOWN_2]) if gates[5] else _get(weights, table[DOWN_STATIC_2]), hiddens[: 1 + n[5]], y,
    )  # fmt: skip
    _normalise(x, normal, columns)
    rows = 3 * n[6] * units[10, 0]
    _attend(
        x, normal, _get(weights, table[HEADS_3])[:rows],
        _get(weights, table[HEADS_OUT_3]) if gates[6] else _get(weights, table[HEADS_OUT_STATIC_3]),
        n[6], wide[:rows], mixed[: 1 + rows // 3], scores, y, columns,
    )  # fmt: skip
    _normalise(x, normal, columns)
    _feed_forward(
        x, normal, _get(weights, table[UP_3])[: n[7]],
        _get(weights, table[DOWN_3]) if gates[7] else _get(weights, table[DOWN_STATIC_3]), hiddens[: 1 + n[7]], y,
    )  # fmt: skip

    _decode(
        x, _get(weights, table[DECODER_3])[: 3 * n[8]], _get(weights, table[DECODER_3_BIAS])[0], slopes[3],
        taps_3[: 3 * n[8]], skip_2,
    )  # fmt: skip
    is_wide = gates[0] or gates[8]
    given = units[0, 1] if is_wide else units[0, 0]
    decoder_2 = _get(weights, table[DECODER_2]) if is_wide else _get(weights, table[DECODER_2_STATIC])
    _decode(
        skip_2[:given], decoder_2[: 3 * n[9]], _get(weights, table[DECODER_2_BIAS])[0], slopes[4], taps_2[: 3 * n[9]],
        skip_1,
    )  # fmt: skip
    _multiply(_get(weights, table[DECODER_1]), skip_1, taps_1)
    _expand(taps_1, compressed, out, _get(weights, table[DECODER_1_BIAS])[0], _get(memory, places[MASK]))


@_jit
def run(spectrum, samples, overlap, gates, decide, shift, weights, table, units, memory, places, out):
    """Frames, one after the other: of a spectrum, or of samples with the transforms here too.

    spectrum [T, 2F] (real and imaginary parts in turn) becomes out [T, 2F]; or, where T is 0, samples [(T + 1) HOP]
    become out [T, HOP] and overlap [HOP] is kept for the next call. gates [T, 10] are read, or written where the policy
    is to `decide`. weights and memory are flat blocks, described by table and places; units [11, 2]: units of each layer
    that run when its gate is 0 and 1, then the widths of a head and of a group.
    """
    own, grid = _get(memory, places[SPECTRUM])[0], _get(memory, places[GRID])
    turned, rows = _get(memory, places[TURNED]), _get(memory, places[ROWS])
    block = grid.reshape(-1)
    window, twiddle = _get(weights, table[WINDOWED]), _get(weights, table[TWIDDLE])
    forward_1, forward_2 = _get(weights, table[FORWARD_1]), _get(weights, table[FORWARD_2])
    backward_1, backward_2 = _get(weights, table[BACKWARD_1]), _get(weights, table[BACKWARD_2])
    for t in range(len(out)):
        source, target = own, own
        if len(spectrum):
            source, target = spectrum[t], out[t]
        else:
            piece = samples[t * HOP : t * HOP + WINDOW]
            _to_spectrum(piece, window, forward_1, twiddle, forward_2, grid, rows, turned, own)
        _frame(source, gates[t], decide, shift, weights, table, units, memory, places, target)
        if not len(spectrum):
            _to_samples(own, window, backward_2, twiddle, backward_1, grid, rows, turned)
            for n in range(HOP):
                out[t, n] = overlap[n] + block[n]
                overlap[n] = block[HOP + n]


# ------------------------------------------------------------------------------------------------ from the network
def _transforms() -> list[np.ndarray]:
    """Matrices of the Fourier transforms and the window, in the order of the block of weights."""
    k, n, m = np.arange(9), np.arange(32), np.arange(16)
    inner = 2 * np.pi * np.outer(k, m) / 16  # 16 points: bin k, sample m
    outer = 2 * np.pi * np.outer(n, n) / 32  # 32 points, symmetric
    turn = 2 * np.pi * np.outer(k, n) / WINDOW
    cosine, sine = np.cos(outer), np.sin(outer)
    # Bins 1 to 7 stand for 9 to 15 as well.
    twice = np.where((k == 0) | (k == 8), 1, 2) / WINDOW
    return [
        np.concatenate([np.cos(inner), -np.sin(inner)]),
        np.block([[cosine, -sine], [sine, cosine]]),
        np.block([[cosine, sine], [-sine, cosine]]),
        np.concatenate([twice[:, None] * np.cos(inner), -twice[:, None] * np.sin(inner)]).T,
        np.concatenate([np.cos(turn), np.sin(turn)]),
        np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW))[None],
    ]


def _array(tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(np.float32)


def _biased(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """[N, 1 + K]: the bias is the weight of a first input that is always one."""
    return np.concatenate([bias[:, None], weight], axis=1)


def _fill(array: np.ndarray, rows: int) -> np.ndarray:
    """`array` with rows of NaN appended up to `rows`: a part that is absent, and never read."""
    return np.concatenate([array, np.full((rows - len(array), *array.shape[1:]), np.nan, np.float32)])


def _encoder(block) -> np.ndarray:
    """[N, 1 + inputs * taps] of a convolution; time is outermost, then input channel, then tap."""
    weight = _array(block.conv.weight).transpose(0, 2, 1, 3).reshape(len(block.conv.weight), -1)
    return _fill(_biased(weight, _array(block.conv.bias)), block.static + block.dynamic + block.absent)


def _decoder(block) -> tuple[np.ndarray, np.ndarray]:
    """[N * taps, C] and biases [1, N] of a transposed convolution."""
    weight = _array(block.conv.weight)[:, :, 0].transpose(1, 2, 0)
    outputs = block.static + block.dynamic + block.absent
    return _fill(weight, outputs).reshape(-1, block.inputs), _fill(_array(block.conv.bias), outputs)[None]


def _pair(full: np.ndarray, static: int) -> list[np.ndarray]:
    """A matrix that reads a dynamic part, and the one that reads the first `static` inputs alone."""
    return [full, full[:, :static]]


def _attention(block) -> list[np.ndarray]:
    heads, width = block.static + block.dynamic, block.head_width
    weight = _biased(_array(block.query_key_value.weight), _array(block.query_key_value.bias))
    weight = weight.reshape(3, heads, width, -1).transpose(1, 0, 2, 3).copy()
    weight[:, 0] *= width**-0.5
    out = _biased(_array(block.out.weight), _array(block.out.bias))
    return [weight.reshape(3 * heads * width, -1), *_pair(out, 1 + block.static * width)]


def _linear(block) -> list[np.ndarray]:
    down = _biased(_array(block.down.weight), _array(block.down.bias))
    return [_biased(_array(block.up.weight), _array(block.up.bias)), *_pair(down, 1 + block.static)]


def _recurrence(block) -> list[np.ndarray]:
    width, inputs, own, own_bias = block.group_width, [], [], []
    for group in block.groups:
        bias, hidden_bias = _array(group.bias_ih_l0), _array(group.bias_hh_l0)
        bias[: 2 * width] += hidden_bias[: 2 * width]
        inputs.append(_biased(_array(group.weight_ih_l0), bias))
        own.append(_array(group.weight_hh_l0))
        own_bias.append(hidden_bias[2 * width :, None])
    out = _biased(_array(block.out.weight), _array(block.out.bias))
    return [*map(np.concatenate, (inputs, own, own_bias)), *_pair(out, 1 + block.static * width)]


def _policy(policy: Policy | None) -> list[np.ndarray]:
    if policy is None:
        return [np.zeros((0, 0), np.float32)] * 6
    gru, width = policy.recurrent, policy.width
    bias, own_bias = _array(gru.bias_ih_l0), _array(gru.bias_hh_l0)
    bias[: 2 * width] += own_bias[: 2 * width]
    both = np.zeros((2, 3 * width), np.float32)
    both[0], both[1, :width] = bias, own_bias[2 * width :]
    out, out_bias = _array(policy.logits.weight), _array(policy.logits.bias)
    # What decides is the open minus the closed logit.
    return [
        _array(policy.pooling).T, _array(gru.weight_ih_l0), _array(gru.weight_hh_l0), both,
        out[1::2] - out[::2], (out_bias[1::2] - out_bias[::2])[None],
    ]  # fmt: skip


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
    states, heads = (gru.static + gru.dynamic) * gru.group_width, network.frequency_1.attention.out.in_features
    hidden = max(b.feed_forward.up.out_features for b in (network.frequency_1, network.time, network.frequency_2))
    shapes = [
        (21, BANDS_1), (1 + states, BANDS), (1, policy.width if policy else 0),
        (2, BINS + 4), (1, BINS), (1 + 3 * c1, BANDS_2), (1 + 3 * c2, BANDS), (1 + c3, BANDS), (1 + hidden, BANDS),
        (1 + heads, BANDS), (c1, BANDS_1), (c2, BANDS_2), (c3, BANDS), (3 * max(heads, states), BANDS),
        (3 * gru.group_width, BANDS), (BANDS, BANDS), (c3, BANDS), (3 * c2, BANDS), (3 * c1, BANDS_2), (10, BANDS_1),
        (2, BINS), (1, 2 * BINS), (16, 32), (18, 64), (18, 32), (2, BANDS),
    ]  # fmt: skip
    arrays = [np.zeros(shape, np.float32) for shape in shapes]
    for index in (TAPS, STATES, COLUMNS_2, COLUMNS_3, NORMAL, HIDDEN, MIXED):
        arrays[index][0] = 1  # the input that the bias is the weight of
    return arrays


class Weights(NamedTuple):
    """A network's weights as the kernel reads them."""

    block: np.ndarray
    table: np.ndarray
    units: np.ndarray


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
    slopes = np.zeros((5, max(channels)), np.float32)
    for row, slope in zip(slopes, network.slopes, strict=True):
        row[: len(slope)] = _array(slope)
    narrow = units[0][0]  # channels that encoder 2 always gives
    encoder_3, (decoder_2, decoder_2_bias) = _encoder(network.encoder_3), _decoder(network.decoder_2)
    block, table = _pack(
        [
            *_transforms(),
            _encoder(network.encoder_1), _encoder(network.encoder_2), *_pair(encoder_3, 1 + 3 * narrow),
            _array(network.band_embedding).T,
            *_attention(network.frequency_1.attention), *_linear(network.frequency_1.feed_forward),
            *_recurrence(network.time.gru), *_linear(network.time.feed_forward),
            *_attention(network.frequency_2.attention), *_linear(network.frequency_2.feed_forward),
            *_decoder(network.decoder_3), *_pair(decoder_2, narrow), decoder_2_bias, *_decoder(network.decoder_1), slopes,
            *_policy(getattr(network, "policy", None)),
        ]
    )  # fmt: skip
    return Weights(block, table, np.array(units, np.int64))


_NO_SPECTRUM, _NO_SAMPLES = np.zeros((0, 2 * BINS), np.float32), np.zeros(0, np.float32)


class KernelEngine:
    """Runs frames through the compiled kernel; see `dsn_lite.streaming.Engine`.

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
        self._start, self._places = _pack(_memory(network))
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
        """See `dsn_lite.streaming.Engine`."""
        used = self._gates(len(spectrum), gates)
        spectrum = np.array(spectrum, np.complex64, order="C")
        out = np.empty_like(spectrum)
        run(
            spectrum.view(np.float32), _NO_SAMPLES, _NO_SAMPLES, used, self._decides(gates), self.shift, *self.weights,
            self.memory, self._places, out.view(np.float32),
        )  # fmt: skip
        return out, used if self.gate_count else used[:, :0]

    def run_samples(
        self, samples: np.ndarray, overlap: np.ndarray, gates: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same with the transforms inside: float32 samples [(T + 1) HOP] to ([T, HOP], gates).

        `overlap` [HOP] is what the last frame left for the next block; it is added and replaced.
        """
        frames = len(samples) // HOP - 1
        used = self._gates(frames, gates)
        out = np.empty((frames, HOP), np.float32)
        run(
            _NO_SPECTRUM, samples, overlap, used, self._decides(gates), self.shift, *self.weights, self.memory,
            self._places, out,
        )  # fmt: skip
        return out, used if self.gate_count else used[:, :0]

    def _decides(self, gates: np.ndarray | None) -> bool:
        return gates is None and self.parts == "gated"

    def _gates(self, frames: int, gates: np.ndarray | None) -> np.ndarray:
        if gates is None or not self.gate_count:
            used = np.empty((frames, len(GATES)), np.uint8)
            used.fill(self.parts == "always")
            return used
        if gates.dtype == np.uint8 and gates.flags.carray:  # as it is: the kernel takes whatever is not zero for open
            return gates
        return (np.asarray(gates) != 0).astype(np.uint8)
