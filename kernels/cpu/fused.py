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

from . import samples
from .lanes import (
    LANE_BYTES,
    add_products,
    add_rows,
    add_scaled,
    add_where_active,
    load,
    load_rows,
    load_slope,
    multiply_add,
    no_rows,
    positive_part,
    preactivation,
    store,
    store_rows,
    table_row,
    total_of_lanes,
    velocity,
)
from .prefetch import prefetch_rows, prefetch_slope, prefetch_target
from .streams import fence, stream_rows, streamed

BLOCK = 512
"""Neurons in a block: with few inputs its state stays in the first-level cache. Part of the
results: bits depend on it."""

AHEAD = 32 * LANE_BYTES
"""Bytes of each row that are asked for before their turn."""

CACHED = 1 << 20
"""Bytes of a state up to which asking would only cost time: it is in a cache already."""

MANY = 12
"""Samples from which on adding up outputs takes so long that memory should work meanwhile."""

# Here and elsewhere: nobody calls these from C, and being called from there would be a tenth of
# their compilation.
compiled = numba.njit(nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True)
_INTERNAL = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Of functions that only compiled code calls: being called by Python is half their compilation."""

internal = numba.njit(nogil=True, cache=True, error_model="numpy", **_INTERNAL)
inlined = numba.njit(nogil=True, cache=True, error_model="numpy", forceinline=True, **_INTERNAL)

# A number written into a call is to Numba a type of its own, for which it compiles the function
# called once more: where it is also called with others, the callers write `np.intp(0)`.


@inlined
def combined(slopes, n_slopes, turn, weights, column, like):
    """sum_j weights[j] slopes[j] of the neurons from ``column`` on."""
    total = no_rows(slopes, like)
    for j in range(n_slopes):
        if weights[j] != 0.0:
            total = add_scaled(total, weights[j], load_slope(slopes, abs(turn - j), column, like))
    return total


@inlined
def pulled(x, pull, like, rows):
    """sum_i e_i sigma'(z_i) x_i of some neurons; see `move` for the tables."""
    total = table_row(pull, x.shape[0], like)
    for i in range(x.shape[0]):
        total = add_where_active(preactivation(x, i, rows), pull, i, total)
    return total


@inlined
def ask(base, slopes, n_slopes, turn, column, like):
    """Ask for what `move` reads of a vector of neurons."""
    prefetch_rows(base, column, like)
    for j in range(n_slopes):
        prefetch_slope(slopes, abs(turn - j), column, like)


