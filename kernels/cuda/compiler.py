"""From the CUDA C++ sources of this folder, with macros, to kernels that can be launched.

A kernel is compiled for the macros that a problem needs, when it is needed: once a process, and
CuPy keeps the binary in its cache on disk.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from flowsim.errors import FlowsimError
from flowsim.kernels.activations import Activation

from .activations import activation_source

Macros = Mapping[str, object]

_TYPES = {"float64": "double", "float32": "float"}
_OPTIONS = ("--std=c++17",)


def real(dtype: np.dtype) -> str:
    """The C++ type of a dtype, for the macro ``REAL``."""
    return _TYPES[np.dtype(dtype).name]


def source(names: Sequence[str], activation: Activation | None = None) -> str:
    """``common.cu``, an activation, and the named files of this folder.

    Parameters
    ----------
    names : sequence of str
        Files without their ending.
    activation : Activation, optional
        For kernels that call ``activation(z, value, derivative)``.
    """
    parts = [_read("common")]
    if activation is not None:
        parts.append(activation_source(activation))
    return "\n".join([*parts, *map(_read, names)])


@cache
def _read(name: str) -> str:
    return (files(__package__) / f"{name}.cu").read_text(encoding="utf-8")


def options(macros: Macros) -> tuple[str, ...]:
    """Options of the compiler, for NVRTC by itself and through CuPy alike."""
    return (*_OPTIONS, *(f"-D{name}={_shown(value)}" for name, value in sorted(macros.items())))


def _shown(value: object) -> str:
    return str(int(value)) if isinstance(value, bool | np.bool_) else str(value)


_ALLOWED: dict[int, int] = {}
"""Bytes of dynamic shared memory that functions have been allowed, by their addresses."""


class Kernel:
    """A compiled kernel.

    Arguments of a launch are CuPy arrays and addresses (pointers), NumPy scalars (by value, of
    their own dtype), Python's integers (64 bit) and structures of `ctypes` (by value).

    Parameters
    ----------
    raw : cupy.RawKernel
    shared : int
        Bytes of dynamic shared memory a block that it is allowed.
    """

    def __init__(self, raw: Any, shared: int = 0) -> None:
        from cupy.cuda import driver

        self._raw, self._shared = raw, shared
        self._address, self._launch = raw.kernel.ptr, driver.launchKernel
        # More than 48 KiB, with what the code itself declares, have to be asked for. Kernels that
        # are compiled alike are one function: what that is allowed must not become less.
        if shared > _ALLOWED.get(self._address, 0):
            raw.max_dynamic_shared_size_bytes = _ALLOWED[self._address] = shared
            # All that the cache can lend, so that as many blocks as fit are at work.
            raw.preferred_shared_memory_carveout = 100
        self._refusal = driver.CUDADriverError

    def __call__(self, blocks: int | tuple[int, int], threads: int, *arguments: Any) -> None:
        """Launch it on the current stream.

        Parameters
        ----------
        blocks : int or pair of int
            Of the grid.
        threads : int
            A block.
        *arguments
            See the class.

        Raises
        ------
        FlowsimError
            If the driver refuses it.
        """
        import cupy

        values = [_argument(argument) for argument in arguments]
        places = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        x, y = blocks if isinstance(blocks, tuple) else (blocks, 1)
        stream = cupy.cuda.get_current_stream().ptr
        try:
            self._launch(
                self._address, x, y, 1, threads, 1, 1, self._shared, stream,
                ctypes.addressof(places), 0,
            )  # fmt: skip
        except self._refusal as error:
            own, size = self._raw.shared_size_bytes, sum(map(ctypes.sizeof, values))
            raise FlowsimError(
                f"the GPU refuses {self._raw.name} of ({x}, {y}) blocks of {threads} threads, with "
                f"{self._shared} + {own} bytes of shared memory and {size} bytes of parameters: "
                f"{error}"
            ) from error


def by_value(values: np.ndarray) -> Any:
    """An argument that is a structure of the array's numbers, one after the other."""
    return (ctypes.c_char * values.nbytes).from_buffer_copy(values.tobytes())


_SCALARS = {"d": ctypes.c_double, "f": ctypes.c_float, "i": ctypes.c_int32, "l": ctypes.c_int64}


def _argument(value: Any) -> Any:
    """As a `ctypes` object, whose address the driver is given."""
    if isinstance(value, ctypes.Structure | ctypes.Array):
        return value
    if isinstance(value, np.generic):
        return _SCALARS[value.dtype.char](value.item())
    if isinstance(value, int):
        return ctypes.c_int64(value)
    if value is None:
        return ctypes.c_void_p(None)
    return ctypes.c_void_p(value.data.ptr)


_KERNELS: dict[tuple[Any, ...], Kernel] = {}


def kernel(
    name: str,
    names: Sequence[str],
    macros: Macros,
    activation: Activation | None = None,
    shared: int = 0,
) -> Kernel:
    """A kernel for the present device, compiled if it has not been before.

    Parameters
    ----------
    name : str
        Of the function.
    names, activation
        See `source`.
    macros : mapping
        Names of macros to values.
    shared : int
        Bytes of dynamic shared memory a block.
    """
    import cupy

    key = (
        cupy.cuda.get_device_id(), name, tuple(names), tuple(macros.items()), activation, shared
    )  # fmt: skip
    if key not in _KERNELS:
        code, given = source(names, activation), options(macros)
        module = cupy.RawModule(code=code, options=given, backend="nvrtc")
        _KERNELS[key] = Kernel(module.get_function(name), shared)
    return _KERNELS[key]
