"""The type of a vector of neurons, and the pieces of code that its operations are made of.

See `flowsim.kernels.cpu.lanes` for what they are good for. Where the machine's registers are
shorter than 64 bytes LLVM takes several.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import models, register_model

LANE_BYTES = 64
"""Of one vector: the widest registers there are. Part of the results: bits depend on it."""

INDEX = ir.IntType(64)


class Lanes(types.Type):
    """Numba type of a vector of ``width`` numbers of type ``real``."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.width = 8 * LANE_BYTES // real.bitwidth
        super().__init__(name=f"Lanes({real})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        scalar = ir.DoubleType() if lanes.real.bitwidth == 64 else ir.FloatType()
        super().__init__(manager, lanes, ir.VectorType(scalar, lanes.width))


def row_address(context: Any, builder: Any, kind: Any, array: Any, row: int, column: Any) -> Any:
    """Address of ``array[row, column]`` of a C-contiguous array (rows, neurons)."""
    whole = context.make_array(kind)(context, builder, array)
    length = cgutils.unpack_tuple(builder, whole.shape)[1]
    index = builder.add(builder.mul(INDEX(row), length), column)
    return builder.gep(whole.data, [index])


def as_vector(builder: Any, address: Any, vector: Any) -> Any:
    """Read an address of numbers as one of vectors."""
    return builder.bitcast(address, vector.as_pointer())


def load_vector(builder: Any, address: Any, vector: Any, itemsize: int) -> Any:
    """Load a vector from an address of numbers, which need not be aligned to vectors."""
    return builder.load(as_vector(builder, address, vector), align=itemsize)


def splat(builder: Any, value: Any, vector: Any) -> Any:
    """Put one number into all lanes."""
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.IntType(32)(0))
    everywhere = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, nothing, everywhere)


@cache
def _fuses() -> bool:
    """Whether the processor multiplies and adds in one instruction."""
    features = llvmlite.binding.get_host_cpu_features()
    return bool(features.get("fma", True))  # only x86 lists it, and may lack it


def fused_multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c, in one instruction where the processor has it."""
    if not _fuses():
        return builder.fadd(builder.fmul(a, b), c)
    vector = a.type
    bits = 64 if isinstance(vector.element, ir.DoubleType) else 32
    name = f"llvm.fma.v{vector.count}f{bits}"
    kind = ir.FunctionType(vector, [vector] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


def sum_of_lanes(builder: Any, vector: Any) -> Any:
    """Sum of a vector's numbers: halves onto halves, until one number is left."""
    while vector.type.count > 1:
        half = vector.type.count // 2
        low, high = (
            builder.shuffle_vector(
                vector,
                ir.Constant(vector.type, ir.Undefined),
                ir.Constant(ir.VectorType(ir.IntType(32), half), list(range(at, at + half))),
            )
            for at in (0, half)
        )
        vector = builder.fadd(low, high)
    return builder.extract_element(vector, ir.IntType(32)(0))


def inner_product(builder: Any, pairs: list[tuple[Any, Any]]) -> Any:
    """Sum of the products of pairs."""
    total = builder.fmul(*pairs[0])
    for a, b in pairs[1:]:
        total = fused_multiply_add(builder, a, b, total)
    return total


def table_numbers(
    context: Any, builder: Any, kind: Any, table: Any, i: Any, count: int, vector: Any
) -> list[Any]:
    """Row i of a C-contiguous table (n, count), every number in all lanes."""
    data = context.make_array(kind)(context, builder, table).data
    first = builder.mul(i, INDEX(count))
    numbers = (
        builder.load(builder.gep(data, [builder.add(first, INDEX(j))])) for j in range(count)
    )
    return [splat(builder, number, vector) for number in numbers]


def row_address_at(context: Any, builder: Any, kind: Any, array: Any, row: Any, column: Any) -> Any:
    """Address of ``array[row, column]``, the row known only when the code runs."""
    whole = context.make_array(kind)(context, builder, array)
    length = cgutils.unpack_tuple(builder, whole.shape)[1]
    return builder.gep(whole.data, [builder.add(builder.mul(row, length), column)])


def add_to(
    context: Any, builder: Any, kind: Any, table: Any, row: Any, pairs: list[tuple[Any, Any]]
) -> None:
    """Add the products of the pairs to the vector in a row of a table."""
    address = row_address_at(context, builder, kind, table, row, INDEX(0))
    vector, itemsize = pairs[0][0].type, kind.dtype.bitwidth // 8
    total = load_vector(builder, address, vector, itemsize)
    for a, b in pairs:
        total = fused_multiply_add(builder, a, b, total)
    builder.store(total, as_vector(builder, address, vector), align=itemsize)
