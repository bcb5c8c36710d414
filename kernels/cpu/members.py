"""Whole runs of small networks in compiled code: one member of an ensemble after the other.

A member is what `flowsim.steppers.driver` makes of a kernel-bounded method, with its own step
size, time, rows and ending, and comes to the same bits: both call the same passes, in the same
order, and nothing that the compiler could reorder. No call returns to Python between two steps,
so that thousands of small networks cost what their neurons cost. Threads share the members;
which thread has a member does not matter to it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from . import fused, measures, samples
from .fused import inlined, internal
from .lanes import LANE_BYTES
from .passes import GRAM_GROUP

compiled = numba.njit(nogil=True, cache=True, error_model="numpy")


class Problem(NamedTuple):
    """What the members have in common.

    Attributes
    ----------
    x, x64 : (n, d) arrays
        Inputs in the dtype of the states, and in float64.
    y : (n,) float64 array
    inner : (n, n) array
        x_i . x_j.
    leak : float
        See `Activation`.
    like : tuple of d zeros
        Tells the compiler d.
    width : int
        Neurons of the first copy.
    """

    x: np.ndarray
    x64: np.ndarray
    y: np.ndarray
    inner: np.ndarray
    leak: float
    like: tuple
    width: int


class Rules(NamedTuple):
    """When a member ends: `StopRules` with infinity for what is not limited."""

    stop_loss: float
    t_max: float
    max_steps: float
    steady_slope: float
    steady_min_time: float
    steady_window: float


class Control(NamedTuple):
    """A kernel-bounded method: `KernelBounded`, and its tableau."""

    fraction: float
    change: float
    max_age: int
    max_drift: float
    at_rest: float
    max_rejections: int
    a: np.ndarray
    b: np.ndarray
    dense: np.ndarray


class Schedule(NamedTuple):
    """Moments at which a series has rows, ascending, and the first that counts (or NaN)."""

    moments: np.ndarray
    first: float


class Results(NamedTuple):
    """What becomes of the members; B of them.

    Attributes
    ----------
    theta : (B, 1 + d, neurons) array
        Initial values when it begins, end values afterwards.
    residual : (B, n) array
    numbers : (B, 6) float64 array
        Columns as named below.
    counters : (B, 7) int64 array
    change, sup_change : (B, 3) float64 arrays
        RD of (input, output, all) at the end, and its largest value over the rows.
    rows : (B, rows, columns) float64 array
        Observables: time, step, loss, dt, n_rhs, n_passes, n_rejected, drift of the invariant,
        active neurons, dead neurons, RD (3), norms (3), residual (n).
    snapshot_times, snapshots : (B, rows), (B, rows, 1 + d, neurons) arrays
    """

    theta: np.ndarray
    residual: np.ndarray
    numbers: np.ndarray
    counters: np.ndarray
    change: np.ndarray
    sup_change: np.ndarray
    rows: np.ndarray
    snapshot_times: np.ndarray
    snapshots: np.ndarray


TIME, LAST_STEP, MARKED_TIME, MARKED_LOSS, REJECTED_STEP, REJECTED_ROW = range(6)
"""Columns of `Results.numbers`."""

ENDING, N_STEPS, N_REJECTED, N_RHS, N_PASSES, N_ROWS, N_SNAPSHOTS = range(7)
"""Columns of `Results.counters`."""

BY_RULE, HOPELESS_LOSS, HOPELESS_REST, HOPELESS_NON_FINITE, NOT_FINITE_AT_START = range(1, 6)
"""Endings. 0 is a member that was not run to its end, because it was asked to stop."""

OUT_OF_ROWS = 6
"""An ending that is none: the series had no more room, and the member has to run otherwise."""

EPSILON = float(np.finfo(np.float64).eps)

FIXED_COLUMNS = 16
"""Columns of `Results.rows` before those of the residual."""


class _Work(NamedTuple):
    """What one thread works with."""

    initial: np.ndarray
    state: np.ndarray
    new: np.ndarray
    between: np.ndarray
    slopes: np.ndarray
    nothing: np.ndarray
    partial: np.ndarray
    sums: np.ndarray
    pull: np.ndarray
    row_partial: np.ndarray
    gram_partial: np.ndarray
    grams: np.ndarray
    matrix: np.ndarray
    counts: np.ndarray
    weights: np.ndarray
    here: np.ndarray
    block: np.ndarray
    block_sums: np.ndarray
    features: np.ndarray
    rest: np.ndarray
    pair_sums: np.ndarray
    pair_totals: np.ndarray


@internal
def make_work(problem, theta, stages):
    """Buffers for the members of an ensemble.

    The states are filled up with neurons that are zero, stay zero and add nothing, to a whole
    number of vectors: no pass has a rest.
    """
    rows, lanes = theta.shape[1], LANE_BYTES // theta.itemsize
    neurons = (theta.shape[2] + 4 * lanes - 1) // (4 * lanes) * (4 * lanes)
    n, d = problem.x.shape
    n_blocks = (theta.shape[2] + fused.BLOCK - 1) // fused.BLOCK
    n_measured = (theta.shape[2] + measures.BLOCK - 1) // measures.BLOCK
    n_groups = (n_blocks + GRAM_GROUP - 1) // GRAM_GROUP
    width = n if problem.leak == 0.0 else n + d
    return _Work(
        np.zeros((rows, neurons), theta.dtype),
        np.empty((rows, neurons), theta.dtype),
        np.empty((rows, neurons), theta.dtype),
        np.empty((rows, neurons), theta.dtype),
        np.empty((stages, rows, neurons), theta.dtype),
        np.empty((rows, 0), theta.dtype),
        np.empty((n_blocks, width)),
        np.empty(width),
        np.empty((n + 1, d), theta.dtype),
        np.empty((n_measured, rows)),
        np.empty((n_groups, 2, n, n)),
        np.empty((2, n, n)),
        np.empty((n, n)),
        np.empty((n_measured, 2), np.int64),
        np.empty(stages, theta.dtype),
        np.empty(stages, theta.dtype),
        np.empty((rows, fused.BLOCK), theta.dtype),
        np.empty((width, lanes), theta.dtype),
        np.empty((2, n, 4 * lanes), theta.dtype),
        np.empty((rows, 0), theta.dtype),
        np.empty((n * (n + 1), lanes), theta.dtype),
        np.empty((1, n * (n + 1))),
    )


# Reading an array out of a named tuple counts a reference, with an atomic operation each. The two
# functions that every step calls therefore get their arrays one by one.


@inlined
def residual_of(partial, sums, x64, y, leak, multiplier, out):
    """e from the blocks' sums of the latest pass."""
    fused.add_blocks(partial, sums)
    fused.outputs_of_sums(sums, x64, leak, leak != 0.0, out)
    for i in range(out.shape[0]):
        out[i] = multiplier * out[i] - y[i]


