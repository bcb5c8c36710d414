"""Passes for piecewise linear activations and few inputs, in vectors of neurons.

For sigma(z) = z where z > 0 and leak z elsewhere (ReLU, leaky ReLU, linear) a neuron's velocity
needs nothing but the signs of its preactivations: with pull = sum_i e_i sigma'(z_i) x_i it is
(w . pull, a pull). So a stage costs 2 d + 1 instructions for a sample and a vector of neurons,
an output d + 2, and everything between them stays in registers or in the first-level cache:
a block's neurons are read, moved, written and added up before the next block is touched.

The sum for f is kept in two parts, sum_k a_k max(z_ik, 0), and with a leak sum_k a_k w_k, from
which the caller makes the outputs (`flowsim.kernels.cpu.piecewise`).
Each vector adds up a block's neurons in the dtype of the state, 64 or 32 terms a lane; everything
beyond that is float64.
"""

from __future__ import annotations

import numba
import numpy as np

from .lanes import (
    LANE_BYTES,
    add_products,
    add_rows,
    add_scaled,
    add_squares,
    add_where_active,
    load,
    load_rows,
    load_slope,
    multiply_add,
    no_rows,
    positive_part,
    preactivation,
    scaled,
    store,
    store_rows,
    table_row,
    total_of_lanes,
    velocity,
    where_active,
)

BLOCK = 512
"""Neurons in a block: with few inputs its state stays in the first-level cache. Part of the
results: bits depend on it."""

compiled = numba.njit(nogil=True, cache=True, error_model="numpy")
_INTERNAL = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Of functions that only compiled code calls: being called by Python is half their compilation."""

internal = numba.njit(nogil=True, cache=True, error_model="numpy", **_INTERNAL)
inlined = numba.njit(nogil=True, cache=True, error_model="numpy", forceinline=True, **_INTERNAL)


@inlined
def combined(slopes, n_slopes, weights, column, like):
    """sum_j weights[j] slopes[j] of the neurons from ``column`` on."""
    total = no_rows(slopes, like)
    for j in range(n_slopes):
        if weights[j] != 0.0:
            total = add_scaled(total, weights[j], load_slope(slopes, j, column, like))
    return total


@inlined
def pulled(x, pull, like, rows):
    """sum_i e_i sigma'(z_i) x_i of some neurons; see `move` for the tables."""
    total = table_row(pull, x.shape[0], like)
    for i in range(x.shape[0]):
        total = add_where_active(preactivation(x, i, rows), pull, i, total)
    return total


@compiled
def make_pull(residual, factor, x, leak, pull):
    """Fill the table (n + 1, d) of what each sample adds to a neuron's pull.

    Row i is (1 - leak) e_i x_i factor, for a neuron that is active on sample i; row n is
    leak sum_i e_i x_i factor, the pull on a neuron that is active nowhere.
    """
    n, d = x.shape
    for j in range(d):
        nowhere = 0.0
        for i in range(n):
            one = residual[i] * factor * x[i, j]
            pull[i, j] = (1.0 - leak) * one
            nowhere += one
        pull[n, j] = leak * nowhere


@compiled
def outputs_of_sums(sums, x, leak, leaky, f):
    """f (n,) from the sums of `add_outputs` over all neurons, both without kappa."""
    n, d = x.shape
    for i in range(n):
        if leaky:
            straight = 0.0
            for j in range(d):
                straight += x[i, j] * sums[n + j]
            f[i] = (1.0 - leak) * sums[i] + leak * straight
        else:
            f[i] = sums[i]


@compiled
def add_blocks(partial, total):
    """Add the blocks' rows (blocks, k) up in the order of the blocks."""
    total[:] = 0.0
    for block in range(partial.shape[0]):
        for i in range(total.shape[0]):
            total[i] += partial[block, i]


