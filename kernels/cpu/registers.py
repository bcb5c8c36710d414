"""Stages of methods whose registers are states, for piecewise linear activations."""

from __future__ import annotations

import numpy as np

from .fused import BLOCK, add_outputs, compiled, copy_columns, gather, internal, pulled
from .lanes import LANE_BYTES, add_rows, add_scaled, load_rows, scaled, store_rows, velocity


@compiled
def register_sweep(
    first, last, x, pull, like, factors, theta, memory, base, error, stage, fresh, leaky,
    partial,
):  # fmt: skip
    """Stage of a low-storage method, in place; see `TwoLayerKernels.advance_registers`.

    ``stage`` (5,) is (delta, gamma1, gamma2, beta, error_weight) in the state's dtype.
    """
    neurons, rows = theta.shape[1], theta.shape[0]
    width = LANE_BYTES // theta.itemsize
    pair = 2 * width
    state = np.empty((rows, BLOCK), theta.dtype)
    rest = np.zeros((4, rows, pair), theta.dtype)
    sums = np.empty((partial.shape[1], width), theta.dtype)
    zero = np.intp(0)
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, neurons - start)
        whole = size - size % pair
        move_registers(
            start, whole, zero, x, pull, like, factors, theta, memory, base, error, stage, fresh,
            state,
        )  # fmt: skip
        filled = whole
        if whole < size:
            filled += pair
            left, column = size - whole, start + whole
            copy_columns(theta, column, rest[0], 0, left)
            copy_columns(memory, column, rest[1], 0, left)
            copy_columns(base, column, rest[2], 0, left)
            copy_columns(error, column, rest[3], 0, left)
            move_registers(
                zero, pair, whole, x, pull, like, factors, rest[0], rest[1], rest[2], rest[3],
                stage, fresh, state,
            )  # fmt: skip
            copy_columns(rest[0], 0, theta, column, left)
            copy_columns(rest[1], 0, memory, column, left)
            copy_columns(rest[3], 0, error, column, left)
        sums[:] = 0.0
        add_outputs(0, filled, x, like, state, leaky, sums)
        gather(sums, partial, block)


@internal
def move_registers(
    start, count, to, x, pull, like, factors, theta, memory, base, error, stage, fresh, state
):
    """The neurons of `register_sweep` that fill whole vectors."""
    width = LANE_BYTES // theta.itemsize
    for column in range(start, start + count, width):
        rows = load_rows(theta, column, like)
        moving = velocity(rows, pulled(x, pull, like, rows), factors[0], factors[1])
        start_here = load_rows(base, column, like)
        away = add_scaled(rows, -1.0, start_here)
        remembered = scaled(stage[0], away)
        if not fresh:
            remembered = add_rows(load_rows(memory, column, like), remembered)
        store_rows(memory, column, remembered)
        store_rows(error, column, add_scaled(load_rows(error, column, like), stage[4], moving))
        change = add_scaled(scaled(stage[1], away), stage[2], remembered)
        new = add_rows(start_here, add_scaled(change, stage[3], moving))
        store_rows(theta, column, new)
        store_rows(state, to + column - start, new)


@compiled
def recurrence_sweep(
    first_block, last, x, pull, like, factors, theta, previous, base, first, stage, out, leaky,
    partial,
):  # fmt: skip
    """Stage of a three-term recurrence; see `TwoLayerKernels.advance_recurrence`.

    ``stage`` (4,) is (mu, nu, beta, delta) in the state's dtype.
    """
    neurons, rows = theta.shape[1], theta.shape[0]
    width = LANE_BYTES // theta.itemsize
    pair = 2 * width
    state = np.empty((rows, BLOCK), theta.dtype)
    rest = np.zeros((4, rows, pair), theta.dtype)
    sums = np.empty((partial.shape[1], width), theta.dtype)
    zero = np.intp(0)
    for block in range(first_block, last):
        start = block * BLOCK
        size = min(BLOCK, neurons - start)
        whole = size - size % pair
        move_recurrence(
            start, whole, zero, x, pull, like, factors, theta, previous, base, first, stage, out,
            state,
        )  # fmt: skip
        filled = whole
        if whole < size:
            filled += pair
            left, column = size - whole, start + whole
            copy_columns(theta, column, rest[0], 0, left)
            copy_columns(previous, column, rest[1], 0, left)
            copy_columns(base, column, rest[2], 0, left)
            copy_columns(first, column, rest[3], 0, left)
            move_recurrence(
                zero, pair, whole, x, pull, like, factors, rest[0], rest[1], rest[2], rest[3],
                stage, rest[0], state,
            )  # fmt: skip
            copy_columns(rest[0], 0, out, column, left)
        sums[:] = 0.0
        add_outputs(0, filled, x, like, state, leaky, sums)
        gather(sums, partial, block)


@internal
def move_recurrence(
    start, count, to, x, pull, like, factors, theta, previous, base, first, stage, out, state
):
    """The neurons of `recurrence_sweep` that fill whole vectors."""
    width = LANE_BYTES // theta.itemsize
    for column in range(start, start + count, width):
        rows = load_rows(theta, column, like)
        moving = velocity(rows, pulled(x, pull, like, rows), factors[0], factors[1])
        start_here = load_rows(base, column, like)
        change = scaled(stage[0], add_scaled(rows, -1.0, start_here))
        past = add_scaled(load_rows(previous, column, like), -1.0, start_here)
        change = add_scaled(add_scaled(change, stage[1], past), stage[2], moving)
        change = add_scaled(change, stage[3], load_rows(first, column, like))
        new = add_rows(start_here, change)
        store_rows(out, column, new)
        store_rows(state, to + column - start, new)
