"""Matrix products whose sums stay in vector registers, and matrices that are views of one flat block.

BLAS keeps its sums there too, but takes half a microsecond to begin, and a frame has a hundred products of less than that.
"""

from __future__ import annotations

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from dsn_lite.network.compiled import jit

_HAS_WIDE = bool(llvm.get_host_cpu_features().get("avx512f"))
_LANES, _ROWS = (16, 8) if _HAS_WIDE else (8, 4)
COLUMNS = 2 * _LANES
"""A product is computed in tiles of _ROWS by COLUMNS values, which fit into the registers; rows are padded to it."""
_REAL, _INDEX, _SIZE = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_REAL, _LANES)


@intrinsic
def view(context, block, start, rows, columns):
    """Matrix [rows, columns] that begins at `start` of a flat block. It has no owner: nothing is checked or counted."""
    matrix = types.Array(block.dtype, 2, "C")

    def generate(context, builder, signature, args):
        flat = context.make_array(block)(context, builder, args[0])
        made = context.make_array(matrix)(context, builder)
        size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_value_type(block.dtype)))
        strides = [builder.mul(args[3], size), size]
        populate_array(made, builder.gep(flat.data, [args[1]]), args[2:], strides, size, None)
        return made._getvalue()

    return matrix(block, types.intp, types.intp, types.intp), generate


def _matrix(context, builder, kind, value) -> tuple:
    """Pointer to the first value of a matrix, its strides down and across in values, and its number of rows."""
    array = context.make_array(kind)(context, builder, value)
    strides = [builder.ashr(stride, _SIZE(2)) for stride in cgutils.unpack_tuple(builder, array.strides, 2)]
    return array.data, *strides, *cgutils.unpack_tuple(builder, array.shape, 2)


def _load(builder, pointer, kind=_REAL):
    value = builder.load(builder.bitcast(pointer, kind.as_pointer()))
    value.align = 4
    return value


def _spread(builder, value):
    """A vector with the value in each lane."""
    nothing, lanes = ir.Constant(_VECTOR, ir.Undefined), ir.Constant(ir.VectorType(_INDEX, _LANES), None)
    return builder.shuffle_vector(builder.insert_element(nothing, value, _INDEX(0)), nothing, lanes)


def _bent(builder, value, slope):
    """PReLU of a vector."""
    is_above = builder.fcmp_ordered(">", value, ir.Constant(_VECTOR, None))
    return builder.select(is_above, value, builder.fmul(slope, value))


def _tile(builder, rows: int, function, i, j) -> None:
    """Rows i .. i + `rows` and columns j .. j + COLUMNS of a product; the sums stay in registers."""
    w, down, across, x, x_step, x_rows, y, y_step, y_rows, slopes, out, out_step, base, base_step = function.args[:14]
    has_bias, bends, adds = function.args[-3:]
    at = [builder.add(i, _SIZE(n)) for n in range(rows)]
    columns = [builder.gep(w, [builder.mul(row, across)]) for row in at]  # of w, one for each row of the result
    halves = [builder.add(j, _SIZE(n)) for n in (0, _LANES)]

    def place(start, step, row, half):
        return builder.gep(start, [builder.add(builder.mul(row, step), half)])

    zero = ir.Constant(_VECTOR, None)
    sums = [[cgutils.alloca_once_value(builder, zero) for _ in halves] for _ in at]
    cells = [(row, column, half, total) for row, column, totals in zip(at, columns, sums, strict=True)
             for half, total in zip(halves, totals, strict=True)]  # fmt: skip
    with builder.if_then(has_bias):
        for _, column, _, total in cells:
            builder.store(_spread(builder, _load(builder, column)), total)
    first = builder.select(has_bias, _SIZE(1), _SIZE(0))
    for start, step, inner in ((x, x_step, x_rows), (y, y_step, y_rows)):
        with cgutils.for_range(builder, inner) as loop:
            values = [_load(builder, place(start, step, loop.index, half), _VECTOR) for half in halves]
            offset = builder.mul(builder.add(first, loop.index), down)
            for column, totals in zip(columns, sums, strict=True):
                weight = _spread(builder, _load(builder, builder.gep(column, [offset])))
                for total, value in zip(totals, values, strict=True):
                    term = builder.fmul(weight, value, flags=("contract",))
                    builder.store(builder.fadd(builder.load(total), term, flags=("contract",)), total)
        first = builder.add(first, inner)
    with builder.if_then(bends):
        for row, _, _, total in cells:
            slope = _spread(builder, _load(builder, builder.gep(slopes, [row])))
            builder.store(_bent(builder, builder.load(total), slope), total)
    with builder.if_then(adds):
        for row, _, half, total in cells:
            other = _load(builder, place(base, base_step, row, half), _VECTOR)
            builder.store(builder.fadd(builder.load(total), other), total)
    for row, _, half, total in cells:
        target = builder.bitcast(place(out, out_step, row, half), _VECTOR.as_pointer())
        builder.store(builder.load(total), target, align=4)


def _function(module: ir.Module) -> ir.Function:
    """The product as one function of a module, which its many callers share: inlined it would take minutes to compile."""
    name = f"dsn_lite_product_{_LANES}"
    if name in module.globals:
        return module.globals[name]
    real, flag = _REAL.as_pointer(), ir.IntType(1)
    arguments = [real, _SIZE, _SIZE, *[real, _SIZE, _SIZE] * 2, real, *[real, _SIZE] * 2, _SIZE, _SIZE, *[flag] * 3]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block())
    height, width = function.args[14:16]
    with cgutils.for_range_slice(builder, _SIZE(0), width, _SIZE(COLUMNS), _SIZE) as (j, _):
        done = _SIZE(0)
        # What is left of the rows is done in tiles of fewer: a tile of one row waits for its own sums.
        for rows in (_ROWS, *(n for n in (4, 2, 1) if n < _ROWS)):
            last = builder.sub(height, builder.srem(builder.sub(height, done), _SIZE(rows)))
            with cgutils.for_range_slice(builder, done, last, _SIZE(rows), _SIZE) as (i, _):
                _tile(builder, rows, function, i, j)
            done = last
    builder.ret_void()
    return function


@intrinsic
def _product(context, w, x, y, out, base, has_bias, bends, adds):
    """out [N, W] = w.T @ [1, x, y] of w [1 + K.., N]; see what calls it. y may have no rows."""

    def generate(context, builder, signature, args):
        w, x, y, out, base = (
            _matrix(context, builder, *pair) for pair in zip(signature.args[:5], args[:5], strict=True)
        )
        slopes = builder.gep(w[0], [builder.mul(builder.sub(w[3], _SIZE(1)), w[1])])
        builder.call(
            _function(builder.module),
            [
                w[0], w[1], w[2], x[0], x[1], x[3], y[0], y[1], y[3], slopes, out[0], out[1], base[0], base[1],
                out[3], out[4], *args[5:],
            ],
        )  # fmt: skip
        return context.get_dummy_value()

    return types.void(w, x, y, out, base, *[types.boolean] * 3), generate


@jit
def product(w, x, out):
    """out [N, W] = w.T @ x of w [K, N] and x [K, W]; W is a multiple of COLUMNS."""
    _product(w, x, x[:0], out, out, False, False, False)


@jit
def layer(w, x, y, out, base, bends, adds):
    """out [N, W] = w.T @ [1, x, y], perhaps through a PReLU, perhaps plus base [N, W].

    The first row of w [1 + K, N] is the bias; where the result `bends`, one row more holds the slopes. Where y has no
    rows, those of w that stand for it are not read.
    """
    _product(w, x, y, out, base, True, bends, adds)
