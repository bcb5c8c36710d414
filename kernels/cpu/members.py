"""Whole runs of small networks in compiled code: one member of an ensemble after the other.

A member is what `flowsim.steppers.driver` makes of a kernel-bounded method, with its own step
size, time, rows and ending, and comes to the same bits: both call the same passes, in the same
order, and nothing that the compiler could reorder. No call returns to Python between two steps,
so that thousands of small networks cost what their neurons cost. Threads share the members;
which thread has a member does not matter to it.
"""

from __future__ import annotations

import math

import numpy as np

from . import samples
from .borrowing import borrowed
from .fused import compiled, copy_columns, inlined, internal
from .member_data import (
    BY_RULE,
    ENDING,
    EPSILON,
    HOPELESS_LOSS,
    HOPELESS_NON_FINITE,
    HOPELESS_REST,
    LAST_STEP,
    MARKED_LOSS,
    MARKED_TIME,
    N_PASSES,
    N_REJECTED,
    N_RHS,
    N_STEPS,
    NOT_FINITE_AT_START,
    REJECTED_ROW,
    TIME,
    UNFIT,
)
from .member_rows import anything_due, changes, find_crossing, record, record_step
from .member_steps import between, make_work, outputs, relative_speed, take_stages, tangent_kernel


@inlined
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
    if ending != 0 and ending != UNFIT and (in_rows or in_snapshots):
        room = record(
            member, problem, scale, initial, theta, residual, time, step, counters, in_rows,
            in_snapshots, work, results,
        )  # fmt: skip
        ending = ending if room else UNFIT
    numbers[TIME], numbers[LAST_STEP] = time, step
    counters[ENDING] = ending
    changes(initial, theta, problem.width, work, results.change[member], np.empty(3))
    for i in range(residual.shape[0]):
        results.residual[member, i] = residual[i]
    copy_columns(theta, 0, results.theta[member], 0, results.theta.shape[2])


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
    lent = make_work(problem, results.theta, control.b.shape[0])
    # From here on nothing counts references.
    problem, control, results = borrowed(problem), borrowed(control), borrowed(results)
    schedules, work = (borrowed(schedules[0]), borrowed(schedules[1])), borrowed(lent)
    n, grams = problem.y.shape[0], work.grams
    for member in range(first, last):
        if stop[0] != 0:
            break
        scale = scales[member]
        numbers, counters = results.numbers[member], results.counters[member]
        numbers[:], counters[:] = 0.0, 0
        numbers[MARKED_LOSS] = math.nan
        initial, theta, new = work.initial, work.state, work.new
        signs, new_signs = work.signs, work.new_signs
        copy_columns(results.theta[member], 0, initial, 0, results.theta.shape[2])
        copy_columns(initial, 0, theta, 0, initial.shape[1])
        residual, new_residual = np.empty(n), np.empty(n)
        end_residual, row_residual = np.empty(n), np.empty(n)
        factors = np.empty(2, theta.dtype)
        factors[0], factors[1] = -scale[1], -scale[2]
        outputs(problem, scale[0], theta, work, residual, signs)
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
            if counters[N_PASSES] > control.max_passes:
                ending = UNFIT
                continue
            if age >= control.max_age or drift > control.max_drift * control.change:
                rate = tangent_kernel(problem, scale, theta, work, sizes)
                counters[N_PASSES] += 1
                age, drift = 0, 0.0
            speed = relative_speed(scale, residual, grams, sizes)
            by_kernel = control.fraction / rate if rate > 0.0 else math.inf
            by_change = control.change / speed if speed > 0.0 else math.inf
            late = control.late_fraction / rate if rate > 0.0 else math.inf
            largest = min(max(by_kernel, min(late, control.late * by_change)), by_change)
            step = min(shrink * largest, rules.t_max - time)
            if not math.isfinite(step):
                step = max(1.0, time)  # nothing moves: any step is exact
            take_stages(
                problem, scale[0], factors, control.a, control.b, theta, residual, signs, step,
                work, new, new_residual, new_signs,
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
                    problem, scale, factors, control, theta, residual, signs, step, loss, new_loss,
                    rules.stop_loss, counters, work, end_residual,
                )  # fmt: skip
            if fraction < 1.0:
                end = time + fraction * step
                new_loss = samples.half_mean_square(end_residual)
                e = end_residual
                # The rows within the step need the buffer; the end is brought back afterwards.
            room = True
            if anything_due(schedules, positions, time, end):
                room = record_step(
                    member, problem, scale, factors, control, initial, theta, residual, signs,
                    time, after, e, end, fraction, step, counters, schedules, positions, latest,
                    row_residual, work, results,
                )  # fmt: skip
            if fraction < 1.0:
                between(
                    problem, scale[0], factors, control, theta, residual, signs, step, fraction,
                    work, e,
                )  # fmt: skip
                after = work.between
            if not room:
                ending = UNFIT
            elif rule_ends(rules, end, new_loss, counters[N_STEPS], numbers):
                ending = BY_RULE
            time, loss = end, new_loss
            if ending == BY_RULE and fraction < 1.0:
                theta, residual = after, e
            else:
                theta, new = new, theta
                signs, new_signs = new_signs, signs
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
    return lent.initial.shape[0]  # what was lent must live until here
