"""What a pickle of NumPy arrays refers to, replaced by functions that believe nothing.

NumPy's own functions for unpickling are never called: given hostile states they allocate what they
are told to, or do worse. Here no array comes into being before its shape has been found to fit its
bytes, and it is made of these very bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowsim.data.checks import MAX_VALUES

_DTYPE = re.compile(r"[<>=|]?(b1|i[1248]|u[1248]|f[248])")
"""Numbers and booleans; no objects, no text, no records."""


class PickleRefusedError(ValueError):
    """A pickle that is damaged or holds what is not read; the text says what."""


@dataclass(eq=False)
class PickledArray:
    """A NumPy array on its way out of a pickle.

    Attributes
    ----------
    values : array or None
        None until its contents have come.
    """

    values: np.ndarray | None = None


@dataclass(eq=False)
class Dtype:
    """A type of numbers, its byte order still to come.

    Attributes
    ----------
    name, order : str
        As NumPy has them, ``"u1"`` and ``"<"``.
    """

    name: str
    order: str = "="

    def numpy(self) -> np.dtype:
        """Return the type as NumPy's."""
        return np.dtype(f"{self.order}{self.name}")


@dataclass(frozen=True)
class Name:
    """A name that a pickle refers to: no object, only a key of `CALLS`.

    Attributes
    ----------
    name : str
    """

    name: str


def _new_array(kind: Any, shape: Any, code: Any) -> PickledArray:
    """``numpy.core.multiarray._reconstruct``: an empty array, to be filled."""
    if kind != Name("numpy.ndarray") or shape != (0,) or code not in ("b", b"b"):
        raise PickleRefusedError("makes an array in an unknown way")
    return PickledArray()


def _new_dtype(name: Any, align: Any = False, copy: Any = True) -> Dtype:
    """``numpy.dtype``."""
    text = _text(name)
    if not _DTYPE.fullmatch(text):
        shown = "".join(c if c.isprintable() else "?" for c in text[:20])
        raise PickleRefusedError(f"has an array of {shown!r}, not of real numbers")
    return Dtype(text.lstrip("<>=|"), text[0] if text[0] in "<>" else "=")


def set_order(
    dtype: Dtype,
    version: Any,
    order: Any,
    subdtype: Any,
    names: Any,
    fields: Any,
    size: Any,
    alignment: Any,
    flags: Any = 0,
) -> None:
    """Carry out ``numpy.dtype.__setstate__``, of which only the byte order matters for numbers."""
    if _text(order) not in ("<", ">", "=", "|") or (subdtype, names, fields) != (None,) * 3:
        raise PickleRefusedError("has an array of records, not of real numbers")
    dtype.order = _text(order)


def fill(
    array: PickledArray, version: Any, shape: Any, dtype: Any, fortran: Any, content: Any
) -> None:
    """Carry out ``numpy.ndarray.__setstate__``."""
    array.values = _array(content, dtype, shape, "F" if fortran is True else "C")


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> PickledArray:
    """``numpy.core.numeric._frombuffer``, which protocol 5 uses."""
    return PickledArray(_array(content, dtype, shape, _text(order)))


def _array(content: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """Make an array of bytes that its shape fits."""
    sound = (
        type(content) in (bytes, bytearray)
        and type(dtype) is Dtype
        and type(shape) is tuple
        and len(shape) <= 8
        and all(type(length) is int and 0 <= length <= MAX_VALUES for length in shape)
        and order in ("C", "F")
    )
    if not sound:
        raise PickleRefusedError("has an array whose description is damaged")
    numbers = dtype.numpy()
    if math.prod(shape) * numbers.itemsize != len(content):
        raise PickleRefusedError(
            f"declares an array of {math.prod(shape)} numbers with {len(content)} bytes"
        )
    return np.frombuffer(content, numbers).reshape(shape, order=order)  # type: ignore[call-overload]


def _encode(text: Any, encoding: Any) -> bytes:
    """``_codecs.encode``, of bytes that were written as text."""
    if type(text) is not str or type(encoding) is not str or encoding != "latin1":
        raise PickleRefusedError("encodes what are no bytes")
    return text.encode("latin1")


def _text(value: Any) -> str:
    """A short text, of either Python; empty if it is none."""
    if type(value) not in (str, bytes) or len(value) > 20:
        return ""
    return value.decode("latin1") if type(value) is bytes else str(value)


def _uncalled(*arguments: Any) -> Any:
    raise PickleRefusedError("makes an array in an unknown way")


CALLS: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": _uncalled,
    "numpy.dtype": _new_dtype,
    # How Python 3 writes bytes in the protocols of Python 2.
    "_codecs.encode": _encode,
    "__builtin__.bytes": lambda: b"",
    # NumPy 1 and 2 have these two in different places.
    "numpy.core.multiarray._reconstruct": _new_array,
    "numpy._core.multiarray._reconstruct": _new_array,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
}
"""Every name that a pickle may refer to, and what is called in its place."""
