"""Steps of a member of an ensemble: its passes, its tangent kernel, the states between."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from . import fused, measures, member_passes, pairs, samples
from .borrowing import borrowed
from .fused import inlined, internal
from .lanes import LANE_BYTES
from .pair_code import PAIRS
from .passes import GRAM_GROUP


class Work(NamedTuple):
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
    points: np.ndarray
    signs: np.ndarray
    new_signs: np.ndarray
    other_signs: np.ndarray
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
    points = pairs.fill_up(problem.x)
    n_points = points.shape[0]
    return Work(
        np.zeros((rows, neurons), theta.dtype),
        np.empty((rows, neurons), theta.dtype),
        np.empty((rows, neurons), theta.dtype),
        np.empty((rows, neurons), theta.dtype),
        np.empty((stages, rows, neurons), theta.dtype),
        np.empty((rows, 0), theta.dtype),
        np.empty((n_blocks, width)),
        np.empty(width),
        np.zeros((max(n + 1, n_points), d), theta.dtype),
        np.empty((n_measured, rows)),
        np.empty((n_groups, 2, n, n)),
        np.empty((2, n, n)),
        np.empty((n, n)),
        np.empty((n_measured, 2), np.int64),
        np.empty(stages, theta.dtype),
        np.empty(stages, theta.dtype),
        np.empty((rows, fused.BLOCK), theta.dtype),
        np.empty((max(width, n_points), lanes), theta.dtype),
        points,
        np.empty((n_points, neurons // 8), np.uint8),
        np.empty((n_points, neurons // 8), np.uint8),
        np.empty((n_points, neurons // 8), np.uint8),
        np.empty((2, n, 4 * lanes), theta.dtype),
        np.empty((rows, 0), theta.dtype),
        np.empty((max(n * (n + 1), 2 * PAIRS), lanes), theta.dtype),
        np.empty((1, n * (n + 1))),
    )


@inlined
def residual_of(partial, sums, x64, y, leak, multiplier, out):
    """e from the blocks' sums of the latest pass."""
    samples.add_blocks(partial, sums)
    samples.outputs_of_sums(sums, x64, leak, leak != 0.0, out)
    for i in range(out.shape[0]):
        out[i] = multiplier * out[i] - y[i]


@inlined
def take_stages(
    problem, multiplier, factors, a, b, theta, residual, signs, step, work, out, new, new_signs
):
    """One step of the method from ``theta``, ``residual`` into ``out``; e there into ``new``.

    ``signs`` are those at ``theta``; ``new_signs`` receives those at ``out``.
    """
    neurons, n, stages = theta.shape[1], problem.y.shape[0], b.shape[0]
    slopes, weights, pull = work.slopes, work.weights, work.pull
    like, leaky = problem.like, problem.leak != 0.0
    for stage in range(stages):
        last = stage == stages - 1
        for j in range(stage + 1):
            weight = b[j] if last else a[stage + 1, j]
            weights[j] = weight * step
        known = residual if stage == 0 else new
        samples.make_pull(known, multiplier / n, problem.x64, problem.leak, pull)
        at, at_signs = (theta, signs) if stage == 0 else (out, new_signs)
        for block in range(work.partial.shape[0]):
            start = block * fused.BLOCK
            size = min(fused.BLOCK, neurons - start)
            member_passes.move(
                start, size, at_signs, n, pull, like, factors, at, theta, slopes, stage, weights,
                out, stages == 1,
            )  # fmt: skip
            member_passes.add_outputs(
                start, size, work.points, like, out, leaky, n, new_signs, work.block_sums
            )
            fused.gather(work.block_sums, work.partial, block)
        residual_of(work.partial, work.sums, problem.x64, problem.y, problem.leak, multiplier, new)


@internal
def outputs(problem, multiplier, theta, work, out, signs):
    """e at ``theta``, and the signs of its preactivations."""
    neurons, n = theta.shape[1], problem.y.shape[0]
    for block in range(work.partial.shape[0]):
        start = block * fused.BLOCK
        size = min(fused.BLOCK, neurons - start)
        member_passes.add_outputs(
            start, size, work.points, problem.like, theta, problem.leak != 0.0, n, signs,
            work.block_sums,
        )  # fmt: skip
        fused.gather(work.block_sums, work.partial, block)
    residual_of(work.partial, work.sums, problem.x64, problem.y, problem.leak, multiplier, out)


@internal
def combine(problem, multiplier, factors, base, weights, work, out, residual):
    """base + sum_j weights[j] slopes[j] into ``out``; e there."""
    fused.sweep_blocks(
        0, work.partial.shape[0], problem.x, work.pull, problem.like, factors, work.nothing, base,
        work.slopes, weights.shape[0], work.here, weights, work.here, work.nothing, out,
        work.nothing, problem.leak != 0.0, work.partial, work.block, work.block_sums,
        False, False, False, True, True, False, True, 0,
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
def between(
    problem, multiplier, factors, control, theta, residual, signs, step, fraction, work, out
):
    """The state at a fraction of the step just taken, into work.between; e there into ``out``."""
    if control.b.shape[0] == 1:
        # Euler's path is a straight line: a shorter step is on it.
        take_stages(
            problem, multiplier, factors, control.a, control.b, theta, residual, signs,
            fraction * step, work, work.between, out, work.other_signs,
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
    problem, work = borrowed(problem), borrowed(work)
    output_mobility, input_mobility, squared = scale[1], scale[2], scale[3]
    n = problem.y.shape[0]
    pairs.gram_blocks(
        0, work.gram_partial.shape[0], GRAM_GROUP, problem.x, work.points, problem.like,
        problem.leak, theta, work.gram_partial, work.features[0], work.features[1], work.rest,
        work.pair_sums, work.pair_totals,
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
