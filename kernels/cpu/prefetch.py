"""Asking for numbers before their turn.

It changes nothing but when they arrive. A processor follows a few streams by itself, and a stage
of an embedded pair reads and writes up to thirty at once.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .lane_code import INDEX, row_address

_INTO_SECOND_LEVEL = 2
"""For the first level thirty rows ahead would be too much."""


def prefetch(builder: Any, address: Any, to_write: bool) -> None:
    """Ask for the cache line of an address; any will do, also one beyond an array."""
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, *[ir.IntType(32)] * 3])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    flags = [ir.IntType(32)(flag) for flag in (int(to_write), _INTO_SECOND_LEVEL, 1)]
    builder.call(function, [builder.bitcast(address, byte), *flags])


def _prefetch_rows(context: Any, builder: Any, signature: Any, arguments: Any, write: bool) -> Any:
    kind, like = signature.args[0], signature.args[2]
    for row in range(1 + like.count):
        address = row_address(context, builder, kind, arguments[0], row, arguments[1])
        prefetch(builder, address, write)
    return context.get_dummy_value()


@intrinsic
def prefetch_rows(typingctx, array, column, like):
    """Ask for rows 0 to d of ``array`` (rows, neurons) from ``column`` on, to be read."""

    def codegen(context, builder, signature, arguments):
        return _prefetch_rows(context, builder, signature, arguments, False)

    return types.void(array, types.intp, like), codegen


@intrinsic
def prefetch_target(typingctx, array, column, like):
    """`prefetch_rows` of what will be written."""

    def codegen(context, builder, signature, arguments):
        return _prefetch_rows(context, builder, signature, arguments, True)

    return types.void(array, types.intp, like), codegen


@intrinsic
def prefetch_slope(typingctx, slopes, j, column, like):
    """`prefetch_rows` of ``slopes[j]``, of (slopes, rows, neurons)."""

    def codegen(context, builder, signature, arguments):
        kind, like = signature.args[0], signature.args[3]
        stack, j, column, _ = arguments
        whole = context.make_array(kind)(context, builder, stack)
        _, height, length = cgutils.unpack_tuple(builder, whole.shape)
        first = builder.mul(builder.mul(j, height), length)
        for row in range(1 + like.count):
            index = builder.add(builder.add(first, builder.mul(INDEX(row), length)), column)
            prefetch(builder, builder.gep(whole.data, [index]), False)
        return context.get_dummy_value()

    return types.void(slopes, types.intp, types.intp, like), codegen
