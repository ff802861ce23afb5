"""The network compiled for one frame at a time: what is closed is not computed, not read and not waited for.

PyTorch spends most of a 16 ms frame between its operations. Here the whole frame, with its Fourier transforms, is one
compiled function (Numba): matrix products go to BLAS, everything else is a loop over contiguous float32 rows.

How it is laid out, and why:

- Arrays are [C, F], channel by band. A product is ``weights [N, K] @ columns [K, F]``, so the static part of a layer is the
  first rows of its weights. The dynamic part lies behind them, and a closed gate just makes the product end earlier:
  there is no masking and no second kernel. Layers that read a dynamic part (its columns) keep two matrices, the full one
  and the static one.
- The first row of each input of a product is one: biases are a column of the weights and cost no pass of their own.
- Query weights hold the attention's 1 / sqrt(head width). Queries, keys and values are one product; so are the input
  gates of all open GRU groups; the states of all groups lie in the rows that the output projection reads.
- An encoder reads a closed layer's zero channels not at all. (The count of MACs still contains them.)
- The transforms are two small matrix products each (512 = 16 x 32), 2 microseconds instead of 5 for a call of NumPy's.
- exp, tanh, sigmoid and the power law are polynomials of about 1e-7 that the compiler turns into vector code.
- Products are cut so that OpenBLAS stays on one thread: a second one costs more than it gives at this size.
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import numpy as np
from numba import njit, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from dsn_lite.model import GATES, Network
from dsn_lite.spectral import BINS, COMPRESSION, HOP, WINDOW

BANDS_1, BANDS_2, BANDS = 129, 65, 33
"""Bands after each encoder convolution."""

_ONE_THREAD = 262_144
"""Products of up to so many MACs run on one thread in OpenBLAS (its SMP_THRESHOLD_MIN * GEMM_MULTITHREAD_THRESHOLD)."""

# fmt: off
_jit = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz"})
_inline = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz"}, inline="never")
# fmt: on

f32, i32 = np.float32, np.int32


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


@_jit
def exp_all(x, out):
    """exp of each value of x [n] into out [n]."""
    for i in range(len(x)):
        out[i] = exp(x[i])


@_jit
def log_all(x, out):
    """log of each value of x [n] into out [n]."""
    for i in range(len(x)):
        out[i] = log(x[i])