@internal
def take_stages(
    x, x64, y, like, leak, multiplier, factors, a, b, theta, residual, step, nothing, slopes, here,
    weights, pull, partial, sums, block, block_sums, out, new,
):  # fmt: skip
    """One step of the method from ``theta``, ``residual`` into ``out``; e there into ``new``."""
    n_blocks, stages = partial.shape[0], b.shape[0]
    for stage in range(stages):
        last = stage == stages - 1
        for j in range(stage + 1):
            weight = b[j] if last else a[stage + 1, j]
            weights[j] = weight * step
        for j in range(stage):
            here[j] = a[stage, j] * step
        factor = multiplier / y.shape[0]
        if stage == 0:
            fused.make_pull(residual, factor, x64, leak, pull)
        else:
            fused.make_pull(new, factor, x64, leak, pull)
        fused.sweep_blocks(
            0, n_blocks, x, pull, like, factors, theta if stage == 0 else nothing, theta, slopes,
            stage, here, weights, slopes[stage], out, leak != 0.0, partial, block, block_sums,
            stage > 0, True, stages > 1, True, last, True,
        )  # fmt: skip
        residual_of(partial, sums, x64, y, leak, multiplier, new)


@internal
def outputs(problem, multiplier, factors, theta, work, out):
    """e at ``theta``."""
    fused.sweep_blocks(
        0, work.partial.shape[0], problem.x, work.pull, problem.like, factors, theta, theta,
        work.slopes, 0, work.here, work.weights, work.nothing, work.nothing,
        problem.leak != 0.0, work.partial, work.block, work.block_sums,
        False, False, False, False, False, True,
    )  # fmt: skip
    residual_of(work.partial, work.sums, problem.x64, problem.y, problem.leak, multiplier, out)


@internal
def combine(problem, multiplier, factors, base, weights, work, out, residual):
    """base + sum_j weights[j] slopes[j] into ``out``; e there."""
    fused.sweep_blocks(
        0, work.partial.shape[0], problem.x, work.pull, problem.like, factors, work.nothing, base,
        work.slopes, weights.shape[0], work.here, weights, work.nothing, out,
        problem.leak != 0.0, work.partial, work.block, work.block_sums,
        False, False, False, True, True, True,
    )  # fmt: skip
    residual_of(work.partial, work.sums, problem.x64, problem.y, problem.leak, multiplier, residual)


