"""Products of a few samples with four rows of a large matrix, in vector registers.

Each vector of the matrix is loaded once for all samples of a group, and while it is multiplied
the line in its place in the next four rows is asked for: a row is too short for a processor to
find out by itself where the next ones are, and without that waits for memory take half the time.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .lane_code import (
    INDEX,
    Lanes,
    as_vector,
    fused_multiply_add,
    load_vector,
    row_address_at,
    splat,
    sum_of_lanes,
)
from .prefetch import prefetch

ROWS = 4
"""Rows that are taken at a time."""

# `group` is a tuple whose length tells the number of samples.


def _rows(context: Any, builder: Any, kind: Any, array: Any, first: Any, count: int) -> list[Any]:
    """Addresses of the beginnings of some rows."""
    return [
        row_address_at(context, builder, kind, array, builder.add(first, INDEX(r)), INDEX(0))
        for r in range(count)
    ]


def _load_and_ask(
    builder: Any, rows: list[Any], following: list[Any], column: Any, vector: Any, itemsize: int
) -> list[Any]:
    """Vectors of the rows from a column on, and a request for those of the following rows."""
    for row in following:
        prefetch(builder, builder.gep(row, [column]), False)
    return [load_vector(builder, builder.gep(row, [column]), vector, itemsize) for row in rows]


@intrinsic
def add_rows_times(typingctx, signal, i, weights, row, first, vectors, out, group):
    """Add signal[i + s, row + r] weights[row + r] to out[i + s], for all r and all samples s.

    Over columns from ``first`` on, so many ``vectors`` of them. Rows ask for those that follow.
    """
    lanes = Lanes(weights.dtype)

    def codegen(context, builder, signature, arguments):
        signal, i, weights, row, first, vectors, out, _ = arguments
        of_signal, of_weights, of_out = (signature.args[k] for k in (0, 2, 6))
        vector, itemsize = context.get_value_type(lanes), of_weights.dtype.bitwidth // 8
        rows = _rows(context, builder, of_weights, weights, row, 2 * ROWS)
        numbers = []
        for sample in _rows(context, builder, of_signal, signal, i, group.count):
            places = [builder.gep(sample, [builder.add(row, INDEX(r))]) for r in range(ROWS)]
            numbers.append([splat(builder, builder.load(place), vector) for place in places])
        targets = _rows(context, builder, of_out, out, i, group.count)
        with cgutils.for_range(builder, vectors, intp=INDEX) as loop:
            column = builder.add(first, builder.mul(loop.index, INDEX(lanes.width)))
            loaded = _load_and_ask(builder, rows[:ROWS], rows[ROWS:], column, vector, itemsize)
            for target, factors in zip(targets, numbers, strict=True):
                place = as_vector(builder, builder.gep(target, [column]), vector)
                total = builder.load(place, align=itemsize)
                for factor, values in zip(factors, loaded, strict=True):
                    total = fused_multiply_add(builder, factor, values, total)
                builder.store(total, place, align=itemsize)
        return context.get_dummy_value()

    index = types.intp
    return types.void(signal, index, weights, index, index, index, out, group), codegen


@intrinsic
def pull_rows(typingctx, back, i, weights, row, vectors, out, group):
    """Write sum_k back[i + s, k] weights[row + r, k] into out[i + s, row + r], for all r and s.

    Over so many ``vectors`` of columns from 0 on; each lane has its own sum, and those of the lanes
    are added up halves onto halves. Rows ask for those that follow.
    """
    lanes = Lanes(weights.dtype)

    def codegen(context, builder, signature, arguments):
        back, i, weights, row, vectors, out, _ = arguments
        of_back, of_weights, of_out = (signature.args[k] for k in (0, 2, 5))
        vector, itemsize = context.get_value_type(lanes), of_weights.dtype.bitwidth // 8
        rows = _rows(context, builder, of_weights, weights, row, 2 * ROWS)
        samples = _rows(context, builder, of_back, back, i, group.count)
        places = [cgutils.alloca_once(builder, vector) for _ in range(group.count * ROWS)]
        for place in places:
            builder.store(ir.Constant(vector, None), place)
        with cgutils.for_range(builder, vectors, intp=INDEX) as loop:
            column = builder.mul(loop.index, INDEX(lanes.width))
            loaded = _load_and_ask(builder, rows[:ROWS], rows[ROWS:], column, vector, itemsize)
            for s, sample in enumerate(samples):
                own = load_vector(builder, builder.gep(sample, [column]), vector, itemsize)
                for r, values in enumerate(loaded):
                    place = places[s * ROWS + r]
                    total = fused_multiply_add(builder, own, values, builder.load(place))
                    builder.store(total, place)
        for s, target in enumerate(_rows(context, builder, of_out, out, i, group.count)):
            for r in range(ROWS):
                total = sum_of_lanes(builder, builder.load(places[s * ROWS + r]))
                builder.store(total, builder.gep(target, [builder.add(row, INDEX(r))]))
        return context.get_dummy_value()

    index = types.intp
    return types.void(back, index, weights, index, index, out, group), codegen
