"""Rows and snapshots of a member of an ensemble, and where it falls below the wanted loss."""

from __future__ import annotations

import math

import numpy as np

from . import measures, samples
from .fused import copy_columns, inlined, internal
from .member_data import FIXED_COLUMNS, N_PASSES, N_REJECTED, N_RHS, N_ROWS, N_SNAPSHOTS, N_STEPS
from .member_steps import between, layer_squares


@internal
def changes(initial, theta, width, work, change, norm):
    """RD and norms of (input, output, all) on the first copy."""
    squares, first, now = np.empty(2), np.empty(2), np.empty(2)
    layer_squares(theta, initial, width, work, squares)
    layer_squares(initial, work.nothing, width, work, first)
    layer_squares(theta, work.nothing, width, work, now)
    for layer in range(3):
        one = squares[1 - layer] if layer < 2 else squares[1] + squares[0]
        before = first[1 - layer] if layer < 2 else first[1] + first[0]
        after = now[1 - layer] if layer < 2 else now[1] + now[0]
        moved = math.sqrt(one)
        change[layer] = 0.0 if moved == 0.0 else moved / math.sqrt(before)
        norm[layer] = math.sqrt(after)


@internal
def record(
    member, problem, scale, initial, theta, residual, moment, step, counters, in_rows, in_snapshots,
    work, results,
):  # fmt: skip
    """Add a row, a snapshot or both at one moment; False if there is no room.

    Members with no room for any snapshot have no such series.
    """
    change, norm = np.empty(3), np.empty(3)
    changes(initial, theta, problem.width, work, change, norm)
    for layer in range(3):
        known = results.sup_change[member, layer]
        one = change[layer]
        # Like np.fmax: what is not a number does not count.
        if known != known or one > known:
            results.sup_change[member, layer] = one
    if in_rows:
        at = counters[N_ROWS]
        if at >= results.rows.shape[1]:
            return False
        row = results.rows[member, at]
        neurons = results.theta.shape[2]
        measures.activity(0, work.counts.shape[0], problem.x, theta, neurons, work.counts)
        dead = 0
        for block in range(work.counts.shape[0]):
            dead += work.counts[block, 1]
        row[0], row[1], row[2] = moment, counters[N_STEPS], samples.half_mean_square(residual)
        row[3], row[4], row[5] = step, counters[N_RHS], counters[N_PASSES]
        row[6] = counters[N_REJECTED]
        row[7] = measures.invariant_drift(initial, theta, scale[1], scale[2])
        row[8], row[9] = neurons - dead, dead
        for layer in range(3):
            row[10 + layer], row[13 + layer] = change[layer], norm[layer]
        for i in range(residual.shape[0]):
            row[FIXED_COLUMNS + i] = residual[i]
        counters[N_ROWS] += 1
    if in_snapshots and results.snapshots.shape[1] > 0:
        at = counters[N_SNAPSHOTS]
        if at >= results.snapshots.shape[1]:
            return False
        results.snapshot_times[member, at] = moment
        copy_columns(theta, 0, results.snapshots[member, at], 0, results.theta.shape[2])
        counters[N_SNAPSHOTS] += 1
    return True


@inlined
def lowest_due(schedule, before, after):
    """Moments up to here are not due in the step from ``before`` to ``after``."""
    first = schedule.first
    if first != first:
        # The first step has infinitely many decades behind it: its end is early enough.
        first = after if before == 0.0 else before
    return max(before, 0.999999 * first)


@inlined
def next_moment(schedule, position, lowest, after):
    """Position of the next moment in (lowest, after], and the moment; infinity if there is none."""
    moments = schedule.moments
    while position < moments.shape[0] and moments[position] <= lowest:
        position += 1
    if position < moments.shape[0] and moments[position] <= after:
        return position, moments[position]
    return position, math.inf


@inlined
def anything_due(schedules, positions, before, after):
    """Whether `record_step` has anything to do in the step from ``before`` to ``after``."""
    for series in range(2):
        lowest = lowest_due(schedules[series], before, after)
        if lowest < schedules[series].least or after > schedules[series].most:
            return True
        positions[series], moment = next_moment(schedules[series], positions[series], lowest, after)
        if moment < math.inf:
            return True
    return False


@internal
def find_crossing(
    problem, scale, factors, control, theta, residual, signs, step, loss, end_loss, stop_loss,
    counters, work, found,
):  # fmt: skip
    """Fraction of the step at which R falls below stop_loss; e there into ``found``. 1 if none."""
    target = math.log(stop_loss) - 1e-6
    if math.log(end_loss) >= target:
        return 1.0
    bracket = samples.start_bracket(math.log(loss) - target, math.log(end_loss) - target)
    while True:
        fraction = samples.guess(bracket)
        counters[N_RHS] += between(
            problem, scale[0], factors, control, theta, residual, signs, step, fraction, work, found
        )
        counters[N_PASSES] += 1
        if samples.narrow(bracket, fraction, samples.log_loss(found) - target):
            break
    return fraction if samples.half_mean_square(found) < stop_loss else 1.0


@internal
def record_step(
    member, problem, scale, factors, control, initial, before, residual, signs, time, after,
    end_residual, end, end_fraction, step, counters, schedules, positions, last, found, work,
    results,
):  # fmt: skip
    """Rows and snapshots that are due in the step from ``time`` to ``end``; False for no room.

    ``last`` holds the latest moment of each series, ``found`` is overwritten.
    """
    lowest = (lowest_due(schedules[0], time, end), lowest_due(schedules[1], time, end))
    for series in range(2):
        if lowest[series] < schedules[series].least or end > schedules[series].most:
            return False
    while True:
        positions[0], row = next_moment(schedules[0], positions[0], lowest[0], end)
        positions[1], snapshot = next_moment(schedules[1], positions[1], lowest[1], end)
        moment = min(row, snapshot)
        if moment == math.inf:
            return True
        if moment == end and end_fraction == 1.0:
            theta, e = after, end_residual
        else:
            # Looking costs no passes: the counters are those of the method.
            fraction = end_fraction if moment == end else (moment - time) / step
            between(
                problem,
                scale[0],
                factors,
                control,
                before,
                residual,
                signs,
                step,
                fraction,
                work,
                found,
            )
            theta, e = work.between, found
        room = record(
            member, problem, scale, initial, theta, e, moment, step, counters, row == moment,
            snapshot == moment, work, results,
        )  # fmt: skip
        if not room:
            return False
        if row == moment:
            positions[0] += 1
            last[0] = moment
        if snapshot == moment:
            positions[1] += 1
            last[1] = moment