@inlined
def dense_weights(dense, fraction, step, weights):
    """Weights of the stages at a fraction of a step, with the step (Horner's scheme)."""
    for j in range(dense.shape[0]):
        total = 0.0
        for k in range(dense.shape[1] - 1, -1, -1):
            total = (total + dense[j, k]) * fraction
        weights[j] = total * step


@internal
def between(problem, multiplier, factors, control, theta, residual, step, fraction, work, out):
    """The state at a fraction of the step just taken, into work.between; e there into ``out``."""
    if control.b.shape[0] == 1:
        # Euler's path is a straight line: a shorter step is on it.
        take_stages(
            problem.x, problem.x64, problem.y, problem.like, problem.leak, multiplier, factors,
            control.a, control.b, theta, residual, fraction * step, work.nothing, work.slopes,
            work.here, work.weights, work.pull, work.partial, work.sums, work.block,
            work.block_sums, work.between, out,
        )  # fmt: skip
        return 1
    dense_weights(control.dense, fraction, step, work.weights)
    combine(problem, multiplier, factors, theta, work.weights, work, work.between, out)
    return 0


@inlined
def layer_squares(theta, reference, neurons, work, squares):
    """Squares of (output, input) over the first ``neurons`` neurons."""
    n_blocks = (neurons + measures.BLOCK - 1) // measures.BLOCK
    measures.squared_norms(0, n_blocks, theta, reference, neurons, work.row_partial)
    measures.add_by_layer(work.row_partial[:n_blocks], squares)


@internal
def tangent_kernel(problem, scale, theta, work, sizes):
    """Gram matrices of (input, output) into work.grams, sizes of the layers; lambda_max(K/n)."""
    output_mobility, input_mobility, squared = scale[1], scale[2], scale[3]
    n = problem.y.shape[0]
    fused.gram_blocks(
        0, work.gram_partial.shape[0], GRAM_GROUP, problem.x, problem.like, problem.leak, theta,
        work.gram_partial, work.features[0], work.features[1], work.rest, work.pair_sums,
        work.pair_totals,
    )  # fmt: skip
    for i in range(n):
        for j in range(i + 1):
            output, input_ = 0.0, 0.0
            for group in range(work.gram_partial.shape[0]):
                output += work.gram_partial[group, 0, i, j]
                input_ += work.gram_partial[group, 1, i, j]
            work.grams[0, i, j] = work.grams[0, j, i] = input_ * squared * problem.inner[i, j]
            work.grams[1, i, j] = work.grams[1, j, i] = output * squared
    mobilities = np.array([input_mobility, output_mobility])
    samples.weighted_sum(work.grams, mobilities, work.matrix)
    squares = np.empty(2)
    layer_squares(theta, work.nothing, theta.shape[1], work, squares)
    sizes[0], sizes[1] = math.sqrt(squares[1]), math.sqrt(squares[0])
    for i in range(n):
        if not samples.all_finite(work.matrix[i]):
            return math.inf
    return max(samples.largest_eigenvalue(work.matrix) / n, 0.0)


@inlined
def relative_speed(scale, residual, grams, sizes):
    """Largest |d theta_l / dtau| / |theta_l|; a layer that is zero altogether has no bound."""
    fastest = 0.0
    for layer in range(2):
        if sizes[layer] > 0.0:
            mobility = scale[2] if layer == 0 else scale[1]
            speed = samples.layer_speed(grams, layer, mobility, residual)
            fastest = max(fastest, speed / sizes[layer])
    return fastest


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
    """Add a row, a snapshot or both at one moment; False if there is no room."""
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
    if in_snapshots:
        at = counters[N_SNAPSHOTS]
        if at >= results.snapshots.shape[1]:
            return False
        results.snapshot_times[member, at] = moment
        results.snapshots[member, at] = theta[:, : results.theta.shape[2]]
        counters[N_SNAPSHOTS] += 1
    return True


@internal
def lowest_due(schedule, before, after):
    """Moments up to here are not due in the step from ``before`` to ``after``."""
    first = schedule.first
    if first != first:
        # The first step has infinitely many decades behind it: its end is early enough.
        first = after if before == 0.0 else before
    return max(before, 0.999999 * first)


@internal
def next_moment(schedule, position, lowest, after):
    """Position of the next moment in (lowest, after], and the moment; infinity if there is none."""
    moments = schedule.moments
    while position < moments.shape[0] and moments[position] <= lowest:
        position += 1
    if position < moments.shape[0] and moments[position] <= after:
        return position, moments[position]
    return position, math.inf