@internal
def move(
    start, count, to, x, pull, like, factors, theta, base, slopes, n_slopes, here, weights,
    slope, out, state, use_here, use_rate, use_slope, use_combine, use_out,
):  # fmt: skip
    """Velocities and new states of the ``count`` neurons from ``start`` on.

    Parameters
    ----------
    start, count, to : int
        ``count`` is a whole number of vectors; ``to`` is the first column of ``state`` written.
    x : (n, d) array
    pull : (n + 1, d) array
        See `make_pull`.
    like : tuple of d
        Its length tells the compiler d; the values do not count.
    factors : (2,) array
        Minus the mobilities of output and input weights.
    theta : (1 + d, neurons) array
        Where the rate is taken, unless ``use_here``.
    base, slopes, n_slopes, weights : arrays
        The new state is base + sum_j weights[j] slopes[j] (+ weights[n_slopes] velocity).
    here : (n_slopes,) array
        With ``use_here`` the rate is taken at base + sum_j here[j] slopes[j].
    slope : (1 + d, neurons) array
        Where the velocity goes with ``use_slope``.
    out : (1 + d, neurons) array
        Where the new state goes with ``use_out``; it may be ``theta``.
    state : (1 + d, block) array
        Where the new state goes in any case, for its outputs.
    """
    width = LANE_BYTES // theta.itemsize
    for column in range(start, start + count, width):
        if use_combine:
            increment = combined(slopes, n_slopes, weights, column, like)
        else:
            increment = no_rows(theta, like)
        if use_rate:
            if use_here:
                known = combined(slopes, n_slopes, here, column, like)
                rows = add_rows(load_rows(base, column, like), known)
            else:
                rows = load_rows(theta, column, like)
            pull_here = pulled(x, pull, like, rows)
            moving = velocity(rows, pull_here, factors[0], factors[1])
            if use_slope:
                store_rows(slope, column, moving)
            if use_combine:
                increment = add_scaled(increment, weights[n_slopes], moving)
        if use_combine:
            new = add_rows(load_rows(base, column, like), increment)
            store_rows(state, to + column - start, new)
            if use_out:
                store_rows(out, column, new)


@internal
def add_outputs(start, count, x, like, state, leaky, sums):
    """Add sum_k a_k max(w_k . x_i, 0) of some neurons to the vectors sums[i].

    With ``leaky`` also sum_k a_k w_kj to sums[n + j]. ``count`` is a whole number of pairs of
    vectors: two share the way to the sums and back.
    """
    width = LANE_BYTES // state.itemsize
    n = x.shape[0]
    for column in range(start, start + count, 2 * width):
        first = load_rows(state, column, like)
        second = load_rows(state, column + width, like)
        for i in range(n):
            one = positive_part(preactivation(x, i, first))
            two = positive_part(preactivation(x, i, second))
            total = multiply_add(first[0], one, load(sums, i, 0))
            store(sums, i, 0, multiply_add(second[0], two, total))
        if leaky:
            add_products(sums, n, first)
            add_products(sums, n, second)


@inlined
def gather(sums, into, at):
    """Add up the lanes of each vector in float64, into row ``at``."""
    for i in range(into.shape[1]):
        into[at, i] = total_of_lanes(sums, i)


@internal
def copy_columns(source, first, target, to, count):
    """target[:, to : to + count] = source[:, first : first + count]."""
    for row in range(source.shape[0]):
        for k in range(count):
            target[row, to + k] = source[row, first + k]


@compiled
def sweep(
    first, last, x, pull, like, factors, theta, base, slopes, n_slopes, here, weights,
    slope, out, leaky, partial,
    use_here, use_rate, use_slope, use_combine, use_out, use_outputs,
):  # fmt: skip
    """Sweep over the blocks ``first`` to ``last`` (exclusive); parameters as of `move`.

    ``partial`` (blocks, n or n + d) float64 receives the blocks' sums with ``use_outputs``: at
    the new state with ``use_combine``, else at ``theta``.
    """
    width = LANE_BYTES // base.itemsize
    state = np.empty((base.shape[0], BLOCK), base.dtype)
    sums = np.empty((partial.shape[1], width), base.dtype)
    sweep_blocks(
        first, last, x, pull, like, factors, theta, base, slopes, n_slopes, here, weights,
        slope, out, leaky, partial, state, sums,
        use_here, use_rate, use_slope, use_combine, use_out, use_outputs,
    )  # fmt: skip


@internal
def sweep_blocks(
    first, last, x, pull, like, factors, theta, base, slopes, n_slopes, here, weights,
    slope, out, leaky, partial, state, sums,
    use_here, use_rate, use_slope, use_combine, use_out, use_outputs,
):  # fmt: skip
    """`sweep` with the buffers ``state`` (1 + d, block) and ``sums`` (of vectors) given."""
    neurons = max(theta.shape[1], base.shape[1])
    width = LANE_BYTES // base.itemsize
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, neurons - start)
        whole = size - size % (2 * width)
        if use_rate or use_combine:
            move(
                start, whole, 0, x, pull, like, factors, theta, base, slopes, n_slopes, here,
                weights, slope, out, state, use_here, use_rate, use_slope, use_combine, use_out,
            )  # fmt: skip
        if whole < size:
            move_rest(
                start + whole, size - whole, whole, x, pull, like, factors, theta, base,
                slopes, n_slopes, here, weights, slope, out, state,
                use_here, use_rate, use_slope, use_combine, use_out,
            )  # fmt: skip
        if use_outputs:
            sums[:] = 0.0
            count = whole if whole == size else whole + 2 * width
            if use_combine:
                add_outputs(0, count, x, like, state, leaky, sums)
            else:
                add_outputs(start, whole, x, like, theta, leaky, sums)
                if whole < size:
                    add_outputs(whole, 2 * width, x, like, state, leaky, sums)
            gather(sums, partial, block)


