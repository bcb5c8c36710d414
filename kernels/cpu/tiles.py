"""Matrix products of a panel of neurons, in vector registers.

A *panel* is an array (rows, `PANEL_VECTORS` vectors of neurons), contiguous and small enough for
the cache. `tile` multiplies some rows of a constant matrix with a panel: the `TILE_ROWS` x
`PANEL_VECTORS` results stay in registers while the common index runs, so that every vector that
is loaded is used `TILE_ROWS` times and the processor does nothing but multiply and add. The matrix
lies in memory in the order in which it is read, see `packed`.

Every element is a sum in the order of the common index: its bits depend neither on the shape of
the tile nor on the other neurons.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numpy as np
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
    load_vector,
    row_address_at,
    splat,
)
from .prefetch import prefetch


def _tile_shape() -> tuple[int, int]:
    """Rows and vectors of a tile, whose sums fill most of the processor's registers.

    32 registers of a whole vector each hold 8 x 3 sums beside what is being multiplied; where
    there are shorter ones a vector takes two or more of them.
    """
    if llvmlite.binding.get_host_cpu_features().get("avx512f", False):
        return 8, 3
    return 6, 1


TILE_ROWS, PANEL_VECTORS = _tile_shape()

_AHEAD = 4
"""Tiles of a row between the one that is added and the one that is asked for."""

ODD = 6364136223846793005
"""Multiplier that mixes bits: its multiples differ in all of theirs."""


def panel_width(itemsize: int) -> int:
    """Neurons in a panel, for numbers of so many bytes."""
    return PANEL_VECTORS * LANE_BYTES // itemsize


def packed(matrix: np.ndarray) -> np.ndarray:
    """Order a matrix (rows, count) for `tile`: (groups of rows, count, rows of a group).

    Rows of zeros fill up the last group.
    """
    rows, count = matrix.shape
    groups = -(-rows // TILE_ROWS)
    filled = np.zeros((groups * TILE_ROWS, count), matrix.dtype)
    filled[:rows] = matrix
    return np.ascontiguousarray(filled.reshape(groups, TILE_ROWS, count).swapaxes(1, 2))


def _tile_sums(
    context: Any, builder: Any, signature: Any, arguments: Any, fetch: Callable[[Any], None]
) -> Any:
    """The code of `tile`, whose first four arguments are given; ``fetch`` adds that of step t."""
    kind, sums = signature.args[0], signature.return_type
    vector, lanes = context.get_value_type(sums.dtype), sums.dtype.width
    itemsize = kind.dtype.bitwidth // 8
    whole = context.make_array(kind)(context, builder, arguments[0])
    count = cgutils.unpack_tuple(builder, whole.shape)[1]
    offset = builder.mul(builder.mul(arguments[1], count), INDEX(TILE_ROWS))
    numbers = builder.gep(whole.data, [offset])
    neurons = row_address_at(
        context, builder, signature.args[2], arguments[2], arguments[3], INDEX(0)
    )
    places = [cgutils.alloca_once(builder, vector) for _ in range(sums.count)]
    for place in places:
        builder.store(ir.Constant(vector, None), place)
    with cgutils.for_range(builder, count, intp=INDEX) as loop:
        fetch(loop.index)
        here = builder.gep(neurons, [builder.mul(loop.index, INDEX(PANEL_VECTORS * lanes))])
        column = [
            load_vector(builder, builder.gep(here, [INDEX(v * lanes)]), vector, itemsize)
            for v in range(PANEL_VECTORS)
        ]
        row = builder.gep(numbers, [builder.mul(loop.index, INDEX(TILE_ROWS))])
        for r in range(TILE_ROWS):
            number = splat(builder, builder.load(builder.gep(row, [INDEX(r)])), vector)
            for v in range(PANEL_VECTORS):
                place = places[r * PANEL_VECTORS + v]
                total = fused_multiply_add(builder, number, column[v], builder.load(place))
                builder.store(total, place)
    return context.make_tuple(builder, sums, [builder.load(place) for place in places])


@intrinsic
def tile(
    typingctx, matrix, group, panel, first, read, read_at, read_by, written, to, by, slower
):  # fmt: skip
    """sum_t matrix[group, t, r] panel[first + t] for all r, as TILE_ROWS x PANEL_VECTORS vectors.

    The ``matrix`` is `packed`, (groups, count, TILE_ROWS); t runs from 0 to count - 1. On its way
    step t fetches into the cache what number ``read_at + s read_by`` of the array ``read`` is in,
    and what number ``to + s by`` of ``written`` is in, to be written; s = t >> slower.
    """
    sums = types.UniTuple(Lanes(matrix.dtype), TILE_ROWS * PANEL_VECTORS)

    def codegen(context, builder, signature, arguments):
        fetched = [
            (
                context.make_array(signature.args[k])(context, builder, arguments[k]).data,
                *arguments[k + 1 : k + 3],
            )
            for k in (4, 7)
        ]

        def fetch(t):
            step = builder.lshr(t, arguments[10])
            for write, (data, at, by) in enumerate(fetched):
                address = builder.gep(data, [builder.add(at, builder.mul(step, by))])
                prefetch(builder, address, bool(write))

        return _tile_sums(context, builder, signature, arguments, fetch)

    index = types.intp
    places = (index, panel, index, read, index, index, written, index, index, index)
    return sums(matrix, *places), codegen


@intrinsic
def tile_asking(typingctx, matrix, group, panel, first, addresses, shift):
    """`tile`, whose step t asks for what is ``shift`` bytes beyond ``addresses[t]``."""
    sums = types.UniTuple(Lanes(matrix.dtype), TILE_ROWS * PANEL_VECTORS)

    def codegen(context, builder, signature, arguments):
        table = context.make_array(signature.args[4])(context, builder, arguments[4]).data
        byte = ir.IntType(8).as_pointer()

        def fetch(t):
            address = builder.add(builder.load(builder.gep(table, [t])), arguments[5])
            prefetch(builder, builder.inttoptr(address, byte), False)

        return _tile_sums(context, builder, signature, arguments, fetch)

    index = types.intp
    return sums(matrix, index, panel, index, addresses, index), codegen


@intrinsic
def store_tile(typingctx, panel, row, sums):
    """Write what `tile` gives into a panel, from ``row`` on."""

    def codegen(context, builder, signature, arguments):
        kind = signature.args[0]
        values = cgutils.unpack_tuple(builder, arguments[2])
        address = row_address_at(context, builder, kind, arguments[0], arguments[1], INDEX(0))
        for place, value in enumerate(values):
            target = builder.gep(address, [INDEX(place * value.type.count)])
            target = as_vector(builder, target, value.type)
            builder.store(value, target, align=kind.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(panel, types.intp, sums), codegen


@intrinsic
def add_tile(typingctx, matrix, row, column, sums, out, row_out, squares):
    """Write matrix + sums into ``out``, from ``row_out`` on, and add up its squares.

    The tile is at (row, column) of the matrix and at (row_out, column) of ``out``; ``squares``
    (columns / 8, 8) has a float64 for each of its columns. What the matrix has some tiles
    further on is asked for.
    """

    def codegen(context, builder, signature, arguments):
        matrix, row, column, sums, out, row_out, squares = arguments
        of_matrix, of_out, of_squares = (signature.args[k] for k in (0, 4, 6))
        values = cgutils.unpack_tuple(builder, sums)
        vector, itemsize = values[0].type, of_matrix.dtype.bitwidth // 8
        wide = ir.VectorType(ir.DoubleType(), vector.count)
        own = as_vector(
            builder,
            row_address_at(context, builder, of_squares, squares, INDEX(0), INDEX(0)),
            wide,
        )
        # A sum for each vector of a row: one alone would wait for its last addition.
        places = [builder.gep(own, [INDEX(v)]) for v in range(PANEL_VECTORS)]
        totals = [builder.load(place, align=8) for place in places]
        for r in range(TILE_ROWS):
            source, target = (
                row_address_at(context, builder, kind, array, builder.add(at, INDEX(r)), column)
                for kind, array, at in ((of_matrix, matrix, row), (of_out, out, row_out))
            )
            for v in range(PANEL_VECTORS):
                place = INDEX(v * vector.count)
                ahead = INDEX((_AHEAD * PANEL_VECTORS + v) * vector.count)
                prefetch(builder, builder.gep(source, [ahead]), True)
                old = load_vector(builder, builder.gep(source, [place]), vector, itemsize)
                new = builder.fadd(old, values[r * PANEL_VECTORS + v])
                address = as_vector(builder, builder.gep(target, [place]), vector)
                builder.store(new, address, align=itemsize)
                if vector != wide:
                    new = builder.fpext(new, wide)
                totals[v] = fused_multiply_add(builder, new, new, totals[v])
        for total, place in zip(totals, places, strict=True):
            builder.store(total, place, align=8)
        return context.get_dummy_value()

    index = types.intp
    return types.void(matrix, index, index, sums, out, index, squares), codegen


@intrinsic
def spread(typingctx, number):
    """One number in all lanes."""
    lanes = Lanes(number)

    def codegen(context, builder, signature, arguments):
        return splat(builder, arguments[0], context.get_value_type(lanes))

    return lanes(number), codegen


@intrinsic
def where_bits(typingctx, bits, yes, no):
    """``yes`` in the lanes whose bit is set, ``no`` in the others; lane 0 has the lowest bit."""

    def codegen(context, builder, signature, arguments):
        bits, yes, no = arguments
        lanes = yes.type.count
        bits = builder.trunc(bits, ir.IntType(lanes))
        mask = builder.bitcast(bits, ir.VectorType(ir.IntType(1), lanes))
        return builder.select(mask, yes, no)

    return yes(types.int64, yes, no), codegen


@intrinsic
def add_wide_product(typingctx, sums, row, a, b):
    """Add a b to sums[row] and the rows after it, one float64 a lane whatever the dtype of a."""

    def codegen(context, builder, signature, arguments):
        table, row, a, b = arguments
        wide = ir.VectorType(ir.DoubleType(), a.type.count)
        if a.type != wide:
            a, b = builder.fpext(a, wide), builder.fpext(b, wide)
        add_to(context, builder, signature.args[0], table, row, [(a, b)])
        return context.get_dummy_value()

    return types.void(sums, types.intp, a, b), codegen


@intrinsic
def mix_bits(typingctx, panel, words):
    """Mix the rows of a panel from 1 on, 64-bit word by word, into words (PANEL_VECTORS, 8).

    With w the next row's word, h = (h ^ w) * odd, and then h ^= h >> 32. Any change of one w
    changes h. The shift is for changes of the highest bit: products keep them there, and a sum
    would not notice that two weights have changed their signs.
    """
    vector = ir.VectorType(ir.IntType(64), LANE_BYTES // 8)
    odd = ir.Constant(vector, [ODD] * vector.count)
    half = ir.Constant(vector, [32] * vector.count)

    def codegen(context, builder, signature, arguments):
        kind, target = signature.args
        whole = context.make_array(kind)(context, builder, arguments[0])
        rows = cgutils.unpack_tuple(builder, whole.shape)[0]
        itemsize = kind.dtype.bitwidth // 8
        places = [cgutils.alloca_once(builder, vector) for _ in range(PANEL_VECTORS)]
        for place in places:
            builder.store(ir.Constant(vector, None), place)
        with cgutils.for_range(builder, rows, start=INDEX(1), intp=INDEX) as loop:
            for v, place in enumerate(places):
                column = INDEX(v * LANE_BYTES // itemsize)
                address = row_address_at(context, builder, kind, arguments[0], loop.index, column)
                found = load_vector(builder, address, vector, itemsize)
                mixed = builder.mul(builder.xor(builder.load(place), found), odd)
                builder.store(builder.xor(mixed, builder.lshr(mixed, half)), place)
        for v, place in enumerate(places):
            address = row_address_at(context, builder, target, arguments[1], INDEX(v), INDEX(0))
            builder.store(builder.load(place), as_vector(builder, address, vector), align=8)
        return context.get_dummy_value()

    return types.void(panel, words), codegen
