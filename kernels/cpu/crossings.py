"""One neuron through a window, from kink to kink.

Between kinks a neuron moves as `boosts` has it. What can end such a stretch:

- it reaches a hyperplane, or dips across one and back: the first time at which its preactivation
  is 0 is found on the stretch's own formula; there `pins.decide` says what becomes of it;
- a plane that holds it lets it go, the force that it takes being that of one side alone; with
  independent planes these forces are polynomials, so that this time depends on the pattern only;
- u changes its sign while planes hold it: both their sides begin to push away.

A stretch ends at the nodes of the window too, where the neuron's output is added up. The number
of kinks is bounded, and who meets more is reported, never let through.
"""

from __future__ import annotations

import numpy as np

from flowsim.kernels.kink_interface import CROSSED, FAILED, MOST, PINNED, RELEASED

from .boosts import polynomial, travel
from .fused import internal
from .pins import HELD, decide, gather, hold

MOST_KINKS = 12, 4
"""Of a neuron in a window: so many, and so many a plane."""

TINY = 1e-15
"""|z| that counts as 0, over the sum of |w|."""

_NOTHING = 1e-14
"""|z| over the sum of |w| along a stretch, with which a plane is met together with another."""

_SAME = 1e-14
"""Times in a window that are one."""

_AT_ONCE = 3
"""Kinks at one time after which a neuron counts as one that began where it is."""

_LOST = 1e-9
"""Velocity out of a span that counts as leaving it, over the forces."""

_LOOKS = 4
"""Times in a stretch at which the forces of pins are compared with their bounds."""


@internal
def make_room(d, n_planes, degrees):
    """Room for what one neuron needs on its way, see `pass_window`."""
    wide = max(d + 2, n_planes + 2)
    return (
        np.empty((d, degrees)), np.empty(n_planes, np.int64), np.empty((d + 1, d)),
        np.empty((d, n_planes)), np.empty((d, degrees)), np.empty((2, d)), np.empty(d),
        np.empty((2, d)), np.empty((2 * n_planes + 10, wide)), np.empty(n_planes, np.int8),
        np.empty(n_planes, np.int64),
    )  # fmt: skip


@internal
def pass_window(u, w, pattern, normals, forces, nodes, totals, counts, room):
    """Take a neuron through the window.

    Parameters
    ----------
    u : float
    w : (d,) array
        Overwritten.
    pattern : (planes,) int8 array
        Overwritten.
    normals : (d, planes) array
    forces : (2, planes, degrees) array
        Below and above each plane, times the length of the window: polynomials of the time in it.
    nodes : (nodes,) array
        Increasing fractions of the window; the neuron ends at the last.
    totals : (nodes, planes + d) array
        At each node u max(z, 0) of every plane and u w are added.
    counts : (5,) int64 array
        See `flowsim.kernels.kink_interface.CROSSED` and the others.
    room : tuple
        See `make_room`.

    Returns
    -------
    float
        u.
    """
    force, pins, basis, triangle, holding, b, other, pull, wide, came, touched = room
    d, n_planes = normals.shape
    most = MOST_KINKS[0] + MOST_KINKS[1] * n_planes
    gather(pattern, normals, forces, force)
    count, rank = hold(pattern, normals, force, pins, basis, triangle, holding)
    x, kinks, at_once = 0.0, 0, 0
    for node in range(nodes.shape[0]):
        while True:
            after = travel(u, w, force, x, nodes[node], b, other)
            when, plane = _first_crossing(
                u, w, after, other, pattern, normals, force, x, nodes[node], b, pull, wide
            )
            found, turns, side = plane, False, 0
            if count > 0:
                end, which, side = _first_release(
                    u, after, pattern, normals, forces, pins, count, rank, holding,
                    x, nodes[node], touched, came, wide,
                )  # fmt: skip
                if which >= 0 and (plane < 0 or end < when):
                    when, plane, found = end, -1, which
                if u * after < 0.0:
                    end = _turn(u, w, force, x, nodes[node], b, pull)
                    if found < 0 or end < when:
                        when, plane, found, turns = end, -1, pins[0], True
            if found < 0:
                u, x = after, nodes[node]
                for i in range(d):
                    w[i] = other[i]
                break
            kinks += 1
            if kinks > most:
                counts[FAILED] += 1
                return u
            at_once = at_once + 1 if when - x < _SAME else 0
            nothing = _NOTHING * (_size(w) + _size(other))
            if when > x:
                u = travel(u, w, force, x, when, b, w)
                x = when
            for k in range(count):
                touched[k], came[pins[k]] = pins[k], HELD
            if plane >= 0:
                _put_on_plane(w, normals, plane)
            held = _touch(
                w, nothing, pattern, normals, plane, count, touched, came, at_once > _AT_ONCE
            )
            if turns:
                u = 0.0
            sign = _sign(u, after)
            freed = found if side != 0 and plane < 0 and not turns else -1
            decide(
                pattern, touched, held, came, freed, side, normals, forces, x, sign, wide
            )  # fmt: skip
            gather(pattern, normals, forces, force)
            before = count
            count, rank = hold(pattern, normals, force, pins, basis, triangle, holding)
            if plane < 0:
                counts[RELEASED] += max(before - count, 0)
            else:
                counts[CROSSED if pattern[plane] != HELD else PINNED] += 1
        row = totals[node]
        for h in range(n_planes):
            if pattern[h] > HELD:
                row[h] += u * max(_along(w, normals, h), 0.0)
        for i in range(d):
            row[n_planes + i] += u * w[i]
    counts[MOST] = max(counts[MOST], kinks)
    return u


