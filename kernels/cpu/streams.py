"""Stores past the caches, of what is large and not read again soon.

An ordinary store first reads the lines of the cache that it is about to overwrite, and then drives
out others that may still be of use. A store of whole lines past the caches does neither: a pass
that waits for memory has one array less to wait for. What is stored does not depend on the way.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .lane_code import INDEX, LANE_BYTES, as_vector, row_address, row_address_at

LARGE = 8 << 20
"""Bytes of an array from which on it is stored past the caches."""


def empty_in_lines(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised C-contiguous array that begins with a line of the caches."""
    size = math.prod(shape) * dtype.itemsize
    room = np.empty(size + LANE_BYTES, np.uint8)
    first = -room.ctypes.data % LANE_BYTES
    return room[first : first + size].view(dtype).reshape(shape)


@intrinsic
def in_lines(typingctx, array):
    """Whether every row of ``array`` (rows, columns) begins with a line of the caches."""

    def codegen(context, builder, signature, arguments):
        kind = signature.args[0]
        whole = context.make_array(kind)(context, builder, arguments[0])
        length = cgutils.unpack_tuple(builder, whole.shape)[1]
        size = builder.mul(length, INDEX(kind.dtype.bitwidth // 8))
        # The length of a single row does not count.
        rows = cgutils.unpack_tuple(builder, whole.shape)[0]
        alone = builder.icmp_signed("<=", rows, INDEX(1))
        size = builder.select(alone, INDEX(0), size)
        beyond = builder.or_(builder.ptrtoint(whole.data, INDEX), size)
        beyond = builder.and_(beyond, INDEX(LANE_BYTES - 1))
        return builder.icmp_unsigned("==", beyond, INDEX(0))

    return types.boolean(array), codegen


@numba.njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def streamed(array):
    """Whether ``array`` (rows, columns) is to be stored past the caches, and can be."""
    return array.size * array.itemsize > LARGE and in_lines(array)


def stream_to(builder: Any, value: Any, address: Any) -> None:
    """Store a vector past the caches, at an address of numbers in its line."""
    target = as_vector(builder, address, value.type)
    hint = builder.module.add_metadata([ir.IntType(32)(1)])
    builder.store(value, target, align=LANE_BYTES).set_metadata("nontemporal", hint)


@intrinsic
def stream_rows(typingctx, array, column, rows):
    """`flowsim.kernels.cpu.lanes.store_rows` past the caches, of an array that is `streamed`.

    A `fence` has to follow before other threads read it.
    """

    def codegen(context, builder, signature, arguments):
        for row, value in enumerate(cgutils.unpack_tuple(builder, arguments[2])):
            address = row_address(
                context, builder, signature.args[0], arguments[0], row, arguments[1]
            )
            stream_to(builder, value, address)
        return context.get_dummy_value()

    return types.void(array, types.intp, rows), codegen


@intrinsic
def stream(typingctx, array, row, column, value):
    """`flowsim.kernels.cpu.lanes.store` past the caches, as `stream_rows`."""

    def codegen(context, builder, signature, arguments):
        address = row_address_at(context, builder, signature.args[0], *arguments[:3])
        stream_to(builder, arguments[3], address)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, value), codegen


@intrinsic
def fence(typingctx):
    """Finish all stores before anything that follows."""

    def codegen(context, builder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen
