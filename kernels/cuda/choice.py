"""Which way of passing over the neurons a problem gets on the GPU.

By a rule, not by timing: a problem gets the same way, and so the same bits, whenever it runs.
"""

from __future__ import annotations

import numpy as np

from flowsim.kernels.interface import TwoLayerField

from .activations import CHEAP
from .few import MOST_SHARED_BYTES, layout_for, shared_bytes

MOST_INPUTS = {"float64": 12, "float32": 16}
"""Inputs up to which a neuron's weights, their rate and the next weights fit into registers."""


def choose_way(field: TwoLayerField, dtype: np.dtype, passes: str) -> str:
    """``few``: all of a neuron in registers; ``matrix``: products by cuBLAS.

    Parameters
    ----------
    field : TwoLayerField
    dtype : numpy.dtype
    passes : str
        One of `flowsim.kernels.PASSES`; ``general`` and ``piecewise`` are ``few`` where that is
        possible.
    """
    n, d = field.x.shape
    cheap, itemsize = field.activation.name in CHEAP, np.dtype(dtype).itemsize
    layout = layout_for(n, d, itemsize, cheap, 2)
    fits = d <= MOST_INPUTS[np.dtype(dtype).name]
    fits = fits and shared_bytes(layout, d, itemsize, 2) <= MOST_SHARED_BYTES
    return "few" if fits and passes != "matrix" else "matrix"
