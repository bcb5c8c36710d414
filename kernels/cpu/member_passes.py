"""Passes over the neurons of a member of an ensemble, with the signs of its preactivations.

They come to the bits of `flowsim.kernels.cpu.fused`, whose arithmetic they repeat in the same
order; what they leave out is to form preactivations a second time.
"""

from __future__ import annotations

from .fused import combined, inlined
from .lanes import (
    LANE_BYTES,
    add_products,
    add_rows,
    add_scaled,
    load_rows,
    no_rows,
    store_rows,
    table_row,
    velocity,
)
from .signs import GROUP, add_signed, add_where_signed, load_points, no_totals, store_totals


@inlined
def add_outputs(start, count, x, like, theta, leaky, n, signs, sums):
    """`fused.add_outputs` of the neurons from ``start`` on; their signs into ``signs``.

    ``x`` (samples, d) and ``signs`` (samples, neurons / 8) are filled up to whole groups; ``sums``
    has a vector for each of these samples, and for each input after the first n with ``leaky``.
    """
    width = LANE_BYTES // theta.itemsize
    for first in range(0, x.shape[0], GROUP):
        points = load_points(x, first, like)
        totals = no_totals(x)
        for column in range(start, start + count, width):
            rows = load_rows(theta, column, like)
            totals = add_signed(points, rows, totals, signs, first, column)
        store_totals(sums, first, totals)
    if leaky:
        sums[n : n + x.shape[1]] = 0.0
        for column in range(start, start + count, width):
            add_products(sums, n, load_rows(theta, column, like))


@inlined
def move(
    start, count, signs, n, pull, like, factors, theta, base, slopes, stage, weights, out, last
):
    """Velocities at ``theta``, and what a stage makes of them, for some neurons.

    Parameters
    ----------
    signs : (samples, neurons / 8) uint8 array
        Of the preactivations at ``theta``.
    pull : (samples + 1, d) array
        Row n is the pull on a neuron that is active nowhere. The rows of samples that only fill
        up a group come after it, and have no effect.
    base, slopes, stage, weights, out
        ``out`` = base + sum_(j < stage) weights[j] slopes[j] + weights[stage] velocity; ``out``
        may be ``theta``. The velocity is kept in slopes[stage], unless it is the ``last``.
    """
    width = LANE_BYTES // theta.itemsize
    for column in range(start, start + count, width):
        rows = load_rows(theta, column, like)
        pull_here = table_row(pull, n, like)
        for first in range(0, n, GROUP):
            pull_here = add_where_signed(pull, signs, first, column, pull_here)
        moving = velocity(rows, pull_here, factors[0], factors[1])
        if stage == 0:
            increment = no_rows(theta, like)
        else:
            increment = combined(slopes, stage, 0, weights, column, like)
        if not last:
            store_rows(slopes[stage], column, moving)
        increment = add_scaled(increment, weights[stage], moving)
        new = add_rows(load_rows(base, column, like), increment)
        store_rows(out, column, new)
