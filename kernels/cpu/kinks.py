"""Windows of a piecewise linear network in compiled loops: kinks passed neuron by neuron.

Most neurons meet no kink in a window. A vector of them goes through it at once (`kink_lanes`), and
who has met a kink on the way, or may have, goes back to where it was and takes the way of
`crossings`. What a neuron does depends on itself and the window alone, and sums are added block by
block: bits do not depend on the number of threads.
"""

from __future__ import annotations

from functools import cache
from math import comb

import numpy as np

from flowsim.kernels.hyperplanes import Hyperplanes
from flowsim.kernels.interface import TwoLayerField
from flowsim.kernels.kink_interface import MOST

from .boosts import GAUSS, SHARES
from .borrowing import borrowed
from .crossings import make_room, pass_window
from .fused import compiled, copy_columns
from .kink_lanes import LANES, add_given, move_lanes
from .lane_arithmetic import copy_signs
from .lanes import load, store, total_of_lanes
from .pins import HELD, hold
from .threads import run_blocks

BLOCK = 512
"""Neurons of a row of partial sums. Part of the results: bits depend on it."""

_CHUNK = 1 << 14
"""Numbers of the derivatives that K multiplies at once: fixes the order of the sum."""


class CpuKinks:
    """`flowsim.kernels.kink_interface.Kinks` in compiled loops, float64.

    Parameters
    ----------
    field : TwoLayerField
        With a piecewise linear activation.
    neurons, threads : int

    Raises
    ------
    ValueError
        See `Hyperplanes.of`.
    """

    def __init__(self, field: TwoLayerField, neurons: int, threads: int) -> None:
        self.planes = Hyperplanes.of(field)
        self._field, self._neurons, self._threads = field, neurons, threads
        self._n_blocks = -(-neurons // BLOCK)
        d, n_planes = self.planes.normals.shape
        self._work = float(BLOCK * (n_planes + 8) * (d + 2) * 24)

    def pass_window(
        self,
        theta: np.ndarray,
        pattern: np.ndarray,
        forces: np.ndarray,
        nodes: np.ndarray,
        out: np.ndarray,
        out_pattern: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        d, n_planes = self.planes.normals.shape
        partial = np.zeros((self._n_blocks, len(nodes), n_planes + d))
        counts = np.zeros((self._n_blocks, 5), np.int64)
        run_blocks(
            _pass_blocks, self._n_blocks, self._threads, self._work * len(nodes),
            self.planes.ratio, self.planes.normals, np.ascontiguousarray(forces), nodes,
            _shares(nodes, forces.shape[2]), _bernstein(forces.shape[2]), theta, pattern,
            out, out_pattern, partial, counts,
        )  # fmt: skip
        total = counts.sum(axis=0)
        total[MOST] = counts[:, MOST].max()
        return np.add.reduce(partial, axis=0), total

    def gram(self, theta: np.ndarray, pattern: np.ndarray) -> np.ndarray:
        planes, x, n = self.planes, self._field.x, len(self._field.x)
        size = min(max(BLOCK, _CHUNK // n // BLOCK * BLOCK), self._n_blocks * BLOCK)
        values, motions, across = np.zeros((3, n, size))
        grams = np.zeros((2, n, n))
        for start in range(0, self._neurons, size):
            width = min(size, self._neurons - start)
            run_blocks(
                _derivatives, -(-width // BLOCK), self._threads, self._work, start, width,
                planes.ratio, x, planes.plane, planes.slopes, theta, pattern, values, motions,
            )  # fmt: skip
            values[:, width:] = motions[:, width:] = across[:, width:] = 0.0
            grams[0] += values @ values.T
            grams[1] += motions @ motions.T
            level, deepest = 0, int((pattern[:, start : start + width] == HELD).any())
            while level < deepest:
                # A row a neuron: who is held moves in what is orthogonal to its planes alone.
                across[:, :width] = motions[:, :width]
                deepest = _project(level, start, width, x, planes.normals, pattern, across)
                grams[0] -= across @ across.T
                level += 1
        scale = self._field.multiplier**2 * self._field.output_mobility
        return np.asarray(scale * (grams[0] + (x @ x.T) * grams[1]))


def _shares(nodes: np.ndarray, degrees: int) -> np.ndarray:
    """Weights (nodes, 2, degrees) of a force's coefficients in the two boosts before each node."""
    ends = np.concatenate([[0.0], nodes])
    spans = np.diff(ends)
    powers = (ends[:-1, None] + np.multiply.outer(spans, GAUSS))[:, :, None] ** np.arange(degrees)
    mixed = np.array([SHARES, SHARES[::-1]])
    return np.ascontiguousarray(np.einsum("bg,ngk->nbk", mixed, powers) * spans[:, None, None])


@cache
def _bernstein(degrees: int) -> np.ndarray:
    """From coefficients of a polynomial to numbers between whose extremes it stays on [0, 1]."""
    rows = [[comb(j, k) / comb(degrees - 1, k) for k in range(degrees)] for j in range(degrees)]
    return np.array(rows)


@compiled
def _pass_blocks(
    first, last, ratio, normals, forces, nodes, shares, bernstein, theta, pattern,
    out, out_pattern, partial, counts,
):  # fmt: skip
    d, n_planes = normals.shape
    degrees, n_nodes, neurons = forces.shape[2], nodes.shape[0], theta.shape[1]
    # The last neurons do not fill a vector: they are looked at in one that is padded with none.
    made = (
        np.empty(d), np.empty(n_planes, np.int8), np.empty((d * degrees, LANES)),
        np.empty((1 + d, LANES)), np.empty((2 * d + 2 * n_planes, LANES)),
        np.empty((n_nodes * (n_planes + d), LANES)), np.empty((n_nodes * (n_planes + d), LANES)),
        np.zeros((1 + d, LANES)), np.full((n_planes, LANES), -1, np.int8),
    )  # fmt: skip
    given_arrays = (
        normals, forces, nodes, shares, bernstein, theta, pattern, out, out_pattern, partial,
        counts,
    )  # fmt: skip
    rooms = make_room(d, n_planes, degrees)
    # From here on nothing counts references.
    room = borrowed(rooms)
    w, own, force, moved, work, given, totals, rest, rest_pattern = borrowed(made)
    (
        normals, forces, nodes, shares, bernstein, theta, pattern, out, out_pattern, partial,
        counts,
    ) = borrowed(given_arrays)  # fmt: skip
    inverse = 1.0 / ratio
    for block in range(first, last):
        totals[:] = 0.0
        for start in range(block * BLOCK, min((block + 1) * BLOCK, neurons), LANES):
            size = min(LANES, neurons - start)
            whence, whence_pattern, column = theta, pattern, start
            if size < LANES:
                copy_columns(theta, start, rest, 0, size)
                copy_columns(pattern, start, rest_pattern, 0, size)
                whence, whence_pattern, column = rest, rest_pattern, 0
            others = move_lanes(
                whence, whence_pattern, column, ratio, normals, forces, nodes, shares, bernstein,
                force, moved, given, work, own, room,
            )  # fmt: skip
            add_given(given, others, totals)
            store(moved, 0, 0, load(moved, 0, 0) * inverse)
            if size == LANES:
                for i in range(1 + d):
                    store(out, i, start, load(moved, i, 0))
                for h in range(n_planes):
                    copy_signs(pattern, start, out_pattern, start, h, load(moved, 0, 0))
            else:
                copy_columns(moved, 0, out, start, size)
                copy_columns(pattern, start, out_pattern, start, size)
            for k in range(size):
                if not others >> k & 1:
                    continue
                for i in range(d):
                    w[i] = theta[1 + i, start + k]
                for h in range(n_planes):
                    own[h] = pattern[h, start + k]
                u = pass_window(
                    ratio * theta[0, start + k], w, own, normals, forces, nodes,
                    partial[block], counts[block], room,
                )  # fmt: skip
                out[0, start + k] = inverse * u
                for i in range(d):
                    out[1 + i, start + k] = w[i]
                for h in range(n_planes):
                    out_pattern[h, start + k] = own[h]
        for row in range(given.shape[0]):
            node, place = row // (n_planes + d), row % (n_planes + d)
            partial[block, node, place] += total_of_lanes(totals, row)
    return made[0].shape[0] + rooms[0].shape[0]  # what was lent must live until here


@compiled
def _derivatives(
    first, last, start, width, ratio, x, plane, slopes, theta, pattern, values, motions
):
    """Derivatives of f at each sample, over the multiplier: by u, and sigma' u, which is by w."""
    n, d = x.shape
    for block in range(first, last):
        for k in range(block * BLOCK, min((block + 1) * BLOCK, width)):
            u = ratio * theta[0, start + k]
            for i in range(n):
                slope = slopes[pattern[plane[i], start + k] + 1, i]
                z = 0.0
                for j in range(d):
                    z += x[i, j] * theta[1 + j, start + k]
                values[i, k] = slope * z
                motions[i, k] = slope * u


@compiled
def _project(level, start, width, x, normals, pattern, across):
    """Times the input along the ``level``-th direction that a neuron cannot take; the most such."""
    n, d = x.shape
    n_planes = normals.shape[1]
    pins, own = np.empty(n_planes, np.int64), np.empty(n_planes, np.int8)
    basis, triangle, none = np.empty((d + 1, d)), np.empty((d, n_planes)), np.empty((d, 0))
    deepest = 0
    for k in range(width):
        for h in range(n_planes):
            own[h] = pattern[h, start + k]
        _, rank = hold(own, normals, none, pins, basis, triangle, none)
        deepest = max(deepest, rank)
        for i in range(n):
            along = 0.0
            if level < rank:
                for j in range(d):
                    along += x[i, j] * basis[level, j]
            across[i, k] *= along
    return deepest
