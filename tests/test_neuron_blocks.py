"""Each neuron's own block of the Jacobian: finite differences, dense algebra, the oracle."""

from dataclasses import replace

import numpy as np
import pytest
from flows import make_flow, make_network
from kernel_cases import HOST_BACKENDS
from linear_algebra import block_diagonal, jacobian_of, moved, rate_of, straightened
from test_kernels import error, make_field, state

from flowsim.kernels import two_layer_kernels
from flowsim.kernels.cpu.neuron_blocks import BLOCK
from flowsim.kernels.reference_blocks import ReferenceNeuronBlocks

SMOOTH_AND_KINKED = ["tanh", "gelu", "x2_tanh_x", "relu"]


def phi_of(kernels, theta, mobilities):
    """Phi, or with mobilities M Phi, (weights, n)."""
    columns, out = [], kernels.empty()
    for unit in np.eye(kernels.n_samples):
        kernels.vjp(theta, unit, out, mobilities)
        columns.append(np.array(out, np.float64).reshape(-1))
    return np.array(columns).T


@pytest.mark.parametrize("activation", SMOOTH_AND_KINKED)
@pytest.mark.parametrize("frozen", [{}, {"output_mobility": 0.0}, {"input_mobility": 0.0}])
def test_the_blocks_are_the_derivative_of_the_rate(activation, frozen):
    """By central differences at a fixed residual, far enough from the kinks."""
    field = replace(make_field(4, 3, activation, scale=0.7), **frozen)
    kernels = two_layer_kernels("reference", field, 5, "float64")
    theta, residual = state(field, 5), np.array([0.3, -1.0, 0.2, 2.0])
    assert np.min(np.abs(field.x @ theta[1:])) > 1e-4
    found = block_diagonal(ReferenceNeuronBlocks(field).derivatives(theta, residual))
    expected, h = np.empty_like(found), 1e-6
    for column in range(theta.size):
        sides = []
        for sign in (1.0, -1.0):
            moved, out = theta.copy(), kernels.empty()
            moved.reshape(-1)[column] += sign * h
            kernels.rate(moved, residual, out)
            sides.append(out.reshape(-1).copy())
        expected[:, column] = (sides[0] - sides[1]) / (2.0 * h)
    assert np.max(np.abs(expected)) > 0.05
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("antisymmetric", [False, True])
@pytest.mark.parametrize("activation", SMOOTH_AND_KINKED)
def test_with_gauss_newton_they_are_the_whole_jacobian(activation, antisymmetric):
    """Of the rate as a function of the weights alone, by central differences."""
    flow = make_flow(make_network(5, activation, 0.9, 0.1, antisymmetric=antisymmetric))
    theta, h = flow.initial, 1e-6
    gradient = flow.gradient(flow.residual(theta))
    own = ReferenceNeuronBlocks(flow.field).derivatives(theta, gradient)
    found = block_diagonal(own) + jacobian_of(flow, theta, np.ones(flow.n_samples))
    columns = []
    for unit in np.eye(theta.size):
        ends = [rate_of(flow, moved(flow, theta, sign * h * unit)) for sign in (1.0, -1.0)]
        columns.append((ends[0] - ends[1]) / (2.0 * h))
    assert np.max(np.abs(own)) > 0.01 * np.max(np.abs(found))
    np.testing.assert_allclose(found, np.array(columns).T, rtol=0, atol=1e-7)


@pytest.mark.parametrize("backend", HOST_BACKENDS)
@pytest.mark.parametrize("activation", SMOOTH_AND_KINKED)
@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
def test_solutions_are_those_of_dense_algebra(backend, activation, size):
    field = make_field(4, 3, activation, scale=0.7)
    kernels = two_layer_kernels(backend, field, 6, "float64")
    theta, residual = kernels.array(state(field, 6)), np.array([0.3, -1.0, 0.2, 2.0])
    own = ReferenceNeuronBlocks(field).derivatives(theta, residual)
    straight = straightened(field, own, size)
    assert 0 <= straight < 6 if size == 1.0 else (straight > 0) == (size == 30.0)
    system = np.eye(theta.size) - size * block_diagonal(own)
    phi, moved = phi_of(kernels, theta, False), phi_of(kernels, theta, True)
    blocks = kernels.neuron_blocks()
    gram = blocks.prepare(theta, residual, size)
    expected = phi.T @ np.linalg.solve(system, moved)
    np.testing.assert_allclose(gram, expected, rtol=0, atol=1e-12 * np.max(np.abs(expected)))
    np.testing.assert_allclose(gram, gram.T, rtol=0, atol=1e-13 * np.max(np.abs(gram)))
    assert np.min(np.linalg.eigvalsh(gram)) > 0.0

    slopes = kernels.empty(3)
    slopes[...] = np.random.default_rng(3).normal(size=slopes.shape)
    before = np.array(slopes)
    at, weights, cotangent = kernels.empty(), np.array([0.3, -1.2]), np.array([1.0, -0.4, 0.1, 0.7])
    # A stage's state and its slope, from the first slope as it is and from none.
    taken = np.linalg.solve(system, moved @ cotangent)
    for start, fresh in ((before[0].reshape(-1), False), (0.0, True)):
        if fresh:
            slopes[0] = np.nan
        f = blocks.advance(theta, cotangent, slopes, weights[:1], 0.7, at, fresh)
        close(slopes[0].reshape(-1), start - taken)
        close(at, theta + 0.7 * 0.3 * np.array(slopes[0]))
        close(f, kernels.outputs(at))
        assert slopes[1:].tobytes() == before[1:].tobytes()
    rate = kernels.empty()
    kernels.rate(at, residual, rate)
    image = blocks.rate(theta, at, residual, slopes, weights)
    combined = rate + np.einsum("j,jrk->rk", weights, slopes[:2])
    expected = np.linalg.solve(system, combined.reshape(-1))
    close(slopes[2].reshape(-1), expected)
    close(image, phi.T @ expected)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.max(np.abs(expected)))


ROWS = np.array([[0.6, 0.0, 0.0], [0.4, 0.3, 0.0], [-0.2, 0.5, 1.1]])
MIXING = np.array([[0.0, 0.0, 0.0], [0.7, 0.0, 0.0], [0.3, -0.4, 0.0]])


def step_of(blocks, theta, residual, y, slopes, size, work, out):
    """What `take` says that it comes to."""
    n, images, e = len(y), np.empty((3, len(y))), residual
    matrix = blocks.prepare(theta, e, size)
    for i in range(3):
        image = blocks.rate(theta, work, e, slopes, MIXING[i, :i]) if i else -matrix @ e / n
        images[i] = np.linalg.solve(np.eye(n) + size / n * matrix, image)
        push = size / n * images[i] + (0 if i else e / n)
        at = out if i == 2 else work
        f = blocks.advance(theta, push, slopes, ROWS[i, : i + 1], 0.1, at, fresh=i == 0)
        e = f - y
    return e, images


def work_of(kernels, theta, residual, size, whole=False):
    """Everything the blocks give along a step, pass by pass or, where they can, at once."""
    blocks, slopes, work, out = (
        kernels.neuron_blocks(), kernels.empty(3), kernels.empty(), kernels.empty(),
    )  # fmt: skip
    y = np.sin(np.arange(len(residual)))
    slopes[...] = np.nan
    if whole:
        arguments = theta, residual, y, slopes, ROWS, MIXING, size, 0.1, work, out
        found = blocks.take(*arguments)
    else:
        found = step_of(blocks, theta, residual, y, slopes, size, work, out)
    return *found, np.array(slopes), np.array(out)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-5)])
@pytest.mark.parametrize("activation", ["relu", "tanh", "silu"])
@pytest.mark.parametrize(("n", "d", "neurons"), [(1, 1, 3), (5, 2, BLOCK), (70, 8, 4 * BLOCK + 9)])
def test_cpu_agrees_with_the_reference(dtype, tolerance, activation, n, d, neurons):
    field = make_field(n, d, activation, scale=0.7)
    theta, residual = state(field, neurons).astype(dtype), np.cos(np.arange(n))
    reference = two_layer_kernels("reference", field, neurons, dtype)
    cpu = two_layer_kernels("cpu", field, neurons, dtype)
    for found, expected in zip(
        work_of(cpu, theta, residual, 0.02), work_of(reference, theta, residual, 0.02), strict=True
    ):
        assert found.shape == expected.shape
        assert error(found, expected) < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-5)])
@pytest.mark.parametrize("backend", HOST_BACKENDS)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("n", [1, 4, 5])
def test_a_whole_step_is_that_of_its_passes(backend, dtype, tolerance, activation, n):
    field = make_field(n, 2, activation, scale=0.7)
    theta, residual = state(field, BLOCK + 3).astype(dtype), np.cos(np.arange(n))
    kernels = two_layer_kernels(backend, field, BLOCK + 3, dtype)
    assert kernels.neuron_blocks().takes_steps
    expected = work_of(kernels, theta, residual, 0.3)
    for found, wanted in zip(work_of(kernels, theta, residual, 0.3, True), expected, strict=True):
        assert error(found, wanted) < tolerance


@pytest.mark.parametrize(("n", "neurons"), [(33, 10), (5, 2000)])
def test_wide_networks_and_many_samples_take_no_whole_step(n, neurons):
    kernels = two_layer_kernels("cpu", make_field(n, 2, "tanh"), neurons, "float64")
    assert not kernels.neuron_blocks().takes_steps


@pytest.mark.parametrize("backend", HOST_BACKENDS)
def test_a_whole_step_that_cannot_be_solved_is_an_error(backend):
    field = make_field(5, 2, "tanh")
    kernels = two_layer_kernels(backend, field, 6, "float64")
    theta, residual = kernels.array(state(field, 6)), np.cos(np.arange(5))
    for size, value in ((-1e9, 0.3), (1.0, np.nan)):
        theta[1, 1] = value
        with pytest.raises(np.linalg.LinAlgError):
            work_of(kernels, theta, residual, size, True)


@pytest.mark.parametrize("frozen", ["output_mobility", "input_mobility"])
def test_a_frozen_layer_stays_where_it_is(frozen):
    field = replace(make_field(5, 2, "tanh"), **{frozen: 0.0})
    theta, residual, found = state(field, BLOCK + 1), np.cos(np.arange(5)), []
    for backend in ("cpu", "reference"):
        kernels = two_layer_kernels(backend, field, BLOCK + 1, "float64")
        found.append(work_of(kernels, theta, residual, 0.5))
    for one, other in zip(*found, strict=True):
        assert error(one, other) < 1e-12
    still = slice(0, 1) if frozen == "output_mobility" else slice(1, None)
    assert np.max(np.abs(found[0][2])) > 1e-3
    assert not np.any(found[0][2][:, still])


def test_a_state_that_is_not_finite_gives_no_finite_gram():
    """So that the step which led there is rejected: none of its neurons counts as straight."""
    field = make_field(5, 2, "tanh")
    theta, residual = state(field, 3), np.cos(np.arange(5))
    theta[1, 1] = np.nan
    blocks = two_layer_kernels("cpu", field, 3, "float64").neuron_blocks()
    assert np.isnan(blocks.prepare(theta, residual, 0.5)).any()
    theta[1, 1] = 0.3
    assert np.isfinite(blocks.prepare(theta, residual, 0.5)).all()
    assert np.isfinite(
        blocks.prepare(theta, residual, 1e300)
    ).all()  # all of them count as straight


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_number_of_threads_changes_no_bit(dtype):
    field, neurons = make_field(9, 3, "tanh"), 50 * BLOCK + 5
    seen = set()
    for threads in (1, 2, 3):
        cpu = two_layer_kernels("cpu", field, neurons, dtype, threads)
        parts = work_of(cpu, cpu.array(state(field, neurons)), np.cos(np.arange(9)), 0.3)
        seen.add(b"".join(part.tobytes() for part in parts))
    assert len(seen) == 1
