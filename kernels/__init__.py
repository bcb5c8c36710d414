"""Compute kernels, imported as ``flowsim.kernels``: one interface, several backends.

`flowsim.kernels.interface` says what a backend offers, `reference` does it in NumPy, `cpu` in
Numba, `cuda` in CUDA C++. A new backend is one new entry in `BACKENDS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import numpy as np

from flowsim.kernels.interface import DeepField, DeepKernels, TwoLayerField, TwoLayerKernels

BACKENDS = {
    "cpu": ("flowsim.kernels.cpu.two_layer", "CpuKernels"),
    "cuda": ("flowsim.kernels.cuda.two_layer", "CudaKernels"),
    "reference": ("flowsim.kernels.reference", "ReferenceKernels"),
}
"""Backends by name: the module that is imported on first use, and its class."""

BACKEND_NAMES = ("auto", *BACKENDS)
"""Values of ``integrate.backend``; ``auto`` is resolved before anything is bound."""

DEEP_BACKENDS = {
    ("cpu", "dense"): ("flowsim.kernels.cpu.deep", "DeepCpuKernels"),
    ("cpu", "factored"): ("flowsim.kernels.cpu.factored", "FactoredKernels"),
    ("reference", "dense"): ("flowsim.kernels.deep_reference", "DeepReferenceKernels"),
}
"""The same for networks with several hidden layers, by name and by what rates are kept as."""

PASSES = ("auto", "general", "piecewise", "matrix")
"""Values of ``integrate.passes``; a backend that knows but one way ignores them."""

DEEP_PASSES = ("auto", "dense", "factored")
"""The same for deep networks: rates written out, or those of hidden matrices kept as factors."""

_FEW = 16
"""Least width of the hidden layers, in units of n, at which ``auto`` keeps factors: with fewer
neurons the products among samples, one a stage, outweigh what is not written."""


def two_layer_kernels(
    backend: str,
    field: TwoLayerField,
    neurons: int,
    dtype: np.dtype,
    threads: int = 1,
    passes: str = "auto",
    device: int = 0,
) -> TwoLayerKernels:
    """Bind a two-layer vector field to a backend.

    Parameters
    ----------
    backend : str
        A key of `BACKENDS`.
    field : TwoLayerField
    neurons : int
        Neurons in the state, both copies counted with antisymmetric initial values.
    dtype : numpy.dtype
        float64 or float32.
    threads : int
        At most this many.
    passes : str
        Which of its ways to pass over the neurons a backend takes, one of `PASSES`.
    device : int
        Number of the GPU, for backends that compute on one.

    Raises
    ------
    KeyError
        If there is no such backend.
    """
    module, name = BACKENDS[backend]
    make = getattr(import_module(module), name)
    kernels: TwoLayerKernels = make(field, neurons, np.dtype(dtype), threads, passes, device)
    return kernels


def choose_deep_passes(passes: str, backend: str, n_samples: int, widths: Sequence[int]) -> str:
    """Resolve ``auto`` for a deep network.

    Parameters
    ----------
    passes : str
        One of `DEEP_PASSES`.
    backend : str
    n_samples : int
    widths : sequence of int
        Of the hidden layers.
    """
    if backend != "cpu":
        return "dense"
    if passes != "auto":
        return passes
    # Without a hidden matrix there is nothing to factor.
    return "factored" if len(widths) > 1 and min(widths) >= _FEW * n_samples else "dense"


def deep_kernels(
    backend: str, field: DeepField, dtype: np.dtype, threads: int = 1, passes: str = "auto"
) -> DeepKernels:
    """Bind the vector field of a deep network to a backend.

    Parameters
    ----------
    backend : str
        One of `BACKENDS`.
    field : DeepField
    dtype : numpy.dtype
        float64 or float32.
    threads : int
        At most this many.
    passes : str
        One of `DEEP_PASSES`.

    Raises
    ------
    KeyError
        If there is no such backend.
    """
    way = choose_deep_passes(passes, backend, len(field.x), field.widths)
    module, name = DEEP_BACKENDS[backend, way]
    return getattr(import_module(module), name)(field, np.dtype(dtype), threads)
