"""Combinations of slopes for some columns of a row, in vector registers.

A panel's columns of a row are a tuple of `flowsim.kernels.cpu.tiles.PANEL_VECTORS` vectors. The
arrays are those of `flowsim.kernels.cpu.flat`: a state is (1, parameters), and slopes are
(k, parameters).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .lane_code import (
    INDEX,
    Lanes,
    add_to,
    as_vector,
    load_vector,
    row_address_at,
    splat,
)
from .streams import stream_to
from .tiles import PANEL_VECTORS


def _vectors(context: Any, builder: Any, kind: Any, array: Any, row: Any, at: Any) -> list[Any]:
    """Vectors of a panel in a row of an array, from column ``at`` on."""
    vector = context.get_value_type(Lanes(kind.dtype))
    address = row_address_at(context, builder, kind, array, row, at)
    return [
        load_vector(
            builder,
            builder.gep(address, [INDEX(v * vector.count)]),
            vector,
            kind.dtype.bitwidth // 8,
        )
        for v in range(PANEL_VECTORS)
    ]


def _increment(
    context: Any,
    builder: Any,
    signature: Any,
    arguments: Any,
    wide: Callable[[list[Any]], list[Any]],
) -> list[Any]:
    """sum_j weights[j] slopes[j], and last weights[count] own; products are rounded by themselves.

    The arguments begin with slopes, count, weights, own, at. ``wide`` makes vectors of those of the
    slopes; the weights are numbers of what it makes.
    """
    slopes, count, weights, own, at = arguments[:5]
    kind = signature.args[0]
    numbers = context.make_array(signature.args[2])(context, builder, weights).data
    last = wide(cgutils.unpack_tuple(builder, own))
    places = [cgutils.alloca_once(builder, value.type) for value in last]
    for place, value in zip(places, last, strict=True):
        builder.store(ir.Constant(value.type, None), place)

    def add(j, values):
        number = splat(builder, builder.load(builder.gep(numbers, [j])), values[0].type)
        for place, value in zip(places, values, strict=True):
            product = builder.fmul(number, value)
            builder.store(builder.fadd(builder.load(place), product), place)

    with cgutils.for_range(builder, count, intp=INDEX) as loop:
        add(loop.index, wide(_vectors(context, builder, kind, slopes, loop.index, at)))
    add(count, last)
    return [builder.load(place) for place in places]


@intrinsic
def load_panel(typingctx, array, row, at):
    """A panel's columns of a row of ``array`` (rows, columns), from column ``at`` on."""
    panel = types.UniTuple(Lanes(array.dtype), PANEL_VECTORS)

    def codegen(context, builder, signature, arguments):
        values = _vectors(context, builder, signature.args[0], *arguments)
        return context.make_tuple(builder, panel, values)

    return panel(array, types.intp, types.intp), codegen


@intrinsic
def put_panel(typingctx, array, at, panel, past):
    """Write a panel's columns into ``array`` (1, columns), with ``past`` past the caches.

    A `flowsim.kernels.cpu.streams.fence` has to follow then.
    """

    def codegen(context, builder, signature, arguments):
        array, at, panel, past = arguments
        kind = signature.args[0]
        address = row_address_at(context, builder, kind, array, INDEX(0), at)
        values = cgutils.unpack_tuple(builder, panel)
        places = [
            builder.gep(address, [INDEX(v * values[0].type.count)]) for v in range(len(values))
        ]
        with builder.if_else(past) as (then, otherwise):
            with then:
                for value, place in zip(values, places, strict=True):
                    stream_to(builder, value, place)
            with otherwise:
                for value, place in zip(values, places, strict=True):
                    target = as_vector(builder, place, value.type)
                    builder.store(value, target, align=kind.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, panel, types.boolean), codegen


@intrinsic
def combined(typingctx, slopes, count, weights, own, at, base):
    """base + (sum_j weights[j] slopes[j] + weights[count] own), with the bits of `flat.combine`.

    j runs from 0 to count - 1; ``own`` and what is returned are a panel's columns from ``at`` on.
    """

    def codegen(context, builder, signature, arguments):
        increment = _increment(context, builder, signature, arguments, lambda values: values)
        origin = _vectors(context, builder, signature.args[5], arguments[5], INDEX(0), arguments[4])
        new = [builder.fadd(a, b) for a, b in zip(origin, increment, strict=True)]
        return context.make_tuple(builder, signature.return_type, new)

    return own(slopes, types.intp, weights, own, types.intp, base), codegen


@intrinsic
def combined_error(typingctx, slopes, count, weights, own, at, base, squares):
    """base - (sum_j weights[j] slopes[j] + weights[count] own), the sum in float64.

    As `combined`. Adds the squares of the sum to ``squares`` (PANEL_VECTORS, lanes), a float64 for
    each column.
    """

    def codegen(context, builder, signature, arguments):
        at, base, squares = arguments[4:]
        narrow = context.get_value_type(own.dtype)
        double = ir.VectorType(ir.DoubleType(), narrow.count)

        def wide(values):
            if narrow == double:
                return values
            return [builder.fpext(value, double) for value in values]

        increment = _increment(context, builder, signature, arguments, wide)
        for v, value in enumerate(increment):
            add_to(context, builder, signature.args[6], squares, INDEX(v), [(value, value)])
        origin = wide(_vectors(context, builder, signature.args[5], base, INDEX(0), at))
        new = [builder.fsub(a, b) for a, b in zip(origin, increment, strict=True)]
        if narrow != double:
            new = [builder.fptrunc(value, narrow) for value in new]
        return context.make_tuple(builder, signature.return_type, new)

    return own(slopes, types.intp, weights, own, types.intp, base, squares), codegen
