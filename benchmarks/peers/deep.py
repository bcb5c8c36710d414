"""Other programs on the flow of a three-layer network, stepping by the same Runge-Kutta pair.

A peer is a module with ``contestants(problem)``, as for two layers. Each takes a step of fixed
size with its embedded error, from arrays that lie ready: seven stages of which the first is known
from the step before, the errors of the three layers relative to their sizes, and the new state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.common import version

DEEP_PEERS = {
    "PyTorch": ("benchmarks.peers.deep_torch", "torch"),
    "JAX": ("benchmarks.peers.deep_jax", "jax"),
}
"""Peers by name: their module here, and what must be installed."""


@dataclass(frozen=True)
class DeepProblem:
    """f = M_3 a . gelu(M_2 W_2^T gelu(M_1 W_1^T x)), dW_l/dtau = -c_l dR/dW_l, R = sum e^2 / 2n.

    Attributes
    ----------
    x, y : (n, d), (n,) arrays
    weights : list of (d, m), (m, m), (m,) arrays
    multipliers, mobilities : (3,) arrays
        M and c.
    step : float
        h in tau.
    a, b, error : (7, 7), (7,), (7,) arrays
        Of the pair; its last stage is the new state, and h sum_j error_j k_j the error.
    threads : int
    """

    x: np.ndarray
    y: np.ndarray
    weights: list[np.ndarray]
    multipliers: np.ndarray
    mobilities: np.ndarray
    step: float
    a: np.ndarray
    b: np.ndarray
    error: np.ndarray
    threads: int

    def rows(self) -> list[list[float]]:
        """h a_ij of the stages from the second on; the last row leads to the new state."""
        return [[self.step * float(value) for value in self.a[s, :s]] for s in range(1, 7)]

    def errors(self) -> list[float]:
        """h error_j."""
        return [self.step * float(value) for value in self.error]


@dataclass(frozen=True)
class Stepping:
    """One way of taking steps.

    Attributes
    ----------
    program, way : str
        Such as "JAX jit", "by hand".
    call : callable
        Takes a step, and returns when it is done.
    weights : callable
        The present weights, as `DeepProblem.weights`.
    """

    program: str
    way: str
    call: Callable[[], Any]
    weights: Callable[[], list[np.ndarray]]


def contestants(problem: DeepProblem) -> list[Callable[[], Stepping]]:
    """Every way of every installed peer, not made yet: each holds a dozen copies of the state."""
    found: list[Callable[[], Stepping]] = []
    for module, package in DEEP_PEERS.values():
        if version(package) is not None:
            found += import_module(module).contestants(problem)
    return found
