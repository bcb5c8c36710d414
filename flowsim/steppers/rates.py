"""Bounds of the rates at which e decays: what makes a flow stiff."""

from __future__ import annotations

import numpy as np

from flowsim.steppers.base import Flow, Point

MOST_ROWS = 100
"""Rows of K up to which all of it is made: beyond, some products with it are cheaper."""

_COST_OF_ROWS, _COST_OF_PRODUCTS = 1e-3, 20.0
"""In passes, of K for the square of its rows, and of the products (tanh, ``python -m benchmarks
stiff``)."""


def passes_for_kernel(rows: int) -> float:
    """About how many passes K costs, for so many rows of it."""
    return 1.0 + _COST_OF_ROWS * rows**2


def passes_for_bound(rows: int) -> float:
    """The same of `bound_of_rates`."""
    return passes_for_kernel(rows) if rows <= MOST_ROWS else _COST_OF_PRODUCTS


def bound_of_rates(flow: Flow, point: Point) -> float:
    """lambda_max of K H/n near a point, in 1/tau, H a diagonal bound of the loss's Hessian."""
    curvature = flow.curvature(point.residual)
    if point.residual.size <= MOST_ROWS:
        return flow.tangent_kernel(point.theta).rate_bound(curvature)
    steepest = 1.0 if curvature is None else float(np.max(curvature))
    return steepest * flow.largest_rate(point.theta)
