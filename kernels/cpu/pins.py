"""Neurons held on hyperplanes: the forces that hold them, and who is held.

Where a neuron touches hyperplanes its velocity is -u times the shortest vector of the convex set

    g + sum_h F_h v_h,   F_h between the forces below and above plane h,

as long as both sides of each plane push towards it: so Filippov's solution of a gradient flow on a
convex function moves (Brezis 1973), and no other choice keeps a neuron from being thrown back and
forth. A plane whose F_h lies strictly between holds the neuron: it is *pinned* there. At one of
the ends the neuron leaves to that side. A plane both of whose sides push away holds nobody: who
comes to it goes through, and who begins there takes the side below, sigma'(0) being 0 for ReLU.
"""

from __future__ import annotations

import math

from .boosts import dot, polynomial
from .fused import compiled, internal

INDEPENDENT = 1e-7
"""Least distance of a unit normal from the span of others that it is independent of."""

_LEVEL = 1e-13
"""Slack of the forces, relative to the largest of them."""

_SWEEPS, _ROUNDS = 4, 100
"""Over the touched planes, before a look at which forces are between their bounds."""

HELD = 0
"""Entry of a pattern: on the plane. 1 and -1 are above and below."""


@internal
def side_row(forces, pattern, h):
    """The polynomial of the force that plane h exerts on a neuron off the plane."""
    return forces[1 if pattern[h] > HELD else 0, h]


@internal
def gather(pattern, normals, forces, force):
    """Write g = sum_h F_h v_h of the planes that do not hold the neuron into ``force``."""
    d, degrees = force.shape
    force[:] = 0.0
    for h in range(pattern.shape[0]):
        if pattern[h] == HELD:
            continue
        row = side_row(forces, pattern, h)
        for i in range(d):
            for k in range(degrees):
                force[i, k] += row[k] * normals[i, h]


@internal
def hold(pattern, normals, force, pins, basis, triangle, holding):
    """Take from ``force`` (d, degrees) what lies across the planes that hold the neuron.

    Parameters
    ----------
    pattern : (planes,) int8 array
    normals : (d, planes) array
    force : (d, degrees) array
    pins : (planes,) int64 array
        Receives the planes that hold it.
    basis : (d + 1, d) array
        Receives an orthonormal basis of their normals.
    triangle : (d, planes) array
        Receives the normals in that basis.
    holding : (d, degrees) array
        Receives F_h of each, if they are independent.

    Returns
    -------
    int, int
        Planes that hold it, and independent ones among them.
    """
    d, degrees = force.shape
    count, rank = 0, 0
    for h in range(pattern.shape[0]):
        if pattern[h] != HELD:
            continue
        pins[count] = h
        rank += _add_to_basis(normals, h, basis, rank, triangle, count)
        count += 1
    for k in range(degrees):
        for row in range(rank):
            across = 0.0
            for i in range(d):
                across += basis[row, i] * force[i, k]
            for i in range(d):
                force[i, k] -= across * basis[row, i]
            holding[row, k] = -across
        if rank == count:
            for row in range(rank - 1, -1, -1):
                for later in range(row + 1, rank):
                    holding[row, k] -= triangle[row, later] * holding[later, k]
                holding[row, k] /= triangle[row, row]
    return count, rank


@internal
def _add_to_basis(normals, h, basis, rank, triangle, column):
    """Orthonormalise a plane's normal against the basis; 1 if it adds to it."""
    d = normals.shape[0]
    if rank == d:
        return 0
    for i in range(d):
        basis[rank, i] = normals[i, h]
    triangle[:rank, column] = 0.0
    for _ in range(2):  # once more for what rounding has left
        for row in range(rank):
            along = dot(basis[row], basis[rank])
            triangle[row, column] += along
            for i in range(d):
                basis[rank, i] -= along * basis[row, i]
    length = math.sqrt(dot(basis[rank], basis[rank]))
    if length < INDEPENDENT:
        return 0
    triangle[rank, column] = length
    for i in range(d):
        basis[rank, i] /= length
    return 1


