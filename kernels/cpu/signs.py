"""Signs of preactivations, a bit a neuron and sample, and what passes do with them.

For a piecewise linear sigma a neuron's velocity needs of its preactivations only their signs, and
those are known from the pass that added up its outputs. Kept as bits they cost an eighth of a byte
where forming z_i again costs d operations. They belong to the state they were taken at: code that
keeps both side by side, as whole runs in compiled code do, saves half the arithmetic of a rate.

Samples come in groups of `GROUP`, whose inputs and sums stay in registers over all neurons of a
block; samples that are zero fill the last group up, are active nowhere and add nothing.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .lane_code import (
    INDEX,
    Lanes,
    fused_multiply_add,
    inner_product,
    row_address_at,
    table_numbers,
)

GROUP = 4
"""Samples in a group: with two or three inputs their numbers and sums fill half the registers."""


@intrinsic
def load_points(typingctx, x, first, like):
    """The inputs of the `GROUP` samples from ``first`` on of ``x`` (samples, d), in all lanes."""
    lanes = Lanes(x.dtype)
    points = types.UniTuple(lanes, GROUP * like.count)

    def codegen(context, builder, signature, arguments):
        kind, vector = signature.args[0], context.get_value_type(lanes)
        numbers = []
        for s in range(GROUP):
            row = builder.add(arguments[1], INDEX(s))
            numbers += table_numbers(context, builder, kind, arguments[0], row, like.count, vector)
        return context.make_tuple(builder, points, numbers)

    return points(x, types.intp, like), codegen


@intrinsic
def no_totals(typingctx, x):
    """`GROUP` vectors of zeros; ``x`` only tells the dtype."""
    lanes = Lanes(x.dtype)
    totals = types.UniTuple(lanes, GROUP)

    def codegen(context, builder, signature, arguments):
        zero = ir.Constant(context.get_value_type(lanes), None)
        return context.make_tuple(builder, totals, [zero] * GROUP)

    return totals(x), codegen


def _byte(context, builder, kind, signs, sample, column, lanes):
    """Address of the bits of a sample and the vector at ``column``, as an integer's."""
    place = builder.udiv(column, INDEX(8))
    address = row_address_at(context, builder, kind, signs, sample, place)
    return builder.bitcast(address, ir.IntType(lanes).as_pointer())


@intrinsic
def add_signed(typingctx, points, rows, totals, signs, first, column):
    """Totals plus a max(z_i, 0) of a group of samples, for one vector of neurons.

    ``signs`` (samples, neurons / 8) uint8 receives where z_i > 0, from row ``first`` and neuron
    ``column`` on.
    """

    def codegen(context, builder, signature, arguments):
        points, rows, totals = (cgutils.unpack_tuple(builder, one) for one in arguments[:3])
        signs, first, column = arguments[3:]
        a, *weights = rows
        d, zero = len(weights), ir.Constant(a.type, None)
        after = []
        for s in range(GROUP):
            pairs = list(zip(points[s * d : (s + 1) * d], weights, strict=True))
            z = inner_product(builder, pairs)
            active = builder.fcmp_ordered(">", z, zero)
            sample = builder.add(first, INDEX(s))
            count = a.type.count
            place = _byte(context, builder, signature.args[3], signs, sample, column, count)
            builder.store(builder.bitcast(active, ir.IntType(count)), place, align=1)
            positive = builder.select(builder.fcmp_ordered("<", z, zero), zero, z)
            after.append(fused_multiply_add(builder, a, positive, totals[s]))
        return context.make_tuple(builder, signature.return_type, after)

    return totals(points, rows, totals, signs, types.intp, types.intp), codegen


@intrinsic
def add_where_signed(typingctx, pull, signs, first, column, sums):
    """sums[j] plus the rows ``first`` to ``first + GROUP`` of ``pull`` where the signs say so."""

    def codegen(context, builder, signature, arguments):
        pull, signs, first, column, sums = arguments
        after = cgutils.unpack_tuple(builder, sums)
        vector = after[0].type
        for s in range(GROUP):
            sample = builder.add(first, INDEX(s))
            place = _byte(context, builder, signature.args[1], signs, sample, column, vector.count)
            bits = builder.load(place, align=1)
            active = builder.bitcast(bits, ir.VectorType(ir.IntType(1), vector.count))
            kind = signature.args[0]
            added = table_numbers(context, builder, kind, pull, sample, len(after), vector)
            after = [
                builder.select(active, builder.fadd(old, new), old)
                for old, new in zip(after, added, strict=True)
            ]
        return context.make_tuple(builder, signature.return_type, after)

    return sums(pull, signs, types.intp, types.intp, sums), codegen


@intrinsic
def store_totals(typingctx, sums, first, totals):
    """Write the totals of a group into the vectors ``sums[first]`` and those after it."""

    def codegen(context, builder, signature, arguments):
        kind = signature.args[0]
        for s, total in enumerate(cgutils.unpack_tuple(builder, arguments[2])):
            row = builder.add(arguments[1], INDEX(s))
            address = row_address_at(context, builder, kind, arguments[0], row, INDEX(0))
            target = builder.bitcast(address, total.type.as_pointer())
            builder.store(total, target, align=kind.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(sums, types.intp, totals), codegen
