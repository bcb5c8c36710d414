"""Products of all pairs of a few samples, summed over neurons in registers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .lane_code import INDEX, Lanes, fused_multiply_add, inner_product, row_address_at, splat
from .signs import GROUP

PAIRS = GROUP * (GROUP + 1) // 2


@intrinsic
def no_pairs(typingctx, x):
    """A vector of zeros for each pair; ``x`` only tells the dtype."""
    lanes = Lanes(x.dtype)
    totals = types.UniTuple(lanes, PAIRS)

    def codegen(context, builder, signature, arguments):
        zero = ir.Constant(context.get_value_type(lanes), None)
        return context.make_tuple(builder, totals, [zero] * PAIRS)

    return totals(x), codegen


def _adder(signal: bool) -> Any:
    """Code that adds the products of the features of one layer."""

    def make(typingctx, points, rows, leak, totals):
        def codegen(context, builder, signature, arguments):
            points, (a, *weights) = (cgutils.unpack_tuple(builder, part) for part in arguments[:2])
            after = cgutils.unpack_tuple(builder, arguments[3])
            d, zero = len(weights), ir.Constant(a.type, None)
            features, place = [], 0
            for s in range(GROUP):
                pairs = list(zip(points[s * d : (s + 1) * d], weights, strict=True))
                z = inner_product(builder, pairs)
                value = a if signal else z
                other = builder.fmul(splat(builder, arguments[2], a.type), value)
                active = builder.fcmp_ordered(">", z, zero)
                features.append(builder.select(active, value, other))
                for feature in features:
                    after[place] = fused_multiply_add(builder, features[s], feature, after[place])
                    place += 1
            return context.make_tuple(builder, signature.return_type, after)

        return totals(points, rows, rows.dtype.real, totals), codegen

    return intrinsic(make)


add_values, add_signals = _adder(signal=False), _adder(signal=True)
"""Totals plus sigma(z_s) sigma(z_t), or a^2 sigma'(z_s) sigma'(z_t), of one vector of neurons
``rows``, for all pairs t <= s of a group of samples."""


@intrinsic
def store_pairs(typingctx, sums, first, totals):
    """Write the totals into every other vector of ``sums``, beginning with ``first``."""

    def codegen(context, builder, signature, arguments):
        kind = signature.args[0]
        for pair, total in enumerate(cgutils.unpack_tuple(builder, arguments[2])):
            row = builder.add(arguments[1], INDEX(2 * pair))
            address = row_address_at(context, builder, kind, arguments[0], row, INDEX(0))
            target = builder.bitcast(address, total.type.as_pointer())
            builder.store(total, target, align=kind.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(sums, types.intp, totals), codegen
