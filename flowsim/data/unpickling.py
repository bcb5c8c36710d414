"""An unpickler that makes NumPy arrays and plain containers, and nothing else.

Python's own unpickler calls what a file tells it to call, and believes the sizes that a file
declares. This one interprets the instructions itself, from a table: an instruction that is not in
the table is refused, and the few names that pickled arrays refer to stand for the functions of
`flowsim.data.pickled_arrays`. What an instruction costs is bounded by the bytes it consumes, and
their number is limited, so that references to one large object do no harm either.
"""

from __future__ import annotations

import io
import pickletools
import warnings
from collections.abc import Callable
from typing import Any

from flowsim.data.pickled_arrays import (
    CALLS,
    Dtype,
    Name,
    PickledArray,
    PickleRefusedError,
    fill,
    set_order,
)

_MAX_INSTRUCTIONS = 250_000
"""Most instructions that are carried out; a batch of CIFAR-10 has some 30,000."""

_MAX_KEY = 1000
"""Longest key of a dictionary, in characters: keys are compared again and again."""


_MARK = object()


def unpickle(content: bytes) -> Any:
    """Read a pickle of numbers, text, lists, tuples, dictionaries and NumPy arrays.

    Parameters
    ----------
    content : bytes
        Protocol 1 to 5, of Python 2 or 3; the text of Python 2 comes as bytes.

    Returns
    -------
    object
        Arrays are `PickledArray`, wherever they are.

    Raises
    ------
    PickleRefusedError
        If it holds anything else, or is damaged.
    """
    try:
        with warnings.catch_warnings():
            # Text with a backslash where no pickle has one.
            warnings.simplefilter("error")
            return _carry_out(content)
    except PickleRefusedError:
        raise
    # Damaged instructions: too few operands, arguments that end too early, text that is none.
    except (ValueError, LookupError, TypeError, OverflowError, AttributeError, Warning) as error:
        raise PickleRefusedError(f"is damaged ({type(error).__name__})") from error


def _carry_out(content: bytes) -> Any:
    machine = _Machine(len(content))
    # Of a file object every argument would be read with the length it claims to have; what is
    # read from memory is never longer than what there is.
    for count, (opcode, argument, _) in enumerate(pickletools.genops(io.BytesIO(content))):
        if opcode.name == "STOP":
            return machine.result()
        if count == _MAX_INSTRUCTIONS:
            raise PickleRefusedError(f"has more than {_MAX_INSTRUCTIONS} instructions")
        machine.carry_out(opcode.name, argument)
    raise PickleRefusedError("is damaged (it has no end)")


