"""Compute kernels, imported as ``flowsim.kernels``: one interface, several backends.

`flowsim.kernels.interface` says what a backend offers, `reference` does it in NumPy, `cpu` in
Numba. A new backend is one new entry in `BACKENDS`.
"""

from __future__ import annotations

from importlib import import_module

import numpy as np

from flowsim.kernels.interface import TwoLayerField, TwoLayerKernels

BACKENDS = {
    "cpu": ("flowsim.kernels.cpu.two_layer", "CpuKernels"),
    "reference": ("flowsim.kernels.reference", "ReferenceKernels"),
}
"""Backends by name: the module that is imported on first use, and its class."""

PASSES = ("auto", "general", "piecewise", "matrix")
"""Values of ``integrate.passes``; a backend that knows but one way ignores them."""


def two_layer_kernels(
    backend: str,
    field: TwoLayerField,
    neurons: int,
    dtype: np.dtype,
    threads: int = 1,
    passes: str = "auto",
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

    Raises
    ------
    KeyError
        If there is no such backend.
    """
    module, name = BACKENDS[backend]
    return getattr(import_module(module), name)(field, neurons, np.dtype(dtype), threads, passes)
