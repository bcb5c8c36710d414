"""Derivatives of f along a direction for two-layer networks, one pass over the neurons.

With a direction (da, dw) the derivative of f_i / kappa is

    sum_k da_k sigma(z_ik) + a_k sigma'(z_ik) dz_ik,    z_ik = w_k . x_i,  dz_ik = dw_k . x_i.

Each way of passing has a loop of its own, made of the same parts as its sweep. All arguments are
as in `flowsim.kernels.cpu.sweep.sweep`; ``direction`` is a slope (1 + d, neurons), and
``partial`` (blocks, n) float64 receives each block's sums.
"""

from __future__ import annotations

import numba
import numpy as np

from . import fused, panels
from .activations import FASTMATH, call_both
from .lanes import (
    LANE_BYTES,
    load,
    load_rows,
    multiply_add,
    preactivation,
    store,
    where_active,
)
from .panel_passes import gather
from .panels import Fetched, make_panels, multiply, panel_of, take_columns
from .sweep import BLOCK, _preactivation
from .tiles import add_wide_product, spread

compiled = numba.njit(nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True)


@numba.njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy", no_cfunc_wrapper=True)
def general(first, last, both, scale, x, theta, direction, partial):
    """Any activation, called by address for a block of neurons at a time."""
    z, dz, s, ds = np.empty((4, BLOCK), theta.dtype)
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, theta.shape[1] - start)
        output, moving = theta[0, start : start + size], direction[0, start : start + size]
        for i in range(x.shape[0]):
            _preactivation(x[i], theta[1:], start, size, z)
            _preactivation(x[i], direction[1:], start, size, dz)
            call_both(both, z, s, ds, size, scale)
            total = 0.0
            for k in range(size):
                total += np.float64(moving[k] * s[k] + output[k] * ds[k] * dz[k])
            partial[block, i] = total


@compiled
def piecewise(first, last, x, like, leak, theta, direction, partial):
    """sigma(z) = z where z > 0 and leak z elsewhere, so that sigma(z) = sigma'(z) z."""
    width = LANE_BYTES // theta.itemsize
    sums = np.empty((partial.shape[1], width), theta.dtype)
    rest = np.zeros((2, theta.shape[0], width), theta.dtype)
    for block in range(first, last):
        start = block * fused.BLOCK
        size = min(fused.BLOCK, theta.shape[1] - start)
        whole = size - size % width
        sums[:] = 0.0
        _add_piecewise(start, whole, x, like, leak, theta, direction, sums)
        if whole < size:
            fused.copy_columns(theta, start + whole, rest[0], 0, size - whole)
            fused.copy_columns(direction, start + whole, rest[1], 0, size - whole)
            _add_piecewise(0, width, x, like, leak, rest[0], rest[1], sums)
        fused.gather(sums, partial, block)


@fused.internal
def _add_piecewise(start, count, x, like, leak, theta, direction, sums):
    """Add sigma'(z_i) (a dz_i + z_i da) of some neurons to the vectors sums[i]."""
    width = LANE_BYTES // theta.itemsize
    low, zero = spread(theta.dtype.type(leak)), spread(theta.dtype.type(0))
    for column in range(start, start + count, width):
        rows = load_rows(theta, column, like)
        moving = load_rows(direction, column, like)
        for i in range(x.shape[0]):
            z = preactivation(x, i, rows)
            own = multiply_add(moving[0], z, zero)
            own = multiply_add(rows[0], preactivation(x, i, moving), own)
            own = where_active(z, own, multiply_add(low, own, zero))
            store(sums, i, 0, multiply_add(spread(theta.dtype.type(1)), own, load(sums, i, 0)))


@compiled
def matrix(first, last, fixed, theta, direction, partial):
    """Many inputs: two matrix products a strip of panels, one for z and one for dz."""
    neurons = theta.shape[1]
    work = make_panels(fixed, partial.shape[1])
    strip, width, lanes = work.strip, work.s.shape[1], LANE_BYTES // theta.itemsize
    slopes = np.empty_like(work.z)
    for block in range(first, last):
        work.sums[:] = 0.0
        end = min((block + 1) * panels.BLOCK, neurons)
        for start in range(block * panels.BLOCK, end, strip * width):
            count = min(strip, (end - start + width - 1) // width)
            for p in range(count):
                place = start + p * width
                size = min(width, end - place)
                take_columns(theta, place, size, panel_of(work.state, strip, p))
                into = panel_of(work.velocity, strip, p)[: theta.shape[0]]
                take_columns(direction, place, size, into)
            fetched = Fetched(theta, direction[:, :0], start + strip * width, 0)
            multiply(fixed.forward, work.state, 1, work.z, 0, strip, count, fetched)
            fetched = Fetched(direction, direction[:, :0], start + strip * width, 0)
            multiply(fixed.forward, work.velocity, 1, slopes, 0, strip, count, fetched)
            for p in range(count):
                z, dz = panel_of(work.z, strip, p), panel_of(slopes, strip, p)
                call_both(fixed.both, z, work.s, work.ds, work.s.size, fixed.scale)
                state, moving = panel_of(work.state, strip, p), panel_of(work.velocity, strip, p)
                _add_products(state, moving, work.s, work.ds, dz, lanes, work.sums)
        gather(work.sums, partial[block])


@compiled
def _add_products(state, moving, s, ds, dz, lanes, sums):
    """sums[i] += sum_k da_k s_ik + a_k ds_ik dz_ik, lane by lane."""
    zero = spread(s.dtype.type(0))
    for i in range(s.shape[0]):
        row = i * (lanes // 8)
        for column in range(0, s.shape[1], lanes):
            add_wide_product(sums, row, load(moving, 0, column), load(s, i, column))
            lever = multiply_add(load(ds, i, column), load(dz, i, column), zero)
            add_wide_product(sums, row, load(state, 0, column), lever)