@internal
def find_crossing(
    problem, scale, factors, control, theta, residual, step, loss, end_loss, stop_loss, counters,
    work, found,
):  # fmt: skip
    """Fraction of the step at which R falls below stop_loss; e there into ``found``. 1 if none."""
    target = math.log(stop_loss) - 1e-6
    if math.log(end_loss) >= target:
        return 1.0
    bracket = samples.start_bracket(math.log(loss) - target, math.log(end_loss) - target)
    while True:
        fraction = samples.guess(bracket)
        counters[N_RHS] += between(
            problem, scale[0], factors, control, theta, residual, step, fraction, work, found
        )
        counters[N_PASSES] += 1
        if samples.narrow(bracket, fraction, samples.log_loss(found) - target):
            break
    return fraction if samples.half_mean_square(found) < stop_loss else 1.0


@internal
def record_step(
    member, problem, scale, factors, control, initial, before, residual, time, after, end_residual,
    end, end_fraction, step, counters, schedules, positions, last, found, work, results,
):  # fmt: skip
    """Rows and snapshots that are due in the step from ``time`` to ``end``; False for no room.

    ``last`` holds the latest moment of each series, ``found`` is overwritten.
    """
    lowest = (lowest_due(schedules[0], time, end), lowest_due(schedules[1], time, end))
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
                problem, scale[0], factors, control, before, residual, step, fraction, work, found
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


@internal
def rule_ends(rules, time, loss, n_steps, numbers):
    """`Watch.ending` as yes or no; the marks are those before it, for the explanation."""
    if loss < rules.stop_loss or (loss == 0.0 and n_steps > 0) or time >= rules.t_max:
        return True
    if time >= rules.steady_min_time and loss > 0.0:
        marked_time, marked_loss = numbers[MARKED_TIME], numbers[MARKED_LOSS]
        if marked_loss != marked_loss:
            marked_time, marked_loss = time, loss
        if time > rules.steady_window * marked_time:
            slope = math.log(loss / marked_loss) / math.log(time / marked_time)
            if abs(slope) < rules.steady_slope:
                return True
            marked_time, marked_loss = time, loss
        if n_steps < rules.max_steps:
            numbers[MARKED_TIME], numbers[MARKED_LOSS] = marked_time, marked_loss
    return n_steps >= rules.max_steps


@internal
def finish(
    member, problem, scale, initial, theta, residual, time, step, ending, last, work, results
):
    """Last rows, end values, relative changes."""
    numbers, counters = results.numbers[member], results.counters[member]
    in_rows, in_snapshots = last[0] < time, last[1] < time
    if ending != 0 and ending != OUT_OF_ROWS and (in_rows or in_snapshots):
        room = record(
            member, problem, scale, initial, theta, residual, time, step, counters, in_rows,
            in_snapshots, work, results,
        )  # fmt: skip
        ending = ending if room else OUT_OF_ROWS
    numbers[TIME], numbers[LAST_STEP] = time, step
    counters[ENDING] = ending
    changes(initial, theta, problem.width, work, results.change[member], np.empty(3))
    results.residual[member] = residual
    results.theta[member] = theta[:, : results.theta.shape[2]]


