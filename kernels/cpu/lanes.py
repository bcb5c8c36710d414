"""Vectors of neurons as values in compiled code.

`Lanes` is a Numba type for a SIMD vector: eight float64 or sixteen float32 neurons side by side.
A kernel written with it says itself what happens in a vector register, and needs no luck with the
compiler's own vectoriser, which gives up on loops over samples inside loops over neurons. A
neuron's parameters are a tuple of such vectors, one for each row of the state; the loops over
rows are unrolled while the code is generated, so there is one compiled version for each number
of inputs, and none for any other value.

Every operation rounds as it is written here: nothing is reordered or contracted, so the same
arithmetic gives the same bits wherever it is compiled into. Where the machine's registers are
shorter than 64 bytes LLVM takes several.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .lane_code import (
    INDEX,
    LANE_BYTES,
    Lanes,
    add_to,
    as_vector,
    fused_multiply_add,
    inner_product,
    load_vector,
    row_address,
    row_address_at,
    splat,
    sum_of_lanes,
    table_numbers,
)

__all__ = ["LANE_BYTES"]

# `like` is a tuple whose length tells the number of inputs d.


@intrinsic
def load_rows(typingctx, array, column, like):
    """Rows 0 to d of ``array`` (rows, neurons), the neurons from ``column`` on."""
    lanes = Lanes(array.dtype)
    rows = types.UniTuple(lanes, 1 + like.count)

    def codegen(context, builder, signature, arguments):
        kind, vector = signature.args[0], context.get_value_type(lanes)
        loaded = [
            load_vector(
                builder,
                row_address(context, builder, kind, arguments[0], row, arguments[1]),
                vector,
                kind.dtype.bitwidth // 8,
            )
            for row in range(rows.count)
        ]
        return context.make_tuple(builder, rows, loaded)

    return rows(array, types.intp, like), codegen


@intrinsic
def load_slope(typingctx, slopes, j, column, like):
    """Rows 0 to d of ``slopes[j]``, of (slopes, rows, neurons), without a view of it.

    A view would count references, with an atomic operation each, in the innermost loop.
    """
    lanes = Lanes(slopes.dtype)
    rows = types.UniTuple(lanes, 1 + like.count)

    def codegen(context, builder, signature, arguments):
        kind, vector = signature.args[0], context.get_value_type(lanes)
        stack, j, column, _ = arguments
        whole = context.make_array(kind)(context, builder, stack)
        _, height, length = cgutils.unpack_tuple(builder, whole.shape)
        first = builder.mul(builder.mul(j, height), length)
        loaded = []
        for row in range(rows.count):
            index = builder.add(builder.add(first, builder.mul(INDEX(row), length)), column)
            address = builder.gep(whole.data, [index])
            loaded.append(load_vector(builder, address, vector, kind.dtype.bitwidth // 8))
        return context.make_tuple(builder, rows, loaded)

    return rows(slopes, types.intp, types.intp, like), codegen


@intrinsic
def store_rows(typingctx, array, column, rows):
    """Write the rows of some neurons into ``array`` (rows, neurons) from ``column`` on."""

    def codegen(context, builder, signature, arguments):
        kind = signature.args[0]
        for row, value in enumerate(cgutils.unpack_tuple(builder, arguments[2])):
            address = row_address(context, builder, kind, arguments[0], row, arguments[1])
            target = as_vector(builder, address, value.type)
            builder.store(value, target, align=kind.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, rows), codegen


@intrinsic
def table_row(typingctx, table, i, like):
    """Row i of ``table`` (rows, d), each number in all lanes."""
    lanes = Lanes(table.dtype)
    rows = types.UniTuple(lanes, like.count)

    def codegen(context, builder, signature, arguments):
        kind, vector = signature.args[0], context.get_value_type(lanes)
        source, row, _ = arguments
        numbers = table_numbers(context, builder, kind, source, row, rows.count, vector)
        return context.make_tuple(builder, rows, numbers)

    return rows(table, types.intp, like), codegen


@intrinsic
def preactivation(typingctx, x, i, rows):
    """z = sum_j x[i, j] rows[1 + j] for x (n, d)."""

    def codegen(context, builder, signature, arguments):
        kind = signature.args[0]
        weights = cgutils.unpack_tuple(builder, arguments[2])[1:]
        vector = weights[0].type
        point = table_numbers(
            context, builder, kind, arguments[0], arguments[1], len(weights), vector
        )
        return inner_product(builder, list(zip(point, weights, strict=True)))

    return rows.dtype(x, types.intp, rows), codegen


@intrinsic
def add_where_active(typingctx, z, table, i, sums):
    """sums[j] + table[i, j] in the lanes where z > 0, sums[j] in the others."""

    def codegen(context, builder, signature, arguments):
        z, table, i, sums = arguments
        active = builder.fcmp_ordered(">", z, ir.Constant(z.type, None))
        before = cgutils.unpack_tuple(builder, sums)
        added = table_numbers(context, builder, signature.args[1], table, i, len(before), z.type)
        after = [
            builder.select(active, builder.fadd(old, new), old)
            for old, new in zip(before, added, strict=True)
        ]
        return context.make_tuple(builder, signature.return_type, after)

    return sums(z, table, types.intp, sums), codegen


@intrinsic
def positive_part(typingctx, z):
    """max(z, 0); not a number stays what it is."""

    def codegen(context, builder, signature, arguments):
        zero = ir.Constant(arguments[0].type, None)
        return builder.select(builder.fcmp_ordered("<", arguments[0], zero), zero, arguments[0])

    return z(z), codegen


@intrinsic
def where_active(typingctx, z, yes, no):
    """``yes`` in the lanes where z > 0, ``no`` in the others."""

    def codegen(context, builder, signature, arguments):
        z, yes, no = arguments
        active = builder.fcmp_ordered(">", z, ir.Constant(z.type, None))
        return builder.select(active, yes, no)

    return z(z, z, z), codegen


@intrinsic
def velocity(typingctx, rows, pull, output_factor, input_factor):
    """Velocity of neurons pulled by ``pull`` = sum_i e_i sigma'(z_i) x_i, a tuple of d.

    (output_factor w . pull, input_factor a pull): for sigma(z) = sigma'(z) z the output weight's
    own sum needs no other pass over the samples.
    """

    def codegen(context, builder, signature, arguments):
        a, *weights = cgutils.unpack_tuple(builder, arguments[0])
        pulls = cgutils.unpack_tuple(builder, arguments[1])
        own = inner_product(builder, list(zip(weights, pulls, strict=True)))
        output = builder.fmul(splat(builder, arguments[2], a.type), own)
        lever = builder.fmul(splat(builder, arguments[3], a.type), a)
        inputs = [builder.fmul(lever, one) for one in pulls]
        return context.make_tuple(builder, signature.return_type, [output, *inputs])

    real = rows.dtype.real
    return rows(rows, pull, real, real), codegen


@intrinsic
def add_scaled(typingctx, rows, factor, others):
    """rows + factor others."""

    def codegen(context, builder, signature, arguments):
        mine = cgutils.unpack_tuple(builder, arguments[0])
        theirs = cgutils.unpack_tuple(builder, arguments[2])
        factor = splat(builder, arguments[1], mine[0].type)
        added = [
            fused_multiply_add(builder, factor, b, a) for a, b in zip(mine, theirs, strict=True)
        ]
        return context.make_tuple(builder, signature.return_type, added)

    return rows(rows, rows.dtype.real, rows), codegen


@intrinsic
def scaled(typingctx, factor, rows):
    """factor rows."""

    def codegen(context, builder, signature, arguments):
        mine = cgutils.unpack_tuple(builder, arguments[1])
        factor = splat(builder, arguments[0], mine[0].type)
        values = [builder.fmul(factor, value) for value in mine]
        return context.make_tuple(builder, signature.return_type, values)

    return rows(rows.dtype.real, rows), codegen


@intrinsic
def add_rows(typingctx, rows, others):
    """rows + others."""

    def codegen(context, builder, signature, arguments):
        mine = cgutils.unpack_tuple(builder, arguments[0])
        theirs = cgutils.unpack_tuple(builder, arguments[1])
        added = [builder.fadd(a, b) for a, b in zip(mine, theirs, strict=True)]
        return context.make_tuple(builder, signature.return_type, added)

    return rows(rows, rows), codegen


@intrinsic
def multiply_add(typingctx, a, b, c):
    """a b + c of single vectors."""

    def codegen(context, builder, signature, arguments):
        return fused_multiply_add(builder, *arguments)

    return c(a, b, c), codegen


@intrinsic
def load(typingctx, array, row, column):
    """The vector in row ``row`` of ``array`` (rows, columns) from ``column`` on."""
    lanes = Lanes(array.dtype)

    def codegen(context, builder, signature, arguments):
        kind = signature.args[0]
        address = row_address_at(context, builder, kind, *arguments)
        return load_vector(
            builder, address, context.get_value_type(lanes), kind.dtype.bitwidth // 8
        )

    return lanes(array, types.intp, types.intp), codegen


@intrinsic
def store(typingctx, array, row, column, value):
    """Write a vector into row ``row`` of ``array`` (rows, columns) from ``column`` on."""

    def codegen(context, builder, signature, arguments):
        kind = signature.args[0]
        address = row_address_at(context, builder, kind, *arguments[:3])
        target = as_vector(builder, address, arguments[3].type)
        builder.store(arguments[3], target, align=kind.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, value), codegen


@intrinsic
def no_rows(typingctx, array, like):
    """Zero in all rows 0 to d; ``array`` only tells the dtype."""
    lanes = Lanes(array.dtype)
    rows = types.UniTuple(lanes, 1 + like.count)

    def codegen(context, builder, signature, arguments):
        zero = ir.Constant(context.get_value_type(lanes), None)
        return context.make_tuple(builder, rows, [zero] * rows.count)

    return rows(array, like), codegen


@intrinsic
def add_squares(typingctx, sums, row, rows):
    """Add rows[0]^2 to the vector sums[row], and the squares of the other rows to sums[row + 1]."""

    def codegen(context, builder, signature, arguments):
        table, row, rows = arguments
        values = cgutils.unpack_tuple(builder, rows)
        for offset, part in enumerate((values[:1], values[1:])):
            target = builder.add(row, INDEX(offset))
            add_to(context, builder, signature.args[0], table, target, [(v, v) for v in part])
        return context.get_dummy_value()

    return types.void(sums, types.intp, rows), codegen


@intrinsic
def add_products(typingctx, sums, row, rows):
    """Add rows[0] rows[1 + j] to the vector sums[row + j], for j from 0 to d - 1."""

    def codegen(context, builder, signature, arguments):
        table, row, rows = arguments
        a, *weights = cgutils.unpack_tuple(builder, rows)
        for j, weight in enumerate(weights):
            target = builder.add(row, INDEX(j))
            add_to(context, builder, signature.args[0], table, target, [(a, weight)])
        return context.get_dummy_value()

    return types.void(sums, types.intp, rows), codegen


@intrinsic
def add_squared_difference(typingctx, sums, row, a, b):
    """Add (a - b)^2 to sums[row], one float64 a lane whatever the dtype of a and b."""

    def codegen(context, builder, signature, arguments):
        table, row, a, b = arguments
        wide = ir.VectorType(ir.DoubleType(), a.type.count)
        if a.type != wide:
            a, b = builder.fpext(a, wide), builder.fpext(b, wide)
        difference = builder.fsub(a, b)
        pair = [(difference, difference)]
        add_to(context, builder, signature.args[0], table, row, pair)
        return context.get_dummy_value()

    return types.void(sums, types.intp, a, b), codegen


@intrinsic
def total_of_lanes(typingctx, table, row):
    """Sum of the vector table[row] in float64: halves onto halves, until one number is left."""

    def codegen(context, builder, signature, arguments):
        kind = signature.args[0]
        source, row_ = arguments
        address = row_address_at(context, builder, kind, source, row_, INDEX(0))
        vector = context.get_value_type(Lanes(kind.dtype))
        total = load_vector(builder, address, vector, kind.dtype.bitwidth // 8)
        if isinstance(vector.element, ir.FloatType):
            total = builder.fpext(total, ir.VectorType(ir.DoubleType(), vector.count))
        return sum_of_lanes(builder, total)

    return types.float64(table, types.intp), codegen


@intrinsic
def positive_bits(typingctx, table, row, column):
    """Bits of which lanes of a vector in ``table`` (rows, columns) are positive, lane 0 lowest."""
    lanes = Lanes(table.dtype)

    def codegen(context, builder, signature, arguments):
        kind = signature.args[0]
        address = row_address_at(context, builder, kind, *arguments)
        vector = context.get_value_type(lanes)
        z = load_vector(builder, address, vector, kind.dtype.bitwidth // 8)
        active = builder.fcmp_ordered(">", z, ir.Constant(vector, None))
        return builder.zext(builder.bitcast(active, ir.IntType(lanes.width)), INDEX)

    return types.int64(table, types.intp, types.intp), codegen
