"""Words that several threads read and write in compiled code, and calls by address.

Every access is sequentially consistent: what a thread has written before it stores a word is seen
by whoever has loaded that word.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .lane_code import INDEX, row_address_at

_ORDER = "seq_cst"
_X86 = ("x86_64", "AMD64", "i386", "i686")


def _word(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return row_address_at(context, builder, signature.args[0], *arguments[:3])


@intrinsic
def load_word(typingctx, words, row, column):
    """``words[row, column]`` of an int64 array, as the last thread left it."""

    def codegen(context, builder, signature, arguments):
        return builder.load_atomic(_word(context, builder, signature, arguments), _ORDER, 8)

    return types.int64(words, types.intp, types.intp), codegen


@intrinsic
def store_word(typingctx, words, row, column, value):
    """Set ``words[row, column] = value``, after everything that was written before."""

    def codegen(context, builder, signature, arguments):
        address = _word(context, builder, signature, arguments)
        builder.store_atomic(arguments[3], address, _ORDER, 8)
        return context.get_dummy_value()

    return types.void(words, types.intp, types.intp, types.int64), codegen


@intrinsic
def add_to_word(typingctx, words, row, column, value):
    """Add ``value`` to ``words[row, column]``."""

    def codegen(context, builder, signature, arguments):
        address = _word(context, builder, signature, arguments)
        builder.atomic_rmw("add", address, arguments[3], _ORDER)
        return context.get_dummy_value()

    return types.void(words, types.intp, types.intp, types.int64), codegen


@intrinsic
def exchange_word(typingctx, words, row, column, expected, value):
    """Set ``words[row, column] = value`` if it is ``expected``; whether it was."""

    def codegen(context, builder, signature, arguments):
        address = _word(context, builder, signature, arguments)
        pair = builder.cmpxchg(address, arguments[3], arguments[4], _ORDER, _ORDER)
        return builder.extract_value(pair, 1)

    integer = types.int64
    return types.boolean(words, types.intp, types.intp, integer, integer), codegen


@intrinsic
def pause(typingctx):
    """Wait a few cycles, which leaves them to another thread of the same core."""

    def codegen(context, builder, signature, arguments):
        if platform.machine() in _X86:
            kind = ir.FunctionType(ir.VoidType(), [])
            name = "llvm.x86.sse2.pause"
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def call_address(typingctx, address):
    """Call a C function without arguments that returns an int."""

    def codegen(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


# A part of a loop is called by the address of a function part(first, last, frame) in Numba's own
# convention: it returns a code, and through a pointer what was raised.


@intrinsic
def part_of(typingctx, function, arguments):
    """Addresses of a function part(first, last, frame), and of the frame that belongs to it.

    It calls ``function(first, last, *arguments)``. The frame lies on the caller's stack and holds
    the arguments, without counting references: both are good until the caller returns.
    """
    index = types.intp
    called = function.get_call_type(typingctx, (index, index, *arguments.types), {})

    def codegen(context, builder, signature, values):
        compiled = function.dispatcher.overloads[called.args]
        context.active_code_library.add_linking_library(compiled.library)
        frame = cgutils.alloca_once_value(builder, values[1])
        kind = context.call_conv.get_function_type(types.void, (index, index, types.voidptr))
        name = context.mangler(f"part_of_{function.dispatcher.__name__}", ())
        part = ir.Function(builder.module, kind, builder.module.get_unique_name(name))
        part.linkage = "internal"
        inside = ir.IRBuilder(part.append_basic_block("entry"))
        # After the places of the result and of the exception.
        first, last, place = part.args[2:]
        held = inside.load(inside.bitcast(place, frame.type))
        parts = [
            context.cast(inside, value, given, taken)
            for value, given, taken in zip(
                cgutils.unpack_tuple(inside, held), arguments.types, called.args[2:], strict=True
            )
        ]
        status, _ = context.call_internal_no_propagate(
            inside, compiled.fndesc, called, [first, last, *parts]
        )
        with cgutils.if_unlikely(inside, status.is_error):
            context.call_conv.return_status_propagate(inside, status)
        context.call_conv.return_value(inside, context.get_dummy_value())
        addresses = [builder.ptrtoint(part, INDEX), builder.ptrtoint(frame, INDEX)]
        return context.make_tuple(builder, signature.return_type, addresses)

    return types.UniTuple(types.int64, 2)(function, arguments), codegen


@intrinsic
def call_part(typingctx, part, frame, first, last):
    """Call what `part_of` has made; its code (0 is success), and the address of what it raised."""
    index, integer = types.intp, types.int64

    def codegen(context, builder, signature, arguments):
        part, frame, first, last = arguments
        kinds = (index, index, types.voidptr)
        kind = context.call_conv.get_function_type(types.void, kinds)
        status, _ = context.call_conv.call_function(
            builder,
            builder.inttoptr(part, kind.as_pointer()),
            types.void,
            kinds,
            [first, last, builder.inttoptr(frame, cgutils.voidptr_t)],
        )
        code = builder.select(status.is_ok, INDEX(0), builder.sext(status.code, INDEX))
        raised = builder.ptrtoint(status.excinfoptr, INDEX)
        return context.make_tuple(builder, signature.return_type, [code, raised])

    return types.UniTuple(integer, 2)(integer, integer, index, index), codegen


@intrinsic
def raise_again(typingctx, code, raised):
    """Raise what `call_part` has returned, perhaps in another thread."""

    def codegen(context, builder, signature, arguments):
        kind = context.call_conv.get_function_type(types.void, signature.args)
        name = builder.module.get_unique_name("raise_again")
        failing = ir.Function(builder.module, kind, name)
        failing.linkage = "internal"
        inside = ir.IRBuilder(failing.append_basic_block("entry"))
        _, where, code, raised = failing.args
        inside.store(inside.inttoptr(raised, where.type.pointee), where)
        inside.ret(inside.trunc(code, kind.return_type))
        status, _ = context.call_conv.call_function(
            builder, failing, types.void, signature.args, arguments
        )
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen
