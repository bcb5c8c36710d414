"""What the compiled runs of `flowsim.kernels.cpu.members` are given and what they give back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


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
    late_fraction: float
    late: float
    max_age: int
    max_drift: float
    at_rest: float
    max_rejections: int
    max_passes: int
    a: np.ndarray
    b: np.ndarray
    dense: np.ndarray


class Schedule(NamedTuple):
    """Moments at which a series has rows.

    Attributes
    ----------
    moments : (k,) array
        Ascending.
    first : float
        The first that counts; NaN for those after the end of the first step.
    least, most : float
        Times between which no moment is missing in the list.
    """

    moments: np.ndarray
    first: float
    least: float
    most: float


class Results(NamedTuple):
    """What becomes of the members; B of them.

    Attributes
    ----------
    theta : (B, 1 + d, neurons) array
        Initial values when it begins, end values afterwards.
    residual : (B, n) array
    numbers : (B, 5) float64 array
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


TIME, LAST_STEP, MARKED_TIME, MARKED_LOSS, REJECTED_ROW = range(5)
"""Columns of `Results.numbers`."""

ENDING, N_STEPS, N_REJECTED, N_RHS, N_PASSES, N_ROWS, N_SNAPSHOTS = range(7)
"""Columns of `Results.counters`."""

BY_RULE, HOPELESS_LOSS, HOPELESS_REST, HOPELESS_NON_FINITE, NOT_FINITE_AT_START = range(1, 6)
"""Endings. 0 is a member that was not run to its end, because it was asked to stop."""

UNFIT = 6
"""An ending that is none: no room for a row, or more passes than a short run has. The member has
to be run in another way."""

EPSILON = float(np.finfo(np.float64).eps)

FIXED_COLUMNS = 16
"""Columns of `Results.rows` before those of the residual."""
