"""Arithmetic with vectors of neurons, written like arithmetic with numbers.

With this module loaded ``+``, ``-`` and ``*`` take `Lanes`, and numbers beside them, so that one
formula serves a neuron by itself and a vector of them. Products and sums may be fused. What holds
in which lane is the bits of an integer, lane 0 lowest: they can be counted, and combined with
``&`` and ``|``.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from .lane_code import INDEX, Lanes, as_vector, row_address_at, splat

_FUSED = ("contract",)


def _vectors(context: Any, builder: Any, signature: Any, values: Any) -> list[Any]:
    """The operands as vectors, numbers in all lanes."""
    lanes = next(kind for kind in signature.args if isinstance(kind, Lanes))
    vector = context.get_value_type(lanes)
    return [
        value if isinstance(kind, Lanes) else splat(builder, value, vector)
        for kind, value in zip(signature.args, values, strict=True)
    ]


def _operands(a: Any, b: Any) -> tuple[Any, ...]:
    """Types that two operands are taken as; none if neither is a vector."""
    if not (isinstance(a, Lanes) or isinstance(b, Lanes)):
        return ()
    lanes = a if isinstance(a, Lanes) else b
    return tuple(kind if isinstance(kind, Lanes) else lanes.real for kind in (a, b))


def _offer(symbol: Any, instruction: str) -> None:
    """Let Numba compile ``symbol`` for vectors."""

    @intrinsic
    def compute(typingctx, a, b):
        kinds = _operands(a, b)

        def codegen(context, builder, signature, arguments):
            pair = _vectors(context, builder, signature, arguments)
            return getattr(builder, instruction)(*pair, flags=_FUSED)

        lanes = a if isinstance(a, Lanes) else b
        return lanes(*kinds), codegen

    @overload(symbol)
    def offered(a, b):
        if not _operands(a, b):
            return None
        return lambda a, b: compute(a, b)


for _symbol, _instruction in (
    (operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"),
):  # fmt: skip
    _offer(_symbol, _instruction)


def _comparison(sign: str) -> Any:
    @intrinsic
    def compare(typingctx, a, b):
        kinds = _operands(a, b)

        def codegen(context, builder, signature, arguments):
            pair = _vectors(context, builder, signature, arguments)
            holds = builder.fcmp_ordered(sign, *pair)
            return builder.zext(builder.bitcast(holds, ir.IntType(holds.type.count)), INDEX)

        return types.int64(*kinds), codegen

    return compare


lanes_below = _comparison("<")
"""lanes_below(a, b): bits of the lanes in which a < b."""

lanes_equal = _comparison("==")
"""lanes_equal(a, b): bits of the lanes in which a == b."""


@intrinsic
def where_lanes(typingctx, bits, yes, no):
    """``yes`` in the lanes of these bits, ``no`` in the others."""

    def codegen(context, builder, signature, arguments):
        bits = arguments[0]
        yes, no = _vectors(context, builder, signature.return_type(*signature.args[1:]),
                           arguments[1:])  # fmt: skip
        count = yes.type.count
        chosen = builder.bitcast(builder.trunc(bits, ir.IntType(count)), _mask(count))
        return builder.select(chosen, yes, no)

    lanes = yes if isinstance(yes, Lanes) else no
    return lanes(types.int64, *_operands(yes, no)), codegen


def _mask(count: int) -> Any:
    return ir.VectorType(ir.IntType(1), count)


@intrinsic
def load_signs(typingctx, signs, row, column, like):
    """Eight-bit integers of ``signs`` (rows, columns) as a vector like ``like``."""

    def codegen(context, builder, signature, arguments):
        address = row_address_at(context, builder, signature.args[0], *arguments[:3])
        vector = arguments[3].type
        bytes_ = ir.VectorType(ir.IntType(8), vector.count)
        whole = builder.load(as_vector(builder, address, bytes_), align=1)
        return builder.sitofp(whole, vector)

    return like(signs, types.intp, types.intp, like), codegen


@intrinsic
def magnitude(typingctx, a):
    """|a|."""

    def codegen(context, builder, signature, arguments):
        kind = ir.FunctionType(arguments[0].type, [arguments[0].type])
        bits = 64 if isinstance(arguments[0].type.element, ir.DoubleType) else 32
        name = f"llvm.fabs.v{arguments[0].type.count}f{bits}"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(function, arguments)

    return a(a), codegen


@intrinsic
def copy_signs(typingctx, source, start, target, to, row, like):
    """Copy as many eight-bit integers of a row as ``like`` has lanes."""

    def codegen(context, builder, signature, arguments):
        source, start, target, to, row, like = arguments
        kind = ir.VectorType(ir.IntType(8), like.type.count)
        places = [
            as_vector(builder, row_address_at(context, builder, array, value, row, column), kind)
            for array, value, column in (
                (signature.args[0], source, start), (signature.args[2], target, to),
            )
        ]  # fmt: skip
        builder.store(builder.load(places[0], align=1), places[1], align=1)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp, types.intp, like), codegen
