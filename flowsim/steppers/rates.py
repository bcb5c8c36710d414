"""Bounds of the rates at which e decays: what makes a flow stiff."""

from __future__ import annotations

import numpy as np

from flowsim.steppers.base import Flow, Kernel, Point

MOST_ROWS = 100
"""Rows of K up to which all of it is made: beyond, some products with it are cheaper."""

_COST_OF_ROWS, _COST_OF_PRODUCTS = 1e-3, 20.0
"""In passes, of K for the square of its rows, and of the products (tanh, ``python -m benchmarks
stiff_costs``)."""


def passes_for_kernel(rows: int) -> float:
    """About how many passes K costs, for so many rows of it."""
    return 1.0 + _COST_OF_ROWS * rows**2


def passes_for_bound(rows: int) -> float:
    """The same of `bound_of_rates`."""
    return passes_for_kernel(rows) if rows <= MOST_ROWS else _COST_OF_PRODUCTS


def kernel_for(flow: Flow, point: Point) -> Kernel | None:
    """K at a point for `bound_of_rates`; None where it goes without."""
    return flow.tangent_kernel(point.theta) if point.residual.size <= MOST_ROWS else None


def bound_of_rates(flow: Flow, point: Point, kernel: Kernel | None = None) -> float:
    """lambda_max of K H/n near a point, in 1/tau, H a diagonal bound of the loss's Hessian.

    ``kernel`` is K there, if it is at hand.
    """
    curvature = flow.curvature(point.residual)
    if kernel is None:
        kernel = kernel_for(flow, point)
    if kernel is not None:
        return kernel.rate_bound(curvature)
    steepest = 1.0 if curvature is None else float(np.max(curvature))
    return steepest * flow.largest_rate(point.theta)