@internal
def move_rest(
    start, size, to, x, pull, like, factors, theta, base, slopes, n_slopes, here, weights,
    slope, out, state, use_here, use_rate, use_slope, use_combine, use_out,
):  # fmt: skip
    """`move` for fewer neurons than a pair of vectors: zeros, which add nothing, fill it up.

    Without ``use_combine`` the neurons of ``theta`` go into ``state``, filled up likewise.
    """
    rows, count = state.shape[0], 2 * LANE_BYTES // state.itemsize
    here_theta = np.zeros((rows, count), state.dtype)
    here_base = np.zeros((rows, count), state.dtype)
    here_slopes = np.zeros((n_slopes, rows, count), state.dtype)
    moving = np.zeros((rows, count), state.dtype)
    if theta.shape[1] > 0:
        copy_columns(theta, start, here_theta, 0, size)
    if use_combine or use_here:
        copy_columns(base, start, here_base, 0, size)
        for j in range(n_slopes):
            copy_columns(slopes[j], start, here_slopes[j], 0, size)
    if use_rate or use_combine:
        move(
            0, count, to, x, pull, like, factors, here_theta, here_base, here_slopes, n_slopes,
            here, weights, moving, moving, state,
            use_here, use_rate, use_slope, use_combine, False,
        )  # fmt: skip
    if use_slope:
        copy_columns(moving, 0, slope, start, size)
    if use_out:
        copy_columns(state, to, out, start, size)
    if not use_combine:
        copy_columns(here_theta, 0, state, to, count)


@internal
def measure_errors(start, count, to, like, theta, slopes, n_slopes, weights, state, squares, row):
    """Errors sum_j weights[j] slopes[j]: their squares, and theta minus them into ``state``."""
    width = LANE_BYTES // theta.itemsize
    for column in range(start, start + count, width):
        error = combined(slopes, n_slopes, weights, column, like)
        add_squares(squares, row, error)
        rows = load_rows(theta, column, like)
        if row == 0:
            add_squares(squares, squares.shape[0] - 2, rows)
        store_rows(state, to + column - start, add_scaled(rows, -1.0, error))