class _Machine:
    """Stack and memo of the instructions of a pickle.

    Every instruction adds at most one reference to the stack, so that the stack, and with it the
    containers made of it, cannot outgrow the file.
    """

    def __init__(self, size: int) -> None:
        self._stack: list[Any] = []
        self._to_encode = size
        # A dictionary: the list of Python's own unpickler is as long as the file says.
        self._memo: dict[int, Any] = {}

    def result(self) -> Any:
        """What is left at the end."""
        if len(self._stack) != 1 or self._stack[0] is _MARK:
            raise PickleRefusedError("is damaged (it does not end with one object)")
        return self._stack[0]

    def carry_out(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _VALUES:
            self._stack.append(argument)
        elif name in _TEXT_OF_PYTHON_2:
            self._stack.append(argument.encode("latin1"))
        elif name not in _IGNORED:
            instruction = _INSTRUCTIONS.get(name)
            if instruction is None:
                raise PickleRefusedError(
                    f"has an instruction ({name}) that no array or plain container needs"
                )
            instruction(self, argument)

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise PickleRefusedError("is damaged (a mark where a value should be)")
        return value

    def _since_mark(self) -> list[Any]:
        values: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def mark(self, argument: Any) -> None:
        self._stack.append(_MARK)

    def pop(self, argument: Any) -> None:
        self._stack.pop()

    def pop_mark(self, argument: Any) -> None:
        self._since_mark()

    def duplicate(self, argument: Any) -> None:
        self._stack.append(self._stack[-1])

    def put(self, argument: int) -> None:
        self._memo[argument] = self._stack[-1]

    def memoize(self, argument: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def get(self, argument: int) -> None:
        self._stack.append(self._memo[argument])

    def tuple_of_marked(self, argument: Any) -> None:
        self._stack.append(tuple(self._since_mark()))

    def short_tuple(self, length: int) -> None:
        values = [self._pop() for _ in range(length)]
        self._stack.append(tuple(values[::-1]))

    def empty_list(self, argument: Any) -> None:
        self._stack.append([])

    def list_of_marked(self, argument: Any) -> None:
        self._stack.append(self._since_mark())

    def append(self, argument: Any) -> None:
        self._extend([self._pop()])

    def appends(self, argument: Any) -> None:
        self._extend(self._since_mark())

    def _extend(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise PickleRefusedError("appends to what is no list")
        target.extend(values)

    def empty_dictionary(self, argument: Any) -> None:
        self._stack.append({})

    def dictionary_of_marked(self, argument: Any) -> None:
        values = self._since_mark()
        self._stack.append({})
        self._set(values)

    def set_item(self, argument: Any) -> None:
        value, key = self._pop(), self._pop()
        self._set([key, value])

    def set_items(self, argument: Any) -> None:
        self._set(self._since_mark())

    def _set(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict:
            raise PickleRefusedError("sets items of what is no dictionary")
        if len(values) % 2 or not all(map(_is_key, values[::2])):
            raise PickleRefusedError("has a dictionary whose keys are no short text or integers")
        target.update(zip(values[::2], values[1::2], strict=True))

    def name(self, argument: str) -> None:
        # What genops makes of the two lines of this instruction, a space in between.
        self._push_name(argument.replace(" ", ".", 1))

    def name_of_stack(self, argument: Any) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            raise PickleRefusedError("refers to a name that is no text")
        self._push_name(f"{module}.{name}")

    def _push_name(self, name: str) -> None:
        if name not in CALLS:
            shown = "".join(c if c.isprintable() else "?" for c in name[:80])
            raise PickleRefusedError(f"refers to {shown}, which no array or plain container needs")
        self._stack.append(Name(name))

    def call(self, argument: Any) -> None:
        arguments, function = self._pop(), self._pop()
        if type(function) is not Name or type(arguments) is not tuple:
            raise PickleRefusedError("calls what is no function that arrays need")
        result = CALLS[function.name](*arguments)
        if type(result) is bytes:  # a copy: the same text could be encoded over and over
            self._to_encode -= len(result)
            if self._to_encode < 0:
                raise PickleRefusedError("encodes more bytes than it has")
        self._stack.append(result)

    def build(self, argument: Any) -> None:
        state, target = self._pop(), self._stack[-1]
        if type(state) is tuple and type(target) is PickledArray and target.values is None:
            fill(target, *state)
        elif type(state) is tuple and type(target) is Dtype:
            set_order(target, *state)
        else:
            raise PickleRefusedError("sets the state of what is no fresh array")


def _is_key(value: Any) -> bool:
    """Whether a value is hashed and compared in no time; nested tuples take exponential time."""
    if type(value) is int:
        return value.bit_length() <= 64
    return type(value) in (str, bytes) and len(value) <= _MAX_KEY


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}

_VALUES = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    )
)
"""Instructions that push their argument."""

_TEXT_OF_PYTHON_2 = ("BINSTRING", "SHORT_BINSTRING")
"""Instructions that push bytes, of which pickletools makes text."""

_IGNORED = frozenset(("PROTO", "FRAME"))

_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.duplicate,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    "MEMOIZE": _Machine.memoize,
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "TUPLE": _Machine.tuple_of_marked,
    "TUPLE1": lambda machine, _: machine.short_tuple(1),
    "TUPLE2": lambda machine, _: machine.short_tuple(2),
    "TUPLE3": lambda machine, _: machine.short_tuple(3),
    "EMPTY_LIST": _Machine.empty_list,
    "LIST": _Machine.list_of_marked,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "EMPTY_DICT": _Machine.empty_dictionary,
    "DICT": _Machine.dictionary_of_marked,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_of_stack,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
}
