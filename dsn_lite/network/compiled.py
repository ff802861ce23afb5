"""Machine code from Python loops by Numba, and the functions of numbers that such loops need as vectors.

The mathematical library is called number by number. What is written out here in products and sums runs on 8 or 16 numbers
at once wherever a loop calls it.
"""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path

import numpy as np
from numba import njit, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

f32, i32 = np.float32, np.int32


def jit(function):
    """Compile a function with Numba, which keeps the machine code on disk for the next process.

    It lies in NUMBA_CACHE_DIR where that is set, else beside this file, else in the user's cache folder: the first that
    can be written to.
    """
    # No reassociation: results stay the same on every processor but for fused multiply-adds.
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz"}}
    try:
        compiled = njit(cache=True, **options)(function)
        with contextlib.suppress(AttributeError):  # a name inside Numba
            compiled._cache._cache_file._source_stamp = _stamp(function)
        return compiled
    except RuntimeError:
        warnings.warn(  # noqa: B028 - from the same line each time, so that it is shown once
            "Numba finds no folder to keep the compiled code in, so every process compiles it anew for up to a minute; "
            "set NUMBA_CACHE_DIR to a folder that can be written to"
        )
        return njit(**options)(function)


def _stamp(function) -> tuple[float, int]:
    """By what kept code is known to be out of date.

    Numba looks at the file of a function alone. What it calls is compiled into it and may lie beside it, or here.
    """
    files = [Path(__file__), *Path(function.__code__.co_filename).parent.glob("*.py")]
    return max(file.stat().st_mtime for file in files), sum(file.stat().st_size for file in files)


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


@jit
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


@jit
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


@jit
def sigmoid(x):
    """1 / (1 + e^-x), absolute error 1e-7."""
    return _ONE / (_ONE + exp(-x))


@jit
def tanh(x):
    """Hyperbolic tangent, absolute error 1e-7."""
    return _ONE - _TWO / (_ONE + exp(_TWO * x))


@jit
def add_products(total, weight, x):
    """total [N] += sum over i of weight[i] * x[i, N], four at a time: so long a sum stays in registers."""
    height, whole = len(x), len(x) // 4 * 4
    for i in range(0, whole, 4):
        a, b, c, d = weight[i], weight[i + 1], weight[i + 2], weight[i + 3]
        p, q, r, s = x[i], x[i + 1], x[i + 2], x[i + 3]
        for k in range(len(total)):
            total[k] += a * p[k] + b * q[k] + c * r[k] + d * s[k]
    for i in range(whole, height):
        a, p = weight[i], x[i]
        for k in range(len(total)):
            total[k] += a * p[k]
