"""Activations as compiled functions over a block of neurons, called by address.

The kernels take the address of a compiled activation as an ordinary integer. One indirect call
serves a whole block of neurons, so its price vanishes, and in return the kernels are compiled
once per dtype: neither a new activation nor a user's own recompiles them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.errors import NumbaError
from numba.extending import intrinsic, overload

from flowsim.kernels import activations
from flowsim.kernels.activations import Activation, ActivationError

from . import elementary
from .precision import INLINE, in_own_precision

FASTMATH = {"reassoc", "contract", "nsz", "arcp"}
"""Licence to reorder sums into vector lanes; NaN and infinity keep their meaning. Not for
activations: their loops have lanes without (`precision`)."""


@overload(activations.erf, jit_options=INLINE)
def _erf_overload(z):
    return lambda z: elementary.erf(z)


@overload(activations.where, jit_options=INLINE)
def _where_overload(condition, yes, no):
    # Numba's own np.where goes through arrays even for single floats.
    return lambda condition, yes, no: yes if condition else no


@dataclass(frozen=True)
class CompiledActivation:
    """Addresses of the block functions of one activation in one dtype.

    Attributes
    ----------
    value : int
        Of ``f(z, s, n, scale)``: s = sigma(scale z) / scale.
    both : int
        Of ``f(z, s, ds, n, scale)``: the same and ds = sigma'(scale z).
    keep : tuple
        The compiled objects; while they live, the addresses are valid.
    """

    value: int
    both: int
    keep: tuple


def _fingerprint(function) -> str:
    """Tell one function's code from another's, for Numba's cache on disk."""
    code = function.__code__
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    parts = (code.co_code, code.co_consts, code.co_names, cells, function.__defaults__)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@cache
def compile_activation(activation: Activation, dtype: np.dtype) -> CompiledActivation:
    """Compile an activation's block functions for a dtype (from the cache on disk if it can).

    Parameters
    ----------
    activation : Activation
    dtype : numpy.dtype
        float64 or float32.

    Raises
    ------
    ActivationError
        If the activation's functions do not compile for a single float.
    """
    with _explained(activation):
        return _compile(activation, dtype)


@cache
def compile_derivatives(activation: Activation, dtype: np.dtype) -> tuple[int, object]:
    """Compile ``f(z, s, ds, dds, n, scale)``, dds = scale sigma''(scale z), the derivative of ds.

    s and ds as in `CompiledActivation`, whose functions every run needs, and few runs this one.

    Returns
    -------
    int, object
        Its address, 0 if the activation has no second derivative; and what keeps it valid while it
        lives.

    Raises
    ------
    ActivationError
        If it does not compile for a single float.
    """
    if activation.second_derivative is None:
        return 0, None
    with _explained(activation):
        function = _compile_derivatives(activation, dtype)
    return function.address, function


@contextmanager
def _explained(activation: Activation) -> Iterator[None]:
    """Say for the user what Numba has to say about an activation."""
    try:
        yield
    except NumbaError as error:
        reason = next((line for line in str(error).splitlines()[1:] if line.strip()), str(error))
        raise ActivationError(
            f"activation = {activation.name!r}: does not compile for a single float "
            f"({reason.strip()[:120]}); use arithmetic, np.exp, np.tanh and the like, and no "
            'functions of your own, or backend = "reference"'
        ) from error


@cache
def _let_compile(function) -> None:
    """Tell Numba about a function of an activation, once."""
    in_own_precision(function, elementary.INSTEAD)


def _compile(activation: Activation, dtype: np.dtype) -> CompiledActivation:
    real = numba.from_dtype(dtype)
    # Plain functions in the closures, which, unlike compiled dispatchers, Numba's cache on disk
    # can recognise in the next process.
    sigma, sigma_prime = activation.value, activation.derivative
    for function in (sigma, sigma_prime):
        _let_compile(function)
    # The cache key holds the closure's contents: an edited activation must not find the old code.
    fingerprint = _fingerprint(sigma) + _fingerprint(sigma_prime) + elementary.FINGERPRINT
    pointer, one = types.CPointer(real), dtype.type(1.0)
    options = {"cache": True, "error_model": "numpy"}

    @numba.cfunc(types.void(pointer, pointer, types.intp, real), **options)
    def value(z, s, n, scale):
        fingerprint  # noqa: B018 - into the closure, and so into the cache key
        inverse = one / scale
        for k in range(n):
            s[k] = sigma(scale * z[k]) * inverse

    @numba.cfunc(types.void(pointer, pointer, pointer, types.intp, real), **options)
    def both(z, s, ds, n, scale):
        fingerprint  # noqa: B018 - into the closure, and so into the cache key
        inverse = one / scale
        for k in range(n):
            # Read once: for all that the compiler knows, z is s, and after a write another number,
            # with which what both functions compute would be computed twice.
            x = scale * z[k]
            s[k] = sigma(x) * inverse
            ds[k] = sigma_prime(x)

    return CompiledActivation(value.address, both.address, (value, both))


def _compile_derivatives(activation: Activation, dtype: np.dtype):
    real = numba.from_dtype(dtype)
    sigma, sigma_prime = activation.value, activation.derivative
    second_derivative = activation.second_derivative
    assert second_derivative is not None
    functions = sigma, sigma_prime, second_derivative
    for function in functions:
        _let_compile(function)
    fingerprint = "".join(map(_fingerprint, functions)) + elementary.FINGERPRINT
    pointer, one = types.CPointer(real), dtype.type(1.0)
    arguments = pointer, pointer, pointer, pointer, types.intp, real

    @numba.cfunc(types.void(*arguments), cache=True, error_model="numpy")
    def derivatives(z, s, ds, dds, n, scale):
        fingerprint  # noqa: B018 - into the closure, and so into the cache key
        inverse = one / scale
        for k in range(n):
            x = scale * z[k]  # read once, as above
            s[k] = sigma(x) * inverse
            ds[k] = sigma_prime(x)
            dds[k] = scale * second_derivative(x)

    return derivatives


def _call_by_address(builder, context, address, arguments, argument_types):
    signature = ir.FunctionType(
        ir.VoidType(), [context.get_value_type(kind) for kind in argument_types]
    )
    function = builder.inttoptr(address, signature.as_pointer())
    builder.call(function, arguments)


def _pointer(builder, context, array_type, array):
    return context.make_array(array_type)(context, builder, array).data


def _calling(signature):
    """What an intrinsic returns that calls by address with some arrays, a number, and a scale."""

    def codegen(context, builder, signature, arguments):
        address, *arrays, n, scale = arguments
        _, *array_types, n_type, scale_type = signature.args
        pointers = [
            _pointer(builder, context, kind, array)
            for kind, array in zip(array_types, arrays, strict=True)
        ]
        kinds = [*(types.CPointer(kind.dtype) for kind in array_types), n_type, scale_type]
        _call_by_address(builder, context, address, [*pointers, n, scale], kinds)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def call_value(typingctx, address, z, s, n, scale):
    """Call a block function ``f(z, s, n, scale)`` by its address."""
    return _calling(types.void(types.intp, z, s, types.intp, z.dtype))


@intrinsic
def call_both(typingctx, address, z, s, ds, n, scale):
    """Call a block function ``f(z, s, ds, n, scale)`` by its address."""
    return _calling(types.void(types.intp, z, s, ds, types.intp, z.dtype))


@intrinsic
def call_derivatives(typingctx, address, z, s, ds, dds, n, scale):
    """Call a block function ``f(z, s, ds, dds, n, scale)`` by its address."""
    return _calling(types.void(types.intp, z, s, ds, dds, types.intp, z.dtype))