@compiled
def decide(pattern, touched, count, came, freed, side, normals, forces, x, sign, room):
    """Put the neuron on a side of each plane that it touches, or let the plane hold it.

    Parameters
    ----------
    pattern : (planes,) int8 array
        The entries of the touched planes are written.
    touched : (planes,) int64 array
        The first ``count`` of them.
    came : (planes,) int8 array
        By plane: the side that the neuron comes from; 0 if it was on the plane.
    freed, side : int
        A touched plane that has just let the neuron go, and to which side; -1 if none has.
    normals : (d, planes) array
    forces : (2, planes, degrees) array
    x : float
        Time in the window.
    sign : float
        Of u.
    room : (8 + 2 planes, more) array
        With more than d and than planes columns.

    Returns
    -------
    float
        Length of the shortest vector over the largest force: 0 if the neuron cannot move.
    """
    f, low, high, linear, pull, status = room[:6]
    gram = room[6:]
    d = normals.shape[0]
    for j in range(count):
        pattern[touched[j]] = HELD
    for i in range(d):
        pull[i] = 0.0
    for h in range(pattern.shape[0]):
        if pattern[h] != HELD:
            value = polynomial(side_row(forces, pattern, h), x)
            for i in range(d):
                pull[i] += value * normals[i, h]
    scale = math.sqrt(dot(pull[:d], pull[:d]))
    for j in range(count):
        h = touched[j]
        below, above = polynomial(forces[0, h], x), polynomial(forces[1, h], x)
        scale = max(scale, abs(below), abs(above))
        low[j], high[j] = min(below, above), max(below, above)
        if h == freed and sign * (above - below) > 0.0:
            # To the last bit it may not yet be seen in the forces.
            pattern[h] = side
            low[j] = high[j] = above if side > 0 else below
        elif not sign * (above - below) > 0.0:
            # Nothing holds it here. It goes through, or is below: unless its velocity says no.
            pattern[h] = 1 if came[h] < 0 else -1
            low[j] = high[j] = above if came[h] < 0 else below
        f[j] = low[j]
        linear[j] = 0.0
        for i in range(d):
            linear[j] += normals[i, h] * pull[i]
        for k in range(j + 1):
            along = 0.0
            for i in range(d):
                along += normals[i, h] * normals[i, touched[k]]
            gram[j, k] = gram[k, j] = along
    slack = _LEVEL * scale
    for _ in range(2 * count):
        _shortest(f, low, high, linear, gram, status, count, slack, room[6 + count :])
        if not _turn_round(
            f, low, high, linear, gram, count, slack, sign, touched, freed, pattern, forces, x
        ):
            break
    for j in range(count):
        h = touched[j]
        for i in range(d):
            pull[i] += f[j] * normals[i, h]
        if low[j] < high[j]:
            below, above = polynomial(forces[0, h], x), polynomial(forces[1, h], x)
            nearest = 1 if abs(f[j] - above) < abs(f[j] - below) else -1
            pattern[h] = HELD if status[j] == 0.0 else nearest
    return math.sqrt(dot(pull[:d], pull[:d])) / scale if scale > 0.0 else 0.0


@internal
def _turn_round(f, low, high, linear, gram, count, slack, sign, touched, freed, pattern, forces, x):
    """Put one neuron that leaves a plane to the side it is not on to the other; whether it did."""
    for j in range(count):
        h = touched[j]
        if low[j] < high[j] or h == freed:
            continue
        outwards = -sign * (linear[j] + dot(gram[j, :count], f[:count]))
        if pattern[h] * outwards < -slack:
            pattern[h] = -pattern[h]
            low[j] = high[j] = f[j] = polynomial(side_row(forces, pattern, h), x)
            return True
    return False


@internal
def _shortest(f, low, high, linear, gram, status, count, slack, room):
    """Minimise f.gram f/2 + linear.f between bounds; ``status`` is 0 where f is between them.

    Sweeps over one variable after the other find out which are at their bounds, and the others
    then follow from a linear system: if these agree with the bounds, that is the minimum.
    """
    for _ in range(_ROUNDS):
        moved = 0.0
        for _ in range(_SWEEPS):
            for j in range(count):
                value = f[j] - linear[j] - dot(gram[j, :count], f[:count])
                value = min(max(value, low[j]), high[j])
                moved = max(moved, abs(value - f[j]))
                f[j] = value
        for j in range(count):
            status[j] = 0.0 if low[j] + slack < f[j] < high[j] - slack else 1.0
        if _solve_free(f, low, high, linear, gram, status, count, slack, room) or moved <= slack:
            return


@internal
def _solve_free(f, low, high, linear, gram, status, count, slack, room):
    """Put the free variables where nothing pulls them; False if this is not the minimum."""
    factor, aim = room[: count + 1, : count + 1], room[count + 1]
    for j in range(count):
        if status[j] != 0.0:
            continue
        aim[j] = -linear[j]
        for k in range(count):
            if status[k] != 0.0:
                aim[j] -= gram[j, k] * f[k]
        for k in range(j + 1):
            if status[k] != 0.0:
                continue
            entry = gram[j, k]
            for t in range(k):
                if status[t] == 0.0:
                    entry -= factor[j, t] * factor[k, t]
            if k < j:
                factor[j, k] = entry / factor[k, k]
                aim[j] -= factor[j, k] * aim[k]
            elif entry < INDEPENDENT * INDEPENDENT:
                return False
            else:
                factor[j, j] = math.sqrt(entry)
                aim[j] /= factor[j, j]
    for j in range(count - 1, -1, -1):
        if status[j] != 0.0:
            continue
        for k in range(j + 1, count):
            if status[k] == 0.0:
                aim[j] -= factor[k, j] * aim[k]
        aim[j] /= factor[j, j]
        if not low[j] < aim[j] < high[j]:
            return False
    for j in range(count):
        if status[j] == 0.0:
            f[j] = aim[j]
    for j in range(count):
        if status[j] != 0.0 and low[j] < high[j]:
            slope = linear[j] + dot(gram[j, :count], f[:count])
            if (slope < -slack and f[j] < high[j]) or (slope > slack and f[j] > low[j]):
                return False
    return True
