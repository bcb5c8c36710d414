"""Which way of passing over the neurons a problem gets on the CPU."""

from __future__ import annotations

import numpy as np

from flowsim.kernels.interface import TwoLayerField

from .general import BlockPasses
from .passes import Passes
from .piecewise import FusedPasses

MOST_FUSED_INPUTS = 24
"""Inputs up to which a neuron's parameters fit into the vector registers, more or less."""


def make_passes(field: TwoLayerField, neurons: int, dtype: np.dtype, threads: int) -> Passes:
    """Bind a vector field to the fastest passes for it."""
    if field.activation.leak is not None and field.x.shape[1] <= MOST_FUSED_INPUTS:
        return FusedPasses(field, neurons, dtype, threads)
    return BlockPasses(field, neurons, dtype, threads)
