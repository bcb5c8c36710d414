"""The compiled passes of `matrix`: panels of neurons between two matrix products."""

from __future__ import annotations

import numba
import numpy as np

from .activations import call_both, call_value
from .lanes import (
    LANE_BYTES,
    load,
    multiply_add,
    positive_bits,
    store,
    total_of_lanes,
    where_active,
)
from .panels import (
    BLOCK,
    Fetched,
    combine,
    make_panels,
    multiply,
    panel_of,
    put_columns,
    take_columns,
)
from .sweep import move_recurrence, move_registers
from .tiles import ODD, PANEL_VECTORS, add_wide_product, mix_bits, spread, where_bits

compiled = numba.njit(nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True)


@compiled
def checksum(state, words):
    """64 bits that change with any change of the input weights, places included."""
    mix_bits(state, words)
    total = np.uint64(0)
    for v in range(PANEL_VECTORS):
        for word in range(words.shape[1]):
            total = (total ^ words[v, word]) * np.uint64(ODD)
            total ^= total >> np.uint64(32)
    return total


@compiled
def remember_signs(z, index, total, signs):
    """Keep the signs of z with the `checksum` of their weights."""
    width = LANE_BYTES // z.itemsize
    for i in range(signs.bits.shape[1]):
        for v in range(PANEL_VECTORS):
            signs.bits[index, i, v] = positive_bits(z, i, v * width)
    signs.sums[index] = total
    signs.known[index] = True


@compiled
def add_outputs(fixed, signs, index, panels, count, fetched):
    """Add a_k sigma(z_ik) to the sums for sample i, in float64, for ``count`` panels.

    The first of them has number ``index`` among all; see `multiply` for ``fetched``.
    """
    strip = panels.strip
    multiply(fixed.forward, panels.state, 1, panels.z, 0, strip, count, fetched)
    for p in range(count):
        state, z = panel_of(panels.state, strip, p), panel_of(panels.z, strip, p)
        if fixed.piecewise:
            remember_signs(z, index + p, checksum(state, panels.words), signs)
            add_piecewise_outputs(state, z, fixed.leak, panels.sums)
        else:
            call_value(fixed.value, z, panels.s, panels.s.size, fixed.scale)
            add_products(state, panels.s, panels.sums)


