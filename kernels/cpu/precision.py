"""Functions of one float compiled in the precision of their argument.

To Numba a Python float is a float64, and ``0.5 * z`` with it, whatever z is: a function of float32
would work in float64, at half the vector lanes. NumPy takes such constants in the precision of
the array. `in_own_precision` makes Numba do the same: what it compiles is a copy of the function
whose constants have the type of the argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import CellType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

INLINE = {"forceinline": True, "fastmath": False, "error_model": "numpy"}
"""How functions of one float are compiled. Inlined, for a loop with a call in it has no vector
lanes. Without ``fastmath``, which would undo compensated sums, estimate reciprocals in vectors but
not one by one, and so round an element by its place in the loop."""


class Constant(NamedTuple):
    """A number that depends on the precision; functions use it as if it were that number."""

    double: float
    single: float


def in_own_precision(function: Callable, instead: Mapping[Any, Any] | None = None) -> None:
    """Let Numba compile a function of one float in the precision of its first argument.

    Its constants, and the floats and `Constant` among its globals and closure, take that type.

    Parameters
    ----------
    function : callable
        A function written in Python.
    instead : mapping, optional
        What to put in the place of NumPy's functions, such as ``{np.exp: exp}``, by whatever name
        it refers to them. Other code that Numba compiles keeps NumPy's.
    """

    # The function itself and no copy is what callers refer to, and Numba's cache on disk knows.
    @overload(function, strict=False, jit_options=INLINE)
    def implementation(*arguments):
        first = arguments[0]
        if not isinstance(first, types.Float):
            return function
        return _copy(function, np.float32 if first.bitwidth == 32 else np.float64, instead or {})


def _copy(function: Callable, real: type, instead: Mapping[Any, Any]) -> FunctionType:
    """A copy of a function with other constants."""
    assert isinstance(function, FunctionType)
    numpy = ModuleType("numpy")
    numpy.__dict__.update(vars(np))
    for old, new in instead.items():
        setattr(numpy, old.__name__, new)
    replaced: dict[int, Any] = {id(old): new for old, new in instead.items()}
    replaced[id(np)] = numpy

    def fitting(value):
        if isinstance(value, Constant):
            return real(value.single if real is np.float32 else value.double)
        if type(value) is float:
            return real(value)
        return replaced.get(id(value), value)

    code = function.__code__
    cells = function.__closure__
    return FunctionType(
        code.replace(co_consts=tuple(map(fitting, code.co_consts))),
        {name: fitting(value) for name, value in function.__globals__.items()},
        function.__name__,
        function.__defaults__ and tuple(map(fitting, function.__defaults__)),
        cells and tuple(CellType(fitting(cell.cell_contents)) for cell in cells),
    )