@internal
def _sign(u, after):
    """Of u on a stretch at whose end it is ``after``: where u is 0 what comes counts."""
    return 1.0 if u > 0.0 or (u == 0.0 and after > 0.0) else -1.0


@internal
def _along(w, normals, h):
    """z = w . v_h."""
    z = 0.0
    for i in range(w.shape[0]):
        z += w[i] * normals[i, h]
    return z


@internal
def _size(w):
    """Sum of |w|."""
    size = 0.0
    for i in range(w.shape[0]):
        size += abs(w[i])
    return size


@internal
def _touch(w, nothing, pattern, normals, plane, count, touched, came, stuck):
    """Add to the ``count`` touched planes those that are met now; return how many they are.

    A neuron that slides along a plane may come to w = 0, where it meets all planes at once.
    """
    if _size(w) <= nothing:
        w[:] = 0.0
    for h in range(pattern.shape[0]):
        if pattern[h] != HELD and (h == plane or abs(_along(w, normals, h)) <= nothing):
            touched[count] = h
            came[h] = HELD if stuck else pattern[h]
            count += 1
    return count


@internal
def _put_on_plane(w, normals, h):
    """Take away what rounding has left of z."""
    z = _along(w, normals, h)
    for i in range(w.shape[0]):
        w[i] -= z * normals[i, h]


@internal
def _first_crossing(
    u, w, after, other, pattern, normals, force, start, end, b, pull, wide
):  # fmt: skip
    """When a stretch first meets a plane, and which; -1 if it meets none.

    ``after`` and ``other`` are u and w at its end.
    """
    d, n_planes = normals.shape
    room = wide[0, :d]
    for i in range(d):
        pull[0, i], pull[1, i] = polynomial(force[i], start), polynomial(force[i], end)
    tiny = TINY * _size(other)
    when, plane = end, -1
    for h in range(n_planes):
        side = pattern[h]
        if side == HELD:
            continue
        z, z_end, speed, speed_end = 0.0, 0.0, 0.0, 0.0
        for i in range(d):
            normal = side * normals[i, h]
            z += w[i] * normal
            z_end += other[i] * normal
            speed -= u * pull[0, i] * normal
            speed_end -= after * pull[1, i] * normal
        latest = end
        if z_end >= -tiny:
            if not (speed < 0.0 < speed_end and z + z_end < (speed_end - speed) * (end - start)):
                continue
            # Perhaps it has been below 0 in between: where it is lowest, or near enough.
            latest = start + (end - start) * speed / (speed - speed_end)
            travel(u, w, force, start, latest, b, room)
            z_end = side * _along(room, normals, h)
            if z_end >= -tiny:
                continue
        time = _crossing_time(
            u, w, z, z_end, tiny, side, normals, h, force, start, latest, b, room
        )  # fmt: skip
        if plane < 0 or time < when:
            when, plane = time, h
    return when, plane