@compiled
def add_piecewise_outputs(state, z, leak, sums):
    """sums[i] += sum_k a_k sigma(z_ik), lane by lane, for z where z > 0 and leak z elsewhere."""
    width = LANE_BYTES // z.itemsize
    parts = width // 8
    low, zero = spread(leak), spread(z.dtype.type(0))
    for i in range(sums.shape[0] // parts):
        for v in range(PANEL_VECTORS):
            one = load(z, i, v * width)
            one = where_active(one, one, multiply_add(low, one, zero))
            add_wide_product(sums, i * parts, load(state, 0, v * width), one)


@compiled
def add_products(state, s, sums):
    """sums[i] += sum_k a_k s_ik, lane by lane."""
    width = LANE_BYTES // s.itemsize
    for i in range(s.shape[0]):
        for v in range(PANEL_VECTORS):
            one = load(s, i, v * width)
            add_wide_product(sums, i * (width // 8), load(state, 0, v * width), one)


@compiled
def find_velocities(fixed, signs, index, residual, panels, count, fetched):
    """Velocities of ``count`` panels of neurons, from ``panels.state`` into ``panels.velocity``.

    The first of them has number ``index`` among all; see `multiply` for ``fetched``.
    """
    strip = panels.strip
    new = not (fixed.piecewise and signs_hold(signs, index, panels, count))
    if new:
        multiply(fixed.forward, panels.state, 1, panels.z, 0, strip, count, fetched)
    for p in range(count):
        z = panel_of(panels.z, strip, p)
        if fixed.piecewise:
            if new:
                total = checksum(panel_of(panels.state, strip, p), panels.words)
                remember_signs(z, index + p, total, signs)
            signals_of_signs(signs.bits[index + p], fixed.leak, residual, z)
        else:
            call_both(fixed.both, z, panels.s, panels.ds, panels.s.size, fixed.scale)
            signals(panels.s, panels.ds, residual, z, panel_of(panels.velocity, strip, p))
    multiply(fixed.backward, panels.z, 0, panels.velocity, 1, strip, count, fetched)
    for p in range(count):
        state, velocity = panel_of(panels.state, strip, p), panel_of(panels.velocity, strip, p)
        move_by_pull(state, velocity, fixed.factors, fixed.piecewise)


@compiled
def signs_hold(signs, index, panels, count):
    """Whether the signs of ``count`` panels are known, and are those of their weights."""
    for p in range(count):
        if not signs.known[index + p]:
            return False
        state = panel_of(panels.state, panels.strip, p)
        if signs.sums[index + p] != checksum(state, panels.words):
            return False
    return True


@compiled
def signals_of_signs(bits, leak, residual, z):
    """Write e_i sigma'(z_ik) over z, from the signs of z."""
    width = LANE_BYTES // z.itemsize
    for i in range(residual.shape[0]):
        high, low = spread(residual[i]), spread(leak * residual[i])
        for v in range(PANEL_VECTORS):
            store(z, i, v * width, where_bits(np.int64(bits[i, v]), high, low))


@compiled
def signals(s, ds, residual, z, velocity):
    """Write e_i sigma'(z_ik) over z, and sum_i e_i sigma(z_ik) into velocity[0]."""
    width, zero = LANE_BYTES // z.itemsize, spread(z.dtype.type(0))
    for v in range(PANEL_VECTORS):
        own = zero
        for i in range(residual.shape[0]):
            e = spread(residual[i])
            own = multiply_add(e, load(s, i, v * width), own)
            store(z, i, v * width, multiply_add(e, load(ds, i, v * width), zero))
        store(velocity, 0, v * width, own)


@compiled
def move_by_pull(state, velocity, factors, piecewise):
    """Turn the pull in velocity[1:] into velocities.

    Of piecewise linear activations velocity[0] is w . pull, of others e . sigma(z) is there.
    """
    width, zero = LANE_BYTES // state.itemsize, spread(state.dtype.type(0))
    output_factor, input_factor = spread(factors[0]), spread(factors[1])
    for v in range(PANEL_VECTORS):
        column = v * width
        lever = multiply_add(input_factor, load(state, 0, column), zero)
        # Two sums: each waits for its last addition.
        even, odd = zero, zero
        if not piecewise:
            even = load(velocity, 0, column)
        for j in range(1, state.shape[0]):
            pull = load(velocity, j, column)
            if piecewise:
                even, odd = odd, multiply_add(load(state, j, column), pull, even)
            store(velocity, j, column, multiply_add(lever, pull, zero))
        own = multiply_add(spread(state.dtype.type(1)), even, odd)
        store(velocity, 0, column, multiply_add(output_factor, own, zero))


@compiled
def gather(sums, row):
    """Write the sums over a block's lanes into its row of the partial sums."""
    parts = sums.shape[0] // row.shape[0]
    for i in range(row.shape[0]):
        total = 0.0
        for part in range(i * parts, (i + 1) * parts):
            total += total_of_lanes(sums, part)
        row[i] = total


@compiled
def sweep(
    first, last, fixed, signs, residual, theta, base, slopes, n_slopes, here, weights, slope, out,
    partial, use_here, use_rate, use_slope, use_combine, use_out, use_outputs,
):  # fmt: skip
    """Sweep over the blocks ``first`` to ``last`` (exclusive) of neurons.

    Arguments and parts as in `flowsim.kernels.cpu.sweep.sweep`, but the first ones.
    """
    neurons = base.shape[1] if use_here else theta.shape[1]
    panels = make_panels(fixed, partial.shape[1])
    strip, width = panels.strip, panels.s.shape[1]
    for block in range(first, last):
        panels.sums[:] = 0.0
        end = min((block + 1) * BLOCK, neurons)
        for start in range(block * BLOCK, end, strip * width):
            index, after = start // width, start + strip * width
            count = min(strip, (end - start + width - 1) // width)
            if use_here or use_rate or not use_combine:
                for p in range(count):
                    place = start + p * width
                    size, state = min(width, end - place), panel_of(panels.state, strip, p)
                    if use_here:
                        combine(base, slopes, n_slopes, here, state, False, place, size, state)
                    else:
                        take_columns(theta, place, size, state)
            if use_rate:
                fetched = Fetched(theta, slope, after, start)
                find_velocities(fixed, signs, index, residual, panels, count, fetched)
            for p in range(count):
                place = start + p * width
                size, state = min(width, end - place), panel_of(panels.state, strip, p)
                velocity = panel_of(panels.velocity, strip, p)
                if use_slope:
                    put_columns(velocity, slope, place, size)
                if use_combine:
                    combine(base, slopes, n_slopes, weights, velocity, use_rate, place, size, state)
                if use_out:
                    put_columns(state, out, place, size)
            if use_outputs:
                fetched = Fetched(base if use_combine else theta, out, after, after)
                add_outputs(fixed, signs, index, panels, count, fetched)
        if use_outputs:
            gather(panels.sums, partial[block])


@compiled
def register_sweep(
    first, last, fixed, signs, residual, theta, memory, base, error, stage, fresh, partial
):  # fmt: skip
    """Stage of a low-storage method, in place; see `TwoLayerKernels.advance_registers`.

    ``stage`` (5,) is (delta, gamma1, gamma2, beta, error_weight) in the state's dtype.
    """
    neurons = theta.shape[1]
    panels = make_panels(fixed, partial.shape[1])
    strip, width = panels.strip, panels.s.shape[1]
    for block in range(first, last):
        panels.sums[:] = 0.0
        end = min((block + 1) * BLOCK, neurons)
        for start in range(block * BLOCK, end, strip * width):
            index, after = start // width, start + strip * width
            count = min(strip, (end - start + width - 1) // width)
            for p in range(count):
                place = start + p * width
                state = panel_of(panels.state, strip, p)
                take_columns(theta, place, min(width, end - place), state)
            fetched = Fetched(base, memory, start, start)
            find_velocities(fixed, signs, index, residual, panels, count, fetched)
            for p in range(count):
                place = start + p * width
                size, state = min(width, end - place), panel_of(panels.state, strip, p)
                velocity = panel_of(panels.velocity, strip, p)
                move_registers(velocity, theta, memory, base, error, stage, fresh, place, size)
                take_columns(theta, place, size, state)
            fetched = Fetched(theta, error, after, after)
            add_outputs(fixed, signs, index, panels, count, fetched)
        gather(panels.sums, partial[block])


@compiled
def recurrence_sweep(
    first_block, last, fixed, signs, residual, theta, previous, base, first, stage, out, partial
):  # fmt: skip
    """Stage of a three-term recurrence; see `TwoLayerKernels.advance_recurrence`.

    ``stage`` (4,) is (mu, nu, beta, delta) in the state's dtype.
    """
    neurons = theta.shape[1]
    panels = make_panels(fixed, partial.shape[1])
    strip, width = panels.strip, panels.s.shape[1]
    for block in range(first_block, last):
        panels.sums[:] = 0.0
        end = min((block + 1) * BLOCK, neurons)
        for start in range(block * BLOCK, end, strip * width):
            index, after = start // width, start + strip * width
            count = min(strip, (end - start + width - 1) // width)
            for p in range(count):
                place = start + p * width
                state = panel_of(panels.state, strip, p)
                take_columns(theta, place, min(width, end - place), state)
            fetched = Fetched(base, previous, start, start)
            find_velocities(fixed, signs, index, residual, panels, count, fetched)
            for p in range(count):
                place = start + p * width
                size, state = min(width, end - place), panel_of(panels.state, strip, p)
                velocity = panel_of(panels.velocity, strip, p)
                move_recurrence(velocity, theta, previous, base, first, stage, out, place, size)
                take_columns(out, place, size, state)
            fetched = Fetched(theta, first, after, after)
            add_outputs(fixed, signs, index, panels, count, fetched)
        gather(panels.sums, partial[block])
