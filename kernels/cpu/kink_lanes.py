"""Neurons that meet no kink, a vector of them at once: what `crossings` does where nothing happens.

The loops over inputs and coefficients go over rows of a few small arrays, a vector a row, that stay
in the first cache: one compiled version serves any number of inputs and samples.
"""

from __future__ import annotations

from .boosts import LONGEST, series
from .crossings import TINY
from .fused import inlined, internal
from .lane_arithmetic import (
    lanes_below,
    lanes_equal,
    load_signs,
    magnitude,
    where_lanes,
)
from .lane_code import LANE_BYTES
from .lanes import load, store
from .pins import hold

LANES = LANE_BYTES // 8
"""Neurons in a vector."""


@inlined
def move_lanes(
    theta, pattern, start, ratio, normals, forces, nodes, shares, bernstein,
    force, moved, given, work, own, room,
):  # fmt: skip
    """Take a vector of neurons through a window.

    Parameters
    ----------
    theta, pattern : (1 + d, neurons), (planes, neurons) arrays
    start : int
        The first of the neurons.
    ratio, normals, forces, nodes
        See `crossings.pass_window`.
    shares : (nodes, 2, degrees) array
        Weights of a force's coefficients in the two boosts before each node.
    bernstein : (degrees, degrees) array
        See `_hold_lane`.
    force : (d degrees, lanes) array
        Receives g.
    moved : (1 + d, lanes) array
        Receives u and w at the last node.
    given : (nodes (planes + d), lanes) array
        Receives u max(z, 0) of every plane, and u w, at each node.
    work, own, room
        Room.

    Returns
    -------
    int
        Bits of those who have met a kink, or may have: nothing of them is to be used.
    """
    d, n_planes = normals.shape
    degrees, n_nodes = forces.shape[2], nodes.shape[0]
    zero = load(theta, 0, start) * 0.0
    u = load(theta, 0, start) * ratio
    store(moved, 0, 0, u)
    for i in range(1, 1 + d):
        store(moved, i, 0, load(theta, i, start))
    held = _gather_lanes(pattern, start, normals, forces, force, zero)
    others = 0
    if held != 0:
        for k in range(LANES):
            if held >> k & 1 and not _hold_lane(
                moved[0, k], pattern, start, k, normals, forces, bernstein, force, own, room
            ):
                others |= 1 << k
    x = 0.0
    for node in range(-1, n_nodes):
        span = 0.0
        if node >= 0:
            span, x = nodes[node] - x, nodes[node]
            for half in range(2):
                others |= _boost_lanes(shares, node, half, force, moved, work, zero)
        now = load(moved, 0, 0)
        others |= held & lanes_below(now * u, 0.0)
        tiny = _pull_lanes(force, degrees, x, moved, work, zero)
        for h in range(n_planes):
            z, speed = zero, zero
            for i in range(d):
                z = z + load(moved, 1 + i, 0) * normals[i, h]
                speed = speed - load(work, i, 0) * normals[i, h]
            side = load_signs(pattern, h, start, z)
            near, rising = z * side, now * speed * side
            if node >= 0:
                met = lanes_below(near, tiny)
                was, sank = load(work, 2 * d + h, 0), load(work, 2 * d + n_planes + h, 0)
                dip = lanes_below(was + near, (rising - sank) * span)
                others |= met | lanes_below(sank, 0.0) & lanes_below(0.0, rising) & dip
                inside = lanes_below(0.0, side) & lanes_below(0.0, z)
                store(given, node * (n_planes + d) + h, 0, where_lanes(inside, now * z, zero))
            store(work, 2 * d + h, 0, near)
            store(work, 2 * d + n_planes + h, 0, rising)
        if node >= 0:
            for i in range(d):
                row = node * (n_planes + d) + n_planes + i
                store(given, row, 0, now * load(moved, 1 + i, 0))
    return others


@inlined
def _gather_lanes(pattern, start, normals, forces, force, zero):
    """Write g before what holds neurons is taken away; bits of who is held."""
    d, degrees = normals.shape[0], forces.shape[2]
    for row in range(d * degrees):
        store(force, row, 0, zero)
    held = 0
    for h in range(pattern.shape[0]):
        side = load_signs(pattern, h, start, zero)
        held |= lanes_equal(side, 0.0)
        above, below = lanes_below(0.0, side), lanes_below(side, 0.0)
        for degree in range(degrees):
            exerted = where_lanes(above, zero + forces[1, h, degree], zero)
            exerted = where_lanes(below, zero + forces[0, h, degree], exerted)
            for i in range(d):
                row = i * degrees + degree
                store(force, row, 0, load(force, row, 0) + exerted * normals[i, h])
    return held


@internal
def _hold_lane(u, pattern, start, k, normals, forces, bernstein, force, own, room):
    """Project the force on a held neuron; whether its planes hold it through all the window.

    What holds it are polynomials: they stay between the extremes of their Bernstein coefficients,
    which ``bernstein`` makes of the others.
    """
    alone, pins, basis, triangle, holding = room[:5]
    d, degrees = alone.shape
    for h in range(own.shape[0]):
        own[h] = pattern[h, start + k]
    for i in range(d):
        for degree in range(degrees):
            alone[i, degree] = force[i * degrees + degree, k]
    count, rank = hold(own, normals, alone, pins, basis, triangle, holding)
    if rank < count:
        return False
    for i in range(d):
        for degree in range(degrees):
            force[i * degrees + degree, k] = alone[i, degree]
    for pin in range(count):
        h = pins[pin]
        for j in range(degrees):
            lower, upper = 0.0, 0.0
            for degree in range(degrees):
                held = holding[pin, degree]
                lower += bernstein[j, degree] * (held - forces[0, h, degree])
                upper += bernstein[j, degree] * (forces[1, h, degree] - held)
            if not (u * lower > 0.0 and u * upper > 0.0):
                return False
    return True


@inlined
def _boost_lanes(shares, node, half, force, moved, work, zero):
    """Boost a vector of neurons; bits of those for whom `series` does not hold."""
    d, degrees = moved.shape[0] - 1, shares.shape[2]
    q, along = zero, zero
    for i in range(d):
        b = load(force, i * degrees, 0) * shares[node, half, 0]
        for degree in range(1, degrees):
            b = b + load(force, i * degrees + degree, 0) * shares[node, half, degree]
        store(work, i, 0, b)
        q = q + b * b
        along = along + b * load(moved, 1 + i, 0)
    s, t = series(q)
    u = load(moved, 0, 0)
    factor = t * along - s * u
    store(moved, 0, 0, u + (q * t * u - s * along))
    for i in range(d):
        store(moved, 1 + i, 0, load(moved, 1 + i, 0) + factor * load(work, i, 0))
    return lanes_below(LONGEST, q)


@inlined
def _pull_lanes(force, degrees, x, moved, work, zero):
    """Write g at x; return minus what counts as 0 on a plane."""
    tiny = zero
    for i in range(moved.shape[0] - 1):
        pull = load(force, i * degrees + degrees - 1, 0)
        for degree in range(degrees - 2, -1, -1):
            pull = pull * x + load(force, i * degrees + degree, 0)
        store(work, i, 0, pull)
        tiny = tiny - magnitude(load(moved, 1 + i, 0)) * TINY
    return tiny


@inlined
def add_given(given, others, totals):
    """Add up what neurons give, but for these."""
    for row in range(given.shape[0]):
        total, mine = load(totals, row, 0), load(given, row, 0)
        store(totals, row, 0, where_lanes(others, total, total + mine))
