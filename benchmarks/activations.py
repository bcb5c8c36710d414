"""Smooth activations and their derivatives, a number: ``python -m benchmarks activations``.

What a layer pays for them, against Numba's own way of compiling the same functions (calls of the C
library, one number at a time), and against NumPy and PyTorch on the same array. One thread, an
array that stays in the second-level cache, value and derivative both.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import overload, register_jitable

from flowsim.kernels import activations
from flowsim.kernels.activations import ACTIVATIONS, Activation
from flowsim.kernels.cpu.activations import compile_activation

from .common import Table, report, version
from .timing import Call, ratio, take_turns

SIZE = 8192
NAMES = tuple(name for name, entry in ACTIVATIONS.items() if entry.leak is None)
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}
AGREEMENT = {"float64": 1e-14, "float32": 1e-5}
"""Largest difference between contestants, relative to 1 + the value."""

Functions = dict[str, Callable[..., Any]]


def _erf(z):
    """To be compiled to the C library's error function."""


@overload(_erf)
def _erf_of_the_library(z):
    return lambda z: math.erf(z)


def by_library(activation: Activation, dtype: str) -> Any:
    """The block function of value and derivative as Numba compiles it by itself."""
    functions = [_with_library_erf(f) for f in (activation.value, activation.derivative)]
    sigma, sigma_prime = map(register_jitable, functions)
    real = numba.from_dtype(np.dtype(dtype))
    pointer = types.CPointer(real)

    @numba.cfunc(types.void(pointer, pointer, pointer, types.intp, real), fastmath=FASTMATH)
    def both(z, s, ds, n, scale):
        for k in range(n):
            s[k] = sigma(scale * z[k]) / scale
            ds[k] = sigma_prime(scale * z[k])

    return both


def _with_library_erf(function: Any) -> Any:
    """A copy of a function of `ACTIVATIONS` that is not the one which flowsim has overloaded."""
    names = function.__globals__ | {"erf": _erf, "where": activations.where}
    return type(function)(function.__code__, names, function.__name__)


def bound(address: int, z: np.ndarray, s: np.ndarray, ds: np.ndarray) -> Call:
    """A call of a block function by its address, on arrays."""
    real = np.ctypeslib.as_ctypes_type(z.dtype)
    pointers = [ctypes.c_void_p] * 3
    function = ctypes.CFUNCTYPE(None, *pointers, ctypes.c_ssize_t, real)(address)
    data = [ctypes.c_void_p(array.ctypes.data) for array in (z, s, ds)]
    return lambda: function(*data, len(z), 1.0)


def torch_functions() -> dict[str, Callable[..., Any]]:
    """Values by PyTorch's own functions, where it has them."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    return {
        "tanh": torch.tanh, "erf": torch.erf, "gelu": functional.gelu, "elu": functional.elu,
        "softplus": lambda z: functional.softplus(z, threshold=50.0), "silu": functional.silu,
        "x_tanh_x": lambda z: z * torch.tanh(z), "x2_tanh_x": lambda z: z * z * torch.tanh(z),
    }  # fmt: skip


def by_torch(function: Callable[..., Any], z: np.ndarray) -> tuple[Call, Callable[[], tuple]]:
    """Value and derivative by PyTorch: forward, and backward of a cotangent of ones."""
    import torch

    tensor = torch.from_numpy(z.copy()).requires_grad_()
    ones = torch.ones_like(tensor)

    def call():
        value = function(tensor)
        (slope,) = torch.autograd.grad(value, tensor, ones)
        return value, slope

    return call, lambda: tuple(part.detach().numpy() for part in call())


def measure(name: str, dtype: str, rounds: int, budget: float) -> dict[str, Any]:
    """Nanoseconds a number of one activation, contestants in turns.

    Raises
    ------
    SystemExit
        If contestants disagree.
    """
    activation = ACTIVATIONS[name]
    z = np.random.default_rng(0).normal(scale=2.0, size=SIZE).astype(dtype)
    z64 = z.astype(np.float64)
    exact = [np.asarray(f(z64)) for f in (activation.value, activation.derivative)]
    started = time.perf_counter()
    own = compile_activation(activation, np.dtype(dtype))
    between = time.perf_counter()
    library = by_library(activation, dtype)
    compiling = {"flowsim": between - started, "Numba": time.perf_counter() - between}
    outputs = {way: (np.empty_like(z), np.empty_like(z)) for way in ("flowsim", "Numba")}
    calls: dict[str, Call] = {
        "flowsim": bound(own.both, z, *outputs["flowsim"]),
        "Numba": bound(library.address, z, *outputs["Numba"]),
        "NumPy": lambda: (activation.value(z), activation.derivative(z)),
    }
    results: dict[str, Callable[[], Any]] = {
        way: (lambda way=way: (calls[way](), outputs[way])[1]) for way in outputs
    }
    if version("torch"):
        calls["PyTorch"], results["PyTorch"] = by_torch(torch_functions()[name], z)
    for way, result in results.items():
        for found, wanted in zip(result(), exact, strict=True):
            error = np.max(np.abs(found - wanted) / (1.0 + np.abs(wanted)))
            if not error <= AGREEMENT[dtype]:
                raise SystemExit(f"{name}, {dtype}: {way} differs by {error:.1e}")
    found = take_turns(calls, rounds, budget)
    return {
        "activation": name, "dtype": dtype, "size": SIZE, "seconds_to_compile": compiling,
        "nanoseconds": {way: 1e9 * float(np.median(t)) / SIZE for way, t in found.items()},
        "least_nanoseconds": {way: 1e9 * float(np.min(t)) / SIZE for way, t in found.items()},
        "times_as_long": {way: ratio(t, found["flowsim"]) for way, t in found.items()},
    }  # fmt: skip


def main(quick: bool = False) -> None:
    """Measure and report."""
    rounds, budget = (3, 0.002) if quick else (9, 0.01)
    names = NAMES[:2] if quick else NAMES
    data = [measure(name, dtype, rounds, budget) for dtype in AGREEMENT for name in names]
    ways = list(data[0]["nanoseconds"])
    header = ["activation", "dtype", *(f"{way}, ns" for way in ways)]
    table = Table(
        f"Value and derivative of {SIZE:,} numbers, one thread, nanoseconds a number",
        [*header, *(f"{way} / flowsim" for way in ways[1:])],
        note="Medians over the rounds, and of the ratios within a round. Numba: the same functions "
        "with calls of the C library. NumPy: activation's formulas on arrays. PyTorch: its own "
        "functions forward, and backward of a cotangent of ones.",
    )
    for row in data:
        times, ratios = row["nanoseconds"], row["times_as_long"]
        table.rows.append(
            [row["activation"], row["dtype"], *(f"{times[way]:.2f}" for way in ways)]
            + [f"{ratios[way]:.1f}" for way in ways[1:]]
        )
    report("activations", [table], data, quick, ["torch"])