@internal
def _crossing_time(u, w, z, z_end, tiny, side, normals, h, force, start, end, b, room):
    """When z, below 0 at the end, is 0: by secants with the Illinois rule, and bisection."""
    low, high = start, end
    if z <= tiny:
        # It starts on the plane. Unless it first leaves it, it goes to the other side at once.
        time = start + 0.5 * (end - start)
        while time - start > _SAME:
            travel(u, w, force, start, time, b, room)
            z = side * _along(room, normals, h)
            if z > tiny:
                break
            time = start + 0.25 * (time - start)
        if not z > tiny:
            return start
        low = time
    kept, z_low, z_high = 0, z, z_end
    level = TINY * (z - z_end)
    while high - low > TINY:
        time = low + (high - low) * z_low / (z_low - z_high)
        if not low < time < high:
            time = 0.5 * (low + high)
            if not low < time < high:
                break
        travel(u, w, force, start, time, b, room)
        z_time = side * _along(room, normals, h)
        if abs(z_time) <= level:
            return time
        if z_time > 0.0:
            low, z_low = time, z_time
            if kept == 1:
                z_high *= 0.5
            kept = 1
        else:
            high, z_high = time, z_time
            if kept == -1:
                z_low *= 0.5
            kept = -1
    return high


@internal
def _slack(forces, h, side, sign, held, x):
    """How far a force is within its bound above (``side`` 1) or below (0)."""
    bound = polynomial(forces[side, h], x)
    return sign * (bound - held) if side == 1 else sign * (held - bound)


@internal
def _first_release(
    u, after, pattern, normals, forces, pins, count, rank, holding, start, end, touched, came, wide
):
    """When planes first cannot hold the neuron any more, one of them, and to which side it goes.

    The plane is -1 if they can, the side 0 if it is not known.
    """
    sign = _sign(u, after)
    when, plane, leaves = end, -1, 0
    if rank < count:
        return _first_loss(
            sign, pattern, normals, forces, pins, count, start, end, touched, came, wide
        )
    for k in range(count):
        h = pins[k]
        for side in range(2):
            low = start
            for look in range(1, _LOOKS + 1):
                high = start + (end - start) * look / _LOOKS
                if _slack(forces, h, side, sign, polynomial(holding[k], high), high) < 0.0:
                    break
                low = high
            else:
                continue
            while high - low > _SAME:
                middle = 0.5 * (low + high)
                if _slack(forces, h, side, sign, polynomial(holding[k], middle), middle) < 0.0:
                    high = middle
                else:
                    low = middle
            if plane < 0 or high < when:
                when, plane, leaves = high, h, 2 * side - 1
    return when, plane, leaves


@internal
def _first_loss(sign, pattern, normals, forces, pins, count, start, end, touched, came, wide):
    """The same for planes whose normals are dependent: no polynomials, the forces are sought."""
    for k in range(count):
        touched[k], came[pins[k]] = pins[k], HELD
    low = start
    for look in range(1, _LOOKS + 1):
        high = start + (end - start) * look / _LOOKS
        if _lost(sign, pattern, normals, forces, touched, count, came, high, wide):
            break
        low = high
    else:
        return end, -1, 0
    while high - low > _SAME:
        middle = 0.5 * (low + high)
        if _lost(sign, pattern, normals, forces, touched, count, came, middle, wide):
            high = middle
        else:
            low = middle
    return high, pins[0], 0


@internal
def _lost(sign, pattern, normals, forces, touched, count, came, x, wide):
    """Whether the planes' span is not held at x: then the shortest vector has a part in it."""
    d = normals.shape[0]
    decide(pattern, touched, count, came, -1, 0, normals, forces, x, sign, wide)
    shortest, lost = wide[4, :d], False
    scale = 0.0
    for k in range(count):
        h = touched[k]
        pattern[h] = HELD
        scale = max(scale, abs(polynomial(forces[0, h], x)), abs(polynomial(forces[1, h], x)))
    for k in range(count):
        if abs(_along(shortest, normals, touched[k])) > _LOST * scale:
            lost = True
    return lost


@internal
def _turn(u, w, force, start, end, b, pull):
    """When u is 0."""
    low, high = start, end
    while high - low > _SAME:
        middle = 0.5 * (low + high)
        if u * travel(u, w, force, start, middle, b, pull[0]) > 0.0:
            low = middle
        else:
            high = middle
    return high