@internal
def move(
    start, count, to, x, pull, like, factors, theta, base, slopes, n_slopes, here, weights,
    others, slope, out, other, state,
    use_here, use_rate, use_slope, use_combine, use_out, use_other, turn, past,
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
    others, other : arrays
        With ``use_other`` another sum over the same slopes, without the base, goes into ``other``.
    state : (1 + d, block) array
        Where the new state goes in any case, for its outputs.
    turn : int
        The slopes are kept in the order j, or for a ``turn`` in the order turn - j: the last
        slope of a step is the first of the next, and would else have to be copied.
    past : bool
        Whether large arrays are stored past the caches: nobody reads them again in this pass.
    """
    width, ahead = LANE_BYTES // theta.itemsize, AHEAD // theta.itemsize
    # A rate alone reads and writes so few rows that asking for them makes it slower. With many
    # samples `add_outputs` of the block before has asked.
    far = use_combine and base.size * base.itemsize > CACHED and x.shape[0] < MANY
    past_slope = past and use_slope and streamed(slope)
    past_out = past and use_out and streamed(out)
    past_other = past and use_other and streamed(other)
    for column in range(start, start + count, width):
        increment = no_rows(theta, like)
        known = no_rows(theta, like)
        beside = no_rows(theta, like)
        coming = column + ahead
        if far:
            ask(base, slopes, n_slopes, turn, coming, like)
            if use_slope and not past_slope:
                prefetch_target(slope, coming, like)
            if use_out and not past_out:
                prefetch_target(out, coming, like)
            if use_other and not past_other:
                prefetch_target(other, coming, like)
        for j in range(n_slopes):
            one = load_slope(slopes, abs(turn - j), column, like)
            if weights[j] != 0.0:
                increment = add_scaled(increment, weights[j], one)
            if use_here and here[j] != 0.0:
                known = add_scaled(known, here[j], one)
            if use_other and others[j] != 0.0:
                beside = add_scaled(beside, others[j], one)
        if use_rate:
            if use_here:
                rows = add_rows(load_rows(base, column, like), known)
            else:
                rows = load_rows(theta, column, like)
            pull_here = pulled(x, pull, like, rows)
            moving = velocity(rows, pull_here, factors[0], factors[1])
            if past_slope:
                stream_rows(slope, column, moving)
            elif use_slope:
                store_rows(slope, column, moving)
            if use_combine:
                increment = add_scaled(increment, weights[n_slopes], moving)
            if use_other:
                beside = add_scaled(beside, others[n_slopes], moving)
        if past_other:
            stream_rows(other, column, beside)
        elif use_other:
            store_rows(other, column, beside)
        if use_combine:
            new = add_rows(load_rows(base, column, like), increment)
            store_rows(state, to + column - start, new)
            if past_out:
                stream_rows(out, column, new)
            elif use_out:
                store_rows(out, column, new)


@inlined
def add_pair(column, x, like, state, leaky, sums):
    """The part of two vectors, which share the way to the sums and back, in `add_outputs`."""
    width = LANE_BYTES // state.itemsize
    n = x.shape[0]
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


@internal
def add_outputs(start, count, x, like, state, leaky, sums):
    """Add sum_k a_k max(w_k . x_i, 0) of some neurons to the vectors sums[i].

    With ``leaky`` also sum_k a_k w_kj to sums[n + j]. ``count`` is a whole number of pairs of
    vectors.
    """
    for column in range(start, start + count, 2 * LANE_BYTES // state.itemsize):
        add_pair(column, x, like, state, leaky, sums)


@internal
def add_outputs_and_ask(count, x, like, state, leaky, sums, base, slopes, n_slopes, turn, coming):
    """`add_outputs` while what `move` reads of the neurons from ``coming`` on is on its way."""
    width = LANE_BYTES // state.itemsize
    for column in range(0, count, 2 * width):
        ask(base, slopes, n_slopes, turn, coming + column, like)
        ask(base, slopes, n_slopes, turn, coming + column + width, like)
        add_pair(column, x, like, state, leaky, sums)


@inlined
def gather(sums, into, at):
    """Add up the lanes of each vector in float64, into row ``at``."""
    for i in range(into.shape[1]):
        into[at, i] = total_of_lanes(sums, i)


@internal
def copy_columns(source, first, target, to, count):
    """target[:, to : to + count] = source[:, first : first + count].

    Assigning arrays to arrays compiles the text of an error as well, which takes seconds.
    """
    for row in range(source.shape[0]):
        for k in range(count):
            target[row, to + k] = source[row, first + k]


@compiled
def sweep(
    first, last, x, residual, factor, x64, leak, like, factors, theta, base, slopes, n_slopes,
    here, weights, others, slope, out, other, partial, f,
    use_here, use_rate, use_slope, use_combine, use_out, use_other, use_outputs, turn,
):  # fmt: skip
    """Sweep over the blocks ``first`` to ``last`` (exclusive); parameters as of `move`.

    ``residual`` times ``factor`` and the inputs ``x64`` in float64 make the pull. ``partial``
    (blocks, n or n + d) float64 receives the blocks' sums with ``use_outputs``: at the new state
    with ``use_combine``, else at ``theta``. A sweep over all blocks makes of them f / kappa (n,).
    """
    width = LANE_BYTES // base.itemsize
    state = np.empty((base.shape[0], BLOCK), base.dtype)
    sums = np.empty((partial.shape[1], width), base.dtype)
    pull = np.empty((x.shape[0] + 1, x.shape[1]), base.dtype)
    if use_rate:
        samples.make_pull(residual, factor, x64, leak, pull)
    leaky = leak != 0.0
    sweep_blocks(
        first, last, x, pull, like, factors, theta, base, slopes, n_slopes, here, weights, others,
        slope, out, other, leaky, partial, state, sums,
        use_here, use_rate, use_slope, use_combine, use_out, use_other, use_outputs, turn,
    )  # fmt: skip
    if use_outputs and last - first == partial.shape[0]:
        samples.outputs_of_blocks(partial, np.empty(partial.shape[1]), x64, leak, leaky, f)


@internal
def sweep_blocks(
    first, last, x, pull, like, factors, theta, base, slopes, n_slopes, here, weights, others,
    slope, out, other, leaky, partial, state, sums,
    use_here, use_rate, use_slope, use_combine, use_out, use_other, use_outputs, turn,
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
                weights, others, slope, out, other, state,
                use_here, use_rate, use_slope, use_combine, use_out, use_other, turn, True,
            )  # fmt: skip
        if whole < size:
            move_rest(
                start + whole, size - whole, whole, x, pull, like, factors, theta, base,
                slopes, n_slopes, here, weights, others, slope, out, other, state,
                use_here, use_rate, use_slope, use_combine, use_out, use_other, turn,
            )  # fmt: skip
        if use_outputs:
            sums[:] = 0.0
            count = whole if whole == size else whole + 2 * width
            if use_combine and x.shape[0] >= MANY and base.size * base.itemsize > CACHED:
                add_outputs_and_ask(
                    count, x, like, state, leaky, sums, base, slopes, n_slopes, turn, start + BLOCK
                )
            elif use_combine:
                add_outputs(0, count, x, like, state, leaky, sums)
            else:
                add_outputs(start, whole, x, like, theta, leaky, sums)
                if whole < size:
                    add_outputs(whole, 2 * width, x, like, state, leaky, sums)
            gather(sums, partial, block)
    fence()


@internal
def move_rest(
    start, size, to, x, pull, like, factors, theta, base, slopes, n_slopes, here, weights,
    others, slope, out, other, state,
    use_here, use_rate, use_slope, use_combine, use_out, use_other, turn,
):  # fmt: skip
    """`move` for fewer neurons than a pair of vectors: zeros, which add nothing, fill it up.

    Without ``use_combine`` the neurons of ``theta`` go into ``state``, filled up likewise.
    """
    rows, count = state.shape[0], 2 * LANE_BYTES // state.itemsize
    here_theta = np.zeros((rows, count), state.dtype)
    here_base = np.zeros((rows, count), state.dtype)
    here_slopes = np.zeros((n_slopes, rows, count), state.dtype)
    moving = np.zeros((rows, count), state.dtype)
    beside = np.zeros((rows, count), state.dtype)
    if theta.shape[1] > 0:
        copy_columns(theta, start, here_theta, 0, size)
    if use_combine or use_here:
        copy_columns(base, start, here_base, 0, size)
        for j in range(n_slopes):
            copy_columns(slopes[abs(turn - j)], start, here_slopes[j], 0, size)
    if use_rate or use_combine:
        move(
            0, count, to, x, pull, like, factors, here_theta, here_base, here_slopes, n_slopes,
            here, weights, others, moving, moving, beside, state,
            use_here, use_rate, use_slope, use_combine, False, use_other, 0, False,
        )  # fmt: skip
    if use_slope:
        copy_columns(moving, 0, slope, start, size)
    if use_out:
        copy_columns(state, to, out, start, size)
    if use_other:
        copy_columns(beside, 0, other, start, size)
    if not use_combine:
        copy_columns(here_theta, 0, state, to, count)