@compiled
def run_members(first, last, problem, rules, control, schedules, scales, stop, results):
    """Run members ``first`` to ``last`` (exclusive) from their initial values to their ends.

    Parameters
    ----------
    problem : Problem
    rules : Rules
    control : Control
    schedules : (Schedule, Schedule)
        Of the rows and of the snapshots.
    scales : (B, 4) float64 array
        Multiplier, mobilities of output and input weights, and the multiplier's square.
    stop : (1,) uint8 array
        Anything but 0 asks for an end as soon as possible.
    results : Results
    """
    work = make_work(problem, results.theta, control.b.shape[0])
    n, grams = problem.y.shape[0], work.grams
    x, x64, y, like, leak = problem.x, problem.x64, problem.y, problem.like, problem.leak
    a, b, nothing, slopes = control.a, control.b, work.nothing, work.slopes
    here, weights, pull = work.here, work.weights, work.pull
    partial, sums, block, block_sums = work.partial, work.sums, work.block, work.block_sums
    for member in range(first, last):
        if stop[0] != 0:
            return
        scale = scales[member]
        numbers, counters = results.numbers[member], results.counters[member]
        numbers[:], counters[:] = 0.0, 0
        numbers[MARKED_LOSS] = math.nan
        initial, theta, new = work.initial, work.state, work.new
        initial[:, : results.theta.shape[2]] = results.theta[member]
        theta[:] = initial
        residual, new_residual = np.empty(n), np.empty(n)
        end_residual, row_residual = np.empty(n), np.empty(n)
        factors = np.empty(2, theta.dtype)
        factors[0], factors[1] = -scale[1], -scale[2]
        outputs(problem, scale[0], factors, theta, work, residual)
        counters[N_PASSES] = 1
        time, loss = 0.0, samples.half_mean_square(residual)
        positions, latest, sizes = np.zeros(2, np.int64), np.zeros(2), np.empty(2)
        always = latest[0] == 0.0
        results.sup_change[member] = math.nan
        record(
            member, problem, scale, initial, theta, residual, 0.0, 0.0, counters, always, always,
            work, results,
        )  # fmt: skip
        ending = 0
        if not (samples.all_finite(residual) and math.isfinite(loss)):
            ending = NOT_FINITE_AT_START
        elif rule_ends(rules, time, loss, 0, numbers):
            ending = BY_RULE
        step = math.nan
        if ending == 0:
            rate = tangent_kernel(problem, scale, theta, work, sizes)
            counters[N_PASSES] += 1
        age, drift, shrink, in_a_row = 0, 0.0, 1.0, 0
        while ending == 0 and stop[0] == 0:
            if age >= control.max_age or drift > control.max_drift * control.change:
                rate = tangent_kernel(problem, scale, theta, work, sizes)
                counters[N_PASSES] += 1
                age, drift = 0, 0.0
            speed = relative_speed(scale, residual, grams, sizes)
            by_kernel = control.fraction / rate if rate > 0.0 else math.inf
            by_change = control.change / speed if speed > 0.0 else math.inf
            step = min(shrink * min(by_kernel, by_change), rules.t_max - time)
            if not math.isfinite(step):
                step = max(1.0, time)  # nothing moves: any step is exact
            take_stages(
                x, x64, y, like, leak, scale[0], factors, a, b, theta, residual, step, nothing,
                slopes, here, weights, pull, partial, sums, block, block_sums, new, new_residual,
            )  # fmt: skip
            counters[N_RHS] += control.b.shape[0]
            counters[N_PASSES] += control.b.shape[0]
            new_loss = samples.half_mean_square(new_residual)
            finite = samples.all_finite(new_residual)
            if not (finite and new_loss <= loss):
                if age > 0:
                    rate = tangent_kernel(problem, scale, theta, work, sizes)
                    counters[N_PASSES] += 1
                    age, drift = 0, 0.0
                else:
                    shrink *= 0.5
                in_a_row += 1
                counters[N_REJECTED] += 1
                at_rest = finite and shrink <= control.at_rest
                if step <= 4.0 * EPSILON * time or at_rest or in_a_row >= control.max_rejections:
                    if at_rest:
                        ending = HOPELESS_REST
                    else:
                        ending = HOPELESS_LOSS if finite else HOPELESS_NON_FINITE
                    numbers[REJECTED_ROW] = in_a_row
                continue
            drift += step * speed
            age += 1
            shrink = min(1.0, 1.5 * shrink)
            in_a_row = 0
            counters[N_STEPS] += 1
            fraction, after, e = 1.0, new, new_residual
            end = time + step
            if 0.0 < new_loss < rules.stop_loss and rules.stop_loss <= loss:
                fraction = find_crossing(
                    problem, scale, factors, control, theta, residual, step, loss, new_loss,
                    rules.stop_loss, counters, work, end_residual,
                )  # fmt: skip
            if fraction < 1.0:
                end = time + fraction * step
                new_loss = samples.half_mean_square(end_residual)
                e = end_residual
                # The rows within the step need the buffer; the end is brought back afterwards.
            room = record_step(
                member, problem, scale, factors, control, initial, theta, residual, time, after, e,
                end, fraction, step, counters, schedules, positions, latest, row_residual, work,
                results,
            )  # fmt: skip
            if fraction < 1.0:
                between(
                    problem, scale[0], factors, control, theta, residual, step, fraction, work, e
                )
                after = work.between
            if not room:
                ending = OUT_OF_ROWS
            elif rule_ends(rules, end, new_loss, counters[N_STEPS], numbers):
                ending = BY_RULE
            time, loss = end, new_loss
            if ending == BY_RULE and fraction < 1.0:
                theta, residual = after, e
            else:
                theta, new = new, theta
                residual, new_residual = new_residual, residual
        finish(
            member,
            problem,
            scale,
            initial,
            theta,
            residual,
            time,
            step,
            ending,
            latest,
            work,
            results,
        )