@compiled
def error_sweep(
    first, last, x, pull, like, factors, theta, slopes, n_slopes, weights, leaky, partial,
    partial_squares,
):  # fmt: skip
    """Rate at ``theta`` into the last slope, then the errors of embedded solutions, in one pass.

    Parameters
    ----------
    weights : (e, n_slopes) array
        The e errors are sum_j weights[., j] slopes[j].
    partial : (blocks, e, n or n + d) float64 array
        Receives the blocks' sums for f at theta minus the error.
    partial_squares : (blocks, 2 e + 2) float64 array
        Receives the blocks' squares of each error (output, input), and of ``theta``.
    """
    neurons, rows = theta.shape[1], theta.shape[0]
    width = LANE_BYTES // theta.itemsize
    pair = 2 * width
    n_errors = weights.shape[0]
    slope = slopes[n_slopes - 1]
    state = np.empty((rows, BLOCK), theta.dtype)
    rest = np.zeros((rows, pair), theta.dtype)
    rest_slopes = np.zeros((n_slopes, rows, pair), theta.dtype)
    sums = np.empty((partial.shape[2], width), theta.dtype)
    squares = np.empty((2 * n_errors + 2, width), theta.dtype)
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, neurons - start)
        whole = size - size % pair
        filled = whole if whole == size else whole + pair
        move(
            start, whole, 0, x, pull, like, factors, theta, theta, slopes, 0, weights[0],
            weights[0], slope, slope, state, False, True, True, False, False,
        )  # fmt: skip
        if whole < size:
            copy_columns(theta, start + whole, rest, 0, size - whole)
            for j in range(n_slopes - 1):
                copy_columns(slopes[j], start + whole, rest_slopes[j], 0, size - whole)
            move(
                0, pair, 0, x, pull, like, factors, rest, rest, rest_slopes, 0, weights[0],
                weights[0], rest_slopes[n_slopes - 1], rest, state,
                False, True, True, False, False,
            )  # fmt: skip
            copy_columns(rest_slopes[n_slopes - 1], 0, slope, start + whole, size - whole)
        squares[:] = 0.0
        for e in range(n_errors):
            measure_errors(
                start, whole, 0, like, theta, slopes, n_slopes, weights[e], state, squares, 2 * e
            )
            if whole < size:
                measure_errors(
                    0, pair, whole, like, rest, rest_slopes, n_slopes, weights[e], state,
                    squares, 2 * e,
                )  # fmt: skip
            sums[:] = 0.0
            add_outputs(0, filled, x, like, state, leaky, sums)
            gather(sums, partial[block], e)
        gather(squares, partial_squares, block)


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
    for block in range(first, last):
        start = block * BLOCK
        size = min(BLOCK, neurons - start)
        whole = size - size % pair
        move_registers(
            start, whole, 0, x, pull, like, factors, theta, memory, base, error, stage, fresh,
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
                0, pair, whole, x, pull, like, factors, rest[0], rest[1], rest[2], rest[3],
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
def grams(first, last, group, x, like, leak, theta, partial):
    """Gram matrices of the two layers, as `flowsim.kernels.cpu.measures.grams` describes them."""
    n, rows = x.shape[0], theta.shape[0]
    width = LANE_BYTES // theta.itemsize
    buffers = np.empty((2, n, 4 * width), theta.dtype)
    rest = np.zeros((rows, 4 * width), theta.dtype)
    sums = np.empty((n * (n + 1), width), theta.dtype)
    total = np.empty((1, n * (n + 1)))
    gram_blocks(
        first, last, group, x, like, leak, theta, partial, buffers[0], buffers[1], rest, sums, total
    )


@internal
def gram_blocks(
    first, last, group, x, like, leak, theta, partial, values, signals, rest, sums, total
):
    """`grams` with its buffers given; ``rest`` holds zeros in the columns that nothing fills."""
    n, neurons = x.shape[0], theta.shape[1]
    n_blocks = (neurons + BLOCK - 1) // BLOCK
    quad = values.shape[1]
    for g in range(first, last):
        partial[g] = 0.0
        for block in range(g * group, min((g + 1) * group, n_blocks)):
            start = block * BLOCK
            size = min(BLOCK, neurons - start)
            whole = size - size % quad
            sums[:] = 0.0
            for column in range(start, start + whole, quad):
                features(theta, column, x, like, leak, values, signals)
                add_pairs(values, signals, sums)
            if whole < size:
                copy_columns(theta, start + whole, rest, 0, size - whole)
                features(rest, 0, x, like, leak, values, signals)
                add_pairs(values, signals, sums)
            gather(sums, total, 0)
            place = 0
            for i in range(n):
                for j in range(i + 1):
                    partial[g, 0, i, j] += total[0, place]
                    partial[g, 1, i, j] += total[0, place + 1]
                    place += 2


@internal
def features(theta, start, x, like, leak, values, signals):
    """sigma(z_i) and a sigma'(z_i) of as many neurons as ``values`` (n, neurons) has columns."""
    width = LANE_BYTES // theta.itemsize
    for column in range(0, values.shape[1], width):
        rows = load_rows(theta, start + column, like)
        low = scaled(leak, (rows[0],))[0]
        for i in range(x.shape[0]):
            z = preactivation(x, i, rows)
            store(values, i, column, where_active(z, z, scaled(leak, (z,))[0]))
            store(signals, i, column, where_active(z, rows[0], low))


@internal
def add_pairs(values, signals, sums):
    """Add the products of all pairs of samples, over four vectors of neurons, to ``sums``."""
    width = LANE_BYTES // values.itemsize
    place = 0
    for i in range(values.shape[0]):
        v0, v1 = load(values, i, 0), load(values, i, width)
        v2, v3 = load(values, i, 2 * width), load(values, i, 3 * width)
        s0, s1 = load(signals, i, 0), load(signals, i, width)
        s2, s3 = load(signals, i, 2 * width), load(signals, i, 3 * width)
        for j in range(i + 1):
            total = multiply_add(v0, load(values, j, 0), load(sums, place, 0))
            total = multiply_add(v1, load(values, j, width), total)
            total = multiply_add(v2, load(values, j, 2 * width), total)
            store(sums, place, 0, multiply_add(v3, load(values, j, 3 * width), total))
            total = multiply_add(s0, load(signals, j, 0), load(sums, place + 1, 0))
            total = multiply_add(s1, load(signals, j, width), total)
            total = multiply_add(s2, load(signals, j, 2 * width), total)
            store(sums, place + 1, 0, multiply_add(s3, load(signals, j, 3 * width), total))
            place += 2
