"""Which way of passing over the neurons a problem gets on the CPU.

From a table of measured costs, not from timing: a problem gets the same way, and so the same bits,
whenever and wherever it runs.
"""

from __future__ import annotations

import math

import numpy as np

from flowsim.kernels.interface import TwoLayerField

from .costs import COSTS
from .general import BlockPasses
from .matrix import MatrixPasses
from .passes import Passes
from .piecewise import FusedPasses

WAYS: dict[str, type[Passes]] = {
    "general": BlockPasses,
    "piecewise": FusedPasses,
    "matrix": MatrixPasses,
}
"""Ways by name; the names of ``integrate.passes``."""

MOST_FUSED_INPUTS = 64
"""Inputs beyond which code unrolled over a neuron's parameters would be too long."""


def possible_ways(field: TwoLayerField) -> list[str]:
    """Names of the ways that can be taken with an activation and a number of inputs."""
    fits = field.activation.leak is not None and field.x.shape[1] <= MOST_FUSED_INPUTS
    return [name for name in WAYS if name != "piecewise" or fits]


def choose_way(field: TwoLayerField, neurons: int, dtype: np.dtype) -> str:
    """The cheapest way by the table's nearest entry, in the logarithms of neurons, n and d.

    Parameters
    ----------
    field : TwoLayerField
    neurons : int
    dtype : numpy.dtype
    """
    here = np.log([neurons, *field.x.shape])
    table = COSTS[dtype.name]

    def distance(entry: tuple[int, int, int]) -> float:
        return float(np.sum((np.log(entry) - here) ** 2))

    costs = table[min(table, key=distance)]
    # Activations that have to be called cost every way alike, and more than the table says.
    return min(possible_ways(field), key=lambda name: costs.get(name, math.inf))


def make_passes(
    field: TwoLayerField, neurons: int, dtype: np.dtype, threads: int, way: str = "auto"
) -> Passes:
    """Bind a vector field to a way of passing over the neurons.

    Parameters
    ----------
    field, neurons, dtype, threads
        See `Passes`.
    way : str
        A key of `WAYS`, or ``auto``. One that is not possible is replaced by ``general``.
    """
    if way == "auto":
        way = choose_way(field, neurons, dtype)
    elif way not in possible_ways(field):
        way = "general"
    return WAYS[way](field, neurons, dtype, threads)
